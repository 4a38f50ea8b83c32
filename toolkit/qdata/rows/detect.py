"""Which dialect a file speaks, told by its rows and never by its name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from qdata import plugin
from qdata.errors import QdataError
from qdata.rows import formats
from qdata.rows.renaming import renamed


class Detection(NamedTuple):
    """The dialect of a file, the share of the looked-at rows that speak it, and one of those rows.

    `reads` maps the dialect's columns that are there to the file's; `keeps` are the file's other columns.
    """

    format: str
    share: float
    sample: dict[str, Any]
    reads: dict[str, str]
    keeps: tuple[str, ...]


def detect(
    rows: Sequence[dict[str, Any]],
    label: str,
    rename: Mapping[str, str] | None = None,
    only: str | None = None,
) -> Detection:
    """The one dialect that claims the most of `rows` (at least half of them); with `only`, whether that one does.

    Raises QdataError when none does, or when several claim equally many: nothing is guessed.
    """
    if not rows:
        raise QdataError(f"{label}: no rows in it.")
    seen = [renamed(row, rename) for row in rows] if rename else rows
    claims = {
        name: [plugin.find(formats, name).claims(row) for row in seen]
        for name in ([only] if only else plugin.names(formats))
    }
    counts = {name: sum(claimed) for name, claimed in claims.items()}
    best = max(counts.values())
    found = [name for name, count in counts.items() if count == best]
    if best * 2 < len(rows):
        wrong = f"rows that are not {only}" if only else "rows of an unknown dialect"
        raise QdataError(f"{label}: {wrong}. {_unknown(rows[0])}")
    if len(found) > 1:
        raise QdataError(f"{label}: the rows fit {' and '.join(found)} alike; say which with --from {found[0]}")
    sample = rows[claims[found[0]].index(True)]
    return Detection(found[0], best / len(rows), sample, *_columns(found[0], rows, rename or {}))


def _columns(name: str, rows: Sequence[dict[str, Any]], rename: Mapping[str, str]) -> tuple[dict[str, str], Any]:
    there = dict.fromkeys(key for row in rows for key in row)
    known = (*plugin.find(formats, name).columns, "score", "scores")
    reads = {ours: rename.get(ours, ours) for ours in known}
    reads = {ours: theirs for ours, theirs in reads.items() if theirs in there}
    return reads, tuple(key for key in there if key not in reads.values())


def _unknown(row: dict[str, Any]) -> str:
    columns = {name: plugin.find(formats, name).sample[0].keys() for name in plugin.names(formats)}
    near = {name: keys for name, keys in columns.items() if keys & row.keys()}
    known = "; ".join(f"{name} has {', '.join(keys)}" for name, keys in near.items()) or "none has one of these columns"
    return (
        f"The first has the keys {', '.join(row)}: {shorten(row)}\n"
        f"  Dialects with such columns: {known}. `qdata formats` shows all {len(columns)}.\n"
        f"  Name the columns with --map, for example --map prompt={next(iter(row), 'question')},response=…"
    )


def shorten(row: Any, width: int = 160) -> str:
    """A row as one line of JSON, cut to `width` characters."""
    text = json.dumps(row, ensure_ascii=False)
    return text if len(text) <= width else text[: width - 1] + "…"
