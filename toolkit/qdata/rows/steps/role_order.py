"""Who speaks after whom: conversations that do not alternate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import polars as pl

from qdata.rows.steps._judge import dropped
from qdata.rows.steps._turns import calls, role, seen
from qdata.schema import ROLES


@dataclass(frozen=True)
class RoleOrder:
    """Drops conversations in which question and answer do not alternate, with a reason that says what is wrong.

    Wanted: system messages at the beginning, then user and assistant in turn; between them calls of tools and their
    results, several if need be. How a conversation ends is the business of `trailing_question` and `complete`.
    merge_turns and leading_answer repair some of it; they come before.
    """

    edits: ClassVar[bool] = False

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Reasons: `role_order.unknown_role`, `.late_system`, `.starts_with_answer`, `.starts_with_tool`,
        `.repeated_user`, `.repeated_assistant`, `.result_without_call`.

        >>> from qdata.rows.steps._turns import example, shown
        >>> shown(RoleOrder()(example("user: a", "user: b", "assistant: c")))
        ['role_order.repeated_user']
        >>> shown(RoleOrder()(example("user: a", "assistant!: ", "tool: b", "tool: c", "assistant: d")))
        ['user: a', 'assistant!: ', 'tool: b', 'tool: c', 'assistant: d']
        """
        who, before = role(), role().shift(1)
        spoken = seen(role().is_in(["user", "assistant", "tool"])).shift(1, fill_value=False)
        called = (calls().shift(1) | (before == "tool")).fill_null(False)
        wrong = (
            pl.when(~who.is_in(ROLES).fill_null(False))
            .then(pl.lit("role_order.unknown_role"))
            .when((who == "system") & spoken)
            .then(pl.lit("role_order.late_system"))
            .when((who == "assistant") & ~spoken)
            .then(pl.lit("role_order.starts_with_answer"))
            .when((who == "tool") & ~spoken)
            .then(pl.lit("role_order.starts_with_tool"))
            .when((who == "user") & (before == "user"))
            .then(pl.lit("role_order.repeated_user"))
            .when((who == "assistant") & (before == "assistant"))
            .then(pl.lit("role_order.repeated_assistant"))
            .when((who == "tool") & ~called)
            .then(pl.lit("role_order.result_without_call"))
        )
        return dropped(frame, pl.col("messages").list.eval(wrong).list.drop_nulls().list.first())
