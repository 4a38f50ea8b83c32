"""ShareGPT: `{"conversations": [{"from": "human", "value": …}, {"from": "gpt", …}], "system": …, "tools": …}`."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._json import are_calls, as_list
from qdata.rows.formats._lists import joined
from qdata.rows.formats._trained import FIELDS, disagreement, trained
from qdata.rows.formats._turns import is_judged, system_turn

ROLES_READ = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "system": "system",
    "developer": "system",
    "function_call": "assistant",
    "tool_call": "assistant",
    "observation": "tool",
    "tool": "tool",
    "tool_response": "tool",
}
_CALLS = ("function_call", "tool_call")
_WRITTEN = {"user": "human", "assistant": "gpt", "system": "system", "tool": "observation"}


class Sharegpt:
    """All spellings of roles are read, in any case; human, gpt, system, function_call and observation are written.

    Whether and how much a turn is trained stands beside its value, in any spelling that `messages` knows.
    """

    columns: ClassVar = {
        "conversations": pl.List(pl.Struct({"from": pl.String, "value": pl.String, **FIELDS})),
        "system": pl.String,
        "tools": pl.String,
    }
    roles: ClassVar = {"conversations[].from": ROLES_READ}
    sample: ClassVar = [
        {"conversations": [{"from": "human", "value": "你好"}, {"from": "gpt", "value": "你好呀！"}]},
    ]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """A list of from/value turns with known roles, and no preference columns beside it."""
        return are_turns(row.get("conversations")) and not is_judged(row)

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """A row-level `system` becomes the first message; a function_call becomes an assistant turn with tool_calls."""
        messages = joined(system_turn("system"), as_messages(pl.col("conversations")))
        tools = pl.when(pl.col("tools") != "").then(pl.col("tools"))
        return frame.with_columns(messages=messages, tools=tools).drop("conversations", "system")

    @staticmethod
    def fault() -> pl.Expr:
        """A turn that says in two spellings two different things of its training."""
        return disagreement("conversations")

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """System messages as turns; tools as JSON text, as LLaMA-Factory reads them; flags only where there are any."""
        return {"conversations": written(conversation["messages"])} | (
            {"tools": conversation["tools"]} if conversation["tools"] else {}
        )

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """Reasoning, names, calls that are more than a name and arguments, and text beside a call."""
        return beyond_turns(conversation["messages"])


def are_turns(value: Any) -> bool:
    """A list of from/value turns with known roles."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(t, dict) and _is_role(t.get("from")) and isinstance(t.get("value"), str | None) for t in value
        )
    )


def _is_role(word: Any) -> bool:
    return isinstance(word, str) and word.lower() in ROLES_READ


def as_messages(turns: pl.Expr) -> pl.Expr:
    """A list of from/value turns with the FIELDS of training as messages."""
    role, value = pl.element().struct.field("from"), pl.element().struct.field("value")
    spelled = role.str.to_lowercase()
    call = spelled.is_in(_CALLS)
    return turns.list.eval(
        pl.struct(
            pl.coalesce(spelled.replace_strict(ROLES_READ, default=None, return_dtype=pl.String), role).alias("role"),
            pl.when(~call).then(value).alias("content"),
            pl.when(call).then(as_list(value)).alias("tool_calls"),
            *trained(),
        )
    )


def written(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages as turns; flags only where there are any."""
    return [
        (
            {"from": "function_call", "value": m["tool_calls"]}
            if m["tool_calls"]
            else {"from": _WRITTEN[m["role"]], "value": m["content"]}
        )
        | {key: m[key] for key in ("train", "weight") if m[key] is not None}
        for m in messages
    ]


def beyond_turns(messages: list[dict[str, Any]]) -> str | None:
    """What from/value turns cannot express, in words, or None."""
    if any(m[k] is not None for m in messages for k in ("reasoning", "name")):
        return "reasoning or names of messages"
    if any(m["tool_calls"] and m["role"] != "assistant" for m in messages):
        return "tool calls of a turn that is no assistant's"
    if not all(are_calls(m["tool_calls"]) for m in messages if m["tool_calls"]):
        return "ids of tool calls, arguments as text (wanted name and arguments, an object)"
    if any(m["tool_calls"] and m["content"] is not None for m in messages):  # an empty text is not none
        return "the text beside a tool call"
    return None
