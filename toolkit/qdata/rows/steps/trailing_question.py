"""Conversations that end on a question, or on the result of a tool: nobody answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import polars as pl

from qdata.rows.steps._turns import role, seen


@dataclass(frozen=True)
class TrailingQuestion:
    """Takes away what stands after the last answer, or drops such conversations.

    The prompt of a preference pair ends on a question by right and is left alone; so is what has no answer at all,
    which `complete` drops.
    """

    do: Literal["trim", "drop"] = field(default="trim", metadata={"help": "what becomes of it"})

    @property
    def edits(self) -> bool:
        """Trimming does."""
        return self.do == "trim"

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Edits `messages`. Reason: `trailing_question.unanswered`.

        >>> from qdata.rows.steps._turns import example, shown
        >>> shown(TrailingQuestion()(example("user: a", "assistant: b", "user: c")))
        ['user: a', 'assistant: b']
        >>> shown(TrailingQuestion(do="drop")(example("user: a", "assistant: b", "user: c")))
        ['trailing_question.unanswered']
        """
        messages = pl.col("messages")
        roles = messages.list.eval(role())
        late = roles.list.contains("assistant") & (roles.list.last() != "assistant").fill_null(True)
        late &= pl.col("chosen").is_null()
        if self.do == "drop":
            reason = pl.when(late).then(pl.lit("trailing_question.unanswered"))
            return frame.with_columns(drop=pl.coalesce("drop", reason))
        answered = seen((role() == "assistant").reverse()).reverse()
        trimmed = messages.list.eval(pl.element().filter(answered))
        return frame.with_columns(messages=pl.when(late).then(trimmed).otherwise(messages))
