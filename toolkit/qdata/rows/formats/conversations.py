"""OpenAI's messages in ShareGPT's column: `{"conversations": [{"role", "content", …}], "tools": […]}`."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._openai import (
    BESIDE,
    ROLES_READ,
    TURNS,
    are_messages,
    chat_fault,
    no_json,
    read_chat,
    written,
    written_tools,
)
from qdata.rows.formats._turns import is_judged

_TURNS = "conversations"


class Conversations:
    """As `messages`, but for the name of the column."""

    columns: ClassVar = {_TURNS: TURNS} | BESIDE
    roles: ClassVar = {f"{_TURNS}[].role": ROLES_READ}
    sample: ClassVar = [
        {
            "conversations": [
                {"role": "user", "content": "水开了是多少度？"},
                {"role": "assistant", "content": "在海平面上是一百度。"},
            ]
        }
    ]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """A list of messages with roles that are read, and text or OpenAI's parts."""
        return are_messages(row.get(_TURNS)) and not is_judged(row)

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """The system prompt of the row, where the messages do not begin with one, and the messages."""
        return read_chat(frame, _TURNS).drop(_TURNS)

    @staticmethod
    def fault() -> pl.Expr:
        """Two system prompts, or two lists of tools; a message that says two different things."""
        return chat_fault(_TURNS)

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """Null fields are left out; tool schemas and calls become JSON values again."""
        return {_TURNS: written(conversation["messages"])} | written_tools(conversation)

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """Nothing that is a conversation; only text where tools and tool calls, which are JSON, should be."""
        return no_json(conversation)
