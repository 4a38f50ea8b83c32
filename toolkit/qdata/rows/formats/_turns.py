"""What dialects of strictly alternating turns share."""

from __future__ import annotations

from typing import Any

import polars as pl

from qdata.rows.formats._lists import ITEM, of_each
from qdata.schema import CONVERSATION, MESSAGE, message


def system_turn(column: str) -> pl.Expr:
    """The system message of a text column, for `joined`; null, which is none, where the text is null or empty."""
    return system_of(pl.col(column))


def system_of(text: pl.Expr) -> pl.Expr:
    """As `system_turn`, of any text."""
    return pl.when(text != "").then(message("system", text))


def earlier_turns(column: str) -> pl.Expr:
    """The turns of a `history` of [question, answer] pairs; none where there is no history."""
    pair = pl.col(ITEM).list
    return of_each(
        pl.col(column).fill_null([]),
        message("user", pair.get(0, null_on_oob=True)),
        message("assistant", pair.get(1, null_on_oob=True)),
    )


def turn(role: str, content: pl.Expr, **fields: pl.Expr) -> pl.Expr:
    """As `message`, with more `fields` of MESSAGE."""
    named = (value.alias(name) for name, value in fields.items())
    return pl.struct(pl.lit(role).alias("role"), content.alias("content"), *named)


def split_system(messages: list[dict[str, Any]]) -> tuple[str | None, list[dict[str, Any]]]:
    """The text of a leading system message, or None, and the turns after it."""
    if messages and messages[0]["role"] == "system":
        return messages[0]["content"], messages[1:]
    return None, messages


def is_preference(row: dict[str, Any]) -> bool:
    """Whether a row holds two answers, or one that is judged: what stands there is not all to be imitated.

    A `label` of other words, other numbers or an object is a category, and says nothing of that (Infinity-Instruct).
    """
    return is_verdict(row, *VERDICTS) or not row.keys().isdisjoint(SECOND_ANSWERS)


def verdict_of(value: Any) -> bool | None:
    """Whether an answer was judged good: true and false, 1 and 0, as they are or as text (CSV, Python); else None."""
    if isinstance(value, str):
        return _VERDICT_TEXTS.get(value.strip().lower()) if len(value) < _LONGEST else None
    return bool(value) if isinstance(value, (bool, int, float)) and value in (0, 1) else None


def is_verdict(row: dict[str, Any], *columns: str) -> bool:
    """Whether one of these columns holds a verdict."""
    return any(verdict_of(row[name]) is not None for name in columns if name in row)


VERDICTS = ("label", "kto_tag")  # TRL's and ms-swift's; LLaMA-Factory's
_VERDICT_TEXTS = {"true": True, "false": False, "1": True, "0": False}
_LONGEST = 16
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


def says_only(*columns: str) -> pl.Expr:
    """Whether a row of CONVERSATION holds nothing but these columns, scores and what nobody understood apart."""
    others = [name for name in CONVERSATION if name not in (*columns, *_ABOUT)]
    return pl.all_horizontal(*(pl.col(name).is_not_null() for name in columns), pl.col(others).is_null())


def are_plain(column: str) -> pl.Expr:
    """Whether the messages of a list are nothing but roles and texts."""
    field = pl.element().struct.field
    more = pl.any_horizontal(field(f.name).is_not_null() for f in MESSAGE.fields if f.name not in ("role", "content"))
    return ~pl.col(column).list.eval(more).list.any()


_ABOUT = ("row", "content_hash", "source", "drop")  # what a row is, beside what it says
