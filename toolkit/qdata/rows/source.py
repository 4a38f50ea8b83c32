"""Containers only: files to parts, parts to rows. What the rows *mean* is a dialect's business.

A part is the unit of work: a range of bytes, of rows, or a sheet. A row's ordinal counts from 1 and is the line number
in line-based files, so `muice/train.jsonl#812` is found with any editor. Rows and ordinals are the same however a file
is cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from qdata import plugin
from qdata.errors import QdataError
from qdata.rows import compression, containers, walk
from qdata.rows.containers._head import BOM, HEAD_BYTES, Head
from qdata.rows.parts import PART_BYTES, Bad, Part, Rows, short

__all__ = ["PART_BYTES", "Bad", "Part", "Rows", "files_of", "left_out", "parts_of", "peek", "read", "short", "suffixes"]


def suffixes() -> tuple[str, ...]:
    """The endings of files that hold rows; each may have one of compression.SUFFIXES behind it."""
    return tuple(suffix for name in plugin.names(containers) for suffix in _find(name).suffixes)


def files_of(path: Path) -> list[Path]:
    """The data files `path` stands for: itself, the files below a folder, or what a glob matches; sorted.

    Raises QdataError when there are none.
    """
    return walk.files_of(path, suffixes())


def left_out(path: Path) -> list[tuple[Path, str]]:
    """What lies below a folder and looks like rows but is not read, each with the reason."""
    return walk.left_out(path, suffixes())


def parts_of(path: Path, source: str, relative: str, part_bytes: int = PART_BYTES) -> Iterator[Part]:
    """The parts of one file, in order, at least one. Reads the file once, for its hashes and its borders.

    Raises QdataError for a missing or empty file and for a kind of file nobody here reads.
    """
    if not path.is_file():
        raise QdataError(f"{path}: no such file")
    plain = compression.plain(path) if path.stat().st_size else path
    size = plain.stat().st_size
    if size == 0:
        raise QdataError(f"{path}: the file is empty; wanted at least one row")
    container = _container(path, plain)
    part = Part(source, relative, path, container, 0, size, 1, "", plain if plain != path else None)
    empty = True
    for one in _find(container).parts(part, part_bytes):
        empty = False
        yield one
    if empty:
        yield replace(part, stop=0)


def _find(container: str) -> Any:
    return plugin.find(containers, container)


def _container(path: Path, plain: Path) -> str:
    with plain.open("rb") as file:
        data = file.read(HEAD_BYTES)
    head = Head(Path(compression.stripped(path.name)).suffix.lower(), data.removeprefix(BOM), plain)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise QdataError(f"{path}: the file is UTF-16; wanted UTF-8. Convert it: iconv -f UTF-16 -t UTF-8")
    likeness = {name: _find(name).likeness(head) for name in plugin.names(containers)}
    found = max(likeness, key=lambda name: likeness[name])
    if not likeness[found]:
        raise QdataError(f"{path}: not a text file; wanted one of {', '.join(suffixes())}")
    return found


def unit(container: str) -> str:
    """What messages call a row of a container: line or row."""
    return str(_find(container).unit)


def read(part: Part) -> Rows:
    """All rows of a part. Rows that are broken are returned as `bad`; a container that is broken as a whole raises
    QdataError."""
    if part.start == part.stop:
        return Rows([], [], [])
    rows: Rows = _find(part.container).read(part)
    return rows


def peek(path: Path, source: str, relative: str, rows: int = 100) -> Rows:
    """The first rows of a file, to recognise its dialect by. Of a large file only the beginning is read."""
    found = read(next(parts_of(path, source, relative, part_bytes=1 << 20)))
    return Rows(found.ordinals[:rows], found.rows[:rows], found.bad[:rows])
