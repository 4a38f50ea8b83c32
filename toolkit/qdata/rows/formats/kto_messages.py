"""KTO rows of LLaMA-Factory and ms-swift: `messages` with a `label` of true or false."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._judged import COLUMNS, is_one, two_verdicts, verdict
from qdata.rows.formats._openai import are_messages
from qdata.rows.formats.messages import Messages


class KtoMessages:
    """A conversation whose last answer was judged good (true) or bad (false)."""

    kind = "judged"
    columns: ClassVar = Messages.columns | COLUMNS
    sample: ClassVar = [
        {
            "messages": [
                {"role": "user", "content": "现在几点？"},
                {"role": "assistant", "content": "我看不到时钟，请看看您的手机。"},
            ],
            "label": True,
        }
    ]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """A list of messages and a verdict; where nobody answers, a label of 0 or 1 is a class to be learnt."""
        if not (are_messages(row.get("messages")) and is_one(row)):
            return False
        said = any(isinstance(row.get(name), bool) for name in COLUMNS)
        return said or any(m["role"] == "assistant" for m in row["messages"])

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """As `messages`, with the verdict."""
        return Messages.read(frame).with_columns(verdict())

    @staticmethod
    def fault() -> pl.Expr:
        """Two verdicts that differ, or a message that says two things of its training."""
        return pl.coalesce(two_verdicts(), Messages.fault())

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """As `messages`, with `label`."""
        return Messages.write(conversation) | {"label": conversation["label"]}

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """What `messages` cannot express."""
        return Messages.loses(conversation)
