"""Named data sets, and from a path or a name to the files that hold its rows."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from qdata.errors import QdataError, did_you_mean
from qdata.paths import shipped, shown, tails
from qdata.recipe import Source, structure
from qdata.rows import registry, repository
from qdata.rows import source as containers
from qdata.rows.entry import Entry
from qdata.rows.renaming import twice

SAMPLES = shipped("recipes/samples")
WORKSPACE = Path("data")
INCOMPLETE = ".qdata-incomplete"  # lies in a data set's folder until all its files have arrived


@dataclass(frozen=True)
class Input:
    """One file that will be read, and what is already known of it."""

    source: str
    relative: str
    path: Path
    format: str | None
    rename: Mapping[str, str]
    think: str | None = None  # thinking policy of these rows, where their source names one
    sample: bool = False  # the rows are a sample that ships with us, not the data set itself
    character: str | None = None  # who answers, where the rows are talks of characters
    documents: str | None = None  # what a document of plain text is
    max_samples: int | None = None  # of all files of its source together
    named: Mapping[str, str] = field(default_factory=dict)  # of `rename`, what the user named and no catalogue
    group: int = 0  # which source of the list this is a file of


@functools.cache
def entries() -> dict[str, Entry]:
    """The catalogue that ships with us, and over it what lies in the working directory.

    That is LLaMA-Factory's `dataset_info.json`, here or in data/, and `datasets.toml`, which has the last word.
    """
    ours = (resources.files("qdata") / "rows" / "catalog.toml").read_text(encoding="utf-8")
    found = _structured(tomllib.loads(ours), Path("catalog.toml"))
    for file in (WORKSPACE / registry.NAME, Path(registry.NAME)):
        if file.is_file() and not _of_shards(file):
            found |= registry.read(file)
    file = Path("datasets.toml")
    if file.is_file():
        try:
            tables = tomllib.loads(file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise QdataError(f"{file}: not valid TOML: {error}; mend it or move it away") from None
        found |= _structured(tables, file)
    return found


def _structured(tables: Mapping[str, Any], file: Path) -> dict[str, Entry]:
    mistakes: list[str] = []
    found = {name: structure(Entry, table, name, mistakes) for name, table in tables.items()}
    if mistakes:
        raise QdataError(f"{file}: " + "; ".join(mistakes))
    return {name: entry for name, entry in found.items() if entry}


def _of_shards(file: Path) -> bool:
    """A saved `datasets` folder has a file of this name too, which says what columns it has."""
    return (file.parent / "state.json").is_file()


def resolve(sources: Sequence[Source], base: Path = Path()) -> list[Input]:
    """The files the sources stand for. Never touches the network.

    Paths are relative to `base`. A catalogue name stands for `data/NAME/` where that exists, else for its sample.
    Raises QdataError for what cannot be found and for a file given twice.
    """
    for one in sources:
        if one.name and set("/#") & set(one.name):
            raise QdataError(f"source name {one.name!r}: wanted one without / and #, which part row ids")
        if doubled := twice(one.map):
            raise QdataError(f"{one.path}: map names {', '.join(doubled)} for two columns; wanted one for each")
        if one.max_samples is not None and one.max_samples <= 0:
            raise QdataError(f"{one.path}: max_samples: wanted a whole number above 0, got {one.max_samples}")
    inputs = [replace(found, group=i) for i, one in enumerate(sources) for found in _resolve(one, base)]
    seen: set[Path] = set()
    for found in inputs:
        if found.path.resolve() in seen:
            raise QdataError(f"{shown(found.path)}: given twice; its rows would be trained twice. Name it once.")
        seen.add(found.path.resolve())
    return _distinct(inputs)


def _resolve(one: Source, base: Path) -> list[Input]:
    path, name, entry = base / one.path, one.path, None
    if not path.exists():
        name, entry = named(one.path, base)
    if entry:
        if entry.unsupported:
            raise QdataError(f"{name}: cannot be read: {entry.unsupported}")
        path = _entry_path(name, entry, one.path)
        _refuse_incomplete(path if path.is_dir() else path.parent)
        files = _selected(path, one.files) if one.files else _entry_files(path, entry)
    else:
        if not path.exists() and "/" not in one.path and not Path(one.path).suffix:
            known = [*entries(), *(p.name for p in path.parent.glob("*") if path.parent.is_dir())]
            raise QdataError(f"{one.path}: no such file, folder or catalogue entry.{did_you_mean(one.path, known)}")
        files = _selected(path, one.files)
    root = path if path.is_dir() else path.parent
    _refuse_incomplete(root)
    known_as = one.name or (name if entry else _folder_name(root))
    entry = entry or Entry()
    return [
        Input(
            known_as,
            file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name,
            file,
            one.format or entry.format,
            entry.map | one.map if one.format in (None, entry.format) else one.map,
            one.think,
            _is_sample(file),
            one.character,
            one.documents,
            one.max_samples or entry.max_samples,
            one.map,
        )
        for file in files
    ]


def named(path: str, base: Path = Path()) -> tuple[str, Entry | None]:
    """The entry a word stands for: of the catalogue, or as `FOLDER/dataset_info.json:NAME` of that registry."""
    file, colon, name = path.rpartition(":")
    if not colon or Path(file).name != registry.NAME:
        return path, entries().get(path)
    found = registry.read(base / file)
    if name not in found:
        raise QdataError(f"{path}: {file} has no such entry.{did_you_mean(name, found)}")
    return name, found[name]


def folder_of(one: Source, base: Path = Path()) -> Path | None:
    """The folder that a source stands for as a whole, leaving out what is for testing; None for every other source."""
    path = base / one.path
    if one.files:
        return None
    if not path.exists() and (entry := entries().get(one.path)) and not entry.unsupported:
        path = _entry_path(one.path, entry, one.path)
        if not path.is_relative_to(SAMPLES):
            if entry.files or entry.split:
                return None
            path = path / entry.folder if entry.folder else path
    return path if path.is_dir() else None


def _refuse_incomplete(folder: Path) -> None:
    """Half a data set looks like a whole one; raises QdataError where a download below `data/` was not finished."""
    for above in (folder, *folder.parents):
        if (above / INCOMPLETE).is_file():
            raise QdataError(f"{above}: its download was not finished. Finish it: qdata fetch {above.name}")


def _entry_path(name: str, entry: Entry, word: str) -> Path:
    """Where an entry's rows lie: its own file or folder, `data/NAME/`, or else its sample."""
    if entry.path is not None:
        return Path(entry.path)
    if (WORKSPACE / name).is_dir():
        return WORKSPACE / name
    if entry.sample is None:
        raise QdataError(f"{name}: not downloaded yet, and it has no sample. Run: qdata fetch {word}")
    return SAMPLES / entry.sample


def _entry_files(path: Path, entry: Entry) -> list[Path]:
    if path.is_relative_to(SAMPLES):  # a sample has no more files than it needs
        return containers.files_of(path)
    if entry.files:
        return _selected(path, entry.files)
    below = path / entry.folder if entry.folder else path
    every = entry.split is not None
    return repository.of_split(path, containers.files_of(below, every_split=every), entry.subset, entry.split)


def _selected(path: Path, wanted: Sequence[str]) -> list[Path]:
    if not wanted:
        return containers.files_of(path)
    found: list[Path] = []
    for pattern in wanted:
        matches = sorted(p for p in path.glob(pattern) if p.is_file())
        if not matches:
            there = [p.name for p in path.glob("*")] if path.is_dir() else []
            raise QdataError(f"{path / pattern}: no such file.{did_you_mean(pattern, there)}")
        found += [p for p in matches if p not in found]
    return found


def _is_sample(file: Path) -> bool:
    return file.resolve().is_relative_to(SAMPLES.resolve())


def _folder_name(folder: Path) -> str:
    return folder.resolve().name or "root"


def _distinct(inputs: list[Input]) -> list[Input]:
    """Row ids are unique: where two files would share a name, more of the path goes into it."""
    by_name: dict[tuple[str, str], list[int]] = {}
    for index, found in enumerate(inputs):
        by_name.setdefault((found.source, found.relative), []).append(index)
    taken = set(by_name)
    for (name, _), clash in by_name.items():
        if len(clash) == 1:
            continue
        paths = [inputs[index].path for index in clash]
        others = {relative for source, relative in taken if source == name}
        names = tails([path.parent.resolve() / path.name for path in paths], others)
        for index, relative in zip(clash, names, strict=True):
            inputs[index] = replace(inputs[index], relative=relative)
        taken |= {(name, relative) for relative in names}
    return inputs
