"""One rule for rows that cannot be read or rendered: each is set aside in the ledger with its reason, and told.

Under `strict` they are refused instead, by name. A file of which no row is left is refused either way.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qdata.errors import QdataError
from qdata.part import NAMED, Read
from qdata.paths import shown
from qdata.rows import provenance, source
from qdata.rows.parts import Bad

STEPS = ("read", "render")  # what stands before the reason in `drop`


@dataclass(frozen=True)
class Aside:
    """What was set aside of a run: how many of all rows, and the first of them, each with its place and reason."""

    first: list[str]
    count: int
    total: int

    @property
    def shown(self) -> list[str]:
        """The lines that name them, and how many more there are."""
        more = self.count - len(self.first)
        return [*self.first, *([f"… and {more:,} more"] if more else [])]


def refuse(done: Sequence[Read], strict: bool) -> Aside:
    """What was set aside. Raises QdataError for a file of which no row is left, and under `strict` for any such row.

    A row that came twice is refused too.
    """
    files: dict[Path, list[Read]] = {}
    for one in done:
        files.setdefault(one.work.part.path, []).append(one)
    for path, parts in files.items():
        told = _of(parts)
        if told.count and told.count == told.total:
            raise nothing_left(path, told, rendered=any(d.refused for d in parts))
    told = _of(done)
    if strict and told.count:
        mend = "row" if told.count == 1 else f"{told.count:,} rows"
        then = "it is then set aside" if told.count == 1 else "they are then set aside"
        whose = "its" if told.count == 1 else "their"
        what_to_do = f"Mend the {mend}, or leave --strict out: {then} in the ledger with {whose} reason."
        raise QdataError("\n".join([*told.shown, what_to_do]))
    provenance.refuse_twice([(d.work.part, d.ids) for d in done])
    return told


def nothing_left(path: Path, told: Aside, *, rendered: bool = False, hint: str | None = None) -> QdataError:
    """The refusal of a file of which every row was set aside; `hint`: what it may be instead."""
    what = "read and rendered" if rendered else "read"
    what_to_do = hint or "Mend the rows, or leave the file out."
    return QdataError("\n".join([*told.shown, f"{shown(path)}: not one row of it can be {what}. {what_to_do}"]))


def unreadable(path: Path, container: str, bad: Sequence[Bad], total: int) -> Aside:
    """Rows of one file that cannot be read, of `total`."""
    unit = source.unit(container)
    return Aside([f"{shown(path)}, {unit} {b.ordinal}: {b.reason}" for b in bad[:NAMED]], len(bad), total)


def in_manifest(manifest: Mapping[str, Any]) -> int:
    """How many rows an output's manifest says were set aside."""
    return sum(n for why, n in manifest["rows"]["dropped"].items() if why.partition(".")[0] in STEPS)


def _of(done: Sequence[Read]) -> Aside:
    named = (f"{_place(d, place)}: {reason}" for d in done for place, reason in d.aside)
    return Aside(
        list(itertools.islice(named, NAMED)), sum(d.unreadable + d.refused for d in done), sum(d.rows for d in done)
    )


def _place(done: Read, place: int | str) -> str:
    """FILE, line 7 of what cannot be read; what cannot be rendered is a conversation by then, and has an id."""
    part = done.work.part
    return place if isinstance(place, str) else f"{part.label}, {source.unit(part.container)} {place}"
