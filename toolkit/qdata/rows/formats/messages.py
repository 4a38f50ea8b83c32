"""OpenAI's `{"messages": [{"role", "content", …}], "tools": […]}`: the dialect that expresses everything we know."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._json import are_none, functions_as_tools
from qdata.rows.formats._lists import joined
from qdata.rows.formats._openai import TURNS, are_messages, as_messages, faults, no_json, written, written_tools
from qdata.rows.formats._turns import is_judged, system_of


class Messages:
    """Roles system, user, assistant and tool; reasoning in `reasoning_content`; `tools` beside the messages.

    A `system` beside them is the first message. Read, and written as the above: `reasoning`, the role `function`, a
    `function_call` instead of `tool_calls`, and `functions` instead of `tools`.
    Whether a message is trained is read as `train`, `training` (axolotl) or `loss` (ms-swift), how much as `weight`
    (OpenAI), `loss_weight` (LLaMA-Factory) or `loss_scale` (ms-swift); `train` and `weight` are written.
    A `content` of one part `{"type": "text", "text": …}` is that text; a row with any other parts is told of.
    """

    columns: ClassVar = {"messages": TURNS, "system": pl.String, "tools": pl.String, "functions": pl.String}
    sample: ClassVar = [
        {
            "messages": [
                {"role": "system", "content": "你是一位助手。"},
                {"role": "user", "content": "一加一等于几？"},
                {"role": "assistant", "content": "等于二。"},
            ]
        }
    ]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """A list of messages with our four roles, and text or OpenAI's parts."""
        return are_messages(row.get("messages")) and not is_judged(row)

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """The system prompt of the row, where the messages do not begin with one, and the messages."""
        first = pl.col("messages").list.first().struct.field("role")
        system = pl.when(first != "system").then(system_of(_SYSTEM))
        functions = pl.col("functions")
        tools = pl.when(are_none(functions)).then(pl.col("tools")).otherwise(functions_as_tools(functions))
        messages = joined(system, as_messages(pl.col("messages")))
        return frame.with_columns(messages=messages, tools=tools)

    @staticmethod
    def fault() -> pl.Expr:
        """Two system prompts, or two lists of tools; a message that says two different things."""
        first = pl.col("messages").list.first().struct
        tools, functions = pl.col("tools"), functions_as_tools(pl.col("functions"))
        two_prompts = (first.field("role") == "system") & (_SYSTEM != "") & first.field("content").ne_missing(_SYSTEM)
        return (
            pl.when(two_prompts)
            .then(pl.lit("two system prompts: column `system` and the first message; which one is meant?"))
            .when(~are_none(pl.col("functions")) & functions.is_null())
            .then(pl.lit("functions: wanted a list of objects with a name; --map functions= leaves the column unread"))
            .when(~are_none(pl.col("functions")) & ~are_none(tools) & (tools != functions))
            .then(pl.lit("tools and functions differ, two lists of what can be called; which one is meant?"))
            .otherwise(faults("messages"))
        )

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """Null fields are left out; tool schemas and calls become JSON values again."""
        return {"messages": written(conversation["messages"])} | written_tools(conversation)

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """Nothing that is a conversation; only text where tools and tool calls, which are JSON, should be."""
        return no_json(conversation)


_SYSTEM = pl.col("system")
