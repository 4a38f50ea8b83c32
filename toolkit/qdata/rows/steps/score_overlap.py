"""How much of the answer was in the question: answers that copy it, or have nothing to do with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import polars as pl

from qdata.rows.steps._scores import answers, grams, said, scored, share, words


@dataclass(frozen=True)
class ScoreOverlap:
    """`overlap`: share of distinct n-grams of the answers that are in what the user says (n-gram precision).

    1 for an answer that says the question again, 0 for one without two words in common.
    """

    n: int = field(default=2, metadata={"help": "words of an n-gram; of Chinese and Japanese, characters"})
    edits: ClassVar[bool] = False
    scores: ClassVar[tuple[str, ...]] = ("overlap",)

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n: wanted a whole number above 0, got {self.n}")

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Score: `overlap`, 0 to 1; null where there is no question or no answer.

        >>> from qdata.rows.steps._scores import example, shown
        >>> shown(ScoreOverlap()(example("Who wrote Faust?", "Goethe wrote Faust.")))
        {'overlap': 0.5}
        """
        asked, answered = (grams(words(text), self.n).list.unique() for text in (said("user"), answers()))
        both = pl.col("_answered").list.set_intersection("_asked").list.len()
        overlap = share(both, pl.col("_answered").list.len(), empty=0.0)
        return scored(frame, [{"_asked": asked, "_answered": answered}], {"overlap": overlap})
