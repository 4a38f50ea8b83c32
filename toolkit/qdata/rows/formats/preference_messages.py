"""TRL's conversational preference rows: `prompt`, `chosen` and `rejected` are lists of messages."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._openai import TURNS, are_messages, as_messages, faults, no_json, written, written_tools
from qdata.rows.formats._preference import PAIR


class PreferenceMessages:
    """The prompt's messages, and those that answer it, in OpenAI's words: this expresses every preference pair."""

    kind = "preference"
    columns: ClassVar = {"prompt": TURNS, "chosen": TURNS, "rejected": TURNS, "tools": pl.String}
    sample: ClassVar = [
        {
            "prompt": [{"role": "user", "content": "推荐一本书。"}],
            "chosen": [{"role": "assistant", "content": "《围城》：语言幽默，值得一读。"}],
            "rejected": [{"role": "assistant", "content": "书都差不多。"}],
        }
    ]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """Three lists of messages; the answers begin with an assistant turn, so they do not repeat the prompt."""
        return are_messages(row.get("prompt")) and all(begins(row, name, "assistant") for name in PAIR)

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """As they stand."""
        return frame.with_columns(
            messages=as_messages(pl.col("prompt")), **{name: as_messages(pl.col(name)) for name in PAIR}
        )

    @staticmethod
    def fault() -> pl.Expr:
        """A message that says in two spellings two different things."""
        return pl.coalesce(faults(name) for name in ("prompt", *PAIR))

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """Null fields are left out; tool schemas and calls become JSON values again."""
        row = {"prompt": written(conversation["messages"])}
        return row | {name: written(conversation[name]) for name in PAIR} | written_tools(conversation)

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """Only text where tools and tool calls, which are JSON, should be."""
        return no_json(conversation)


def begins(row: dict[str, Any], column: str, *roles: str) -> bool:
    """Whether a column is a list of messages that begins with one of these roles."""
    return are_messages(row.get(column)) and row[column][0]["role"] in roles
