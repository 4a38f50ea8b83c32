"""OpenAI's `{"messages": [{"role", "content", …}], "tools": […]}`: the dialect that expresses everything we know."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._trained import FIELDS, disagreement, trained
from qdata.rows.formats._turns import is_judged
from qdata.schema import ROLES

_FIELDS = {
    "role": pl.String,
    "content": pl.String,
    "reasoning_content": pl.String,
    "tool_calls": pl.String,
    "name": pl.String,
}


class Messages:
    """Roles system, user, assistant and tool; reasoning in `reasoning_content`; `tools` beside the messages.

    Whether a message is trained is read as `train`, `training` (axolotl) or `loss` (ms-swift), how much as `weight`
    (OpenAI), `loss_weight` (LLaMA-Factory) or `loss_scale` (ms-swift); `train` and `weight` are written.
    A `content` of one part `{"type": "text", "text": …}` is that text; a row with any other parts is told of.
    """

    columns: ClassVar = {"messages": pl.List(pl.Struct({**_FIELDS, **FIELDS})), "tools": pl.String}
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
        messages = row.get("messages")
        return (
            isinstance(messages, list)
            and bool(messages)
            and all(isinstance(m, dict) and m.get("role") in ROLES and _is_content(m.get("content")) for m in messages)
            and not is_judged(row)
        )

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """As it stands; only `reasoning_content` and the spellings of train and weight change their names."""
        fields = [
            pl.element().struct.field(name).alias("reasoning" if name == "reasoning_content" else name)
            for name in _FIELDS
        ]
        return frame.with_columns(pl.col("messages").list.eval(pl.struct(*fields, *trained())))

    @staticmethod
    def fault() -> pl.Expr:
        """A message that says in two spellings two different things of its training."""
        return disagreement("messages")

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """Null fields are left out; tool schemas and calls become JSON values again."""
        messages = []
        for m in conversation["messages"]:
            out = {"role": m["role"], "content": m["content"], "reasoning_content": m["reasoning"]}
            out |= {"tool_calls": json.loads(m["tool_calls"]) if m["tool_calls"] else None}
            out |= {key: m[key] for key in ("name", "train", "weight")}
            messages.append({k: v for k, v in out.items() if v is not None})
        row: dict[str, Any] = {"messages": messages}
        if conversation["tools"]:
            row["tools"] = json.loads(conversation["tools"])
        return row

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """Nothing that is a conversation; only text where tools and tool calls, which are JSON, should be."""
        if not _is_json(conversation["tools"]):
            return "tools that are not JSON"
        if not all(_is_json(m["tool_calls"]) for m in conversation["messages"]):
            return "tool calls that are not JSON"
        return None


def _is_content(content: Any) -> bool:
    """Text, none, or parts as OpenAI has them; `value` is where LLaMA-Factory has the text of a part."""
    if isinstance(content, list):
        return bool(content) and all(isinstance(p, dict) and "type" in p and "value" not in p for p in content)
    return isinstance(content, str | None)


def _is_json(text: str | None) -> bool:
    try:
        return not text or json.loads(text) is not None
    except ValueError:
        return False
