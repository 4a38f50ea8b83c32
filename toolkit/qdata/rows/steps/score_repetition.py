"""How much of the answers is said again: the parrot, and the list that goes round in circles."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import polars as pl

from qdata.rows.steps._scores import answers, grams, lines, scored, share, words


@dataclass(frozen=True)
class ScoreRepetition:
    """`repetition`: share of n-grams of the answers that came before in them; `repetition_lines`: of lines.

    Words, of Chinese and Japanese characters. 0 where nothing is said twice, near 1 where one thing is said for ever.
    """

    n: int = field(default=4, metadata={"help": "words of an n-gram"})
    edits: ClassVar[bool] = False
    scores: ClassVar[tuple[str, ...]] = ("repetition", "repetition_lines")

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n: wanted a whole number above 0, got {self.n}")

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Scores: `repetition`, `repetition_lines`, 0 to below 1; null where there is no answer.

        >>> from qdata.rows.steps._scores import example, shown
        >>> shown(ScoreRepetition(n=2)(example("?", "so it is, so it is, so it is")))
        {'repetition': 0.625, 'repetition_lines': 0.0}
        """
        said = answers()
        found = {"_grams": grams(words(said), self.n), "_lines": lines(said)}
        return scored(frame, [found], {"repetition": _again("_grams"), "repetition_lines": _again("_lines")})


def _again(column: str) -> pl.Expr:
    items = pl.col(column)
    count = items.list.len()
    return share(count.cast(pl.Float64) - items.list.n_unique(), count, empty=0.0)
