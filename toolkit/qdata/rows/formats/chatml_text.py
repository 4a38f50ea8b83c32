"""Conversations that somebody rendered as ChatML: `{"text": "<|im_start|>user\\n…<|im_end|>\\n…"}`."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._turns import is_judged
from qdata.schema import ROLES, message

_START, _END = "<|im_start|>", "<|im_end|>"
_TURN = rf"(?s)<\|im_start\|>(?:{'|'.join(ROLES)})\n.*?<\|im_end\|>"
_HEAD = r"^<\|im_start\|>\w+\n"


class ChatmlText:
    """Each turn is `<|im_start|>ROLE`, a line end, its text and `<|im_end|>`; one line end parts it from the next.

    All that stands in a turn is its text, also what a template made of reasoning and tool calls, so that the same
    letters are written again. A line end after the last turn is written, and may be missing.
    """

    columns: ClassVar = {"text": pl.String}
    sample: ClassVar = [
        {"text": "<|im_start|>user\n早！<|im_end|>\n<|im_start|>assistant\n早，睡得好吗？<|im_end|>\n"},
    ]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """A text that begins with a turn, and nothing beside it that conversations are made of."""
        text = row.get("text")
        return (
            isinstance(text, str)
            and text.startswith(_START)
            and row.keys().isdisjoint(_CONVERSATION)
            and not is_judged(row)
        )

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """The turns without their marks."""
        role = pl.element().str.extract(r"^<\|im_start\|>(\w+)\n")
        said = pl.element().str.replace(_HEAD, "").str.strip_suffix(_END)
        turns = pl.col("text").str.extract_all(_TURN).list.eval(message("user", said).struct.with_fields(role=role))
        return frame.with_columns(messages=turns).drop("text")

    @staticmethod
    def fault() -> pl.Expr:
        """A text that is not turns from beginning to end."""
        turns = pl.col("text").str.extract_all(_TURN)
        nested = turns.list.eval(pl.element().str.replace(_HEAD, "").str.contains(_START, literal=True)).list.any()
        whole = turns.list.join("\n")
        wanted = f"wanted {_START}ROLE …{_END} from beginning to end, ROLE one of {', '.join(ROLES)}"
        broken = nested | ((pl.col("text") != whole) & (pl.col("text") != whole + "\n"))
        return pl.when(broken).then(pl.lit(f"text: {wanted}"))

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """The turns in their marks, each with a line end after it."""
        return {"text": "".join(f"{_START}{m['role']}\n{m['content']}{_END}\n" for m in conversation["messages"])}

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """Tools, per-message fields, and marks inside a text."""
        messages = conversation["messages"]
        if conversation["tools"]:
            return "the tools"
        if any(m[key] is not None for m in messages for key in m.keys() - {"role", "content"}):
            return "reasoning, tool calls, names or training flags of messages"
        if any(mark in m["content"] for m in messages for mark in (_START, _END)):
            return f"a text with {_START} or {_END} in it"
        return None


_CONVERSATION = {"messages", "conversations", "conversation", "instruction", "prompt", "query"}
