"""Parquet."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, BinaryIO, ClassVar

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from qdata.errors import QdataError
from qdata.paths import file_sha256
from qdata.rows import tables
from qdata.rows.containers._column import Column
from qdata.rows.containers._head import Head
from qdata.rows.containers._spool import spool
from qdata.rows.parts import Part, Rows, Write

_ROWS = 1 << 14  # written at once
_MOST = 1 << 17  # rows in a part: where values repeat, a row group says it is small and is large in memory


class Parquet:
    """A null is a missing key. Parts are row ranges: small row groups together, a large one in pieces."""

    suffixes: ClassVar = (".parquet",)
    unit: ClassVar = "row"
    is_table: ClassVar = True

    @staticmethod
    def likeness(head: Head) -> int:
        """By its first bytes, or its name."""
        return 3 if head.data.startswith(b"PAR1") or head.suffix in Parquet.suffixes else 0

    @staticmethod
    def parts(part: Part, part_bytes: int) -> Iterator[Part]:
        """Ranges of rows that take about `part_bytes` uncompressed. Raises QdataError for what is no Parquet file."""
        groups = _groups(part)
        sha256 = file_sha256(part.bytes_at)
        start = stop = size = 0
        for rows, weight in groups:
            if stop > start and (size + weight > part_bytes or stop - start + rows > _MOST):
                yield _range(part, start, stop, sha256)
                start, size = stop, 0
            stop, size = stop + rows, size + weight
            step = min(max(1, rows * part_bytes // max(weight, 1)), _MOST)
            step = max(1, -(-rows // max(1, -(-rows // step))))  # pieces of one size
            while (size > part_bytes or stop - start > _MOST) and stop - start > step:
                yield _range(part, start, start + step, sha256)
                start += step
                size = (stop - start) * weight // rows
        if stop > start or not stop:
            yield _range(part, start, stop, sha256)

    @staticmethod
    def read(part: Part) -> Rows:
        """Raises QdataError where the rows cannot be read."""
        try:
            file = pq.ParquetFile(part.bytes_at)
            ends, groups = 0, []
            for group in range(file.metadata.num_row_groups):
                begins, ends = ends, ends + file.metadata.row_group(group).num_rows
                if begins < part.stop and ends > part.start:
                    groups.append((group, begins))
            at = groups[0][1] if groups else 0
            step = max(1, min(part.stop - part.start, 1 << 16))
            batches = file.iter_batches(step, row_groups=[group for group, _ in groups])
            rows = tables.rows_within(batches, part.start, part.stop, at, part.label)
        except (OSError, ValueError, OverflowError, pa.ArrowException) as error:  # a date after the year 9999
            raise QdataError(f"{part.label}: rows {part.start + 1} to {part.stop} are not readable ({error})") from None
        return Rows(list(range(part.first, part.first + len(rows))), rows, [])

    @staticmethod
    @contextmanager
    def sink(file: BinaryIO, wanted: Mapping[str, Any]) -> Iterator[Write]:
        """`wanted`: the dialect's columns with their types; see Column for what becomes of each."""
        columns: dict[str, Column] = {}

        def write(lines: bytes) -> None:
            for row in waiting.add(lines):
                for name, value in row.items():
                    if name not in columns:
                        if "\0" in name:
                            raise QdataError(f"a column is called {name!r}; Parquet has no names with a NUL")
                        columns[name] = Column(wanted.get(name))
                    columns[name].see(value)

        def table(rows: list[dict[str, Any]]) -> pl.DataFrame:
            return pl.DataFrame([column.series(name, [r.get(name) for r in rows]) for name, column in columns.items()])

        with spool() as waiting:
            yield write
            with pq.ParquetWriter(file, table([]).to_arrow().schema, compression="zstd") as writer:
                rows = waiting.rows()
                while block := list(itertools.islice(rows, _ROWS)):
                    writer.write_table(table(block).to_arrow())


def _groups(part: Part) -> list[tuple[int, int]]:
    """Rows and uncompressed bytes of each row group."""
    try:
        meta = pq.ParquetFile(part.bytes_at).metadata
    except Exception as error:
        raise QdataError(f"{part.label}: not a readable Parquet file ({error})") from None
    groups = [meta.row_group(group) for group in range(meta.num_row_groups)]
    return [(group.num_rows, group.total_byte_size) for group in groups]


def _range(part: Part, start: int, stop: int, sha256: str) -> Part:
    return replace(part, start=start, stop=stop, first=start + 1, sha256=sha256)
