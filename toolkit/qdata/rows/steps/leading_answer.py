"""Conversations that start with an answer: a greeting nobody asked for, or a question that was lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import polars as pl

from qdata.rows.steps._turns import role, seen


@dataclass(frozen=True)
class LeadingAnswer:
    """Takes away what an assistant or tool says before the first question, or drops such conversations.

    System messages stay. Where nobody asks anything nothing is left to train, and `complete` drops the row.
    """

    do: Literal["trim", "drop"] = field(default="trim", metadata={"help": "what becomes of it"})

    @property
    def edits(self) -> bool:
        """Trimming does."""
        return self.do == "trim"

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Edits `messages`. Reason: `leading_answer.no_question`.

        >>> from qdata.rows.steps._turns import example, shown
        >>> shown(LeadingAnswer()(example("system: s", "assistant: hi", "user: a", "assistant: b")))
        ['system: s', 'user: a', 'assistant: b']
        >>> shown(LeadingAnswer(do="drop")(example("assistant: hi", "user: a", "assistant: b")))
        ['leading_answer.no_question']
        """
        asked = (role() == "system").fill_null(False) | seen(role() == "user")
        if self.do == "drop":
            early = pl.col("messages").list.eval(~asked).list.any()
            reason = pl.when(early).then(pl.lit("leading_answer.no_question"))
            return frame.with_columns(drop=pl.coalesce("drop", reason))
        return frame.with_columns(pl.col("messages").list.eval(pl.element().filter(asked)))
