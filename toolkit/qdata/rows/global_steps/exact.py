"""Exact duplicates: of rows that say the same, the best one stays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import polars as pl

from qdata.rows.global_steps._keys import Normalize, On, answer_chars, with_key
from qdata.schema import score_fields, score_type


@dataclass(frozen=True)
class Exact:
    """Drops rows that are the same in what `on` names, but for the best of them.

    `prompt` is all before the last answer, `first_turn` the first question, `answer` all answers (of a pair the chosen
    one), `conversation` everything. The best has the highest score `keep`; then the longest answers; then it is the
    first by file and line. Rows without what `on` names stay.
    """

    on: On = field(default="conversation", metadata={"help": "what is compared"})
    system: bool = field(default=False, metadata={"help": "rows with different system prompts are different"})
    normalize: tuple[Normalize, ...] = field(
        default=(), metadata={"help": "what is no difference: white space at the ends, its runs, capitals"}
    )
    keep: str = field(default="score.given", metadata={"help": "the score of which the highest stays"})

    def __post_init__(self) -> None:
        name = self._score
        if f"score.{name}" != self.keep or not name or score_type(name) != pl.Float64:
            raise ValueError(f"keep: wanted score.NAME, a score that is a number, got {self.keep!r}")

    @property
    def _score(self) -> str:
        return self.keep.removeprefix("score.")

    @property
    def reads(self) -> frozenset[str]:
        """The score it asks for."""
        return frozenset({self._score})

    reason: ClassVar[str] = "exact.duplicate"

    def sketch(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """`row`, `key` (16 bytes), `score`, `length` (characters of the answers)."""
        is_there = self._score in score_fields(frame)
        score = pl.col("score").struct.field(self._score) if is_there else pl.lit(None, pl.Float64)
        keyed = with_key(frame, self.on, self.system, self.normalize)
        return keyed.select("row", "key", score=score.cast(pl.Float64), length=answer_chars())

    def decide(self, sketches: pl.DataFrame) -> pl.DataFrame:
        """Drops with the reason `exact.duplicate`; `by` is the row that stays.

        >>> rows = {"row": ["f#2", "f#10", "f#1"], "key": [b"a", b"a", b"b"]}
        >>> Exact().decide(pl.DataFrame(rows | {"score": [None, 1.0, None], "length": [3, 2, 1]})).rows()
        [('f#2', 'exact.duplicate', 'f#10')]
        """
        same = sketches.filter(pl.col("key").is_not_null() & pl.col("key").is_duplicated())
        place = {
            "file": pl.col("row").str.extract(r"^(.*)#"),
            "ordinal": pl.col("row").str.extract(r"#(\d+)$").cast(pl.Int64),
        }
        best_first = same.with_columns(**place).sort(
            "key", "score", "length", "file", "ordinal", "row",
            descending=[False, True, True, False, False, False], nulls_last=True,
        )  # fmt: skip
        kept = best_first.with_columns(by=pl.col("row").first().over("key")).filter(pl.col("row") != pl.col("by"))
        return kept.select("row", drop=pl.lit(self.reason), by="by").sort("row")
