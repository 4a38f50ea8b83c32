"""Global steps over parts: sketches are made where a part is worked on, one decision is made of all, and joined back.

Only the narrow sketches of all rows are ever in memory at once, never the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import polars as pl

from qdata import schema

DECISIONS = pl.Schema({"row": pl.String, "drop": pl.String, "by": pl.String})


class GlobalStep(Protocol):
    """What rows/global_steps/ holds; its docstring has the laws."""

    def sketch(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """What the decision needs of each row."""

    def decide(self, sketches: pl.DataFrame) -> pl.DataFrame:
        """What becomes of which row."""


def write_sketches(kept: pl.DataFrame, steps: Sequence[GlobalStep], folder: Path) -> None:
    """The sketches of a part's kept rows (CONVERSATION), a file for each step."""
    for number, step in enumerate(steps):
        step.sketch(kept.lazy()).collect().write_parquet(folder / _name(number), compression_level=1)


def decide(steps: Sequence[GlobalStep], folders: Sequence[Path], staying: pl.Series | None = None) -> pl.DataFrame:
    """What all steps decide, one after the other: `row`, `drop`, `by`, and columns that are fields of `score`.

    `folders`: where the sketches of the parts lie. `staying`: the ids of the rows that are asked about; default: all.
    """
    made = pl.DataFrame(schema=DECISIONS)
    for number, step in enumerate(steps):
        sketches = pl.concat([pl.read_parquet(folder / _name(number), glob=False) for folder in folders])
        if staying is not None:
            sketches = sketches.join(staying.alias("row").to_frame(), on="row", how="semi")
        sketches = sketches.join(made.filter(pl.col("drop").is_not_null()), on="row", how="anti")
        made = _both(made, step.decide(sketches))
    return made


def _both(earlier: pl.DataFrame, later: pl.DataFrame) -> pl.DataFrame:
    """Later scores take the place of earlier ones; a row is dropped once only."""
    joined = earlier.join(later, on="row", how="full", coalesce=True, suffix=" later")
    twice = [name for name in later.columns if f"{name} later" in joined.columns]
    columns = [pl.coalesce(f"{name} later", name).alias(name) for name in twice]
    return joined.with_columns(columns).drop(f"{name} later" for name in twice)


def apply(frame: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
    """Rows (CONVERSATION) with `drop` and `score` as it was decided."""
    names = [name for name in decisions.columns if name not in DECISIONS]
    joined = frame.join(decisions, on="row", how="left", maintain_order="left", suffix=" decided")
    out = joined.with_columns(drop=pl.coalesce("drop", "drop decided")).lazy()
    if names:
        out = schema.with_scores(out, {name: pl.col(name) for name in names})
    return out.select(frame.columns).collect()


def _name(number: int) -> str:
    return f"sketch-{number}.parquet"
