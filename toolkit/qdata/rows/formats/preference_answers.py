"""`{"prompt": …, "chosen": [message], "rejected": [message]}`: a text, and the answers to it as messages."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._lists import joined
from qdata.rows.formats._openai import TURNS, as_messages, faults, no_json, written, written_tools
from qdata.rows.formats._preference import PAIR, are_texts
from qdata.rows.formats.preference import beyond_question
from qdata.rows.formats.preference_messages import begins
from qdata.schema import message

_DIALECT = "preference_answers"


class PreferenceAnswers:
    """One question as a text; the answers are lists of assistant messages and do not repeat it."""

    kind = "preference"
    columns: ClassVar = {"prompt": pl.String, "chosen": TURNS, "rejected": TURNS, "tools": pl.String}
    sample: ClassVar = [
        {
            "prompt": "水为什么会结冰？",
            "chosen": [{"role": "assistant", "content": "温度低于零度时，水分子排成了晶体。"}],
            "rejected": [{"role": "assistant", "content": "因为冷。"}],
        }
    ]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """A text and two lists that begin with an assistant turn."""
        return are_texts(row, "prompt") and all(begins(row, name, "assistant") for name in PAIR)

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """The text is the user's turn."""
        prompt = joined(message("user", pl.col("prompt")))
        return frame.with_columns(messages=prompt, **{name: as_messages(pl.col(name)) for name in PAIR})

    @staticmethod
    def fault() -> pl.Expr:
        """A message that says in two spellings two different things."""
        return pl.coalesce(faults(name) for name in PAIR)

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """Null fields are left out."""
        row = {"prompt": conversation["messages"][0]["content"]}
        return row | {name: written(conversation[name]) for name in PAIR} | written_tools(conversation)

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """A system prompt, earlier turns, and fields of the question."""
        messages = conversation["messages"]
        if messages and messages[0]["role"] == "system":
            return "a system prompt"
        if (lost := beyond_question(conversation, _DIALECT)) is not None:
            return lost
        if any(messages[0][key] is not None for key in messages[0].keys() - {"role", "content"}):
            return "reasoning, names or training flags of the question"
        return no_json(conversation)
