"""LLaMA-Factory v1: `{"messages": [{"role", "content": [{"type", "value"}, …], "loss_weight"}], "tools": "[…]"}`."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._json import are_calls, items
from qdata.rows.formats._turns import is_judged
from qdata.schema import ROLES

_KINDS = ("reasoning", "text", "tool_call")  # in the order in which a message says them
_IN_ORDER = "^(reasoning,)?(text,)?(tool_call,)*$"
PARTS = pl.List(
    pl.Struct(
        {
            "role": pl.String,
            "content": pl.List(pl.Struct({"type": pl.String, "value": pl.String})),
            "loss_weight": pl.Float64,
        }
    )
)


class LlamafactoryV1:
    """A message is a list of parts: one of reasoning, one of text, and tool calls, as JSON text of one call each.

    Other parts (`image_url` …), two texts in one message and parts in another order are told of, since no message of
    ours could be written back as it was. `loss_weight` is the message's weight; of user turns none is ever trained.
    """

    columns: ClassVar = {
        "messages": PARTS,
        "tools": pl.String,
    }
    sample: ClassVar = [
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "value": "杭州今天冷吗？"}], "loss_weight": 0.0},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "reasoning", "value": "要先查天气。"},
                        {"type": "tool_call", "value": '{"name": "weather", "arguments": {"city": "杭州"}}'},
                    ],
                    "loss_weight": 1.0,
                },
                {"role": "tool", "content": [{"type": "text", "value": "3 °C"}], "loss_weight": 0.0},
                {"role": "assistant", "content": [{"type": "text", "value": "冷，只有三度。"}], "loss_weight": 1.0},
            ],
            "tools": '[{"name": "weather", "parameters": {"city": {"type": "string"}}}]',
        }
    ]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """A list of messages with our four roles, each with parts of a type and a value."""
        return are_of_parts(row.get("messages")) and not is_judged(row)

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """Text becomes the content, reasoning the reasoning, and all tool calls one list of them."""
        tools = pl.when(pl.col("tools") != "").then(pl.col("tools"))
        return frame.with_columns(as_messages("messages"), tools=tools)

    @staticmethod
    def fault() -> pl.Expr:
        """The first message with parts that make no message of ours: which, in words, or null."""
        return wrong_parts("messages")

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """Parts in the order reasoning, text, tool calls; `loss_weight` only where there is a weight."""
        row: dict[str, Any] = {"messages": written(conversation["messages"])}
        return row | ({"tools": conversation["tools"]} if conversation["tools"] else {})

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """Names, training flags, and calls that are more than a name and arguments."""
        return beyond_parts(conversation["messages"])


def are_of_parts(value: Any) -> bool:
    """A list of messages with our four roles, each with parts of a type and a value."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(m, dict) and m.get("role") in ROLES and _is_parts(m.get("content")) for m in value)
        and any(m["content"] for m in value)
    )


def as_messages(column: str) -> pl.Expr:
    """A column of PARTS as messages."""
    calls = _values("tool_call")
    turn = pl.struct(
        pl.element().struct.field("role"),
        _values("text").list.first().alias("content"),
        _values("reasoning").list.first().alias("reasoning"),
        pl.when(calls.list.len() > 0).then(pl.format("[{}]", calls.list.join(","))).alias("tool_calls"),
        pl.element().struct.field("loss_weight").alias("weight"),
    )
    return pl.col(column).list.eval(turn)


def wrong_parts(column: str) -> pl.Expr:
    """The first message of a column with parts that make no message of ours: which, in words, or null."""
    parts = pl.element().struct.field("content")
    kinds = parts.list.eval(pl.element().struct.field("type").fill_null("untyped"))
    unknown = kinds.list.eval(pl.element().filter(~pl.element().is_in(_KINDS))).list.first()
    order = kinds.list.eval(pl.element() + ",").list.join("")
    calls = _values("tool_call").list.eval(pl.element().str.contains(r"(?s)^\s*\{.*\}\s*$").fill_null(False))
    wrong = (
        pl.when(unknown.is_not_null())
        .then(pl.format("a part of type {}; wanted {}", unknown, pl.lit(", ".join(_KINDS))))
        .when(~order.str.contains(_IN_ORDER))
        .then(
            pl.format(
                "parts {}; wanted at most one reasoning, then at most one text, then tool calls",
                kinds.list.head(6).list.join(", "),
            )
        )
        .when(~calls.list.all())
        .then(pl.lit("a tool_call whose value is not the JSON text of one call"))
    )
    said = pl.col(column).list.eval(wrong)
    at = said.list.eval(pl.element().is_not_null()).list.arg_max()
    first = said.list.drop_nulls().list.first()
    return pl.when(first.is_not_null()).then(pl.format(f"{column}[{{}}]: {{}}", at, first))


def written(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Parts in the order reasoning, text, tool calls; `loss_weight` only where there is a weight."""
    messages = []
    for m in turns:
        said = [("reasoning", m["reasoning"]), ("text", m["content"])]
        said += [("tool_call", call) for call in items(m["tool_calls"] or "[]") or []]
        out = {"role": m["role"], "content": [{"type": kind, "value": v} for kind, v in said if v is not None]}
        messages.append(out if m["weight"] is None else out | {"loss_weight": m["weight"]})
    return messages


def beyond_parts(messages: list[dict[str, Any]]) -> str | None:
    """What messages of parts cannot express, in words, or None."""
    if any(m[key] is not None for m in messages for key in ("name", "train")):
        return "names or training flags of messages (weights it does)"
    calls = [m["tool_calls"] for m in messages if m["tool_calls"] is not None]
    if not all(map(items, calls)):
        return "tool calls that are not a JSON list of calls"
    if not all(map(are_calls, calls)):
        return "ids of tool calls, arguments as text (wanted name and arguments, an object)"
    return None


def _is_parts(content: Any) -> bool:
    return isinstance(content, list) and all(isinstance(p, dict) and {"type", "value"} <= p.keys() for p in content)


def _values(kind: str) -> pl.Expr:
    """Inside `list.eval` over messages: the values of all parts of a kind."""
    value = pl.element().struct.field("value")
    return pl.element().struct.field("content").list.eval(value.filter(pl.element().struct.field("type") == kind))
