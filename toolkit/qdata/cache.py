"""What is kept between builds: finished parts, by a key of all that made them; and how much of it, and for how long.

A part is a folder with its facts, which know the size and SHA-256 of each file beside them. One whose files are no
longer those is none: it is made again. What is here can always be made again, so all of it may be thrown away.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from qdata.paths import STDIN, cache_dir, file_sha256, remove
from qdata.rows import exact

PARTS = "parts"
KINDS = {
    PARTS: "finished parts of inputs: rows after their steps, and tokens",
    "plain": "compressed inputs, decompressed",
    STDIN: "rows that came through a pipe",
    "tokenizers": "vocabularies built offline",
    "encoders": "which tokenizers the fast encoder may be used for",
}
"""The folders of the cache."""
_FACTS = "facts"  # their SHA-256, and as JSON


def part_folder(cache: Path, key: str) -> Path:
    """Where the part of this key lies, or will."""
    return cache / PARTS / key[:2] / key


def finished(folder: Path) -> dict[str, Any] | None:
    """The facts of a finished part, or None where there is none, or not with the bytes that were written."""
    file = folder / _FACTS
    try:
        digest, _, body = file.read_bytes().partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != digest:
            return None
        facts: dict[str, Any] = exact.loads(body)
        for name, (size, sha256) in facts.pop("files").items():
            if (folder / name).stat().st_size != size or file_sha256(folder / name) != sha256:
                return None
        os.utime(file)  # used now
    except (OSError, ValueError, KeyError):
        return None
    return facts


def finish(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write a part's facts, its last file; those of its other files are added."""
    held = sorted(file for file in folder.rglob("*") if file.is_file())
    files = {str(file.relative_to(folder)): (file.stat().st_size, file_sha256(file)) for file in held}
    body = exact.dumps({**facts, "files": files})
    (folder / _FACTS).write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


class Entry(NamedTuple):
    """Something in the cache that is used, and thrown away, as a whole."""

    kind: str
    path: Path
    bytes: int
    used: float  # seconds since 1970


def entries() -> Iterator[Entry]:
    """All that is in the cache."""
    for kind in KINDS:
        folder = cache_dir() / kind
        deep = "*/*" if kind in (PARTS, "plain") else "*"
        for path in sorted(folder.glob(deep)):
            files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
            stats = [file.stat() for file in files]
            yield Entry(kind, path, sum(s.st_size for s in stats), max((s.st_mtime for s in stats), default=0.0))


def prune(*, older_than: float | None = None, max_bytes: int | None = None) -> list[Entry]:
    """Throw away what was not used for `older_than` seconds, then what was longest not used, down to `max_bytes`.

    With neither, everything. Returns what is gone. A build that goes on meanwhile may have to be started again.
    """
    every = sorted(entries(), key=lambda one: one.used)
    held, now = sum(one.bytes for one in every), time.time()
    gone = []
    for one in every:
        is_old = older_than is not None and now - one.used > older_than
        is_much = max_bytes is not None and held > max_bytes
        if is_old or is_much or (older_than is None and max_bytes is None):
            remove(one.path)
            held -= one.bytes
            gone.append(one)
    return gone
