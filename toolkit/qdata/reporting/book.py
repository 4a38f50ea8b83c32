"""A ledger in counts, held against the manifest beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from qdata.errors import QdataError
from qdata.output import Output


@dataclass(frozen=True)
class Book:
    """A ledger in counts: of (action, step, reason), and of (file, action)."""

    fates: Mapping[tuple[str, str | None, str | None], int]
    files: Mapping[tuple[str, str], int]

    @classmethod
    def of(cls, one: Output) -> Book:
        book = one.ledger()
        file = pl.col("row").str.replace(r"#\d+$", "").alias("file")
        fates, files = pl.collect_all(
            [book.group_by("action", "step", "reason").len(), book.group_by(file, "action").len()]
        )
        made = cls({tuple(row[:3]): row[3] for row in fates.rows()}, {tuple(row[:2]): row[2] for row in files.rows()})
        made.check(one)
        return made

    def count(self, what: str) -> int:
        """Rows in, kept (edited ones too), edited, dropped."""
        actions = {"in": ("kept", "edited", "dropped"), "kept": ("kept", "edited")}.get(what, (what,))
        return sum(n for (action, _, _), n in self.fates.items() if action in actions)

    @property
    def dropped(self) -> dict[str, int]:
        """Rows by what CONVERSATION's `drop` says."""
        return {f"{step}.{why}": n for (action, step, why), n in self.fates.items() if action == "dropped"}

    def check(self, one: Output) -> None:
        """Raises QdataError unless in = kept + dropped, and the manifest counts as the ledger does."""
        said = one.manifest["rows"]
        if said["in"] != said["kept"] + sum(said["dropped"].values()):
            raise QdataError(
                f"{one.folder / 'manifest.json'}: {said['in']:,} rows in, and kept and dropped are "
                f"{said['kept'] + sum(said['dropped'].values()):,}; it was changed. Make the output again"
            )
        found = {name: self.count(name) for name in ("in", "kept", "edited")}
        found |= {f"dropped {why}": n for why, n in self.dropped.items()}
        wanted = {name: said[name] for name in ("in", "kept", "edited")}
        wanted |= {f"dropped {why}": n for why, n in said["dropped"].items()}
        if other := [name for name in {**wanted, **found} if wanted.get(name, 0) != found.get(name, 0)]:
            raise QdataError(
                f"{one.folder / 'ledger.parquet'}: {found.get(other[0], 0):,} rows {other[0]}, and the manifest beside "
                f"it says {wanted.get(other[0], 0):,}; one of them was changed. Make the output again"
            )
