"""TRL's conversational KTO rows: `prompt` and `completion` are lists of messages, with a `label`."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._judged import COLUMNS, is_one, two_verdicts, verdict
from qdata.rows.formats._openai import are_messages
from qdata.rows.formats.completion_messages import CompletionMessages


class KtoCompletion:
    """A conversation whose last answer was judged good (true) or bad (false)."""

    kind = "judged"
    columns: ClassVar = CompletionMessages.columns | COLUMNS
    sample: ClassVar = [
        {
            "prompt": [{"role": "user", "content": "帮我想一句晚安。"}],
            "completion": [{"role": "assistant", "content": "愿你一夜好梦。"}],
            "label": True,
        }
    ]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """Two lists of messages and a verdict."""
        return all(are_messages(row.get(name)) for name in ("prompt", "completion")) and is_one(row)

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """As `completion_messages`, with the verdict."""
        return CompletionMessages.read(frame).with_columns(verdict())

    @staticmethod
    def fault() -> pl.Expr:
        """Two verdicts that differ, or a message that says two things of its training."""
        return pl.coalesce(two_verdicts(), CompletionMessages.fault())

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """As `completion_messages`, with `label`."""
        return CompletionMessages.write(conversation) | {"label": conversation["label"]}

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """What `completion_messages` cannot express."""
        lost = CompletionMessages.loses(conversation)
        return lost and lost.replace("completion_messages holds", "kto_completion holds")
