"""Alpaca's columns and one more: `instruction, input, output` are the preferred conversation, `rejected` is beside."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._lists import joined
from qdata.rows.formats._preference import are_texts, before_last, beyond_texts, texts, with_answer
from qdata.rows.formats.alpaca import Alpaca
from qdata.schema import message


class AlpacaRejected:
    """The prompt and the preferred answer are read as `alpaca` reads them."""

    kind = "preference"
    columns: ClassVar = Alpaca.columns | {"rejected": pl.String}
    sample: ClassVar = [
        {
            "instruction": "给猫起个名字。",
            "input": "",
            "output": "“年糕”怎么样？软软的，也好记。",
            "rejected": "猫。",
        }
    ]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """An instruction with its output and a second answer, and no `chosen`."""
        return are_texts(row, "instruction", "output", "rejected") and "chosen" not in row

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """The last turn of the conversation is the preferred answer."""
        chat = Alpaca.read(frame)
        return chat.with_columns(
            messages=before_last("messages"),
            chosen=pl.col("messages").list.tail(1),
            rejected=joined(message("assistant", pl.col("rejected"))),
        )

    @staticmethod
    def fault() -> pl.Expr:
        """An entry of `history` with more than question and answer."""
        return Alpaca.fault()

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """All six columns in every row."""
        return Alpaca.write(with_answer(conversation)) | {"rejected": texts(conversation)["rejected"]}

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """Tools, per-message fields, an empty system prompt, and turns that do not alternate."""
        return beyond_texts(conversation, "alpaca_rejected")
