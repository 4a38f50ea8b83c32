"""The edits in a ledger, for people: how many rows were changed in which way, and a few of each before and after."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from qdata.rows.provenance import sidecar

_OPENS = '{"messages":[{"role":"system"'  # the canonical JSON of a conversation with a system prompt
_WIDTH = 300  # characters of a line that are shown


class Change(NamedTuple):
    """One edited row; `before` and `after` are canonical JSON."""

    row: str
    what: str
    before: str
    after: str


@dataclass(frozen=True)
class Changes:
    """Edited rows: `edited` holds row, what, before, after; `counts` says how many rows each kind of change met."""

    edited: pl.DataFrame
    counts: dict[str, int]

    def samples(self, many: int) -> list[Change]:
        """At most so many rows, of every kind about as many, in the order of the file."""
        turn = pl.int_range(pl.len()).over("what")
        drawn = self.edited.with_row_index("_at").sort(turn, "_at").head(many).sort("_at")
        return [Change(*row) for row in drawn.select("row", "what", "before", "after").iter_rows()]


def changes(written: Path) -> Changes:
    """What the ledger beside the file `written` says was edited."""
    book = pl.read_parquet(sidecar(written) / "ledger.parquet", glob=False)
    edited = book.filter(pl.col("action") == "edited")
    was, is_ = (pl.col(column).str.starts_with(_OPENS) for column in ("before", "after"))
    moved = (
        pl.when(is_ & ~was)
        .then(pl.lit("system prompt added"))
        .when(was & ~is_)
        .then(pl.lit("system prompt dropped"))
        .when(pl.col("step").str.contains(r"\bsystem_"))
        .then(pl.lit("system prompt replaced"))
    )
    rest = pl.col("step").str.split(",").list.eval(pl.element().filter(~pl.element().str.starts_with("system_")))
    words = pl.concat_list(pl.concat_list(moved), rest.list.eval(pl.element().replace(_WORDS))).list.drop_nulls()
    told = edited.with_columns(what=words.list.join(", "), words=words)
    counts = told.explode("words")["words"].value_counts(sort=True) if told.height else None
    return Changes(
        told.select("row", "what", "before", "after"), {} if counts is None else dict(counts.sort("words").iter_rows())
    )


_WORDS = {
    "placeholders": "placeholders filled",
    "identity": "identity rewritten",
    "convert": "left out for the dialect",
}


def lines(before: str, after: str) -> Iterator[tuple[str, str]]:
    """(sign, line) of both conversations: `-` only before, `+` only after, and a line around for bearings."""
    diff = difflib.unified_diff(told(before), told(after), n=1, lineterm="")
    for line in list(diff)[2:]:
        if line.startswith("@@"):
            continue
        yield line[0], line[1:] if len(line) <= _WIDTH else line[1:_WIDTH] + " …"


def told(conversation: str) -> list[str]:
    """A conversation (canonical JSON) as lines of `role: text`; what else it says stands in lines of its own."""
    row: dict[str, Any] = json.loads(conversation)
    out: list[str] = []
    for column in ("messages", "chosen", "rejected"):
        for message in row.get(column) or []:
            who = message["role"] if column == "messages" else f"{column} {message['role']}"
            for field in ("reasoning", "content", "tool_calls"):
                name = who if field == "content" else f"{who} ({field})"
                out += [f"{name}: {line}" for line in (message.get(field) or "").split("\n") if line]
            out += [f"{who} ({field}): {message[field]}" for field in _MARKS if field in message]
    for column in ("text", "tools", "label"):
        value = row.get(column)
        lines = value.split("\n") if isinstance(value, str) else [] if value is None else [str(value)]
        out += [f"{column}: {line}" for line in lines if line]
    return out


_MARKS = ("name", "train", "weight")


def visible(text: str) -> str:
    """A text with what nobody would see written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
