"""`{"chosen": [message, …], "rejected": [message, …]}`: two whole conversations that differ in their last answer."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._openai import TURNS, as_messages, faults, no_json, written, written_tools
from qdata.rows.formats._preference import PAIR, before_last, beyond_one_turn, no_common_prompt, with_answer
from qdata.rows.formats.preference_messages import begins


class PreferenceRepeated:
    """Both lists repeat the prompt, and nothing else says it: TRL's rows with an implicit prompt."""

    kind = "preference"
    columns: ClassVar = {"chosen": TURNS, "rejected": TURNS, "tools": pl.String}
    sample: ClassVar = [
        {
            "chosen": [
                {"role": "user", "content": "一年有几个季节？"},
                {"role": "assistant", "content": "四个：春、夏、秋、冬。"},
            ],
            "rejected": [
                {"role": "user", "content": "一年有几个季节？"},
                {"role": "assistant", "content": "两个。"},
            ],
        }
    ]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """Two lists of messages that do not begin with an answer, and no `prompt` beside them."""
        return "prompt" not in row and all(begins(row, name, "system", "user") for name in PAIR)

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """The last message is the answer; those before it, which are the same in both lists, are the prompt."""
        last = {name: as_messages(pl.col(name).list.tail(1)) for name in PAIR}
        return frame.with_columns(messages=as_messages(before_last("chosen")), **last)

    @staticmethod
    def fault() -> pl.Expr:
        """Two lists that differ before their last message."""
        return pl.coalesce(no_common_prompt(*PAIR), *(faults(name) for name in PAIR))

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """The prompt in both lists."""
        whole = {name: written(with_answer(conversation, name)["messages"]) for name in PAIR}
        return whole | written_tools(conversation)

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """Answers of several turns: nobody could tell where they begin."""
        messages = conversation["messages"]
        if not messages:
            return "a pair without a question"
        if messages[0]["role"] not in ("system", "user"):
            return f"a prompt that begins with the {messages[0]['role']}"
        return beyond_one_turn(conversation) or no_json(conversation)
