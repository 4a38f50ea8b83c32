"""Named data sets, and from a path or a name to the files that hold its rows."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import cast

from qdata.errors import QdataError, did_you_mean
from qdata.paths import shipped
from qdata.recipe import Source, structure
from qdata.rows import source as containers

SAMPLES = shipped("recipes/samples")
WORKSPACE = Path("data")
INCOMPLETE = ".qdata-incomplete"  # lies in a data set's folder until all its files have arrived


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
    character: str | None = None  # who answers, where the rows are talks of characters


@functools.cache
def entries(workspace_file: Path = Path("datasets.toml")) -> dict[str, Entry]:
    """The catalogue that ships with us, with the working directory's `datasets.toml` over it."""
    tables = tomllib.loads((resources.files("qdata") / "rows" / "catalog.toml").read_text(encoding="utf-8"))
    if workspace_file.is_file():
        try:
            tables |= tomllib.loads(workspace_file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise QdataError(f"{workspace_file}: not valid TOML: {error}; mend it or move it away") from None
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
        if twice := {theirs for theirs in one.map.values() if list(one.map.values()).count(theirs) > 1}:
            raise QdataError(f"{one.path}: map names {', '.join(sorted(twice))} for two columns; wanted one for each")
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
    _refuse_incomplete(root)
    return [
        Input(
            name,
            file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name,
            file,
            form,
            one.map,
            one.think,
            _is_sample(file),
            one.character,
        )
        for file in files
    ]


def _refuse_incomplete(folder: Path) -> None:
    """Half a data set looks like a whole one; raises QdataError where a download below `data/` was not finished."""
    for above in (folder, *folder.parents):
        if (above / INCOMPLETE).is_file():
            raise QdataError(f"{above}: its download was not finished. Finish it: qdata fetch {above.name}")


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
    from huggingface_hub.errors import HfHubHTTPError

    entry = entries().get(name)
    if entry is None or entry.hub is None:
        raise QdataError(f"{name}: no such catalogue entry.{did_you_mean(name, entries())}")
    api = HfApi()
    target = WORKSPACE / name
    http_error = cast(
        "type[Exception]", HfHubHTTPError.__mro__[1]
    )  # the HTTP client's own; which client it is, only the hub library knows
    try:
        # Asked first: snapshot_download calls it a success when the hub is silent and some files are here already.
        info = api.dataset_info(entry.hub, revision=revision or "main", timeout=30)
        target.mkdir(parents=True, exist_ok=True)
        (target / INCOMPLETE).write_text("qdata fetch has not finished here\n", encoding="utf-8")
        snapshot_download(entry.hub, repo_type="dataset", revision=info.sha or revision, local_dir=target)
        missing = [file.rfilename for file in info.siblings or () if not (target / file.rfilename).exists()]
    except (http_error, OSError) as error:
        reason = _refused(error, revision)
    else:
        if not missing:
            (target / INCOMPLETE).unlink()
            return target.resolve()
        reason = f"{len(missing)} files did not arrive, the first is {missing[0]}; run the same command again"
    raise QdataError(f"{name}: {entry.hub} at {api.endpoint}: {reason}. Nothing of data/{name} was lost.")


def _refused(error: Exception, revision: str | None) -> str:
    """Why a hub gave nothing, and what to do about it."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return "the data set is gated: accept its terms on its page and log in with `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return "no such data set, or it is private and no token was given (`hf auth login`)"
    if isinstance(error, RevisionNotFoundError):
        return f"it has no branch, tag or commit {revision!r}; leave out --revision for the newest"
    if isinstance(error, HfHubHTTPError) and error.response is not None and error.response.status_code == 401:
        return "the hub wants a token, or refuses the one given; log in with `hf auth login`"
    if isinstance(error, PermissionError | IsADirectoryError | NotADirectoryError | FileExistsError):
        return f"cannot be written here ({error})"
    kind = type(error).__name__
    return f"cannot be reached ({kind}); set HF_ENDPOINT to a mirror, or run the same command again"
