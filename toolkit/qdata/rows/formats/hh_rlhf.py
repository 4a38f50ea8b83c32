"""HH-RLHF: `chosen` and `rejected` are two whole talks in one text each: `"\\n\\nHuman: …\\n\\nAssistant: …"`."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._preference import PAIR, are_texts, before_last, beyond_one_turn, with_answer
from qdata.schema import message

_ROLES = {"user": "Human", "assistant": "Assistant"}
_ELSE = ("prompt", "question", "instruction", "conversations", "query")


class HhRlhf:
    """The talks agree up to their last answer. One blank after the colon belongs to the mark, and is written."""

    kind = "preference"
    columns: ClassVar = dict.fromkeys(PAIR, pl.String)
    sample: ClassVar = [
        {
            "chosen": "\n\nHuman: 蝙蝠是鸟吗？\n\nAssistant: 不是，它是会飞的哺乳动物。",
            "rejected": "\n\nHuman: 蝙蝠是鸟吗？\n\nAssistant: 是鸟。",
        }
    ]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """Two texts that begin with the first mark, and no prompt beside them."""
        return (
            are_texts(row, *PAIR)
            and all((row[name] or "").startswith("\n\nHuman:") for name in PAIR)
            and row.keys().isdisjoint(_ELSE)
        )

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """The last turn of each talk is an answer, the turns before it are the prompt."""
        talks = frame.with_columns(_turns(name).alias(name) for name in PAIR)
        return talks.with_columns(messages=before_last("chosen"), **{name: pl.col(name).list.tail(1) for name in PAIR})

    @staticmethod
    def fault() -> pl.Expr:
        """A text before the first mark, a talk that does not end with an answer, talks that differ before that."""
        chosen, rejected = (_pieces(name) for name in PAIR)
        differ = chosen.list.head(chosen.list.len() - 1).ne_missing(rejected.list.head(rejected.list.len() - 1))
        wrong = [
            pl.when(pieces.list.len() < 2).then(pl.lit(f"{name}: no talk of Human and Assistant"))
            .when(pieces.list.first() != "").then(pl.lit(f"{name}: a text before the first mark"))
            .when(~pieces.list.last().str.starts_with("A")).then(pl.lit(f"{name}: the last turn is no answer"))
            for name, pieces in zip(PAIR, (chosen, rejected), strict=True)
        ]  # fmt: skip
        return pl.coalesce(*wrong, pl.when(differ).then(pl.lit("chosen and rejected differ before their last turn")))

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """Both talks in full."""
        return {name: _talk(with_answer(conversation, name)["messages"]) for name in PAIR}

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """System prompts, tools, per-message fields, and texts with a mark inside."""
        if (lost := beyond_one_turn(conversation)) is not None:
            return lost
        messages = [m for name in ("messages", *PAIR) for m in conversation[name]]
        if conversation["tools"]:
            return "the tools"
        if any(m[key] is not None for m in messages for key in m.keys() - {"role", "content"}):
            return "reasoning, tool calls, names or training flags of messages"
        if other := sorted({m["role"] for m in messages} - _ROLES.keys()):
            return f"turns of {' and '.join(other)}"
        if any(re.search(r"\n\n(?:Human|Assistant):", m["content"]) for m in messages):
            return 'a text with "\\n\\nHuman:" or "\\n\\nAssistant:" in it'
        if not conversation["messages"]:
            return "a pair without a question"
        if conversation["messages"][0]["role"] != "user":
            return "a talk that begins with an answer"
        return None


def _pieces(column: str) -> pl.Expr:
    """The turns of a text, each with the first letter of its role before it; first what stands before all turns."""
    text = pl.col(column)
    for role in _ROLES.values():
        text = text.str.replace_all(f"\n\n{role}:", f"\n\nHuman:{role[0]}", literal=True)
    return text.str.split("\n\nHuman:")


def _turns(column: str) -> pl.Expr:
    letter, said = pl.element().str.slice(0, 1), pl.element().str.slice(1).str.strip_prefix(" ")
    role = pl.when(letter == "H").then(pl.lit("user")).otherwise(pl.lit("assistant"))
    turn = message("user", said).struct.with_fields(role=role)
    return _pieces(column).list.slice(1).list.eval(turn)


def _talk(messages: list[dict[str, Any]]) -> str:
    return "".join(f"\n\n{_ROLES[m['role']]}: {m['content']}" for m in messages)
