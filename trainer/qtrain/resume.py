"""Which run to go on with, and whether going on would be the run it was: same recipe, same shards, same arguments."""

from __future__ import annotations

import fcntl
import json
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from qdata.errors import QdataError
from qtrain import checkpoint, run
from qtrain.recipe import TrainRecipe

_LOCK = ".lock"
_PLACES = ("output_dir", "logging_dir", "run_name", "eval_on_start", "restore_callback_states_from_checkpoint")
"""Arguments that say where and how a process runs, not what is trained."""


@dataclass(frozen=True)
class Unfinished:
    """A run to go on with, from `checkpoint`."""

    folder: Path
    checkpoint: Path

    @property
    def step(self) -> int:
        """The steps that are done."""
        return checkpoint.step_of(self.checkpoint)

    @property
    def facts(self) -> Mapping[str, Any]:
        """The checkpoint's manifest.json."""
        return _read(self.checkpoint / "manifest.json")

    @property
    def history(self) -> list[dict[str, Any]]:
        """Every log entry up to the checkpoint."""
        return list(_read(self.checkpoint / "trainer_state.json")["log_history"])


def asked(recipe: TrainRecipe, parent: Path, name: str, console: Console) -> Unfinished:
    """`--resume [RUN]`: the run `name` of the recipe's runs in `parent`, by default the newest.

    Raises QdataError where it cannot go on exactly.
    """
    folder = _named(parent, name)
    if is_finished(folder):
        raise QdataError(f"{folder}: this run is finished; a new one starts without --resume")
    if is_alive(folder):
        raise QdataError(f"{folder}: a process is training this run")
    if changes := changed(_read_recipe(folder), recipe.table):
        raise QdataError(
            f"{folder}: the recipe changed since this run began ({changes[0]}{_more(changes)}), so it cannot go on "
            "exactly. Take the change back, or start a new run without --resume" + _length_hint(changes)
        )
    found = checkpoint.last_whole(folder, console)
    if found is None:
        raise QdataError(f"{folder}: no whole checkpoint in this run, there is nothing to go on from; start a new one")
    return Unfinished(folder, found)


def by_itself(recipe: TrainRecipe, parent: Path, console: Console) -> Unfinished | None:
    """The recipe's newest run where it broke off and this is still its recipe; why not is told where it broke off."""
    folder = run.newest(parent)
    if folder is None or is_finished(folder):
        return None
    told = f"[bold yellow]an unfinished run lies in {folder}"
    try:
        found = asked(recipe, parent, folder.name, console)
    except QdataError as error:
        console.print(f"{told}, a new one is started:[/] {error}", soft_wrap=True)
        return None
    total = _read(found.checkpoint / "trainer_state.json")["max_steps"]
    console.print(f"{told}: it goes on at step {found.step} of {total}. --fresh starts a new one[/]", soft_wrap=True)
    return found


def refuse_other(found: Unfinished, facts: Mapping[str, Any]) -> None:
    """Raises QdataError where a run that went on with `facts` would not be the one that stopped."""
    before = found.facts
    begun = before.get("processes", 1)
    if begun != facts["processes"]:
        raise QdataError(f"{found.folder}: this run was begun with --processes {begun}, not {facts['processes']}")
    old, new = before["arguments"], json.loads(json.dumps(facts["arguments"], default=str))
    shared = [key for key in old if key in new and key not in _PLACES]
    if changes := changed({key: old[key] for key in shared}, {key: new[key] for key in shared}):
        raise QdataError(
            f"{found.folder}: trained with other arguments than this machine would ({changes[0]}{_more(changes)}), so "
            "it cannot go on exactly here; start a new run with --fresh"
        )


def same_shards(found: Unfinished, manifest: Mapping[str, Any]) -> bool:
    """Whether shards with this manifest are, byte for byte, those the run was begun with."""
    before = found.facts["data"]
    return all(before.get(key) == manifest.get(key) for key in ("splits", "tokenizer", "template"))


def other_versions(found: Unfinished) -> str:
    """The libraries that are not those the run was begun with, as text; empty where all are."""
    before, now = found.facts["versions"], run.versions()
    return ", ".join(
        f"{name} {before[name]} → {now[name]}" for name in now if before.get(name) not in (None, now[name])
    )


def rewind(found: Unfinished) -> None:
    """Take out of log.jsonl what was logged after the checkpoint: those steps are done once more."""
    lines = []
    for entry in found.history:
        step = entry.pop("step")
        lines.append(json.dumps({"step": step, **entry}, ensure_ascii=False) + "\n")
    partial = found.folder / ".log.jsonl"
    partial.write_text("".join(lines), encoding="utf-8")
    partial.replace(found.folder / "log.jsonl")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """While a process is in the block the run is its own; the system lets go of it however the process ends."""
    with (folder / _LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise QdataError(f"{folder}: a process is training this run") from None
        except OSError:
            pass  # a file system without locks
        yield
        (folder / _LOCK).unlink(missing_ok=True)


def is_alive(folder: Path) -> bool:
    """Whether a process is training this run now."""
    try:
        with (folder / _LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError as error:
        return isinstance(error, BlockingIOError)
    return False


def is_finished(folder: Path) -> bool:
    """Whether the run reached its end; final/ appears whole, by rename, as the last thing."""
    return (folder / "final").is_dir()


def changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs, key by key.

    >>> changed({"train": {"seed": 1, "bf16": True}}, {"train": {"seed": 2}, "model": {}})
    ['train.bf16: true → not given', 'train.seed: 1 → 2']
    """
    before, now = _flat(old), _flat(new)
    keys = sorted(key for key in before | now if before.get(key) != now.get(key))
    return [f"{key}: {before.get(key, 'not given')} → {now.get(key, 'not given')}" for key in keys]


def _flat(table: Mapping[str, Any], above: str = "") -> dict[str, str]:
    out: dict[str, str] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{above}{key}.")
        else:
            out[above + key] = json.dumps(value, ensure_ascii=False, default=str)
    return out


def _more(changes: list[str]) -> str:
    return f" and {len(changes) - 1} more" if len(changes) > 1 else ""


def _length_hint(changes: list[str]) -> str:
    longer = all(change.startswith(("train.max_steps:", "train.num_train_epochs:")) for change in changes)
    return (
        "; a longer run has another learning rate at every step, so its length is part of what it is" if longer else ""
    )


def _named(parent: Path, name: str) -> Path:
    for folder in (Path(name), parent / name) if name else ():
        if run.is_run(folder):
            return folder
    newest = None if name else run.newest(parent)
    if newest is None:
        raise QdataError(f"{name or parent}: no run to go on with")
    return newest


def _read_recipe(folder: Path) -> Mapping[str, Any]:
    return tomllib.loads((folder / "recipe.toml").read_text(encoding="utf-8"))


def _read(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8")))
