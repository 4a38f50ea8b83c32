"""Which files of a downloaded data set belong to a split and a subset, as its README or the names of its files say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from qdata.errors import QdataError

# The words `datasets` goes by where a README says nothing.
_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}")


def of_split(root: Path, files: Sequence[Path], subset: str | None, split: str | None) -> list[Path]:
    """`files` (all below `root`) that are of this subset and split; None stands for all.

    Raises QdataError where there are none, with what there is.
    """
    if subset is None and split is None:
        return list(files)
    configured = _configured(root, subset)
    if configured:
        patterns = configured.get(split, []) if split else [p for every in configured.values() for p in every]
        found = [file for file in files if _matches(file.relative_to(root).as_posix(), patterns)]
        there = sorted(configured)
    else:
        chosen = [f for f in files if subset is None or subset in f.relative_to(root).parts[:-1]]
        by_split = {file: _split_of(file.relative_to(root)) for file in chosen}
        if not any(by_split.values()):
            by_split = dict.fromkeys(chosen, "train")
        found = [file for file in chosen if split is None or by_split[file] == split]
        there = sorted({one for one in by_split.values() if one})
    if not found:
        wanted = " and ".join(f"{k} {v}" for k, v in (("subset", subset), ("split", split)) if v)
        told = f"its splits are {', '.join(there)}" if there else "no file says of which split it is"
        raise QdataError(f"{root}: no file of {wanted}; {told}")
    return found


def held_out(file: Path) -> str | None:
    """`test` or `validation` where a path, relative to the folder that is read, says so; the name nearest the file
    counts, and `train` in it more than any other word."""
    for name in reversed(file.with_suffix("").parts):
        spoken = set(re.split(r"[^a-z]+", name.lower()))
        if split := next((split for split, words in _WORDS.items() if spoken & set(words)), None):
            return None if split == "train" else split
    return None


def _configured(root: Path, subset: str | None) -> dict[str, list[str]]:
    """Of each split the patterns that the README's `configs` give it; none where there is nothing of the kind."""
    if not (readme := root / "README.md").is_file():
        return {}
    from huggingface_hub import metadata_load

    try:
        card = metadata_load(readme) or {}
    except (ValueError, OSError):
        return {}  # a README is written for people
    configs = [c for c in card.get("configs") or () if isinstance(c, dict) and c.get("data_files")]
    wanted = subset or next((c["config_name"] for c in configs if c.get("default")), "default")
    named = [c for c in configs if c.get("config_name") == wanted] or (configs if len(configs) == 1 else [])
    return _patterns(named[0]["data_files"]) if named else {}


def _patterns(data_files: Any) -> dict[str, list[str]]:
    if isinstance(data_files, str | list) and not (data_files and isinstance(data_files[0], dict)):
        return {"train": [data_files] if isinstance(data_files, str) else data_files}
    each = [(str(one["split"]), one["path"]) for one in data_files]
    return {split: [path] if isinstance(path, str) else path for split, path in each}


def _matches(file: str, patterns: Sequence[str]) -> bool:
    """`**/` stands for no folder too."""
    return any(fnmatchcase(file, p) or fnmatchcase(file, p.replace("**/", "")) for p in patterns)


def _split_of(file: Path) -> str | None:
    if shard := _SHARD.fullmatch(file.stem):
        name = shard.group(1)
        return next((split for split, words in _WORDS.items() if name in words), name)
    spoken = set(re.split(r"[^a-z]+", file.as_posix().lower()))
    return next((split for split, words in _WORDS.items() if spoken & set(words)), None)
