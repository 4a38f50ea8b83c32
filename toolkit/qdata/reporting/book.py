"""A ledger in counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from qdata import audit
from qdata.output import Output


@dataclass(frozen=True)
class Book:
    """A ledger in counts: of (action, step, reason), and of (file, action)."""

    fates: Mapping[tuple[str, str | None, str | None], int]
    files: Mapping[tuple[str, str], int]

    @classmethod
    def of(cls, one: Output) -> Book:
        """Raises QdataError where the ledger does not close, or the manifest counts otherwise."""
        audit.check(one, places=False)
        book = one.ledger()
        file = pl.col("row").str.replace(r"#\d+$", "").alias("file")
        fates, files = pl.collect_all(
            [book.group_by("action", "step", "reason").len(), book.group_by(file, "action").len()]
        )
        return cls({tuple(row[:3]): row[3] for row in fates.rows()}, {tuple(row[:2]): row[2] for row in files.rows()})

    def count(self, what: str) -> int:
        """Rows in, kept (edited ones too), edited, dropped."""
        actions = {"in": ("kept", "edited", "dropped"), "kept": ("kept", "edited")}.get(what, (what,))
        return sum(n for (action, _, _), n in self.fates.items() if action in actions)

    @property
    def dropped(self) -> dict[str, int]:
        """Rows by what CONVERSATION's `drop` says."""
        return {f"{step}.{why}": n for (action, step, why), n in self.fates.items() if action == "dropped"}
