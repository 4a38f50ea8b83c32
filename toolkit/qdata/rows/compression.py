"""Compressed files: told by their first bytes, read from a plain copy in the cache, written as they are made.

A compressed stream has no places to begin at but its first byte. Cut into parts it would be decompressed once for each
of them; so it is decompressed once, into the cache under the hash of the compressed bytes, and cut like any other file.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

import pyarrow as pa

from qdata.errors import QdataError
from qdata.paths import COMPRESSED, cache_dir, file_sha256, whole

_MAGIC = dict(zip(COMPRESSED, (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\x00"), strict=True))
_BLOCK = 1 << 20


def compression(path: Path) -> str | None:
    """`.gz`, `.zst`, `.bz2`, `.xz` or None, by the first bytes. Raises QdataError where the name says otherwise."""
    with path.open("rb") as file:
        head = file.read(10)
    suffix = path.suffix.lower()
    found = next((kind for kind, magic in _MAGIC.items() if head.startswith(magic)), None)
    if found == ".bz2" and head[4:] not in (b"1AY&SY", b"\x17rE8P\x90"):  # a text may well begin with BZh
        found = None
    if found is None and suffix in COMPRESSED:
        raise QdataError(f"{path}: not compressed as its name says ({suffix}); mend the name or the file")
    return found


def plain(path: Path) -> Path:
    """The file itself, or its decompressed copy in the cache, made if need be. Raises QdataError for a broken one."""
    kind = compression(path)
    if kind is None:
        return path
    sha256 = file_sha256(path)
    copy = cache_dir() / "plain" / sha256[:2] / sha256
    if copy.is_file():
        return copy
    with whole(copy, replace=True) as partial, partial.open("wb") as out:
        try:
            with _reader(path, kind) as file:
                while block := file.read(_BLOCK):
                    out.write(block)
        except (OSError, EOFError, lzma.LZMAError, zlib.error, ValueError) as error:
            raise QdataError(f"{path}: cannot be decompressed ({error}); is it whole?") from None
    return copy


@contextmanager
def _reader(path: Path, kind: str) -> Iterator[IO[bytes]]:
    if kind == ".zst":
        with pa.OSFile(str(path)) as file, pa.CompressedInputStream(file, "zstd") as stream:
            yield stream
        return
    opened: Any = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}[kind]
    with opened(path, "rb") as file:
        yield file


@contextmanager
def writer(path: Path, name: str) -> Iterator[BinaryIO]:
    """A binary file at `path` that compresses as `name` says; the same rows give the same bytes."""
    suffix = Path(name).suffix.lower()
    stream: Any
    with path.open("wb") as file:
        if suffix == ".gz":
            stream = gzip.GzipFile("", "wb", 6, file, mtime=0)
        elif suffix == ".zst":
            stream = pa.CompressedOutputStream(pa.PythonFile(file, "w"), "zstd")
        elif suffix in (".bz2", ".xz"):
            stream = (bz2.BZ2File if suffix == ".bz2" else lzma.LZMAFile)(file, "wb")
        else:
            yield file
            return
        with stream:
            yield stream
