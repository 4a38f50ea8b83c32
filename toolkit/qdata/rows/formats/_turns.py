"""What dialects of strictly alternating turns share."""

from __future__ import annotations

from typing import Any

import polars as pl

from qdata.schema import MESSAGE, MESSAGES, message

NO_TURNS = pl.lit([], pl.List(pl.Struct({"role": pl.String, "content": pl.String})))


def system_turn(column: str) -> pl.Expr:
    """A list with the system message of a text column; an empty list where the text is null or empty."""
    text = pl.col(column)
    return pl.when(text.is_null() | (text == "")).then(NO_TURNS).otherwise(pl.concat_list(message("system", text)))


def exchange(user: pl.Expr, assistant: pl.Expr) -> pl.Expr:
    """Inside `list.eval`: one element becomes a user and an assistant turn."""
    return pl.concat_list(message("user", user), message("assistant", assistant)).explode()


def turn(role: str, content: pl.Expr, **fields: pl.Expr) -> pl.Expr:
    """A struct expression with every field of MESSAGE: role, content and `fields`; all others null."""
    given = {"role": pl.lit(role), "content": content} | fields
    return pl.struct(given.get(f.name, pl.lit(None)).cast(f.dtype).alias(f.name) for f in MESSAGE.fields)


def full_system_turn(text: pl.Expr) -> pl.Expr:
    """As `system_turn`, of any text and with every field of MESSAGE."""
    none = text.is_null() | (text == "")
    return pl.when(none).then(pl.lit([], MESSAGES)).otherwise(pl.concat_list(turn("system", text)))


def split_system(messages: list[dict[str, Any]]) -> tuple[str | None, list[dict[str, Any]]]:
    """The text of a leading system message, or None, and the turns after it."""
    if messages and messages[0]["role"] == "system":
        return messages[0]["content"], messages[1:]
    return None, messages


def is_preference(row: dict[str, Any]) -> bool:
    """Whether a row holds two answers, or one that is judged: what stands there is not all to be imitated.

    A `label` of text or an object is a category, and says nothing of that (Infinity-Instruct).
    """
    judged = any(isinstance(row.get(key), bool) for key in ("label", "kto_tag"))
    return judged or not row.keys().isdisjoint(SECOND_ANSWERS)


SECOND_ANSWERS = {"chosen", "rejected", "rejected_response", "chosen_messages", "rejected_messages"}


def is_judged(row: dict[str, Any]) -> bool:
    """As `is_preference`, for dialects that ms-swift reads: a numeric `label` is what a classifier learns there."""
    return isinstance(row.get("label"), (int, float, list)) or is_preference(row)


def beyond_alternating(conversation: dict[str, Any], dialect: str, holds: str = "") -> str | None:
    """What a dialect of [system,] user, assistant, user, assistant … cannot express, in words, or None.

    `holds`: the one field of an answer, beside its content, that the dialect does express.
    """
    messages = conversation["messages"]
    if conversation["tools"]:
        return "the tools"
    if any(m[k] is not None and (k != holds or m["role"] != "assistant") for m in messages for k in _BESIDE):
        return "reasoning, tool calls, names or training flags of messages"
    system, turns = split_system(messages)
    if system == "":
        return "an empty system prompt"
    roles = [m["role"] for m in turns]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        return f"the order of turns {listed(roles)}; {dialect} holds user, assistant alternating"
    return None


_BESIDE = ("reasoning", "tool_calls", "name", "train", "weight")


def listed(roles: list[str]) -> str:
    """Roles for a message, cut to the first six: a reason is counted, and no two long conversations are alike."""
    return ", ".join(roles if len(roles) <= 6 else [*roles[:6], "…"])
