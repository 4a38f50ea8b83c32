"""The first question and its answer, as sets of which only these are good, and recipes of others, use them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import polars as pl

from qdata.rows.steps._turns import calls, role, seen


@dataclass(frozen=True)
class FirstTurnOnly:
    """Keeps a conversation up to its first answer, with the calls and results of tools that lead to it.

    The later turns are thrown away, and the ledger holds them. The prompt of a preference pair is left alone.
    """

    edits: ClassVar[bool] = True

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Edits `messages`.

        >>> from qdata.rows.steps._turns import example, shown
        >>> shown(FirstTurnOnly()(example("system: s", "user: a", "assistant: b", "user: c", "assistant: d")))
        ['system: s', 'user: a', 'assistant: b']
        """
        answer = (role() == "assistant").fill_null(False) & ~calls() & seen(role() == "user")
        early = ~seen(answer.shift(1, fill_value=False))
        messages = pl.col("messages")
        first = messages.list.eval(pl.element().filter(early))
        return frame.with_columns(messages=pl.when(pl.col("chosen").is_null()).then(first).otherwise(messages))
