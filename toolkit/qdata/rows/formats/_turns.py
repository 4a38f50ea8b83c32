"""What dialects of strictly alternating turns share."""

from __future__ import annotations

from typing import Any

import polars as pl

from qdata.schema import message

NO_TURNS = pl.lit([], pl.List(pl.Struct({"role": pl.String, "content": pl.String})))


def system_turn(column: str) -> pl.Expr:
    """A list with the system message of a text column; an empty list where the text is null or empty."""
    text = pl.col(column)
    return pl.when(text.is_null() | (text == "")).then(NO_TURNS).otherwise(pl.concat_list(message("system", text)))


def exchange(user: pl.Expr, assistant: pl.Expr) -> pl.Expr:
    """Inside `list.eval`: one element becomes a user and an assistant turn."""
    return pl.concat_list(message("user", user), message("assistant", assistant)).explode()


def split_system(messages: list[dict[str, Any]]) -> tuple[str | None, list[dict[str, Any]]]:
    """The text of a leading system message, or None, and the turns after it."""
    if messages and messages[0]["role"] == "system":
        return messages[0]["content"], messages[1:]
    return None, messages


def beyond_alternating(conversation: dict[str, Any], dialect: str) -> str | None:
    """What a dialect of [system,] user, assistant, user, assistant … cannot express, in words, or None."""
    messages = conversation["messages"]
    if conversation["tools"]:
        return "the tools"
    if any(m[k] is not None for m in messages for k in ("reasoning", "tool_calls", "name", "train", "weight")):
        return "reasoning, tool calls, names or training flags of messages"
    system, turns = split_system(messages)
    if system == "":
        return "an empty system prompt"
    roles = [m["role"] for m in turns]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        return f"the order of turns {listed(roles)}; {dialect} holds user, assistant alternating"
    return None


def listed(roles: list[str]) -> str:
    """Roles for a message, cut to the first six: a reason is counted, and no two long conversations are alike."""
    return ", ".join(roles if len(roles) <= 6 else [*roles[:6], "…"])
