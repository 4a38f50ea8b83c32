"""LLaMA-Factory v1's preference pairs: `chosen_messages` and `rejected_messages`, which repeat the prompt."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._preference import PAIR, before_last, beyond_one_turn, no_common_prompt, with_answer
from qdata.rows.formats.llamafactory_v1 import (
    PARTS,
    are_of_parts,
    as_messages,
    beyond_parts,
    written,
    wrong_parts,
)

_COLUMNS = {name: f"{name}_messages" for name in PAIR}


class LlamafactoryV1Preference:
    """Messages are lists of parts, as in `llamafactory_v1`; the last one is the answer."""

    kind = "preference"
    columns: ClassVar = dict.fromkeys(_COLUMNS.values(), PARTS) | {"tools": pl.String}
    sample: ClassVar = [
        {
            column: [
                {"role": "user", "content": [{"type": "text", "value": "北京在南方吗？"}], "loss_weight": 0.0},
                {"role": "assistant", "content": [{"type": "text", "value": answer}], "loss_weight": 1.0},
            ]
            for column, answer in zip(_COLUMNS.values(), ("不，北京在华北。", "是的。"), strict=True)
        }
    ]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """Two lists of messages, each with parts of a type and a value."""
        return all(are_of_parts(row.get(column)) for column in _COLUMNS.values())

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """The messages before the last, which are the same in both lists, are the prompt."""
        whole = {name: as_messages(column) for name, column in _COLUMNS.items()}
        tools = pl.when(pl.col("tools") != "").then(pl.col("tools"))
        chats = frame.with_columns(tools=tools, **whole)
        return chats.with_columns(messages=before_last("chosen"), **{name: pl.col(name).list.tail(1) for name in PAIR})

    @staticmethod
    def fault() -> pl.Expr:
        """Two lists that differ before their last message, or parts that make no message of ours."""
        return pl.coalesce(no_common_prompt(*_COLUMNS.values()), *(wrong_parts(name) for name in _COLUMNS.values()))

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """The prompt in both lists."""
        row = {
            column: written(with_answer(conversation, name)["messages"]) for name, column in _COLUMNS.items()
        }  # fmt: skip
        return row | ({"tools": conversation["tools"]} if conversation["tools"] else {})

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """Answers of several turns, names, training flags, and calls that are more than a name and arguments."""
        turns = [m for name in ("messages", *PAIR) for m in conversation[name]]
        return beyond_one_turn(conversation) or beyond_parts(turns)
