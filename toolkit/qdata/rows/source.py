"""Containers only: files to parts, parts to rows. What the rows *mean* is a dialect's business.

A part is the unit of work: a byte range of a JSONL file, a row group of a Parquet file, or a whole file. A row's
ordinal counts from 1 and is the line number in line-based files, so `muice/train.jsonl#812` is found with any editor.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from qdata.errors import QdataError
from qdata.rows import exact

PART_BYTES = 32 << 20
_CELL = (1 << 31) - 1  # characters in a CSV cell; the module's own limit of 131,072 is less than a long answer
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Part:
    """A piece of one input file that is read, processed, cached and scheduled as a whole."""

    source: str
    relative: str  # path below the source's root, as it stands in row ids
    path: Path
    container: str  # jsonl | json | csv | tsv | parquet
    start: int  # first byte; for parquet the row group
    stop: int
    first: int  # ordinal of the first row
    sha256: str  # of the part's bytes (parquet: of the file)

    @property
    def label(self) -> str:
        """How messages name the file."""
        return str(self.path)


class Bad(NamedTuple):
    """A row that could not be read: its ordinal, what is wrong in words, the raw text, and the kind of mistake.

    The ledger counts rows by `code`; the words name the place and would be another reason for every row.
    """

    ordinal: int
    reason: str
    raw: str
    code: str = "misfit"


class Rows(NamedTuple):
    """The rows of one part as plain dicts beside their ordinals, and the rows that could not be read."""

    ordinals: list[int]
    rows: list[dict[str, Any]]
    bad: list[Bad]


def files_of(path: Path) -> list[Path]:
    """The data files `path` stands for: itself, the files below a folder, or what a glob matches; sorted.

    Raises QdataError when there are none.
    """
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and not _hidden(p.relative_to(path))]
        wanted = f"wanted files ending in {', '.join(SUFFIXES)}"
    else:
        anchor = next((p for p in path.parents if not any(c in str(p) for c in "*?[")), Path())
        pattern = str(path.relative_to(anchor))
        found = [p for p in anchor.glob(pattern) if p.is_file()] if any(c in pattern for c in "*?[") else []
        wanted = "no such file or folder"
    if not found:
        raise QdataError(f"{path}: {wanted}")
    return sorted(found)


def _hidden(path: Path) -> bool:
    return any(p.startswith(".") or p.endswith(".qdata") for p in path.parts)


def parts_of(path: Path, source: str, relative: str, part_bytes: int = PART_BYTES) -> Iterator[Part]:
    """The parts of one file, in order. Reads the file once, for its hash and its line numbers.

    Raises QdataError for a missing or empty file and for a kind of file nobody here reads.
    """
    if not path.is_file():
        raise QdataError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise QdataError(f"{path}: the file is empty; wanted at least one row")
    part = Part(source, relative, path, _container(path), 0, path.stat().st_size, 1, "")
    if part.container == "jsonl":
        yield from _line_parts(part, part_bytes)
        return
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if part.container == "parquet":
        yield from _row_groups(part, sha256)
    else:
        yield replace(part, sha256=sha256)


def _container(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv", ".parquet"):
        return suffix[1:]
    with path.open("rb") as file:
        head = file.read(1 << 16)
        if head.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise QdataError(f"{path}: the file is UTF-16; wanted UTF-8. Convert it: iconv -f UTF-16 -t UTF-8")
        if suffix not in SUFFIXES and b"\0" in head:
            raise QdataError(f"{path}: not a text file; wanted one of {', '.join(SUFFIXES)}")
        start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
        first = start if suffix != ".json" or b"\n" in start else start + file.readline()  # a line may be long
    if start.startswith(b"["):
        return "json"  # also when it calls itself .jsonl: many are arrays in truth
    if suffix == ".json" and not _is_json(first.split(b"\n", 1)[0]):
        return "json"  # one object, pretty-printed
    return "jsonl"


def _is_json(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _line_parts(part: Part, part_bytes: int) -> Iterator[Part]:
    with part.path.open("rb") as file:
        start, ordinal = 0, 1
        while block := file.read(part_bytes):
            block += file.readline()
            stop = start + len(block)
            sha256 = hashlib.sha256(block).hexdigest()
            yield replace(part, start=start, stop=stop, first=ordinal, sha256=sha256)
            start, ordinal = stop, ordinal + block.count(b"\n")


def _row_groups(part: Part, sha256: str) -> Iterator[Part]:
    from qdata.rows import tables

    ordinal = 1
    for group, rows in enumerate(tables.row_groups(part.path)):
        yield replace(part, start=group, stop=group + 1, first=ordinal, sha256=sha256)
        ordinal += rows


def read(part: Part) -> Rows:
    """All rows of a part. Rows that are broken are returned as `bad`; a container that is broken as a whole raises
    QdataError."""
    if part.container == "parquet":
        from qdata.rows import tables

        rows = tables.rows_of(part.path, part.start)
        return Rows(list(range(part.first, part.first + len(rows))), rows, [])
    with part.path.open("rb") as file:
        file.seek(part.start)
        data = file.read(part.stop - part.start)
    if part.start == 0:
        data = data.removeprefix(b"\xef\xbb\xbf")
    return {"jsonl": _lines, "json": _array, "csv": _csv, "tsv": _csv}[part.container](part, data)


def _lines(part: Part, data: bytes) -> Rows:
    out = Rows([], [], [])
    loads = exact.loads if exact.has_long_digits(data) else orjson.loads
    for ordinal, line in enumerate(data.split(b"\n"), part.first):
        if not line or line.isspace():
            continue
        try:
            row = loads(line)
        except ValueError:
            out.bad.append(_bad_json(ordinal, line))
            continue
        _take(out, ordinal, row)
    return out


def _take(out: Rows, ordinal: int, row: Any) -> None:
    if isinstance(row, dict):
        out.ordinals.append(ordinal)
        out.rows.append(row)
    else:
        raw = json.dumps(row, ensure_ascii=False)
        out.bad.append(Bad(ordinal, f"wanted a JSON object, got {short(row)}", raw, "no_object"))


def _bad_json(ordinal: int, line: bytes) -> Bad:
    """The reason in words a person can act on; orjson's own message counts bytes and says little."""
    raw = line.decode("utf-8", errors="backslashreplace")
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        where = f"byte 0x{line[error.start]:02x} at byte {error.start + 1} of the line"
        return Bad(ordinal, f"not UTF-8 ({where})", raw, "not_utf8")
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError as error:
        where = f"at column {error.colno}, near {_near(raw, error.colno)}"
        return Bad(ordinal, f"not valid JSON: {error.msg} {where}", raw, "not_json")
    return Bad(ordinal, "a number with more digits than can be read", raw, "not_json")


def _near(text: str, column: int) -> str:
    at = max(0, column - 1)
    return repr(text[max(0, at - 20) : at + 20])


def short(value: Any) -> str:
    """A value as JSON for a message, cut to 60 characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"


def _array(part: Part, data: bytes) -> Rows:
    try:
        rows = exact.loads(data)
    except orjson.JSONDecodeError as error:
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as bad:
            line = data.count(b"\n", 0, bad.start) + 1
            raise QdataError(f"{part.path}, line {line}: not UTF-8 (byte 0x{data[bad.start]:02x})") from None
        near = _near(text, error.pos + 1)
        raise QdataError(
            f"{part.path}, line {error.lineno}, column {error.colno}: not valid JSON: {error.msg}, near {near}"
        ) from None
    out = Rows([], [], [])
    for ordinal, row in enumerate(rows if isinstance(rows, list) else [rows], part.first):
        _take(out, ordinal, row)
    return out


def _csv(part: Part, data: bytes) -> Rows:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as bad:
        line = data.count(b"\n", 0, bad.start) + 1
        raise QdataError(f"{part.path}, line {line}: not UTF-8 (byte 0x{data[bad.start]:02x})") from None
    csv.field_size_limit(_CELL)
    comma = "\t" if part.container == "tsv" else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=comma, strict=True)
    out = Rows([], [], [])
    begins = 1  # the line at which a row begins: where an open quote is found, the file's end says nothing
    try:
        begins = 1 if reader.fieldnames is None else reader.line_num + 1
        for ordinal, row in enumerate(reader, part.first):
            begins = reader.line_num + 1
            if None in row or None in row.values():
                wanted = len(reader.fieldnames or [])
                raw = json.dumps({str(k): v for k, v in row.items()}, ensure_ascii=False)
                out.bad.append(Bad(ordinal, f"wanted {wanted} fields as in the header", raw, "fields"))
            else:
                _take(out, ordinal, row)
    except csv.Error as error:
        raise QdataError(
            f"{part.path}: not valid CSV ({error}) in the row that begins at line {begins}; wanted every quote closed, "
            f'and doubled ("") inside a quoted cell'
        ) from None
    return out


def peek(path: Path, source: str, relative: str, rows: int = 100) -> Rows:
    """The first rows of a file, to recognise its dialect by. Of a large JSONL only the beginning is read."""
    found = read(next(parts_of(path, source, relative, part_bytes=1 << 20)))
    return Rows(found.ordinals[:rows], found.rows[:rows], found.bad[:rows])
