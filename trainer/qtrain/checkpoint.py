"""Checkpoints that are whole or not there: written aside, sealed with the sums of their files, then renamed."""

from __future__ import annotations

import json
import os
from pathlib import Path

from rich.console import Console

from qdata.errors import QdataError
from qdata.paths import file_sha256, remove

SEAL = "checksums.json"
STAGING = ".saving"
"""Where, inside a run, a checkpoint lies while it is written."""


def seal(folder: Path) -> None:
    """Write down size and SHA-256 of every file, once all of them are on the disk and not only in its cache."""
    sums = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        _sync(file)
        sums[file.relative_to(folder).as_posix()] = {"bytes": file.stat().st_size, "sha256": file_sha256(file)}
    (folder / SEAL).write_text(json.dumps(sums, indent=2) + "\n", encoding="utf-8")
    _sync(folder / SEAL)
    _sync(folder)


def publish(staged: Path, target: Path) -> None:
    """Seal what was written aside and put it in its place; what was there, and is not as good, gives way."""
    seal(staged)
    remove(target)
    staged.rename(target)
    _sync(target.parent)


def flaw(folder: Path) -> str | None:
    """Why a checkpoint is not as it was sealed, in a few words; None where it is."""
    try:
        sums = json.loads((folder / SEAL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"it has no readable {SEAL}"
    for name, sealed in sums.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if (size := file.stat().st_size) != sealed["bytes"]:
            return f"{name} has {size:,} bytes of {sealed['bytes']:,}"
        if file_sha256(file) != sealed["sha256"]:
            return f"{name} is not what was written"
    return None


def step_of(folder: Path) -> int:
    """The N of checkpoint-N; −1 for any other folder."""
    name, _, step = folder.name.partition("-")
    return int(step) if name == "checkpoint" and step.isdigit() else -1


def all_of(run: Path) -> list[Path]:
    """A run's checkpoints, the last one first."""
    return sorted((p for p in run.glob("checkpoint-*") if step_of(p) >= 0), key=step_of, reverse=True)


def last_whole(run: Path, console: Console) -> Path | None:
    """The last checkpoint that training can go on from; those that are not whole are named loudly and passed over.

    Raises QdataError where a whole one holds weights only.
    """
    for folder in all_of(run):
        if why := flaw(folder):
            console.print(f"[bold yellow]{folder} is not whole ({why}): passed over[/]", soft_wrap=True)
        elif not (folder / "trainer_state.json").is_file() or not _has_optimizer(folder):
            raise QdataError(
                f"{folder}: weights without the optimizer's state ([train] save_only_model): not to go on from"
            )
        else:
            return folder
    return None


def _has_optimizer(folder: Path) -> bool:
    # optimizer.pt; optimizer_0/ of FSDP; global_step…/ of DeepSpeed
    return any(folder.glob("optimizer*")) or any(folder.glob("global_step*"))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
