"""A list of OpenAI's messages, as chat, preference and judged rows have them."""

from __future__ import annotations

import json
from itertools import chain
from typing import Any

import polars as pl

from qdata.rows.formats._trained import FIELDS, trained
from qdata.schema import ROLES

_FIELDS = {
    "role": pl.String,
    "content": pl.String,
    "reasoning_content": pl.String,
    "tool_calls": pl.String,
    "name": pl.String,
}
_WRITTEN = {"reasoning": "reasoning_content"}
TURNS = pl.List(pl.Struct({**_FIELDS, **FIELDS}))


def as_messages(turns: pl.Expr) -> pl.Expr:
    """A list of TURNS as messages; only `reasoning_content` and the spellings of train and weight change."""
    fields = [
        pl.element().struct.field(name).alias("reasoning" if name == "reasoning_content" else name) for name in _FIELDS
    ]
    return turns.list.eval(pl.struct(*fields, *trained()))


def written(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Null fields are left out; tool calls become JSON values again."""
    turns = []
    for m in messages:
        said = {_WRITTEN.get(key, key): value for key, value in m.items() if value is not None}
        if "tool_calls" in said:
            calls = said.pop("tool_calls")
            said |= {"tool_calls": json.loads(calls)} if calls else {}
        turns.append(said)
    return turns


def written_tools(conversation: dict[str, Any]) -> dict[str, Any]:
    """`tools` as a JSON value, where there are any."""
    return {"tools": json.loads(conversation["tools"])} if conversation["tools"] else {}


def are_messages(value: Any) -> bool:
    """A list of messages with our four roles, and text or OpenAI's parts."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(m, dict) and m.get("role") in ROLES and _is_content(m.get("content")) for m in value)
    )


def no_json(conversation: dict[str, Any]) -> str | None:
    """Text where tools and tool calls, which are JSON, should be: in words, or None."""
    if not _is_json(conversation["tools"]):
        return "tools that are not JSON"
    messages = chain.from_iterable(conversation.get(column) or () for column in ("messages", "chosen", "rejected"))
    calls = [m["tool_calls"] for m in messages if m["tool_calls"]]
    return None if all(map(_is_json, calls)) else "tool calls that are not JSON"


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
