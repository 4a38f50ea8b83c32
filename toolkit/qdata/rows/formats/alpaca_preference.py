"""Alpaca's columns with two answers: `instruction, input, chosen, rejected`, and LLaMA-Factory's system and history."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._preference import PAIR, answers, are_texts, before_last, beyond_texts, texts, with_answer
from qdata.rows.formats.alpaca import Alpaca


class AlpacaPreference:
    """The prompt is read as `alpaca` reads it. An `output` beside the two answers is a column like any other."""

    kind = "preference"
    columns: ClassVar = {name: dtype for name, dtype in Alpaca.columns.items() if name != "output"} | dict.fromkeys(
        PAIR, pl.String
    )
    sample: ClassVar = [
        {
            "instruction": "把句子改得礼貌一些。",
            "input": "把门关上。",
            "chosen": "麻烦您把门关上，谢谢。",
            "rejected": "关门！",
        }
    ]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """An instruction and two answers, all texts."""
        return are_texts(row, "instruction", *PAIR)

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """System, then history, then the question."""
        both = frame.with_columns(output=pl.lit(""))  # alpaca's answer, which is none of these two
        prompt = Alpaca.read(both).with_columns(messages=before_last("messages"))
        return prompt.with_columns(**answers())

    @staticmethod
    def fault() -> pl.Expr:
        """An entry of `history` with more than question and answer."""
        return Alpaca.fault()

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """All six columns in every row."""
        row = Alpaca.write(with_answer(conversation))
        return {name: value for name, value in row.items() if name != "output"} | texts(conversation)

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """Tools, per-message fields, an empty system prompt, and turns that do not alternate."""
        return beyond_texts(conversation, "alpaca_preference")
