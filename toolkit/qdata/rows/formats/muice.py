"""Muice: `{"system": …, "conversation": [{"human": …, "assistant": …}, …]}`, a pair for each exchange."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._lists import ITEM, joined, of_each
from qdata.rows.formats._turns import beyond_alternating, is_preference, split_system, system_turn
from qdata.schema import message


class Muice:
    """Strictly alternating exchanges with an optional system prompt.

    Also Firefly's layout (without `system`), and what ms-swift calls ShareGPT.
    """

    columns: ClassVar = {
        "system": pl.String,
        "conversation": pl.List(pl.Struct({"human": pl.String, "assistant": pl.String})),
    }
    sample: ClassVar = [
        {
            "system": "你是一个名为沐雪的可爱AI女孩子",
            "conversation": [{"human": "早上好", "assistant": "早呀，今天也要加油哦！"}],
        }
    ]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """A list of human/assistant exchanges."""
        turns = row.get("conversation")
        return (
            isinstance(turns, list)
            and bool(turns)
            and all(isinstance(t, dict) and {"human", "assistant"} <= t.keys() for t in turns)
            and not is_preference(row)
        )

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """Each exchange becomes a user and an assistant turn."""
        said = pl.col(ITEM).struct.field
        pairs = of_each(pl.col("conversation"), message("user", said("human")), message("assistant", said("assistant")))
        return frame.with_columns(messages=joined(system_turn("system"), pairs)).drop(Muice.columns)

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """`system` only where there is one."""
        system, turns = split_system(conversation["messages"])
        pairs = zip(turns[::2], turns[1::2], strict=True)
        row = {"conversation": [{"human": user["content"], "assistant": answer["content"]} for user, answer in pairs]}
        return row if system is None else {"system": system} | row

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """Tools, per-message fields, an empty system prompt, and turns that do not alternate."""
        return beyond_alternating(conversation, "muice")
