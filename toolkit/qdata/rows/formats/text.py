"""Pretraining text: `{"text": …}`."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._turns import is_judged, says_only
from qdata.schema import json_string


class Text:
    """A document in each row. Where a conversation stands beside it, `text` is how somebody rendered that."""

    kind = "text"
    columns: ClassVar = {"text": pl.String}
    sample: ClassVar = [{"text": "西湖位于杭州城西，三面环山，一面临城。"}]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """A text that is no ChatML, and nothing beside it that conversations are made of."""
        text = row.get("text")
        return (
            isinstance(text, str)
            and not text.startswith("<|im_start|>")
            and row.keys().isdisjoint(_CONVERSATION)
            and not is_judged(row)
        )

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """As it stands."""
        return frame

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """The text."""
        return {"text": conversation["text"]}

    @staticmethod
    def lines(frame: pl.DataFrame) -> pl.Series:
        """As `write`, of the rows that are nothing but a text; null for all others."""
        said = pl.concat_str(pl.lit('{"text":'), json_string(pl.col("text")), pl.lit("}"))
        return frame.select(lines=pl.when(says_only("text")).then(said))["lines"]

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """Nothing that is text."""
        return None


_CONVERSATION = {
    *("messages", "conversations", "conversation", "dialogue", "chat", "instruction", "prompt", "query", "question"),
    *("input", "output", "response", "completion", "answer", "label", "chosen_messages"),
}
