"""A list of OpenAI's messages, as chat, preference and judged rows have them."""

from __future__ import annotations

import json
from itertools import chain
from typing import Any

import polars as pl

from qdata.rows.formats._json import are_none, as_list, functions_as_tools
from qdata.rows.formats._lists import joined
from qdata.rows.formats._trained import FIELDS, first_fault, trained, two_spellings
from qdata.rows.formats._turns import system_of
from qdata.schema import ROLES

_FIELDS = {
    "role": pl.String,
    "content": pl.String,
    "reasoning_content": pl.String,
    "reasoning": pl.String,  # vLLM's and OpenRouter's word for it
    "tool_calls": pl.String,
    "function_call": pl.String,  # OpenAI's first one: a single call
    "name": pl.String,
}
_WRITTEN = {"reasoning": "reasoning_content"}
TURNS = pl.List(pl.Struct({**_FIELDS, **FIELDS}))
# As they are, and: OpenAI's newer word for system, ms-swift's for calls and their results, the old role for results.
ROLES_READ = dict(zip(ROLES, ROLES, strict=True)) | {
    "developer": "system",
    "function": "tool",
    "tool_call": "assistant",
    "tool_response": "tool",
}


def as_messages(turns: pl.Expr) -> pl.Expr:
    """A list of TURNS as messages, whichever way reasoning, calls, train and weight are spelled."""
    field = pl.element().struct.field
    content, is_call = field("content"), field("role") == "tool_call"
    return turns.list.eval(
        pl.struct(
            field("role").replace(ROLES_READ),
            pl.when(~is_call).then(content).alias("content"),
            pl.coalesce(field("reasoning_content"), field("reasoning")).alias("reasoning"),
            pl.when(is_call).then(as_list(content)).otherwise(_calls()).alias("tool_calls"),
            field("name"),
            *trained(),
        )
    )


def faults(turns: str, column: pl.Expr | None = None) -> pl.Expr:
    """The first of the TURNS of a column that says one thing in two spellings, and differently: in words, or null.

    `column` is where they are, if not in the column called `turns`.
    """
    field = pl.element().struct.field
    call, twice = field("function_call"), "{} and {} differ, two spellings of one thing; wanted one of them"
    wrong = (
        pl.when(field("reasoning_content") != field("reasoning"))
        .then(pl.lit(twice.format("reasoning_content", "reasoning")))
        .when(_calls_one() & ~call.str.contains(_IS_CALL))
        .then(pl.format("function_call: wanted an object with name and arguments, got {}", call.str.head(60)))
        .when((field("role") == "tool_call") & ~field("content").str.contains(_IS_CALLS).fill_null(False))
        .then(
            pl.format("a tool_call: wanted the JSON text of a call with a name, got {}", field("content").str.head(60))
        )
        .when(_calls_one() & ~field("tool_calls").str.contains(_NO_CALLS))
        .then(pl.lit("tool_calls and function_call both call; wanted one of them"))
    )
    return first_fault(pl.col(turns) if column is None else column, turns, pl.coalesce(two_spellings(), wrong))


def read_chat(frame: pl.LazyFrame, column: str) -> pl.LazyFrame:
    """The system prompt of the row, where the messages of `column` do not begin with one, and the messages; `tools`."""
    first = pl.col(column).list.first().struct.field("role").replace(ROLES_READ)
    system = pl.when(first != "system").then(system_of(_SYSTEM))
    functions, given = pl.col("functions"), pl.when(pl.col("tools") != "").then(pl.col("tools"))
    tools = pl.when(are_none(functions)).then(given).otherwise(functions_as_tools(functions))
    return frame.with_columns(messages=joined(system, as_messages(pl.col(column))), tools=tools)


def chat_fault(column: str) -> pl.Expr:
    """Two system prompts, or two lists of tools; a message of `column` that says two different things."""
    first = pl.col(column).list.first().struct
    tools, functions = pl.col("tools"), functions_as_tools(pl.col("functions"))
    is_system = first.field("role").replace(ROLES_READ) == "system"
    two_prompts = is_system & (_SYSTEM != "") & first.field("content").ne_missing(_SYSTEM)
    return (
        pl.when(two_prompts)
        .then(pl.lit("two system prompts: column `system` and the first message; which one is meant?"))
        .when(~are_none(pl.col("functions")) & functions.is_null())
        .then(pl.lit("functions: wanted a list of objects with a name; --map functions= leaves the column unread"))
        .when(~are_none(pl.col("functions")) & ~are_none(tools) & (tools != functions))
        .then(pl.lit("tools and functions differ, two lists of what can be called; which one is meant?"))
        .otherwise(faults(column))
    )


_SYSTEM = pl.col("system")
BESIDE: dict[str, Any] = dict.fromkeys(("system", "tools", "functions"), pl.String)  # the columns of a chat's row


# Tables fill up what is not there: with null, and some of them with an object of nulls.
_NO_CALL = r'^\s*(null|\{\s*("\w+"\s*:\s*null\s*,?\s*)*\})?\s*$'
_NO_CALLS = r"^\s*(null|\[\s*\])?\s*$"
_IS_CALL = r'(?s)^\s*\{.*"name".*\}\s*$'
_IS_CALLS = r'(?s)^\s*[\[{].*"name".*[\]}]\s*$'


def _calls() -> pl.Expr:
    """Inside `list.eval` over TURNS: the calls, in either spelling."""
    field = pl.element().struct.field
    several = pl.when(~field("tool_calls").str.contains(_NO_CALLS)).then(field("tool_calls"))
    return pl.when(_calls_one()).then(pl.format("[{}]", field("function_call"))).otherwise(several)


def _calls_one() -> pl.Expr:
    """Inside `list.eval` over TURNS: whether there is a `function_call`."""
    return ~pl.element().struct.field("function_call").str.contains(_NO_CALL)


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
    """A list of messages with roles that are read, and text or OpenAI's parts."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(m, dict) and m.get("role") in ROLES_READ and _is_content(m.get("content")) for m in value)
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
