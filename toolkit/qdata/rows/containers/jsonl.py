"""JSON lines: an object a line, whatever the file is called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, ClassVar

import orjson

from qdata.rows.containers._head import Head
from qdata.rows.containers._lines import line_parts, lines_of
from qdata.rows.containers._objects import objects
from qdata.rows.parts import Part, Rows, Write


class Jsonl:
    """Ordinals are line numbers, blank lines are skipped; parts are byte ranges."""

    suffixes: ClassVar = (".jsonl", ".ndjson")
    unit: ClassVar = "line"
    is_table: ClassVar = False

    @staticmethod
    def likeness(head: Head) -> int:
        """Any text that is nothing else; of files called .json those whose first line is a JSON text of its own."""
        if head.suffix == ".json":
            return 2 if not head.is_array() and _is_json(head.first_line()) else 0
        return 1 if head.suffix in Jsonl.suffixes or b"\0" not in head.data else 0

    @staticmethod
    def parts(part: Part, part_bytes: int) -> Iterator[Part]:
        """Byte ranges of whole lines."""
        return line_parts(part, part_bytes)

    @staticmethod
    def read(part: Part) -> Rows:
        """A broken line is Bad; its neighbours are read."""
        return objects(*lines_of(part))

    @staticmethod
    @contextmanager
    def sink(file: BinaryIO, _: Any) -> Iterator[Write]:
        """A row a line."""
        yield file.write


def _is_json(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
