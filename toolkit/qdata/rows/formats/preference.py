"""`{"prompt": …, "chosen": …, "rejected": …}`: three texts (UltraFeedback, TRL's standard preference rows)."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._lists import joined
from qdata.rows.formats._preference import answers, are_texts, beyond_texts, texts
from qdata.rows.formats._turns import listed, split_system, system_turn
from qdata.schema import message


class Preference:
    """One question, perhaps with a `system` prompt, and two answers of which the first is preferred."""

    kind = "preference"
    columns: ClassVar = {"system": pl.String, "prompt": pl.String, "chosen": pl.String, "rejected": pl.String}
    sample: ClassVar = [
        {"prompt": "用一句话介绍杭州。", "chosen": "杭州是一座依西湖而建的城市。", "rejected": "不知道。"}
    ]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """Three texts."""
        return are_texts(row, "prompt", "chosen", "rejected")

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """The prompt is the user's turn, each answer an assistant's."""
        prompt = joined(system_turn("system"), message("user", pl.col("prompt")))
        return frame.with_columns(messages=prompt, **answers())

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """`system` only where there is one."""
        system, (question,) = split_system(conversation["messages"])
        row = {"prompt": question["content"]} | texts(conversation)
        return row if system is None else {"system": system} | row

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """Earlier turns, and all that is not text."""
        return beyond_question(conversation, "preference") or beyond_texts(conversation, "preference")


def beyond_question(conversation: dict[str, Any], dialect: str) -> str | None:
    """More than one question, or none: in words, or None."""
    _, turns = split_system(conversation["messages"])
    roles = [m["role"] for m in turns]
    return None if roles == ["user"] else f"a prompt of the turns {listed(roles)}; {dialect} holds one question"
