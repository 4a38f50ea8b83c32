"""Where things lie on disk, and how an output appears: whole, by rename, or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path, PurePath

import platformdirs

from qdata.errors import QdataError

STDIN = "stdin"
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")


def cache_dir() -> Path:
    """`QDATA_CACHE_DIR`, else the user's cache folder of the platform."""
    return Path(os.environ.get("QDATA_CACHE_DIR") or platformdirs.user_cache_dir("qdata"))


def spool_dir() -> Path:
    """Where rows that came through a pipe are kept."""
    return cache_dir() / STDIN


def shown(path: Path) -> str:
    """How messages name a file: as it was given, and what came through a pipe as `stdin`."""
    return STDIN if path.name == STDIN and path.is_relative_to(spool_dir()) else str(path)


def from_here(path: Path) -> Path:
    """A path below the working directory relative to it, any other absolute."""
    here, full = Path.cwd(), path.resolve()
    return full.relative_to(here) if full.is_relative_to(here) else full


def shipped(name: str) -> Path:
    """A file or folder that ships with the package: `templates/…`, `recipes/…`."""
    return Path(str(resources.files("qdata") / "data")) / name


def tails(paths: Sequence[PurePath], taken: Collection[str] = ()) -> list[str]:
    """The last parts of absolute paths, as few of them as tell all apart and are none of `taken`.

    Raises QdataError where even whole paths do not.

    >>> tails([PurePath("/home/me/a/train.jsonl"), PurePath("/mnt/b/train.jsonl")])
    ['a/train.jsonl', 'b/train.jsonl']
    """
    parts = [path.parts[1:] for path in paths]
    for many in range(1, max(map(len, parts)) + 1):
        found = ["/".join(one[-many:]) for one in parts]
        if len(set(found)) == len(found) and set(found).isdisjoint(taken):
            return found
    raise QdataError(f"{paths[0]}: another file has the same place in row ids; name one of the two sources (name = …)")


@contextmanager
def whole(target: Path, *, replace: bool) -> Iterator[Path]:
    """A path beside `target` to write a file or folder to; it becomes `target` when the block ends without an error.

    With `replace` an existing target gives way at that moment; without it, QdataError is raised before any work.
    Folders above it are made, and taken away again when the block ends with an error.
    """
    if target.exists() and not replace:
        raise QdataError(f"{target}: exists already. Choose another -o, or pass --overwrite to replace it.")
    made = [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise QdataError(
            f"{target}: the folder {target.parent} cannot be made ({error.strerror}: {error.filename}); "
            f"choose another -o, or move away what is there"
        ) from None
    _sweep(target)
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        partial.touch()  # told before the work, not after it
        partial.unlink()
    except OSError as error:
        raise QdataError(f"{target}: cannot be written there ({error.strerror}); choose another -o") from None
    try:
        yield partial
        old = target.with_name(f".{target.name}.old-{os.getpid()}")
        if target.is_dir():  # a folder cannot be renamed over another one
            target.rename(old)
        partial.rename(target)
        remove(old)
    except BaseException:
        remove(partial)
        for folder in made:  # the deepest first; one that is in use by now stays
            with suppress(OSError):
                folder.rmdir()
        raise
    finally:
        remove(partial)


def name_of(path: str) -> str:
    """What an output made of `path` is called: a file without its suffix, a folder, of a glob the folder above it.

    Of `…/dataset_info.json:NAME` it is the name.
    """
    found = Path(path.rpartition("dataset_info.json:")[2])
    while not found.exists() and set("*?[") & set(str(found)):
        found = found.parent
    full = found if found.name not in ("", "..") else found.resolve()  # "." has no name of its own
    return (Path(stripped(full.name)).stem if full.is_file() else full.name).lstrip(".") or "rows"


def stripped(name: str) -> str:
    """A file's name without what says how it is compressed: `x.jsonl` of `x.jsonl.gz`."""
    return name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in COMPRESSED else name


def remove(path: Path) -> None:
    """Removes a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sweep(target: Path) -> None:
    """Removes what a killed run left beside `target`; what a living process writes is not touched."""
    for leftover in target.parent.iterdir():
        pid = leftover.name.rpartition("-")[2]
        if leftover.name.startswith((f".{target.name}.partial-", f".{target.name}.old-")) and not _alive(pid):
            if ".old-" in leftover.name and not target.exists():
                leftover.rename(target)  # killed between the two renames: the old output is the whole one
            else:
                remove(leftover)


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
