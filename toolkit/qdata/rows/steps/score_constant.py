"""The same score for every row: a baseline, or a mark on the rows of one source."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import polars as pl

from qdata.schema import with_scores


@dataclass(frozen=True)
class ScoreConstant:
    """`constant`: `value`, for every row."""

    value: float = field(default=1.0, metadata={"help": "the score of every row"})
    edits: ClassVar[bool] = False
    scores: ClassVar[tuple[str, ...]] = ("constant",)

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Score: `constant`.

        >>> from qdata.rows.steps._scores import example, shown
        >>> shown(ScoreConstant(value=0.5)(example("a", "b")))
        {'constant': 0.5}
        """
        return with_scores(frame, {"constant": pl.lit(self.value)})
