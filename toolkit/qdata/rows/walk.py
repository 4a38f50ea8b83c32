"""From a path, a folder or a glob to the files that hold rows, and what is left out on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qdata.errors import QdataError
from qdata.paths import stripped
from qdata.rows.repository import held_out

# Files about a data set that lie beside its rows and are no rows themselves, however they end.
ABOUT = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"})
_GLOB = frozenset("*?[")


def files_of(path: Path, suffixes: tuple[str, ...], *, every_split: bool = False) -> list[Path]:
    """The data files `path` stands for: itself, the files below a folder, or what a glob matches; sorted.

    A folder that `datasets` saved stands for its Arrow files. What a folder holds for testing and validation, by the
    names `datasets` goes by, is not among them without `every_split`. Raises QdataError when there are none.
    """
    if path.is_file():
        return [path]
    if path.is_dir():
        if _is_shards(path):
            raise QdataError(f"{path}: shards that qdata render made: tokens, no rows; name the rows they are of")
        every = [file for file, reason in _walk(path, suffixes) if reason is None]
        found = [file for file in every if every_split or not held_out(file.relative_to(path))]
        wanted = f"wanted files ending in {', '.join(suffixes)}"
        if every and not found:
            first = every[0].relative_to(path)
            wanted = f"all in it is for testing or validation ({first} …); name its files, or a glob, to read it"
    else:
        found = sorted(file for file in _matches(path) if file.is_file())
        wanted = "no such file or folder"
    if not found:
        raise QdataError(f"{path}: {wanted}")
    return found


def left_out(path: Path, suffixes: tuple[str, ...]) -> list[tuple[Path, str]]:
    """What lies below a folder and looks like rows but is not read, each with the reason."""
    return [(file, reason) for file, reason in _walk(path, suffixes) if reason] if path.is_dir() else []


def splits_left_out(path: Path, suffixes: tuple[str, ...]) -> list[tuple[Path, str, list[Path]]]:
    """What a folder holds for testing and validation: the folder or file that says so, which of the two, the files."""
    found: dict[tuple[Path, str], list[Path]] = {}
    for file, reason in _walk(path, suffixes) if path.is_dir() else ():
        if reason is None and (split := held_out(file.relative_to(path))):
            above = [folder for folder in file.parents if folder.is_relative_to(path) and folder != path]
            named = next((one for one in (file, *above) if held_out(Path(one.name))), file)
            found.setdefault((named, split), []).append(file)
    return [(named, split, files) for (named, split), files in found.items()]


def _matches(path: Path) -> list[Path]:
    """What a glob matches; `*` never stands for a hidden name, as in a shell, nor for what lies in our sidecars."""
    anchor = next((p for p in path.parents if not _GLOB & set(str(p))), Path())
    pattern = path.relative_to(anchor)
    if not _GLOB & set(str(pattern)):
        return []
    named = {word for word in pattern.parts if word.startswith(".")}
    return [
        found
        for found in anchor.glob(str(pattern))
        if not any((p.startswith(".") and not named) or _is_sidecar(p) for p in found.relative_to(anchor).parts)
    ]


def _is_sidecar(name: str) -> bool:
    return name.endswith(".qdata")


def _walk(folder: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[Path, str | None]]:
    """Files with rows, and what looks like one with the reason why it is not; the folder's plain text only if it has
    nothing else (beside rows, it is a licence or a readme)."""
    found = list(_below(folder, suffixes))
    is_text = [Path(stripped(file.name)).suffix.lower() in (".txt", ".text") for file, _ in found]
    rows = any(reason is None and not text for (_, reason), text in zip(found, is_text, strict=True))
    for (file, reason), text in zip(found, is_text, strict=True):
        yield file, reason or ("plain text beside other files; name it to read it" if text and rows else None)


def _below(folder: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[Path, str | None]]:
    if saved := _saved(folder):
        yield from ((file, None) for file in saved)
        return
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or _is_sidecar(entry.name):
            continue
        if entry.is_dir():
            if _is_shards(entry):
                yield entry, "shards that qdata render made"
            elif not entry.is_symlink():
                yield from _below(entry, suffixes)
        elif entry.name in ABOUT:
            yield entry, "about the data set, no rows"
        elif Path(stripped(entry.name)).suffix.lower() in suffixes:
            yield entry, None


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _is_shards(folder: Path) -> bool:
    facts = _json(folder / "manifest.json")
    return isinstance(facts, dict) and facts.get("command") == "render"


def _saved(folder: Path) -> list[Path]:
    """The Arrow files of a folder that `datasets` saved, split by split, in their order.

    Raises QdataError where one is missing, or where an index says which of their rows are meant.
    """
    facts = _json(folder / "dataset_dict.json")
    if isinstance(facts, dict) and isinstance(facts.get("splits"), list):
        return [file for split in facts["splits"] for file in _saved(folder / str(split))]
    state = _json(folder / "state.json")
    if not (isinstance(state, dict) and isinstance(state.get("_data_files"), list)):
        return []
    if state.get("_indices_data_files"):
        raise QdataError(f"{folder}: a data set saved with an index over its rows; save it after flatten_indices()")
    files = [folder / str(one.get("filename")) for one in state["_data_files"] if isinstance(one, dict)]
    if missing := next((file for file in files if not file.is_file()), None):
        raise QdataError(f"{missing}: no such file, and {folder / 'state.json'} names it; is the folder whole?")
    return files
