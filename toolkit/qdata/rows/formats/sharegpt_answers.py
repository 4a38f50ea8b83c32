"""ShareGPT's `conversations` as the prompt, and `chosen` and `rejected` as texts."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._preference import PAIR, answers, are_texts, beyond_one_turn, texts
from qdata.rows.formats._trained import disagreement
from qdata.rows.formats.sharegpt import Sharegpt, are_turns, beyond_turns


class SharegptAnswers:
    """The prompt is read as `sharegpt` reads it; an answer is a plain text."""

    kind = "preference"
    columns: ClassVar = Sharegpt.columns | dict.fromkeys(PAIR, pl.String)
    sample: ClassVar = [
        {
            "conversations": [{"from": "human", "value": "茶和咖啡哪个更提神？"}],
            "chosen": "咖啡里的咖啡因通常更多，所以更提神。",
            "rejected": "都行。",
        }
    ]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """Turns, and two texts."""
        return are_turns(row.get("conversations")) and are_texts(row, *PAIR)

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """As `sharegpt`, with the two answers."""
        return Sharegpt.read(frame).with_columns(**answers())

    @staticmethod
    def fault() -> pl.Expr:
        """A turn that says in two spellings two different things of its training."""
        return disagreement("conversations")

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """As `sharegpt`, with the two answers."""
        return Sharegpt.write(conversation) | texts(conversation)

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """What `sharegpt` cannot express of the prompt, and all but the text of answers."""
        if (lost := beyond_one_turn(conversation)) is not None:
            return lost
        if any(m[key] is not None for name in PAIR for m in conversation[name] for key in m.keys() - _PLAIN):
            return "reasoning, tool calls, names or training flags of answers"
        return beyond_turns(conversation["messages"])


_PLAIN = {"role", "content"}
