"""Arrow IPC, as files (`.arrow`, `.feather`) and as streams (what `datasets` saves), told by their first bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar

import pyarrow as pa

from qdata.errors import QdataError
from qdata.paths import file_sha256
from qdata.rows import tables
from qdata.rows.containers._head import Head
from qdata.rows.parts import Part, Rows

_FILE, _STREAM = b"ARROW1", b"\xff\xff\xff\xff"


class Arrow:
    """A null is a missing key. Parts are row ranges; the file is mapped, so that only what is looked at is read."""

    suffixes: ClassVar = (".arrow", ".feather", ".ipc")
    unit: ClassVar = "row"
    is_table: ClassVar = True

    @staticmethod
    def likeness(head: Head) -> int:
        """By its first bytes, or its name."""
        named = head.suffix in Arrow.suffixes and not head.data.startswith(b"PAR1")
        return 3 if named or head.data.startswith((_FILE, _STREAM)) else 0

    @staticmethod
    def parts(part: Part, part_bytes: int) -> Iterator[Part]:
        """Ranges of rows that take about `part_bytes` in memory. Raises QdataError for what is no Arrow file."""
        sha256 = file_sha256(part.bytes_at)
        start = stop = size = 0
        with _batches(part) as batches:
            for batch in batches:
                batch.validate(full=True)  # where the bytes are not what the schema says, Arrow itself may crash
                weight = batch.nbytes
                step = max(1, batch.num_rows * part_bytes // max(weight, 1))
                stop, size = stop + batch.num_rows, size + weight
                while size > part_bytes and stop - start > step:
                    yield _range(part, start, start + step, sha256)
                    start += step
                    size = (stop - start) * weight // batch.num_rows if batch.num_rows else 0
                if size >= part_bytes and stop > start:
                    yield _range(part, start, stop, sha256)
                    start, size = stop, 0
        if stop > start or not stop:
            yield _range(part, start, stop, sha256)

    @staticmethod
    def read(part: Part) -> Rows:
        """Raises QdataError where the rows cannot be read."""
        with _batches(part) as batches:
            rows = tables.rows_within(batches, part.start, part.stop, 0, part.label)
        return Rows(list(range(part.first, part.first + len(rows))), rows, [])


@contextmanager
def _batches(part: Part) -> Iterator[Iterator[pa.RecordBatch]]:
    """The record batches one by one."""
    try:
        with pa.memory_map(str(part.bytes_at)) as file:
            is_file = file.read(len(_FILE)) == _FILE
            file.seek(0)
            if is_file:
                reader = pa.ipc.open_file(file)
                yield (reader.get_batch(i) for i in range(reader.num_record_batches))
            else:
                yield iter(pa.ipc.open_stream(file))
    except (OSError, ValueError, OverflowError, pa.ArrowException) as error:  # a date after the year 9999
        raise QdataError(f"{part.label}: not a readable Arrow file or stream ({error})") from None


def _range(part: Part, start: int, stop: int, sha256: str) -> Part:
    return replace(part, start=start, stop=stop, first=start + 1, sha256=sha256)
