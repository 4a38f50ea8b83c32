"""Tool calls without a result: the model would learn to go on as if it had one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import polars as pl

from qdata.rows.steps._turns import calls, role


@dataclass(frozen=True)
class UnansweredCall:
    """Drops conversations in which a tool is called and the next turn is not its result.

    A call that is the last turn is what the model is to learn, and passes.
    """

    last: bool = field(default=False, metadata={"help": "also where the call is the last turn"})
    edits: ClassVar[bool] = False

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Reason: `unanswered_call.no_result`.

        >>> from qdata.rows.steps._turns import example, shown
        >>> shown(UnansweredCall()(example("user: a", "assistant!: ", "user: b", "assistant: c")))
        ['unanswered_call.no_result']
        >>> shown(UnansweredCall()(example("user: a", "assistant!: ", "tool: b", "assistant: c")))[2]
        'tool: b'
        """
        answered = (role().shift(-1, fill_value="" if self.last else "tool") == "tool").fill_null(False)
        open_ones = pl.col("messages").list.eval(calls() & ~answered).list.any()
        reason = pl.when(open_ones).then(pl.lit("unanswered_call.no_result"))
        return frame.with_columns(drop=pl.coalesce("drop", reason))
