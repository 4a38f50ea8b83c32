"""What a refusal says beside its reason: which roles nobody knows, which rows speak what, and what to type instead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from qdata import plugin
from qdata.errors import QdataError, did_you_mean
from qdata.rows import formats
from qdata.rows.columns import struct_fields
from qdata.rows.formats._turns import SECOND_ANSWERS, VERDICTS
from qdata.rows.parts import short
from qdata.rows.renaming import INSIDE

Claims = Mapping[str, Sequence[bool]]


def unknown_roles(row: Mapping[str, Any]) -> str | None:
    """The first role of a row's turns that no dialect knows, and the `--map` that says whose it is; or None."""
    for name in plugin.names(formats):
        form = plugin.find(formats, name)
        for place, known in getattr(form, "roles", {}).items():
            column, key = place.split(INSIDE)
            turns = row.get(column)
            if isinstance(turns, list) and any(isinstance(turn, dict) and key in turn for turn in turns):
                words = [turn.get(key) if isinstance(turn, dict) else None for turn in turns]
                odd = [i for i, word in enumerate(words) if not form.claims({column: [{key: word}]})]
                if odd and isinstance(words[odd[0]], str):
                    return _roles_told(place, [str(word) for word in words], odd, known)
    return None


def _roles_told(place: str, words: Sequence[str], odd: Sequence[int], known: Mapping[str, str]) -> str:
    column, key = place.split(INSIDE)
    of = {role: next(word for word, ours in known.items() if ours == role) for role in ("user", "assistant")}
    there = {known.get(word.lower()) for word in words}
    open_ones = [word for role, word in of.items() if role not in there] or [of["user"]]
    new = list(dict.fromkeys(words[i] for i in odd))
    pairs = ",".join(f"{place}.{ours}={word}" for ours, word in zip(open_ones, new, strict=False))
    return (
        f"{column}[{odd[0]}].{key}: the role {short(words[odd[0]])} is none of {', '.join(known)}.\n"
        f"  Say whose it is with --map, for example --map '{pairs}'"
    )


def of_lines(lines: Sequence[str]) -> str | None:
    """What a file of lines that are no JSON looks like, and what to do; or None."""
    for mark, what in ((",", ".csv"), ("\t", ".tsv")):
        counts = {line.count(mark) for line in lines}
        if len(lines) > 1 and len(counts) == 1 and counts != {0} and not any(line.startswith("{") for line in lines):
            return f"It looks like a table: give it a name that ends in {what}"
    return None


def of_keys(row: Mapping[str, Any]) -> str | None:
    """What a file looks like whose first row has such keys, and what to do; or None."""
    lists = [name for name, value in row.items() if isinstance(value, list) and value and isinstance(value[0], dict)]
    if len(lists) == 1 and all(not isinstance(row[name], list) for name in row if name != lists[0]):
        return f"If its rows are the list in {lists[0]!r}, take them out: jq -c '.{lists[0]}[]' FILE > rows.jsonl"
    return None


def counted(claims: Claims, count: int) -> str:
    """Of how many rows speak which dialect, the most first."""
    counts = sorted(((sum(one), name) for name, one in claims.items() if any(one)), key=lambda c: (-c[0], c[1]))
    silent = count - sum(any(one) for one in zip(*claims.values(), strict=True))
    told = [f"{number} {'is' if number == 1 else 'are'} {name}" for number, name in counts]
    return ", ".join([*told, *([f"{silent} of no dialect we know"] if silent else [])])


def refuse_map(
    rename: Mapping[str, str], label: str, rows: Sequence[Mapping[str, Any]], others: Callable[[], Iterable[Any]]
) -> None:
    """Raises QdataError for a map with a column that no dialect has, or that the file has not.

    `rows` are the first of the file; `others` gives all of them, lists of a part each, and is called only where a
    column is in none of the first.
    """
    known = _places()
    for ours, theirs in rename.items():
        column, inside, place = ours.partition(INSIDE)
        if column not in known:
            raise QdataError(f"--map {ours}={theirs}: no dialect has a column {column!r}.{did_you_mean(column, known)}")
        key = place.partition(".")[0]
        if inside and key not in known[column]:
            near = did_you_mean(key, known[column])
            raise QdataError(f"--map {ours}={theirs}: no dialect has a key {key!r} in {column}[].{near}")
        if inside or not theirs or any(theirs in row for row in rows):
            continue
        if not any(theirs in row for part in others() for row in part):
            there = list(dict.fromkeys(name for row in rows for name in row))
            near = did_you_mean(theirs, there)
            near = near if near.startswith(" Did") else ""
            raise QdataError(
                f"{label}: --map {ours}={theirs}: the file has no column {theirs!r}; it has {', '.join(there)}.{near}"
            )


def _places() -> dict[str, set[str]]:
    """Every column that some dialect has, with the keys of what stands in it."""
    places: dict[str, set[str]] = {name: set() for name in ("score", *SECOND_ANSWERS, *VERDICTS)}
    for name in plugin.names(formats):
        for column, dtype in plugin.find(formats, name).columns.items():
            fields = {f.name for f in dtype.fields} if isinstance(dtype, pl.Struct) else set(struct_fields(dtype))
            places.setdefault(column, set()).update(fields)
    return places
