"""OpenAI's `{"messages": [{"role", "content", …}], "tools": […]}`: the dialect that expresses everything we know."""

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
from qdata.rows.formats._turns import are_plain, is_judged, says_only
from qdata.schema import messages_json


class Messages:
    """Roles system, user, assistant and tool; reasoning in `reasoning_content`; `tools` beside the messages.

    A `system` beside them is the first message. Read, and written as the above: `reasoning`, the roles `developer`
    and `function`, ms-swift's `tool_call` (the call is its content) and `tool_response`, a `function_call` instead of
    `tool_calls`, and `functions` instead of `tools`.
    Whether a message is trained is read as `train`, `training` (axolotl) or `loss` (ms-swift), how much as `weight`
    (OpenAI), `loss_weight` (LLaMA-Factory) or `loss_scale` (ms-swift); `train` and `weight` are written.
    A `content` of one part `{"type": "text", "text": …}` is that text; a row with any other parts is told of.
    """

    columns: ClassVar = {"messages": TURNS} | BESIDE
    roles: ClassVar = {"messages[].role": ROLES_READ}
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
        """A list of messages with roles that are read, and text or OpenAI's parts."""
        return are_messages(row.get("messages")) and not is_judged(row)

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """The system prompt of the row, where the messages do not begin with one, and the messages."""
        return read_chat(frame, "messages")

    @staticmethod
    def fault() -> pl.Expr:
        """Two system prompts, or two lists of tools; a message that says two different things."""
        return chat_fault("messages")

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """Null fields are left out; tool schemas and calls become JSON values again."""
        return {"messages": written(conversation["messages"])} | written_tools(conversation)

    @staticmethod
    def lines(frame: pl.DataFrame) -> pl.Series:
        """As `write`, of the rows that are nothing but roles and texts; null for all others.

        What most rows are is written by columns: their canonical JSON is what `write` makes of them.
        """
        plain = says_only("messages") & are_plain("messages")
        said = pl.concat_str(pl.lit('{"messages":'), messages_json("messages"), pl.lit("}"))
        return frame.select(lines=pl.when(plain).then(said))["lines"]

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """Nothing that is a conversation; only text where tools and tool calls, which are JSON, should be."""
        return no_json(conversation)
