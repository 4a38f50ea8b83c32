"""`{"prompt": …, "response": …}`: one question, one answer (Align-Anything, and most home-made sets)."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._lists import joined
from qdata.rows.formats._turns import beyond_alternating, is_preference, listed
from qdata.schema import message


class Pairs:
    """One user turn and one assistant turn."""

    columns: ClassVar = {"prompt": pl.String, "response": pl.String}
    sample: ClassVar = [{"prompt": "为什么天空是蓝色的？", "response": "因为空气分子把蓝光散射得更多。"}]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """Both keys with text in them, and no second answer (that would be a preference pair)."""
        return (
            {"prompt", "response"} <= row.keys()
            and not any(isinstance(row[key], (list, dict)) for key in ("prompt", "response"))
            and not is_preference(row)
        )

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """`prompt` becomes the user turn, `response` the assistant turn."""
        turns = joined(message("user", pl.col("prompt")), message("assistant", pl.col("response")))
        return frame.with_columns(messages=turns).drop("prompt", "response")

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """The two texts."""
        user, assistant = conversation["messages"]
        return {"prompt": user["content"], "response": assistant["content"]}

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """Anything beyond one question and one answer."""
        roles = [m["role"] for m in conversation["messages"]]
        if roles != ["user", "assistant"]:
            return f"the turns {listed(roles)}; pairs hold user, assistant"
        return beyond_alternating(conversation, "pairs")
