"""Drops conversations with nothing to train on: no answer, or an answer that is empty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import polars as pl


@dataclass(frozen=True)
class Complete:
    """Every conversation keeps at least one assistant turn, and no assistant turn is blank.

    Preference pairs and pretraining text have their own shape and pass. Always the last step before rendering.
    """

    edits: ClassVar[bool] = False

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Reasons: `complete.no_answer`, `complete.empty_answer`."""
        field = pl.element().struct.field
        answer = field("role") == "assistant"
        blank = field("content").fill_null("").str.strip_chars() == ""
        calls_nothing = field("tool_calls").fill_null("").str.contains(r"^\s*(\[\s*\])?\s*$")
        silent = answer & blank & calls_nothing
        messages = pl.col("messages")
        other = messages.is_null() | pl.col("chosen").is_not_null() | pl.col("text").is_not_null()
        reason = (
            pl.when(other)
            .then(None)
            .when(~messages.list.eval(answer).list.any())
            .then(pl.lit("complete.no_answer"))
            .when(messages.list.eval(silent).list.any())
            .then(pl.lit("complete.empty_answer"))
        )
        return frame.with_columns(drop=pl.coalesce("drop", reason))
