"""Rows on their way to a container that must know all columns before its first row."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from qdata.rows import exact


class Spool:
    """Rows in a temporary file, and the names of their columns in the order in which they first came."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.names: dict[str, None] = {}

    def add(self, row: dict[str, Any]) -> None:
        """Takes a row."""
        self.file.write(exact.dumps(row) + b"\n")
        self.names.update(dict.fromkeys(row))

    def rows(self) -> Iterator[dict[str, Any]]:
        """All rows."""
        self.file.seek(0)
        for line in self.file:
            yield exact.loads(line)


@contextmanager
def spool() -> Iterator[Spool]:
    """A spool whose file is gone at the end."""
    with tempfile.TemporaryFile() as file:
        yield Spool(file)


def cell(value: Any) -> str | None:
    """A value as text, for columns that hold nothing else: text as it is, all else as JSON text."""
    return value if value is None or isinstance(value, str) else exact.text(value)
