"""Rows on their way to a container that must know all columns before its first row."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from qdata.rows import exact


class Spool:
    """Rows in a temporary file."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def add(self, lines: bytes) -> Iterator[dict[str, Any]]:
        """Takes rows, a JSON text a line, and gives them back to be looked at."""
        self.file.write(lines)
        return map(exact.loads, lines.splitlines())

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
