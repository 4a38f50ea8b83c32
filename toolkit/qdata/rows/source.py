"""Containers only: files to parts, parts to rows. What the rows *mean* is a dialect's business.

A part is the unit of work: a range of bytes, of rows, or a sheet. A row's ordinal counts from 1 and is the line number
in line-based files, so `muice/train.jsonl#812` is found with any editor. Rows and ordinals are the same however a file
is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from qdata import plugin
from qdata.errors import QdataError
from qdata.paths import COMPRESSED, shown, stripped
from qdata.rows import compression, containers, exact, walk
from qdata.rows.containers._head import BOM, HEAD_BYTES, Head
from qdata.rows.parts import PART_BYTES, Bad, Part, Rows, Write, short

__all__ = [
    "PART_BYTES",
    "Bad",
    "Part",
    "Rows",
    "files_of",
    "left_out",
    "parts_of",
    "peek",
    "read",
    "short",
    "splits_left_out",
    "suffixes",
]


def suffixes() -> tuple[str, ...]:
    """The endings of files that hold rows; each may have one of COMPRESSED behind it."""
    return tuple(suffix for name in plugin.names(containers) for suffix in _find(name).suffixes)


def files_of(path: Path, *, every_split: bool = False) -> list[Path]:
    """The data files `path` stands for: itself, the files below a folder, or what a glob matches; sorted.

    What a folder holds for testing and validation only with `every_split`. Raises QdataError when there are none.
    """
    return walk.files_of(path, suffixes(), every_split=every_split)


def left_out(path: Path) -> list[tuple[Path, str]]:
    """What lies below a folder and looks like rows but is not read, each with the reason."""
    return walk.left_out(path, suffixes())


def splits_left_out(path: Path) -> list[tuple[Path, str, list[Path]]]:
    """What a folder holds for testing and validation: the folder or file that says so, which of the two, the files."""
    return walk.splits_left_out(path, suffixes())


def parts_of(
    path: Path, source: str, relative: str, part_bytes: int = PART_BYTES, documents: str | None = None
) -> Iterator[Part]:
    """The parts of one file, in order, at least one. Reads the file once, for its hashes and its borders.

    `documents` says what a document of plain text is. Raises QdataError for a missing or empty file and for a kind of
    file nobody here reads.
    """
    if not path.is_file():
        raise QdataError(f"{shown(path)}: no such file")
    try:
        plain = compression.plain(path) if path.stat().st_size else path
        size = plain.stat().st_size
    except OSError as error:
        raise QdataError(f"{shown(path)}: cannot be read ({error.strerror}: {error.filename})") from None
    if size == 0:
        raise QdataError(f"{shown(path)}: the file is empty; wanted at least one row")
    container = _container(path, plain, documents)
    part = Part(source, relative, path, container, 0, size, 1, "", plain if plain != path else None)
    empty = True
    for one in _find(container).parts(part, part_bytes):
        empty = False
        yield one
    if empty:
        yield replace(part, stop=0)


def parts_expected(path: Path, documents: str | None = None, part_bytes: int = PART_BYTES) -> int | None:
    """How many parts a file will have, by its size; None of tables, which tell their rows only when they are read."""
    plain = compression.plain(path)
    is_known = not is_table(_container(path, plain, documents))
    return -(-plain.stat().st_size // part_bytes) if is_known else None


def _find(container: str) -> Any:
    return plugin.find(containers, container)


# What a document of plain text is (`documents` of a source), and the container that reads it.
_DOCUMENTS = {"lines": "text", "paragraphs": "paragraphs", "file": "document"}


def _container(path: Path, plain: Path, documents: str | None) -> str:
    with plain.open("rb") as file:
        data = file.read(HEAD_BYTES)
    head = Head(Path(stripped(path.name)).suffix.lower(), data.removeprefix(BOM), plain)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise QdataError(f"{shown(path)}: the file is UTF-16; wanted UTF-8. Convert it: iconv -f UTF-16 -t UTF-8")
    likeness = {name: _find(name).likeness(head) for name in plugin.names(containers)}
    found = max(likeness, key=lambda name: likeness[name])
    if not likeness[found]:
        raise QdataError(f"{shown(path)}: not a text file; wanted one of {', '.join(suffixes())}")
    if _find(found).is_table and head.looks_like_json() and _is_object(head.first_line()):
        raise QdataError(f"{shown(path)}: JSON lines, and its name says {head.suffix}; give it one that ends in .jsonl")
    if documents is None:
        return found
    endings = _find("text").suffixes
    if head.suffix not in (*endings, ""):  # stdin has no ending
        raise QdataError(f"{shown(path)}: documents = {documents} is for plain text only ({', '.join(endings)})")
    return _DOCUMENTS[documents]


def _is_object(line: bytes) -> bool:
    with suppress(ValueError):
        return isinstance(exact.loads(line), dict)
    return False


def unit(container: str) -> str:
    """What messages call a row of a container: line or row."""
    return str(_find(container).unit)


def is_table(container: str) -> bool:
    """Whether what is nested stands in it as JSON text."""
    return bool(_find(container).is_table)


def read(part: Part) -> Rows:
    """All rows of a part. Rows that are broken are returned as `bad`; a container that is broken as a whole raises
    QdataError."""
    if part.start == part.stop:
        return Rows([], [], [])
    rows: Rows = _find(part.container).read(part)
    return rows


def writable() -> tuple[str, ...]:
    """The endings of files that can be written; each may have one of COMPRESSED behind it."""
    names = [name for name in plugin.names(containers) if hasattr(_find(name), "sink")]
    return tuple(suffix for name in names for suffix in _find(name).suffixes)


def refuse_name(name: str) -> str:
    """The ending of a name that a file can be written under. Raises QdataError for every other name."""
    suffix = Path(stripped(name)).suffix.lower()
    if suffix not in writable():
        raise QdataError(
            f"-o {name}: wanted a name ending in {', '.join(writable())}, or one of these "
            f"with {', '.join(COMPRESSED)} behind it"
        )
    return suffix


@contextmanager
def sink(path: Path, name: str, columns: Mapping[str, Any]) -> Iterator[Write]:
    """What takes rows for a new file at `path`, in the container and compression that its `name` says.

    `columns`: the dialect's, with their types. Raises QdataError for a name that ends in none of `writable()`.
    """
    suffix = refuse_name(name)
    container = next(one for one in plugin.names(containers) if suffix in _find(one).suffixes)
    with compression.writer(path, name) as file, _find(container).sink(file, columns) as write:
        yield write


def peek(
    path: Path,
    source: str,
    relative: str,
    rows: int = 100,
    documents: str | None = None,
    knows: Callable[[dict[str, Any]], bool] | None = None,
) -> Rows:
    """The first rows of a file, to recognise its dialect by, and the bad ones before them. Of a large file only the
    beginning is read, if there is a row in it.

    Lists and objects that stand in a table as JSON text are such here where somebody `knows` the row so: columns.py
    takes them as such where a dialect has lists and objects. Elsewhere a text is a text, though it may be JSON.
    """
    found, bad = Rows([], [], []), list[Bad]()
    for part in parts_of(path, source, relative, part_bytes=1 << 20, documents=documents):
        found = read(part)  # of a CSV file the first part may hold nothing but the header
        bad += found.bad[: rows - len(bad)]
        if found.rows:
            break
    seen = found.rows[:rows]
    if knows is not None and _find(part.container).is_table:
        decoded = [{name: _decoded(value) for name, value in row.items()} for row in seen]
        seen = [one if knows(one) else row for row, one in zip(seen, decoded, strict=True)]
    return Rows(found.ordinals[:rows], seen, bad)


def _decoded(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(("[", "{")):
        with suppress(ValueError, RecursionError):
            return exact.loads(value.encode())
    return value
