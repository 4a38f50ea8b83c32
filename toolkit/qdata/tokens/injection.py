"""Control tokens that stand in the data as text: `<|im_end|>` in a question must not end a turn.

A server that tokenises a rendered prompt parses such text as the token; that is how a user forges a turn. In training
we make it what it is, text: before rendering each is replaced by one private character, which no template touches, and
after the real control tokens have been split off, the text stands in its place again and is encoded without them.

Turn tokens (the tokenizer's special tokens) become text in every role; tags that a model writes itself (`<think>`,
`<tool_call>` …: added, but not special) become text in the roles that are not the model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from qdata.errors import QdataError, RefusedRowsError
from qdata.schema import MESSAGE

POLICIES = ("keep", "text", "error")
_FIRST = 0x10F000  # in the last private-use plane: no text of anyone means anything by these
PRIVATE = "[\U0010f000-\U0010f3ff]"


@dataclass(frozen=True)
class Controls:
    """The added tokens of a tokenizer: those that are special, and those that a model writes itself."""

    special: tuple[str, ...]
    tags: tuple[str, ...]

    @classmethod
    def of(cls, added: Sequence[Mapping[str, Any]]) -> Controls:
        """Of the `added_tokens` of a tokenizer.json."""
        return cls(
            tuple(t["content"] for t in added if t["special"]), tuple(t["content"] for t in added if not t["special"])
        )

    @property
    def all(self) -> tuple[str, ...]:
        """Both kinds; a token's place here is its private character."""
        return self.special + self.tags

    def hidden(self, token: str) -> str:
        """The private character that stands for a token's text."""
        return chr(_FIRST + self.all.index(token))

    def restored(self, text: str) -> str:
        """Text with every private character as the text it stands for."""
        return re.sub(PRIVATE, lambda m: self.all[ord(m[0]) - _FIRST], text)

    def encode(self, text: str, encode: Callable[[str], list[int]], id_of: Callable[[str], int | None]) -> list[int]:
        """The ids of a text with private characters: real control tokens by their id, all between as plain text.

        `encode` must know no added tokens.
        """
        split = re.split("(" + "|".join(map(re.escape, sorted(self.all, key=len, reverse=True))) + ")", text)
        ids: list[int] = []
        for number, part in enumerate(split):
            one = id_of(part) if number % 2 else None
            ids += [one] if one is not None else encode(self.restored(part))
        return ids


def found(column: str, controls: Controls) -> pl.Expr:
    """Whether a messages column holds control tokens as text where they do not belong."""
    field = pl.element().struct.field
    foreign = pl.when(field("role") == "assistant").then(None).otherwise(field("content"))
    everywhere = [field("content"), field("reasoning"), _unescaped(field("tool_calls"))]
    hits = [text.str.contains_any(list(controls.special)) for text in everywhere if controls.special]
    hits += [foreign.str.contains_any(list(controls.tags))] if controls.tags else []
    return pl.col(column).list.eval(pl.any_horizontal(hits).fill_null(False)).list.any().fill_null(False)


def holds(controls: Controls) -> pl.Expr:
    """Whether a conversation holds control tokens as text where they do not belong, in messages or tools."""
    in_tools = _unescaped(pl.col("tools")).str.contains_any(list(controls.special)).fill_null(False)
    return found("messages", controls) | in_tools


def _unescaped(json_text: pl.Expr) -> pl.Expr:
    r"""JSON text with `\u003c`, `\u003e`, `\u007c` as the `<`, `>`, `|` they are: equal JSON, but visible."""
    for code, char in (("3[cC]", "<"), ("3[eE]", ">"), ("7[cC]", "|")):
        for _ in range(2):  # a match takes the character before it, so that neighbours need a second round
            json_text = json_text.str.replace_all(r"(^|[^\\])((?:\\\\)*)\\u00" + code, "${1}${2}" + char)
    return json_text


def _calls_unescaped() -> pl.Expr:
    field = pl.element().struct.field
    fields = [_unescaped(field(f.name)) if f.name == "tool_calls" else field(f.name) for f in MESSAGE.fields]
    return pl.col("messages").list.eval(pl.struct(fields))


def guarded(frame: pl.DataFrame, controls: Controls, specials: str) -> tuple[pl.DataFrame, int]:
    """A CONVERSATION frame with control tokens treated as `specials` says, and how many rows hold any that are hidden.

    Raises QdataError under `error`, where there are any.
    """
    hidden, count = (frame, 0) if specials == "keep" else hide(frame, controls)
    if not count:
        return frame, 0
    found = frame.filter(holds(controls))["row"]
    if specials == "error":
        raise refusal(found)
    return hidden, found.n_unique()


def refusal(rows: pl.Series) -> QdataError:
    """Of rows (their ids) that hold control tokens as text."""
    return QdataError(
        f"{rows.n_unique()} rows hold control tokens as text, the first is {rows[0]}; --specials error refuses them. "
        f"`--specials text` trains them as the text they are"
    )


def hide(frame: pl.DataFrame, controls: Controls) -> tuple[pl.DataFrame, int]:
    """A CONVERSATION frame with control tokens in texts hidden, and in how many rows there were any.

    Raises RefusedRowsError for rows that use the private characters themselves, whatever their neighbours hold.
    """
    if not controls.special:
        return frame, 0
    which = frame.select(hit=holds(controls))["hit"]
    texts = [pl.element().struct.field(name).str.contains(PRIVATE) for name in ("content", "reasoning", "tool_calls")]
    inside = pl.col("messages").list.eval(pl.any_horizontal(texts).fill_null(False)).list.any().fill_null(False)
    if which.any():
        frame = frame.with_columns(_unescaped(pl.col("tools")), _calls_unescaped())
    private = frame.filter(inside | pl.col("tools").str.contains(PRIVATE).fill_null(False))["row"]
    if len(private):
        raise RefusedRowsError(dict.fromkeys(private.to_list(), _PRIVATE_INSIDE))
    if not which.any():
        return frame, 0

    def replaced(text: pl.Expr, tokens: tuple[str, ...]) -> pl.Expr:
        return text.str.replace_many(list(tokens), [controls.hidden(t) for t in tokens]) if tokens else text

    field = pl.element().struct.field
    content = replaced(field("content"), controls.special)
    content = pl.when(field("role") == "assistant").then(content).otherwise(replaced(content, controls.tags))
    changed = {"content": content.alias("content")} | {
        name: replaced(field(name), controls.special).alias(name) for name in ("reasoning", "tool_calls")
    }
    fields = [changed.get(f.name, field(f.name)) for f in MESSAGE.fields]
    hidden = frame.with_columns(
        pl.when(which).then(pl.col("messages").list.eval(pl.struct(fields))).otherwise(pl.col("messages")),
        replaced(pl.col("tools"), controls.special),
    )
    return hidden, int(which.sum())


_PRIVATE_INSIDE = (
    "holds private-use characters, U+10F000 to U+10F3FF, which stand for control tokens while these are trained as "
    "text; remove them, or pass --specials keep"
)
