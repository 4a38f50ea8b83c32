"""ms-swift's `{"system": …, "query": …, "response": …, "history": [[query, response], …]}`."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._lists import joined
from qdata.rows.formats._turns import beyond_alternating, earlier_turns, is_judged, split_system, system_turn
from qdata.schema import message


class Swift:
    """`history` holds earlier pairs; `system` and `history` may be missing, empty or null: none."""

    columns: ClassVar = {
        "system": pl.String,
        "query": pl.String,
        "response": pl.String,
        "history": pl.List(pl.List(pl.String)),
    }
    sample: ClassVar = [
        {
            "system": "你是一位导游。",
            "query": "那里几月去最好？",
            "response": "四月，花开得正好。",
            "history": [["推荐一座适合散步的城市。", "苏州。"]],
        }
    ]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """`query` and `response`, and no second answer."""
        return {"query", "response"} <= row.keys() and not is_judged(row)

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """System, then history, then the query and its response."""
        turns = joined(
            system_turn("system"),
            earlier_turns("history"),
            message("user", pl.col("query")),
            message("assistant", pl.col("response")),
        )
        return frame.with_columns(messages=turns).drop(Swift.columns)

    @staticmethod
    def fault() -> pl.Expr:
        """An entry of `history` with more than query and response: which, and what was wanted."""
        entries = pl.col("history").list.eval(pl.element().list.len() > 2)
        what = pl.format("history[{}]: wanted [query, response], got more than two texts", entries.list.arg_max())
        return pl.when(entries.list.any()).then(what)

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """`system` and `history` only where there is one."""
        system, turns = split_system(conversation["messages"])
        *earlier, query, response = [m["content"] for m in turns]
        row: dict[str, Any] = {} if system is None else {"system": system}
        row |= {"query": query, "response": response}
        history = [list(pair) for pair in zip(earlier[::2], earlier[1::2], strict=True)]
        return row | ({"history": history} if history else {})

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """Tools, per-message fields, an empty system prompt, and turns that do not alternate."""
        return beyond_alternating(conversation, "swift")
