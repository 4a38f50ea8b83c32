"""`{"prompt": …, "completion": …}`: one question, one answer, in TRL's and OpenAI's older words."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._lists import joined
from qdata.rows.formats._turns import beyond_alternating, is_preference, listed
from qdata.schema import message


class Completion:
    """One user turn and one assistant turn."""

    columns: ClassVar = {"prompt": pl.String, "completion": pl.String}
    sample: ClassVar = [{"prompt": "鱼为什么能在水里呼吸？", "completion": "它们用鳃取得水里的氧。"}]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """Both keys with text in them, and no second answer (that would be a preference pair)."""
        return (
            {"prompt", "completion"} <= row.keys()
            and not any(isinstance(row[key], (list, dict)) for key in ("prompt", "completion"))
            and not is_preference(row)
        )

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """`prompt` becomes the user turn, `completion` the assistant turn."""
        turns = joined(message("user", pl.col("prompt")), message("assistant", pl.col("completion")))
        return frame.with_columns(messages=turns).drop("prompt", "completion")

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """The two texts."""
        user, assistant = conversation["messages"]
        return {"prompt": user["content"], "completion": assistant["content"]}

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """Anything beyond one question and one answer."""
        roles = [m["role"] for m in conversation["messages"]]
        if roles != ["user", "assistant"]:
            return f"the turns {listed(roles)}; completion holds user, assistant"
        return beyond_alternating(conversation, "completion")
