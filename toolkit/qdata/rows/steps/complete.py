"""Drops rows with nothing to train on: no answer, an answer that is empty, an empty document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import polars as pl


@dataclass(frozen=True)
class Complete:
    """Every conversation keeps at least one assistant turn, and no assistant turn is blank.

    Of a preference pair the chosen answer is not blank (a rejected one may be); of pretraining text, the text. Always
    the last step before rendering.
    """

    edits: ClassVar[bool] = False

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Reasons: `complete.no_answer`, `complete.empty_answer`, `complete.empty_text`."""
        field = pl.element().struct.field
        answer = field("role") == "assistant"
        blank = field("content").fill_null("").str.strip_chars() == ""
        calls_nothing = field("tool_calls").fill_null("").str.contains(r"^\s*(\[\s*\])?\s*$")
        silent = answer & blank & calls_nothing
        messages, chosen, text = pl.col("messages"), pl.col("chosen"), pl.col("text")
        reason = (
            pl.when(text.is_not_null())
            .then(pl.when(text.str.strip_chars() == "").then(pl.lit("complete.empty_text")))
            .when(chosen.is_not_null())
            .then(pl.when(chosen.list.eval(silent).list.any()).then(pl.lit("complete.empty_answer")))
            .when(messages.is_null())
            .then(None)
            .when(~messages.list.eval(answer).list.any())
            .then(pl.lit("complete.no_answer"))
            .when(messages.list.eval(silent).list.any())
            .then(pl.lit("complete.empty_answer"))
        )
        return frame.with_columns(drop=pl.coalesce("drop", reason))
