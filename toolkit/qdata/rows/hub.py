"""`qdata fetch`: data sets into `data/NAME/`, models into the cache where transformers looks for them.

The client honours `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_CACHE`. A second run goes on where the first one stopped.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple, cast

from qdata.errors import QdataError, did_you_mean
from qdata.rows.catalog import INCOMPLETE, WORKSPACE, entries, named

MODEL = "model:"
# Weights a repository holds a second time, for other frameworks; safetensors is what transformers reads.
_DUPLICATES = ("*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.onnx", "*.gguf", "original/*", "onnx/*")
_PIECEWISE = 10 << 20  # bytes from which a file is kept when it has half arrived
_PARTS = Path(".cache") / "qdata"  # where the files of a data set grow, inside its folder
_SHA256 = re.compile("[0-9a-f]{64}")


def fetch(name: str, revision: str | None = None) -> Path:
    """Downloads a catalogue entry into `data/NAME/`, or `model:ORG/NAME` into the cache; returns the folder.

    An entry is named as for convert: its name alone, or `DIR/dataset_info.json:NAME`.
    Raises QdataError when the name is unknown or the hub refuses.
    """
    if name.startswith(MODEL):
        return _fetch_model(name.removeprefix(MODEL), revision)
    name, entry = named(name)
    if entry is None:
        also = f" A model is fetched as {MODEL}{name}." if name.count("/") == 1 else ""
        raise QdataError(f"{name}: no such catalogue entry.{did_you_mean(name, entries())}{also}")
    if entry.hub is None:
        where = f"its rows are in {entry.path}" if entry.path else entry.unsupported or "it has only its sample"
        raise QdataError(f"{name}: there is nothing to fetch: {where}")
    return _fetch_data(name, entry.hub, _wanted(entry.files, entry.folder), revision)


def _wanted(files: Sequence[str], folder: str | None) -> list[str] | None:
    """Patterns of what is fetched; the README comes along because it says of which split a file is."""
    rows = list(files) or ([f"{folder}/*"] if folder else [])
    return [*rows, "README.md", "LICENSE*"] if rows else None


def _fetch_data(name: str, repo: str, wanted: list[str] | None, revision: str | None) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    api = HfApi()
    target = WORKSPACE / name
    try:
        # Asked first: snapshot_download calls it a success when the hub is silent and some files are here already.
        info = api.dataset_info(repo, revision=revision or "main", timeout=30, files_metadata=True)
        files = [file for file in info.siblings or () if _is_wanted(file.rfilename, wanted)]
        target.mkdir(parents=True, exist_ok=True)
        (target / INCOMPLETE).write_text("qdata fetch has not finished here\n", encoding="utf-8")
        for file in files:
            at = _inside(target, file.rfilename)
            if file.size is None or (file.size >= _PIECEWISE and not _has_size(at, file.size)):
                _large_file(api, _File(repo, "dataset", file.rfilename, info.sha or "main"), target / _PARTS, at)
        snapshot_download(
            repo, repo_type="dataset", revision=info.sha or revision, local_dir=target, allow_patterns=wanted
        )
        missing = [file.rfilename for file in files if not (target / file.rfilename).exists()]
    except (_http_error(), OSError) as error:
        reason = _refused(error, revision, "data set")
    else:
        if not missing:
            shutil.rmtree(target / _PARTS, ignore_errors=True)
            (target / INCOMPLETE).unlink()
            return target.resolve()
        reason = f"{len(missing)} files did not arrive, the first is {missing[0]}; run the same command again"
    raise QdataError(f"{name}: {repo} at {api.endpoint}: {reason}. Nothing of data/{name} was lost.")


def _fetch_model(repo: str, revision: str | None) -> Path:
    """Into the hub cache, so that `[model] name = "ORG/NAME"` finds it, without a hub from then on."""
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.file_download import repo_folder_name

    api = HfApi()
    try:
        info = api.model_info(repo, revision=revision or "main", timeout=30)
        names = [file.rfilename for file in info.siblings or ()]
        twice = _DUPLICATES if any(name.endswith(".safetensors") for name in names) else ()
        wanted = [name for name in names if not any(fnmatch(name, pattern) for pattern in twice)]
        blobs = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model") / "blobs"
        for one in wanted:
            _large_file(api, _File(repo, "model", one, info.sha or "main"), blobs)
        folder = snapshot_download(repo, revision=info.sha or revision, allow_patterns=wanted or None)
        if gone := [name for name in wanted if not (Path(folder) / name).exists()]:
            raise OSError(f"{len(gone)} files did not arrive, the first is {gone[0]}")
    except HFValidationError:
        raise QdataError(f"{MODEL}{repo}: wanted {MODEL}ORG/NAME, as the model is called on the hub") from None
    except (_http_error(), OSError) as error:
        reason = _refused(error, revision, "model")
        raise QdataError(f"{repo} at {api.endpoint}: {reason}. What has arrived is kept.") from None
    _point(Path(folder), revision or "main", info.sha)
    return Path(folder)


class _File(NamedTuple):
    """A file of a repository on the hub."""

    repo: str
    kind: str  # model | dataset
    name: str
    revision: str


def _large_file(api: Any, file: _File, parts: Path, destination: Path | None = None) -> None:
    """Puts a large file where the hub's client looks for it, going on with what an earlier run got of it.

    The client throws half a file away when it is stopped, and a large one takes an hour. It grows in the folder
    `parts`, and stays there under the sha256 of its content where no destination is given.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get

    url = hf_hub_url(file.repo, file.name, repo_type=file.kind, revision=file.revision, endpoint=api.endpoint)
    about = get_hf_file_metadata(url, endpoint=api.endpoint)
    etag, size = about.etag or "", about.size or 0
    if not _SHA256.fullmatch(etag) or size < _PIECEWISE:
        return  # files that are not large have another etag, and the client gets them
    destination, partial = destination or parts / etag, parts / f"{etag}.qdata-part"
    if _has_size(destination, size):
        return  # the client looks whether it is the same
    parts.mkdir(parents=True, exist_ok=True)
    have = partial.stat().st_size if partial.exists() else 0
    if have > size:
        partial.unlink()
        have = 0
    if have < size:
        with partial.open("ab") as opened:
            headers = api._build_hf_headers()
            http_get(url, opened, resume_size=have, headers=headers, expected_size=size, displayed_filename=file.name)
    with partial.open("rb") as opened:
        is_whole = hashlib.file_digest(opened, "sha256").hexdigest() == etag
    if not is_whole:
        partial.unlink()
        raise OSError(f"{file.name} is damaged: its content is not what the hub has; it was thrown away")
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial.replace(destination)


def _has_size(file: Path, size: int) -> bool:
    return file.is_file() and file.stat().st_size == size


def _inside(folder: Path, name: str) -> Path:
    """Where a file of a repository lies in a folder. Raises QdataError for a name that leads out of it."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise QdataError(f"{name}: a file of the repository has this name, which leads out of {folder}")
    return folder / name


def _point(folder: Path, name: str, commit: str | None) -> None:
    """Lets the branch or tag stand for the commit, without which a program that is offline does not find it."""
    if commit and name != commit:
        ref = folder.parent.parent / "refs" / name
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(commit, encoding="utf-8")


def _is_wanted(file: str, patterns: list[str] | None) -> bool:
    return patterns is None or any(fnmatch(file, pattern) for pattern in patterns)


def _http_error() -> type[Exception]:
    """The HTTP client's own error; which client it is, only the hub library knows."""
    from huggingface_hub.errors import HfHubHTTPError

    return cast("type[Exception]", HfHubHTTPError.__mro__[1])


def _refused(error: Exception, revision: str | None, kind: str) -> str:
    """Why a hub gave nothing, and what to do about it."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return f"the {kind} is gated: accept its terms on its page and log in with `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return f"no such {kind}, or it is private and no token was given (`hf auth login`)"
    if isinstance(error, RevisionNotFoundError):
        return f"it has no branch, tag or commit {revision!r}; leave out --revision for the newest"
    if isinstance(error, HfHubHTTPError) and error.response is not None and error.response.status_code == 401:
        return "the hub wants a token, or refuses the one given; log in with `hf auth login`"
    if isinstance(error, PermissionError | IsADirectoryError | NotADirectoryError | FileExistsError):
        return f"cannot be written here ({error})"
    if "arrive" in str(error) or "damaged" in str(error):
        return f"{error}; run the same command again"
    return f"cannot be reached ({type(error).__name__}); set HF_ENDPOINT to a mirror, or run the same command again"
