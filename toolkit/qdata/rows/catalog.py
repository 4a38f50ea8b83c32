"""Named data sets, and from a path or a name to the files that hold its rows."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from qdata.errors import QdataError, did_you_mean
from qdata.paths import shipped
from qdata.recipe import Source, structure
from qdata.rows import source as containers

SAMPLES = shipped("recipes/samples")
WORKSPACE = Path("data")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One named data set."""

    hub: str | None = None
    format: str | None = None
    files: tuple[str, ...] = ()  # which files of the repository hold rows; default: all that look like it
    sample: str | None = None  # folder below recipes/samples
    about: str = ""


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


@functools.cache
def entries(workspace_file: Path = Path("datasets.toml")) -> dict[str, Entry]:
    """The catalogue that ships with us, with the working directory's `datasets.toml` over it."""
    tables = tomllib.loads((resources.files("qdata") / "rows" / "catalog.toml").read_text(encoding="utf-8"))
    if workspace_file.is_file():
        tables |= tomllib.loads(workspace_file.read_text(encoding="utf-8"))
    mistakes: list[str] = []
    found = {name: structure(Entry, table, name, mistakes) for name, table in tables.items()}
    if mistakes:
        raise QdataError(f"{workspace_file}: " + "; ".join(mistakes))
    return {name: entry for name, entry in found.items() if entry}


def resolve(sources: Sequence[Source], base: Path = Path()) -> list[Input]:
    """The files the sources stand for. Never touches the network.

    Paths are relative to `base`. A catalogue name stands for `data/NAME/` where that exists, else for its sample.
    Raises QdataError for what cannot be found and for a file given twice.
    """
    for one in sources:
        if one.name and set("/#") & set(one.name):
            raise QdataError(f"source name {one.name!r}: wanted one without / and #, which part row ids")
    inputs = [found for one in sources for found in _resolve(one, base)]
    seen: set[Path] = set()
    for found in inputs:
        if found.path.resolve() in seen:
            raise QdataError(f"{found.path}: given twice; its rows would be trained twice. Name it once.")
        seen.add(found.path.resolve())
    return _distinct(inputs)


def _resolve(one: Source, base: Path) -> list[Input]:
    path, entry = base / one.path, entries().get(one.path)
    if entry and not path.exists():
        path, name = _entry_folder(one.path, entry), one.name or one.path
        root, files = path, _selected(path, one.files or tuple(entry.files))
        form = one.format or entry.format
    else:
        if not path.exists() and "/" not in one.path and not Path(one.path).suffix:
            known = [*entries(), *(p.name for p in path.parent.glob("*") if path.parent.is_dir())]
            raise QdataError(f"{one.path}: no such file, folder or catalogue entry.{did_you_mean(one.path, known)}")
        root = path if path.is_dir() else path.parent
        name, files, form = one.name or _folder_name(root), _selected(path, one.files), one.format
    return [
        Input(
            name,
            file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name,
            file,
            form,
            one.map,
            one.think,
            _is_sample(file),
        )
        for file in files
    ]


def _entry_folder(name: str, entry: Entry) -> Path:
    if (WORKSPACE / name).is_dir():
        return WORKSPACE / name
    if entry.sample is None:
        raise QdataError(f"{name}: not downloaded yet, and it has no sample. Run: qdata fetch {name}")
    return SAMPLES / entry.sample


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
    for clash in by_name.values():
        for index in clash if len(clash) > 1 else ():
            parts = inputs[index].path.resolve().parts
            inputs[index] = replace(inputs[index], relative="/".join(parts[1:]))
    return inputs


def fetch(name: str, revision: str | None = None) -> Path:
    """Downloads a catalogue entry's files from the hub into `data/NAME/`; goes on where an earlier download stopped.

    `HF_ENDPOINT` is honoured by the client. Raises QdataError when the name is unknown or the hub refuses.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    entry = entries().get(name)
    if entry is None or entry.hub is None:
        raise QdataError(f"{name}: no such catalogue entry.{did_you_mean(name, entries())}")
    endpoint = HfApi().endpoint
    target = WORKSPACE / name
    try:
        found = snapshot_download(entry.hub, repo_type="dataset", revision=revision, local_dir=target)
    except GatedRepoError:
        reason = "the data set is gated: accept its terms on its page and log in with `hf auth login`"
    except RepositoryNotFoundError:
        reason = "no such data set, or it is private and no token was given (`hf auth login`)"
    except (LocalEntryNotFoundError, OSError, HfHubHTTPError) as error:
        reason = (
            f"cannot be reached ({type(error).__name__}); set HF_ENDPOINT to a mirror, or run the same command again"
        )
    else:
        return Path(found)
    raise QdataError(f"{name}: {entry.hub} at {endpoint}: {reason}. Nothing of data/{name} was lost.")
