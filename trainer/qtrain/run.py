"""A run's folder: where it lies, what is written into it, and how it is found again.

runs/<recipe>/<date>-<time>/
    recipe.toml      the recipe as it was trained, overrides included
    manifest.json    what was trained on what, by which versions
    log.jsonl        every logged number
    loss.png
    steps.jsonl      the rows of every step, and what each conversation in them cost
    samples.jsonl    what was answered to the recipe's [eval] prompts
    tensorboard/     event files; swanlab/ and wandb/ where [train] report_to names them
    checkpoint-N/    model, tokenizer, chat template, recipe and manifest; what it takes to go on; checksums
    final/           the model after the last step, or the best one; there when the run is finished
    base/            the stand-in before training, where one was trained
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from qdata.errors import QdataError, did_you_mean

_LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers")


def create(parent: Path, now: datetime | None = None) -> Path:
    """A new dated folder under `parent`; a number is appended where the second is taken."""
    stamp = f"{now or datetime.now():%Y%m%d-%H%M%S}"
    for name in (stamp, *(f"{stamp}-{n}" for n in range(2, 1000))):
        try:
            (parent / name).mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            raise _no_place(parent, error.strerror or str(error)) from None
        return parent / name
    raise QdataError(f"{parent}: no free run folder for {stamp}")


def refuse_place(parent: Path) -> None:
    """Raises QdataError where it is plain, before any work, that no run can be made under `parent`."""
    above = next(folder for folder in (parent, *parent.absolute().parents) if folder.exists())
    if not above.is_dir():
        raise _no_place(parent, f"{above} is a file")
    if not os.access(above, os.W_OK | os.X_OK):
        raise _no_place(parent, f"{above} cannot be written to")


def _no_place(parent: Path, why: str) -> QdataError:
    return QdataError(f"{parent}: no run can be made there ({why}); choose another --output")


def model_in(path: Path) -> Path:
    """The model folder that `path` means.

    A model folder means itself, a run its final model (else its last checkpoint), and a recipe's folder the newest run
    in it, also in `runs/muice/checkpoint-50` or `runs/muice/base`. Raises QdataError where there is none.
    """
    if _is_model(path):
        return path
    if path.is_dir():
        inside = path if is_run(path) else _newest(path)
        if inside is not None and (found := _last_model(inside)):
            return found
    elif path.parent.is_dir() and (newest := _newest(path.parent)) and _is_model(newest / path.name):
        return newest / path.name
    if not path.exists():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise QdataError(f"{path}: no such run or model folder.{did_you_mean(path.name, siblings) if siblings else ''}")
    raise QdataError(f"{path}: no model in it, neither config.json nor adapter_config.json nor a finished run")


def find(path: Path) -> Path:
    """The run that `path` means: a run itself, what lies in one, or the newest in a recipe's folder.

    Raises QdataError where there is none.
    """
    for place in (path, path.parent):
        if is_run(place) and not _is_model(place):
            return place
    runs = [inside for inside in path.iterdir() if is_run(inside)] if path.is_dir() and not _is_model(path) else []
    if runs:
        return max(runs, key=lambda inside: _order(inside.name))
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() and not path.exists() else []
    hint = did_you_mean(path.name, siblings) if siblings else ""
    raise QdataError(f"{path}: {'no run in it' if path.exists() else 'no such run'}; wanted runs/RECIPE/STAMP.{hint}")


def _is_model(path: Path) -> bool:
    return any((path / name).is_file() for name in ("config.json", "adapter_config.json"))


def stand_in_reason(model: Path) -> str | None:
    """Why a model folder holds a stand-in, or what was trained from one, by its manifest; None where it does not."""
    manifest = model / "manifest.json"
    if not manifest.is_file():
        return None
    reason: str | None = json.loads(manifest.read_text(encoding="utf-8")).get("stand_in_reason")
    return reason


def is_run(path: Path) -> bool:
    """Whether a folder is a run."""
    return (path / "recipe.toml").is_file()


def newest(recipe: Path) -> Path | None:
    """The run of a recipe's folder that was begun last, whatever became of it; None where there is none."""
    runs = [p for p in recipe.iterdir() if is_run(p)] if recipe.is_dir() else []
    return max(runs, key=lambda p: _order(p.name), default=None)


def _newest(recipe: Path) -> Path | None:
    """The newest run with a model in it: one that is still at its first steps has nothing to show."""
    runs = [p for p in recipe.iterdir() if is_run(p) and _last_model(p)]
    return max(runs, key=lambda p: _order(p.name), default=None)


def _order(stamp: str) -> tuple[str, int]:
    date, time, *nth = stamp.split("-")[:3] if stamp.count("-") else (stamp, "")
    return f"{date}-{time}", int(nth[0]) if nth and nth[0].isdigit() else 1


def _last_model(run: Path) -> Path | None:
    if _is_model(run / "final"):
        return run / "final"
    checkpoints = [p for p in run.glob("checkpoint-*") if _is_model(p) and p.name.split("-")[1].isdigit()]
    return max(checkpoints, key=lambda p: int(p.name.split("-")[1]), default=None)


def stop_of(model: Path) -> str:
    """What ends an answer of a model: what its manifest says it was trained to; `<|im_end|>` where it has none."""
    file = model / "manifest.json"
    manifest = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return str(manifest.get("data", {}).get("template", {}).get("stop", "<|im_end|>"))


def complete(model: Path, tokenizer: Path, papers: Mapping[str, str]) -> None:
    """Lay beside saved weights what they are nothing without: the shards' tokenizer and template, and the papers.

    The tokenizer's files are copied, not saved again from memory: what was trained is what is served, byte for byte.
    `papers` is file name → text (recipe.toml, manifest.json).
    """
    for file in tokenizer.iterdir():
        shutil.copyfile(file, model / file.name)
    write(model, papers)


def write(folder: Path, papers: Mapping[str, str]) -> None:
    """Write file name → text into `folder`."""
    for name, text in papers.items():
        (folder / name).write_text(text, encoding="utf-8")


def versions() -> dict[str, str]:
    """The installed versions of the libraries a result depends on."""
    return {name: version(name) for name in _LIBRARIES}


def as_toml(table: Mapping[str, Any]) -> str:
    """A recipe's tables as TOML text; reading it gives the same tables.

    >>> print(as_toml({"model": {"name": "m"}, "train": {"lora": {"r": 8}, "bf16": True}}))
    [model]
    name = "m"
    <BLANKLINE>
    [train]
    lora = { r = 8 }
    bf16 = true
    <BLANKLINE>
    """
    blocks = []
    for name, inner in table.items():
        lines = [f"[{_key(name)}]", *(f"{_key(key)} = {_value(value)}" for key, value in inner.items())]
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def _key(name: str) -> str:
    plain = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if plain else json.dumps(name, ensure_ascii=False)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + " }" if value else "{}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
