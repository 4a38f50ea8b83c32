"""UltraFeedback-binarized: `{"prompt": …, "chosen": [message, …], "rejected": [message, …]}`, the prompt twice."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._preference import PAIR, are_texts
from qdata.rows.formats.preference_messages import begins
from qdata.rows.formats.preference_repeated import PreferenceRepeated


class Ultrafeedback:
    """As `preference_repeated`, with the first question beside the lists as `prompt`."""

    kind = "preference"
    columns: ClassVar = {"prompt": pl.String} | PreferenceRepeated.columns
    sample: ClassVar = [
        {
            "prompt": "太阳从哪边升起？",
            "chosen": [
                {"role": "user", "content": "太阳从哪边升起？"},
                {"role": "assistant", "content": "东边。"},
            ],
            "rejected": [
                {"role": "user", "content": "太阳从哪边升起？"},
                {"role": "assistant", "content": "西边。"},
            ],
        }
    ]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """A text, and two lists of messages that do not begin with an answer."""
        return are_texts(row, "prompt") and all(begins(row, name, "system", "user") for name in PAIR)

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """The lists; `prompt` says nothing new."""
        return PreferenceRepeated.read(frame)

    @staticmethod
    def fault() -> pl.Expr:
        """Two lists that differ before their last message, or a prompt that is no question in them."""
        field = pl.element().struct.field
        questions = pl.col("chosen").list.eval(field("content").filter(field("role") == "user"))
        other = pl.col("prompt").is_not_null() & ~questions.list.contains(pl.col("prompt")).fill_null(False)
        known = pl.col("chosen").is_not_null()
        return pl.coalesce(
            PreferenceRepeated.fault(),
            pl.when(known & other).then(pl.lit("prompt: is no question of chosen; wanted the same prompt in both")),
        )

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """The first question, and the prompt in both lists."""
        return {"prompt": _first_question(conversation)} | PreferenceRepeated.write(conversation)

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """Prompts without a question, and answers of several turns."""
        if _first_question(conversation) is None:
            return "a prompt without a question"
        return PreferenceRepeated.loses(conversation)


def _first_question(conversation: dict[str, Any]) -> str | None:
    return next((str(m["content"]) for m in conversation["messages"] if m["role"] == "user"), None)
