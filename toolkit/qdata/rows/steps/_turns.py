"""What the steps that look at turns share: expressions inside `list.eval`, and rows for their examples."""

from __future__ import annotations

import polars as pl

from qdata.schema import conform


def role() -> pl.Expr:
    """The role of each message."""
    return pl.element().struct.field("role")


def calls() -> pl.Expr:
    """Whether a message is an assistant's that calls a tool; `[]`, which many exports write, calls none."""
    called = pl.element().struct.field("tool_calls").fill_null("")
    return (role() == "assistant").fill_null(False) & ~called.str.contains(r"^\s*(\[\s*\])?\s*$")


def seen(what: pl.Expr) -> pl.Expr:
    """Whether `what` held of this message or of one before it."""
    return what.fill_null(False).cast(pl.UInt32).cum_sum() > 0


def example(*turns: str) -> pl.LazyFrame:
    """One conversation of `role: content` words; `role!` calls a tool."""
    messages = []
    for turn in turns:
        who, _, content = turn.partition(": ")
        call = '[{"name": "f"}]' if who.endswith("!") else None
        messages.append({"role": who.rstrip("!"), "content": content, "tool_calls": call})
    return conform(pl.LazyFrame({"messages": [messages]}))


def shown(frame: pl.LazyFrame) -> list[str]:
    """The turns of a one-row frame as `role: content`, or the reason for which it is dropped."""
    row = frame.select("messages", "drop").collect().row(0, named=True)
    return [row["drop"]] if row["drop"] else [f"{m['role']}: {m['content']}" for m in row["messages"]]
