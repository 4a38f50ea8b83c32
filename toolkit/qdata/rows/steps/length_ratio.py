"""Answers that are out of all proportion to their questions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import polars as pl

from qdata.rows.steps._judge import chars, dropped


@dataclass(frozen=True)
class LengthRatio:
    """Drops conversations whose answers together are too short or too long for the questions together, in characters.

    Both ends are off unless set: a short question may well have a long answer. A translation may not.
    """

    min: float = field(default=0.0, metadata={"help": "least characters of answers for one of a question"})
    max: float | None = field(default=None, metadata={"help": "most characters of answers for one of a question"})
    edits: ClassVar[bool] = False

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Reasons: `length_ratio.answer_too_short`, `length_ratio.answer_too_long`. Without questions, none.

        >>> from qdata.rows.steps._turns import example, shown
        >>> shown(LengthRatio(min=0.5)(example("user: Translate this whole sentence.", "assistant: No.")))
        ['length_ratio.answer_too_short']
        """
        ratio = _said("assistant") / _said("user")
        short = pl.when(ratio < self.min).then(pl.lit("length_ratio.answer_too_short"))
        most = float("inf") if self.max is None else self.max
        long = pl.when(ratio > most).then(pl.lit("length_ratio.answer_too_long"))
        asked = pl.col("chosen").is_null() & (_said("user") > 0)
        return dropped(frame, pl.when(asked).then(pl.coalesce(short, long)))


def _said(role: str) -> pl.Expr:
    """Characters that a role says in a conversation."""
    turn = pl.element().struct.field
    said = pl.when(turn("role") == role).then(chars(turn("content"))).otherwise(0)
    return pl.col("messages").list.eval(said).list.sum().fill_null(0)
