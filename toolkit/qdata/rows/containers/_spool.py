"""Rows on their way to a container that must know all columns before its first row."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

from qdata.rows import exact


class Spool:
    """Rows in a temporary file, and of each column the kinds of values it holds."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 – closed when its rows were read
        self.kinds: dict[str, set[type]] = {}

    def add(self, row: dict[str, Any]) -> None:
        """Takes a row."""
        self.file.write(exact.dumps(row) + b"\n")
        for name, value in row.items():
            self.kinds.setdefault(name, set()).add(type(value))

    def rows(self) -> Iterator[dict[str, Any]]:
        """All rows, once; then they are gone."""
        with self.file:
            self.file.seek(0)
            for line in self.file:
                yield exact.loads(line)
