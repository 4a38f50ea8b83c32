"""What steps did to rows, told from their ledger: counts by step and reason, and examples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import polars as pl


class Line(NamedTuple):
    """A step that dropped rows for a reason, or edited some: how many, and examples."""

    step: str
    reason: str | None  # null: edited
    rows: int
    samples: list[tuple[str, str, str]]  # row, and a text before and after; of dropped rows the text, and nothing


def funnel(sidecar: Path, steps: Sequence[str], samples: int) -> list[Line]:
    """The lines of a funnel, in the order of the steps. A row that several steps edited counts for each of them."""
    book = pl.scan_parquet(sidecar / "ledger.parquet", glob=False)
    edited = book.filter(pl.col("action") != "dropped", pl.col("before").is_not_null())
    by_step = edited.with_columns(pl.col("step").str.split(",")).explode("step")
    dropped = book.filter(pl.col("action") == "dropped")
    counts = (pl.len(), pl.col("row").head(samples))
    of_edits = by_step.group_by("step").agg(*counts).with_columns(reason=pl.lit(None, pl.String))
    of_drops = dropped.group_by("step", "reason").agg(*counts)
    counted = pl.concat([of_edits, of_drops], how="diagonal").collect()
    shown = counted["row"].explode(empty_as_null=False, keep_nulls=False).unique()
    texts = _edits(book, shown) | _dropped(sidecar, shown)
    order = {name: place for place, name in reversed(list(enumerate(steps)))}
    lines = [
        Line(one["step"], one["reason"], one["len"], [(row, *texts[row]) for row in one["row"] if row in texts])
        for one in counted.to_dicts()
    ]
    return sorted(lines, key=lambda line: (order.get(line.step, len(order)), -line.rows, line.reason or ""))


def _edits(book: pl.LazyFrame, rows: pl.Series) -> dict[str, tuple[str, str]]:
    some = book.filter(pl.col("row").is_in(rows.implode()), pl.col("before").is_not_null(), action="edited")
    frame = some.select("row", "before", "after").collect()
    return {row: _difference(orjson.loads(before), orjson.loads(after)) for row, before, after in frame.iter_rows()}


def _dropped(sidecar: Path, rows: pl.Series) -> dict[str, tuple[str, str]]:
    book = pl.scan_parquet(sidecar / "dropped.parquet", glob=False).filter(pl.col("row").is_in(rows.implode()))
    said = book.select("row", "messages", "text", "extra").collect()
    return {one["row"]: (_said(one), "") for one in said.to_dicts()}


def _said(row: dict[str, Any]) -> str:
    turns = [f"{turn['role']}: {turn['content'] or turn['tool_calls'] or ''}" for turn in row["messages"] or []]
    raw = {} if turns or row["text"] else orjson.loads(row["extra"] or "{}")  # a row that could not be read
    return " ⏎ ".join(turns) or row["text"] or raw.get("raw") or ""


def _difference(before: dict[str, Any], after: dict[str, Any]) -> tuple[str, str]:
    """The first text that differs, from shortly before the place where it does."""
    old, new = _texts(before), _texts(after)
    a, b = next(((a, b) for a, b in zip(old, new, strict=False) if a != b), ("\n".join(old), "\n".join(new)))
    at = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    start = max(0, at - 30)
    return a[start:], b[start:]


def _texts(conversation: dict[str, Any]) -> list[str]:
    lists = [conversation.get(name) or [] for name in ("messages", "chosen", "rejected")]
    fields = ("content", "reasoning", "tool_calls")
    texts = [turn[field] for turns in lists for turn in turns for field in fields if turn.get(field)]
    return [*texts, conversation.get("text") or ""]
