"""Comma-separated values with a header, as RFC 4180 has them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, BinaryIO, ClassVar, TextIO

from qdata.errors import QdataError
from qdata.rows.containers._head import Head
from qdata.rows.containers._spool import cell, spool
from qdata.rows.parts import Bad, Part, Rows, Write

_CELL = (1 << 31) - 1  # characters in a cell; the module's own limit of 131,072 is less than a long answer
_STRAY = "surrogateescape"  # bytes that are not UTF-8 are carried along, and told of with their row


class Csv:
    """Every cell is text. Ordinals count the rows below the header; parts end where a row does, quoted or not."""

    suffixes: ClassVar = (".csv",)
    unit: ClassVar = "row"
    is_table: ClassVar = True
    comma: ClassVar = ","

    @classmethod
    def likeness(cls, head: Head) -> int:
        """By its name."""
        return 3 if head.suffix in cls.suffixes else 0

    @classmethod
    def parts(cls, part: Part, part_bytes: int) -> Iterator[Part]:
        """Byte ranges of whole rows; the first holds the header too. Raises QdataError for a quote that never ends."""
        if part.stop <= part_bytes:
            yield replace(part, sha256=hashlib.sha256(part.data()).hexdigest())
            return
        start = stop = 0
        first = ordinal = 0
        with part.bytes_at.open(encoding="latin-1", newline="") as file:
            lines = _Lines(file)  # a character a byte, so that lengths are places
            for row in cls._rows(part, lines, 1):
                stop, ordinal = lines.read, ordinal + bool(row)
                if ordinal and stop - start >= part_bytes:  # blank lines above a header are no part of their own
                    yield _cut(part, start, stop, max(first, 1))
                    start, first = stop, ordinal
        if stop > start:
            yield _cut(part, start, stop, max(first, 1))

    @classmethod
    def read(cls, part: Part) -> Rows:
        """A row of another width than the header is Bad. Raises QdataError for a quote that never ends."""
        header = cls._header(part)
        if twice := next((name for name in header if header.count(name) > 1), None):
            raise QdataError(f"{part.label}: the header names {twice!r} twice; wanted a name for each column")
        out = Rows([], [], [])
        data = io.StringIO(part.data().decode("utf-8", _STRAY), newline="")
        begins = 1 + part.lines_before()
        rows = cls._rows(part, _Lines(data, mark=part.start == 0), begins)
        if part.start == 0:
            next((row for row in rows if row), None)
        for ordinal, cells in enumerate((row for row in rows if row), part.first):
            if len(cells) != len(header):
                raw = json.dumps(_shown(cells), ensure_ascii=False)
                reason = f"wanted {len(header)} fields as in the header, got {len(cells)}"
                out.bad.append(Bad(ordinal, reason, raw, "fields"))
            elif (stray := _stray("".join(cells))) is not None:
                raw = json.dumps(_shown(cells), ensure_ascii=False)
                out.bad.append(Bad(ordinal, f"not UTF-8 (byte 0x{stray:02x})", raw, "not_utf8"))
            else:
                out.ordinals.append(ordinal)
                out.rows.append(dict(zip(header, cells, strict=True)))
        return out

    @classmethod
    def _header(cls, part: Part) -> list[str]:
        with part.bytes_at.open(encoding="utf-8", errors=_STRAY, newline="") as file:
            header = next((row for row in cls._rows(part, _Lines(file), 1) if row), [])
        if any(_stray(name) is not None for name in header):
            raise QdataError(f"{part.label}, line 1: not UTF-8; wanted UTF-8 (iconv -f GB18030 -t UTF-8 converts)")
        return header

    @classmethod
    def _rows(cls, part: Part, lines: _Lines, begins: int) -> Iterator[list[str]]:
        """Rows as lists of cells; a blank line is an empty one. `begins`: the line at which the first begins."""
        csv.field_size_limit(_CELL)
        reader = csv.reader(lines, delimiter=cls.comma, strict=True)
        line = begins
        try:
            for row in reader:
                yield row
                line = begins + reader.line_num
        except csv.Error as error:  # where an open quote is found, the end of the file, says nothing
            raise QdataError(
                f"{part.label}: not valid CSV ({error}) in the row that begins at line {line}; wanted every quote "
                f'closed, and doubled ("") inside a quoted cell'
            ) from None

    @classmethod
    @contextmanager
    def sink(cls, file: BinaryIO, _: Any) -> Iterator[Write]:
        """A header of all columns, however late they came; an empty cell for null, JSON text for what is no text."""
        names: dict[str, None] = {}  # in the order in which they first come

        def write(lines: bytes) -> None:
            for row in waiting.add(lines):
                names.update(dict.fromkeys(row))

        with spool() as waiting:
            yield write
            text = io.TextIOWrapper(file, "utf-8", newline="")
            writer = csv.writer(text, delimiter=cls.comma)  # ends lines as RFC 4180 does, and so quotes both \r and \n
            writer.writerow(names)
            for row in waiting.rows():
                writer.writerow([cell(row.get(name)) for name in names])
            text.detach()


class _Lines:
    """The lines of a file as the csv module wants them, and how many characters were handed out."""

    def __init__(self, text: TextIO, mark: bool = True) -> None:
        self.text = text
        self.mark = mark  # whether a byte order mark may come first
        self.read = 0

    def __iter__(self) -> Iterator[str]:
        for line in self.text:
            self.read += len(line)
            yield line.removeprefix("\ufeff").removeprefix("ï»¿") if self.mark and self.read == len(line) else line


def _shown(cells: list[str]) -> list[str]:
    return [cell.encode("utf-8", _STRAY).decode("utf-8", "backslashreplace") for cell in cells]


def _stray(text: str) -> int | None:
    """The first byte that was not UTF-8."""
    return next((ord(c) - 0xDC00 for c in text if "\udc80" <= c <= "\udcff"), None) if not _is_utf8(text) else None


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _cut(part: Part, start: int, stop: int, first: int) -> Part:
    cut = replace(part, start=start, stop=stop, first=first)
    return replace(cut, sha256=hashlib.sha256(cut.data()).hexdigest())
