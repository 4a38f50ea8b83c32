"""Who speaks after whom: conversations that do not alternate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import polars as pl

from qdata.rows.steps._judge import before, calls, dropped, first_reason
from qdata.schema import ROLES


@dataclass(frozen=True)
class RoleOrder:
    """Drops conversations in which question and answer do not alternate, with a reason that says what is wrong.

    Wanted: system messages at the beginning, then user and assistant in turn; between them calls of tools and their
    results, several if need be; an answer at the end, unless the row is a pair of answers to choose from.
    merge_turns, leading_answer and trailing_question repair some of it; they come before.
    """

    edits: ClassVar[bool] = False

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Reasons: `role_order.unknown_role`, `.late_system`, `.starts_with_answer`, `.starts_with_tool`,
        `.repeated_user`, `.repeated_assistant`, `.result_without_call`, `.unanswered`.

        >>> from qdata.rows.steps._turns import example, shown
        >>> shown(RoleOrder()(example("user: a", "user: b", "assistant: c")))
        ['role_order.repeated_user']
        >>> shown(RoleOrder()(example("user: a", "assistant!: ", "tool: b", "tool: c", "assistant: d")))
        ['user: a', 'assistant: ', 'tool: b', 'tool: c', 'assistant: d']
        """
        who, earlier = pl.col("role"), before(pl.col("role"))
        first = earlier.is_null() | (earlier == "system")
        called = (before(calls()) | (earlier == "tool")).fill_null(False)
        wrong = {
            "unknown_role": ~who.is_in(ROLES).fill_null(False),
            "late_system": (who == "system") & ~first,
            "starts_with_answer": (who == "assistant") & first,
            "starts_with_tool": (who == "tool") & first,
            "repeated_user": (who == "user") & (earlier == "user"),
            "repeated_assistant": (who == "assistant") & (earlier == "assistant"),
            "result_without_call": (who == "tool") & ~called,
        }
        reasons = [pl.when(holds).then(pl.lit(f"role_order.{name}")) for name, holds in wrong.items()]
        first_wrong = first_reason(pl.coalesce(reasons), lists=("messages",), text=False)
        last = pl.col("messages").list.last().struct.field("role")
        open_end = pl.col("chosen").is_null() & last.is_in(["user", "tool"])
        return dropped(frame, pl.coalesce(first_wrong, pl.when(open_end).then(pl.lit("role_order.unanswered"))))
