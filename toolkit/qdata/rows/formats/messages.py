"""OpenAI's `{"messages": [{"role", "content", …}], "tools": […]}`: the dialect that expresses everything we know."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._openai import TURNS, are_messages, as_messages, no_json, written, written_tools
from qdata.rows.formats._trained import disagreement
from qdata.rows.formats._turns import is_judged


class Messages:
    """Roles system, user, assistant and tool; reasoning in `reasoning_content`; `tools` beside the messages.

    Whether a message is trained is read as `train`, `training` (axolotl) or `loss` (ms-swift), how much as `weight`
    (OpenAI), `loss_weight` (LLaMA-Factory) or `loss_scale` (ms-swift); `train` and `weight` are written.
    A `content` of one part `{"type": "text", "text": …}` is that text; a row with any other parts is told of.
    """

    columns: ClassVar = {"messages": TURNS, "tools": pl.String}
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
        """As it stands; only `reasoning_content` and the spellings of train and weight change their names."""
        return frame.with_columns(as_messages(pl.col("messages")))

    @staticmethod
    def fault() -> pl.Expr:
        """A message that says in two spellings two different things of its training."""
        return disagreement("messages")

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """Null fields are left out; tool schemas and calls become JSON values again."""
        return {"messages": written(conversation["messages"])} | written_tools(conversation)

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """Nothing that is a conversation; only text where tools and tool calls, which are JSON, should be."""
        return no_json(conversation)
