"""Examples of what steps did: the first rows that each edited, before and after, and the first that each dropped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import polars as pl

from qdata import schema
from qdata.output import Output
from qdata.reporting.difference import Segment, difference, said


class Sample(NamedTuple):
    """A row by its id; `instead`: the row that stays where this one was dropped because of it."""

    row: str
    segments: list[Segment]
    instead: str | None


class Sampled(NamedTuple):
    """Samples of a step that edited rows (`reason` null), or dropped some for a reason; `rows`: of how many."""

    step: str
    reason: str | None
    rows: int
    samples: list[Sample]


def of(one: Output, steps: Sequence[str], many: int) -> Iterator[Sampled]:
    """At most `many` samples of each edit and each reason, in the order of the steps and of the rows."""
    book = one.ledger().with_row_index("at")
    by = pl.col("step").str.split(",").list.unique(maintain_order=True)
    edits = book.filter(pl.col("action") == "edited").with_columns(by).explode("step")
    drops = book.filter(pl.col("action") == "dropped")
    first = (pl.len().alias("rows"), pl.col("at").sort().head(many))
    edited, dropped = pl.collect_all(
        [
            edits.group_by("step").agg(*first).with_columns(reason=pl.lit(None, pl.String)),
            drops.group_by("step", "reason").agg(*first),
        ]
    )
    columns = ["step", "reason", "rows", "at"]
    counted = pl.concat([edited.select(columns), dropped.select(columns)])
    wanted = counted["at"].explode(empty_as_null=False, keep_nulls=False).unique()
    lines = book.filter(pl.col("at").is_in(wanted.implode())).select("at", "row", "before", "after", "action", "by")
    told = {line["at"]: line for line in lines.collect(engine="streaming").to_dicts()}
    gone = _dropped(one, [line["row"] for line in told.values() if line["action"] == "dropped"])
    order = {name: place for place, name in enumerate(steps)}

    def sample(at: int) -> Sample:
        line = told[at]
        is_edit = line["action"] == "edited"
        segments = difference(line["before"], line["after"]) if is_edit else gone.get(line["row"], [])
        return Sample(line["row"], segments, line["by"])

    found = [Sampled(step, reason, rows, list(map(sample, ats))) for step, reason, rows, ats in counted.iter_rows()]
    yield from sorted(found, key=lambda s: (order[s.step], s.reason is not None, -s.rows, s.reason or ""))


def _dropped(one: Output, rows: Sequence[str]) -> dict[str, list[Segment]]:
    ids = pl.Series(rows, dtype=pl.String)
    some = one.dropped().filter(pl.col("row").is_in(ids.implode()))
    columns = [name for name in schema.CONVERSATION.names() if name not in ("score", "source", "content_hash", "label")]
    return {row["row"]: said(row) for row in some.select(columns).collect(engine="streaming").to_dicts()}
