"""OpenAI's and Azure's `{"input": {"messages": […]}, "preferred_output": […], "non_preferred_output": […]}`."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._openai import TURNS, are_messages, as_messages, faults, no_json, written, written_tools

_OUTPUTS = {"chosen": "preferred_output", "rejected": "non_preferred_output"}


class OpenaiPreference:
    """The prompt's messages and tools stand in `input`; either output is a list of assistant messages."""

    kind = "preference"
    columns: ClassVar = {
        "input": pl.Struct({"messages": TURNS, "tools": pl.String}),
        "preferred_output": TURNS,
        "non_preferred_output": TURNS,
    }
    sample: ClassVar = [
        {
            "input": {"messages": [{"role": "user", "content": "把“谢谢”译成法语。"}]},
            "preferred_output": [{"role": "assistant", "content": "Merci."}],
            "non_preferred_output": [{"role": "assistant", "content": "Bonjour."}],
        }
    ]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """Messages in `input`, and two lists of messages."""
        given = row.get("input")
        return (
            isinstance(given, dict)
            and are_messages(given.get("messages"))
            and all(are_messages(row.get(column)) for column in _OUTPUTS.values())
        )

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """As they stand."""
        given = pl.col("input").struct
        outputs = {name: as_messages(pl.col(column)) for name, column in _OUTPUTS.items()}
        return frame.with_columns(messages=as_messages(given.field("messages")), tools=given.field("tools"), **outputs)

    @staticmethod
    def fault() -> pl.Expr:
        """A message that says in two spellings two different things."""
        given = faults("input.messages", pl.col("input").struct.field("messages"))
        return pl.coalesce(given, *(faults(column) for column in _OUTPUTS.values()))

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """Null fields are left out; tool schemas and calls become JSON values again."""
        given = {"messages": written(conversation["messages"])} | written_tools(conversation)
        return {"input": given} | {column: written(conversation[name]) for name, column in _OUTPUTS.items()}

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """Only text where tools and tool calls, which are JSON, should be."""
        return no_json(conversation)
