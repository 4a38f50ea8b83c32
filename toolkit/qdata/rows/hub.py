"""`qdata fetch`: data sets into `data/NAME/`, models into the cache where transformers looks for them.

The client honours `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_CACHE`. A second run goes on where the first one stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, cast

from qdata.errors import QdataError, did_you_mean
from qdata.rows.catalog import INCOMPLETE, WORKSPACE, entries, named

MODEL = "model:"
# Weights a repository holds a second time, for other frameworks; safetensors is what transformers reads.
_DUPLICATES = ("*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.onnx", "*.gguf", "original/*", "onnx/*")
_PIECEWISE = 10 << 20  # bytes from which a file of a model is kept when it has half arrived


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
        info = api.dataset_info(repo, revision=revision or "main", timeout=30)
        target.mkdir(parents=True, exist_ok=True)
        (target / INCOMPLETE).write_text("qdata fetch has not finished here\n", encoding="utf-8")
        snapshot_download(
            repo, repo_type="dataset", revision=info.sha or revision, local_dir=target, allow_patterns=wanted
        )
        there = [file.rfilename for file in info.siblings or () if _is_wanted(file.rfilename, wanted)]
        missing = [file for file in there if not (target / file).exists()]
    except (_http_error(), OSError) as error:
        reason = _refused(error, revision, "data set")
    else:
        if not missing:
            (target / INCOMPLETE).unlink()
            return target.resolve()
        reason = f"{len(missing)} files did not arrive, the first is {missing[0]}; run the same command again"
    raise QdataError(f"{name}: {repo} at {api.endpoint}: {reason}. Nothing of data/{name} was lost.")


def _fetch_model(repo: str, revision: str | None) -> Path:
    """Into the hub cache, so that `[model] name = "ORG/NAME"` finds it, without a hub from then on."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError

    api = HfApi()
    try:
        info = api.model_info(repo, revision=revision or "main", timeout=30)
        names = [file.rfilename for file in info.siblings or ()]
        twice = _DUPLICATES if any(name.endswith(".safetensors") for name in names) else ()
        wanted = [name for name in names if not any(fnmatch(name, pattern) for pattern in twice)]
        for one in wanted:
            _large_file(api, repo, one, info.sha or "main")
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


def _large_file(api: Any, repo: str, name: str, revision: str) -> None:
    """Puts a large file where the hub's cache keeps it, going on with what an earlier run got of it.

    The client of the hub throws half a file away when it is stopped, and a file of weights takes an hour.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get, repo_folder_name

    url = hf_hub_url(repo, name, revision=revision, endpoint=api.endpoint)
    about = get_hf_file_metadata(url, endpoint=api.endpoint)
    if about.etag is None or (about.size or 0) < _PIECEWISE:
        return
    blob = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model") / "blobs" / about.etag
    if blob.exists():
        return
    blob.parent.mkdir(parents=True, exist_ok=True)
    partial = blob.with_name(blob.name + ".qdata-part")
    have = partial.stat().st_size if partial.exists() else 0
    if have > (about.size or 0):
        partial.unlink()
        have = 0
    with partial.open("ab") as file:
        http_get(
            url,
            file,
            resume_size=have,
            headers=api._build_hf_headers(),
            expected_size=about.size,
            displayed_filename=name,
        )
    if not _is_whole(partial, about.etag):
        partial.unlink()
        raise OSError(f"{name} is damaged: its content is not what the hub has; it was thrown away")
    partial.rename(blob)


def _is_whole(file: Path, etag: str) -> bool:
    """Whether a file has the content its etag tells; of large files that is their sha256."""
    if len(etag) != 64:
        return True
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest() == etag


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
