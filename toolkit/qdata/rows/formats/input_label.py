"""`{"input": …, "label": …}`: a text and what is to be said of it, as sets for classifiers have them."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._lists import joined
from qdata.rows.formats._preference import are_texts
from qdata.rows.formats._turns import SECOND_ANSWERS, beyond_alternating, is_verdict, listed
from qdata.schema import message


class InputLabel:
    """One user turn and one assistant turn."""

    columns: ClassVar = {"input": pl.String, "label": pl.String}
    sample: ClassVar = [{"input": "这家店的面真好吃！", "label": "好评"}]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """Both with texts in them, and neither an instruction nor an output: then they are somebody else's."""
        judged = is_verdict(row, "kto_tag") or not row.keys().isdisjoint(SECOND_ANSWERS)
        return are_texts(row, "input", "label") and row.keys().isdisjoint(_ELSE) and not judged

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """`input` becomes the user turn, `label` the assistant turn."""
        turns = joined(message("user", pl.col("input")), message("assistant", pl.col("label")))
        return frame.with_columns(messages=turns).drop("input", "label")

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """The two texts."""
        user, assistant = conversation["messages"]
        return {"input": user["content"], "label": assistant["content"]}

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """Anything beyond one question and one answer."""
        roles = [m["role"] for m in conversation["messages"]]
        if roles != ["user", "assistant"]:
            return f"the turns {listed(roles)}; input_label holds user, assistant"
        return beyond_alternating(conversation, "input_label")


_ELSE = {"instruction", "output", "prompt", "response", "messages", "conversations"}
