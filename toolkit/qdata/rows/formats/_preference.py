"""What the layouts of preference pairs share."""

from __future__ import annotations

from typing import Any

import polars as pl

from qdata.rows.formats._lists import joined
from qdata.rows.formats._turns import beyond_alternating
from qdata.schema import message

PAIR = ("chosen", "rejected")


def answers(chosen: str = "chosen", rejected: str = "rejected") -> dict[str, pl.Expr]:
    """The columns `chosen` and `rejected`, one assistant turn each, of two text columns."""
    return {
        name: joined(message("assistant", pl.col(column)))
        for name, column in zip(PAIR, (chosen, rejected), strict=True)
    }


def texts(conversation: dict[str, Any]) -> dict[str, str]:
    """The texts of the two answers, which are one plain turn each."""
    return {name: conversation[name][0]["content"] for name in PAIR}


def with_answer(conversation: dict[str, Any], name: str = "chosen") -> dict[str, Any]:
    """The prompt and one of its answers as a conversation."""
    return conversation | {"messages": [*conversation["messages"], *conversation[name]]}


def are_texts(row: dict[str, Any], *columns: str) -> bool:
    """Whether a row has all these columns, with texts in them."""
    return all(column in row and isinstance(row[column], str | None) for column in columns)


def beyond_texts(conversation: dict[str, Any], dialect: str) -> str | None:
    """What a pair of two texts after alternating turns cannot express, in words, or None."""
    return beyond_one_turn(conversation) or next(
        (why for name in PAIR if (why := beyond_alternating(with_answer(conversation, name), dialect))), None
    )


def beyond_one_turn(conversation: dict[str, Any]) -> str | None:
    """Answers of several turns: in words, or None."""
    return "an answer of several turns" if any(len(conversation[name]) != 1 for name in PAIR) else None


def before_last(column: str) -> pl.Expr:
    """All turns of a list column but the last, which is the answer."""
    return pl.col(column).list.slice(0, pl.col(column).list.len().cast(pl.Int64) - 1)


def no_common_prompt(chosen: str, rejected: str) -> pl.Expr:
    """Two lists of turns that differ before their last: in words, or null."""
    differ = before_last(chosen).ne_missing(before_last(rejected))
    both = pl.col(chosen).is_not_null() & pl.col(rejected).is_not_null()
    return pl.when(both & differ).then(pl.lit(f"{chosen} and {rejected} differ before their last turn"))
