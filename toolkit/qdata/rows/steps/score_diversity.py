"""Lexical diversity of answers: how many of their words are different ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import polars as pl

from qdata.rows.steps._scores import answers, scored, share, words


@dataclass(frozen=True)
class ScoreDiversity:
    """`diversity`: distinct words over words of the answers (type-token ratio), 1 where none comes twice.

    Of Chinese and Japanese the characters are counted. Long answers have lower ratios by nature.
    """

    edits: ClassVar[bool] = False
    scores: ClassVar[tuple[str, ...]] = ("diversity",)

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Score: `diversity`, above 0 to 1; null where there is no word.

        >>> from qdata.rows.steps._scores import example, shown
        >>> shown(ScoreDiversity()(example("?", "The cat saw the dog.")))
        {'diversity': 0.8}
        >>> shown(ScoreDiversity()(example("?", "好好好好")))
        {'diversity': 0.25}
        """
        said = pl.col("_words")
        diversity = share(said.list.n_unique(), said.list.len())
        return scored(frame, [{"_words": words(answers())}], {"diversity": diversity})
