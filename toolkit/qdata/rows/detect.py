"""Which dialect a file speaks, told by its rows and never by its name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from qdata import plugin
from qdata.errors import QdataError
from qdata.rows import formats, hints
from qdata.rows.formats._turns import VERDICTS, is_verdict
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


def knows(row: dict[str, Any], rename: Mapping[str, str] | None = None, only: str | None = None) -> bool:
    """Whether some dialect claims a row; with `only`, whether that one does."""
    seen = renamed(row, rename) if rename else row
    return any(plugin.find(formats, name).claims(seen) for name in ([only] if only else plugin.names(formats)))


def detect(
    rows: Sequence[dict[str, Any]],
    label: str,
    rename: Mapping[str, str] | None = None,
    only: str | None = None,
    ordinals: Sequence[int] | None = None,
) -> Detection:
    """The one dialect that claims the most of `rows` (at least half of them); with `only`, that one if it claims any.

    `ordinals` are those of the rows, for messages. Raises QdataError when none does, or when several claim equally
    many: nothing is guessed.
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
    first = claims[found[0]]
    if not best or (best * 2 < len(rows) and not only):
        other = next((i for i, of in enumerate(zip(*claims.values(), strict=True)) if not any(of)), None)
        if best and (other is None or len([n for n in counts.values() if n]) > 1):
            raise QdataError(_mixed(label, claims, found[0], ordinals or range(1, len(rows) + 1)))
        wrong = f"rows that are not {only}" if only else "rows of an unknown dialect"
        told = f"\n  Of the {len(rows)} rows looked at {hints.counted(claims, len(rows))}." if best else ""
        raise QdataError(f"{label}: {wrong}. {_unknown(rows[other or 0], seen[other or 0], other or 0)}{told}")
    if any(claims[name] != first for name in found):
        raise QdataError(_mixed(label, claims, found[0], ordinals or range(1, len(rows) + 1)))
    if len(found) > 1:
        raise QdataError(f"{label}: the rows fit {' and '.join(found)} alike; say which with --from {found[0]}")
    sample = rows[claims[found[0]].index(True)]
    return Detection(found[0], best / len(rows), sample, *_columns(found[0], rows, rename or {}))


def _mixed(label: str, claims: Mapping[str, list[bool]], name: str, ordinals: Sequence[int]) -> str:
    """Rows of several dialects in one file: how many of which, the first that differs, and how to read one of them."""
    spoken = next(one for one in claims if claims[one][0]) if any(c[0] for c in claims.values()) else name
    differs = ordinals[claims[spoken].index(False)]
    return (
        f"{label}: rows of several dialects. Of the {len(ordinals)} looked at {hints.counted(claims, len(ordinals))}; "
        f"row {differs} (in files of lines: line {differs}) is the first that is not {spoken}.\n"
        f"  Part them into files of their own; or read one dialect with --from {name}, and the other rows are set aside"
    )


def _columns(name: str, rows: Sequence[dict[str, Any]], rename: Mapping[str, str]) -> tuple[dict[str, str], Any]:
    there = dict.fromkeys(key for row in rows for key in row)
    known = (*plugin.find(formats, name).columns, "score", "scores")
    reads = {ours: rename.get(ours, ours) for ours in known}
    reads = {ours: theirs for ours, theirs in reads.items() if theirs in there}
    return reads, tuple(key for key in there if key not in reads.values())


def _unknown(row: dict[str, Any], seen: dict[str, Any], index: int) -> str:
    """Of a row as it stands in the file, and as it is `seen` through the map: its keys, and what to do."""
    columns = {name: plugin.find(formats, name).sample[0].keys() for name in plugin.names(formats)}
    near = {name: keys for name, keys in columns.items() if keys & row.keys()}
    known = "; ".join(f"{name} has {', '.join(keys)}" for name, keys in near.items()) or "none has one of these columns"
    judged = next((name for name in VERDICTS if is_verdict(seen, name)), None)
    whole = hints.of_keys(seen) if known.startswith("none") else None
    advice = (
        hints.unknown_roles(seen)
        or whole
        or (
            f"Name the columns with --map, for example --map prompt={next(iter(row), 'question')},response=…"
            + (f"; --map {judged}= leaves the verdict in {judged} unread" if judged else "")
        )
    )
    return (
        f"The first{' of them' if index else ''} has the keys {', '.join(row)}: {shorten(row)}\n"
        f"  Dialects with such columns: {known}. `qdata formats` shows all {len(columns)}.\n"
        f"  {advice}"
    )


def shorten(row: Any, width: int = 160) -> str:
    """A row as one line of JSON, cut to `width` characters."""
    text = json.dumps(row, ensure_ascii=False)
    return text if len(text) <= width else text[: width - 1] + "…"
