"""Excel workbooks, read by fastexcel (calamine in Rust, Arrow out; the reader polars itself uses)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

import pyarrow as pa

from qdata.errors import QdataError
from qdata.paths import file_sha256
from qdata.rows.containers._head import Head
from qdata.rows.parts import Bad, Part, Rows


class Xlsx:
    """Every cell is text as in CSV, an empty one is a missing key. A sheet is a part; its first row is the header.

    Ordinals are row numbers as Excel shows them, in the sheets behind the first counted on.
    """

    suffixes: ClassVar = (".xlsx",)
    unit: ClassVar = "row"
    is_table: ClassVar = True

    @staticmethod
    def likeness(head: Head) -> int:
        """By its name."""
        return 3 if head.suffix in Xlsx.suffixes else 0

    @staticmethod
    def parts(part: Part, _: int) -> Iterator[Part]:
        """One for each sheet with anything in it, of at most 1,048,576 rows. Raises QdataError for no workbook."""
        sha256, first = file_sha256(part.bytes_at), 0
        heights = [(number, len(_rows(part, number))) for number in range(_sheets(part))]
        for number, height in heights:
            if height:
                yield replace(part, start=number, stop=number + 1, first=first + 2, sha256=sha256)
            first += height

    @staticmethod
    def read(part: Part) -> Rows:
        """A cell beyond the header makes its row Bad; empty rows are skipped."""
        listed = _rows(part, part.start)
        header = listed[0] if listed else []
        named = [name for name in header if name is not None]
        if twice := next((name for name in named if named.count(name) > 1), None):
            raise QdataError(f"{part.label}: the header names {twice!r} twice; wanted a name for each column")
        out = Rows([], [], [])
        for ordinal, cells in enumerate(listed[1:], part.first):
            row = {k: v for k, v in zip(header, cells, strict=True) if k is not None and v is not None}
            if any(k is None and v is not None for k, v in zip(header, cells, strict=True)):
                said = str([cell for cell in cells if cell is not None])
                out.bad.append(Bad(ordinal, "a cell in a column that the header does not name", said, "fields"))
            elif row:
                out.ordinals.append(ordinal)
                out.rows.append(row)
        return out


def _open(part: Part) -> Any:
    try:
        import fastexcel
    except ImportError:
        raise QdataError(f"{part.label}: reading workbooks needs the extra: pip install 'qdata[xlsx]'") from None
    try:
        return fastexcel.read_excel(str(part.bytes_at))
    except Exception as error:
        raise QdataError(f"{part.label}: not a readable workbook ({error})") from None


def _sheets(part: Part) -> int:
    return len(_open(part).sheet_names)


def _rows(part: Part, sheet: int) -> list[list[str | None]]:
    """All rows of a sheet as text, from its first row on."""
    try:
        book = _open(part).load_sheet(sheet, header_row=None, skip_rows=0, dtypes="string")
        table = pa.Table.from_batches([book.to_arrow()])
    except QdataError:
        raise
    except Exception as error:
        raise QdataError(f"{part.label}, sheet {sheet + 1}: not readable ({error})") from None
    columns = [column.to_pylist() for column in table.columns]
    return [list(cells) for cells in zip(*columns, strict=True)]
