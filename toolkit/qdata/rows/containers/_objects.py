"""JSON texts to rows: what is wrong with one of them costs that one, and is told in words a person can act on."""

from __future__ import annotations

import bisect
import itertools
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from qdata.rows import exact, json_scan
from qdata.rows.parts import Bad, Rows, not_utf8, raw_text, short


class Place(NamedTuple):
    """Where a text begins in its file, for texts that are not lines of their own: line and column from 1."""

    line: int
    column: int


def objects(ordinals: Sequence[int], texts: Sequence[bytes], places: Sequence[Place] | None = None) -> Rows:
    """The rows of JSON texts: those that are an object without a key written twice; all others are Bad."""
    joined = b"\n".join(texts)
    try:
        rows = list(map(orjson.loads, texts))
        if long := list(exact.long_digits(joined)):
            ends = list(itertools.accumulate((len(text) + 1 for text in texts), initial=0))
            for index in {bisect.bisect(ends, at) - 1 for at in long}:
                rows[index] = exact.loads(texts[index])
    except (ValueError, RecursionError):
        return _one_by_one(ordinals, texts, places)
    if set(map(type, rows)) <= {dict} and not exact.is_too_deep(rows) and has_all_keys(joined, rows):
        return Rows(list(ordinals), rows, [])
    return _one_by_one(ordinals, texts, places)


def has_all_keys(text: bytes, rows: list[dict[str, Any]]) -> bool:
    """Whether the rows have as many keys as were written: parsers keep the last of two equal ones, silently."""
    written = json_scan.keys(text)
    return written == sum(map(len, rows)) or written == json_scan.keys(exact.dumps(rows))


def _one_by_one(ordinals: Sequence[int], texts: Sequence[bytes], places: Sequence[Place] | None) -> Rows:
    out = Rows([], [], [])
    for index, (ordinal, text) in enumerate(zip(ordinals, texts, strict=True)):
        try:
            row = exact.loads(text)
        except (ValueError, RecursionError):
            out.bad.append(bad_json(ordinal, text, places[index] if places else None))
            continue
        if exact.is_too_deep(row):
            reason = f"nested deeper than {exact.DEEPEST} levels, which could not be written again"
            out.bad.append(Bad(ordinal, reason, raw_text(text), "too_deep"))
        elif not isinstance(row, dict):
            raw = json.dumps(row, ensure_ascii=False)
            out.bad.append(Bad(ordinal, f"wanted a JSON object, got {short(row)}", raw, "no_object"))
        elif not has_all_keys(text, [row]):
            key = json_scan.twice(text)
            reason = f"the key {key!r} stands twice in one object; which value is meant?"
            out.bad.append(Bad(ordinal, reason, raw_text(text), "key_twice"))
        else:
            out.ordinals.append(ordinal)
            out.rows.append(row)
    return out


def bad_json(ordinal: int, text: bytes, place: Place | None = None) -> Bad:
    """The reason in words; orjson's own message counts bytes and says little."""
    raw = raw_text(text)
    if (bad := not_utf8(text, ordinal, place.line if place else None)) is not None:
        return bad
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if (name := _constant(text)) is not None:
            reason = f"{name} is no JSON (Python writes it for a number that is none); wanted a number or null"
            return Bad(ordinal, reason, raw, "nan")
        where = f"at {position(place, error)}, near {near(raw, error.pos)}"
        return Bad(ordinal, f"not valid JSON: {error.msg} {where}", raw, "not_json")
    return Bad(ordinal, "a number with more digits than can be read", raw, "not_json")


def position(place: Place | None, error: json.JSONDecodeError) -> str:
    """`column 7`, or `line 2, column 7` where the text is not one line."""
    if place is None:
        return f"column {error.colno}"
    column = error.colno + (place.column - 1 if error.lineno == 1 else 0)
    return f"line {place.line + error.lineno - 1}, column {column}"


def _constant(text: bytes) -> str | None:
    """The first of NaN, Infinity, -Infinity in a text that is JSON but for these."""
    found: list[str] = []
    try:
        json.loads(text, parse_constant=found.append)
    except (ValueError, RecursionError):
        return None
    return found[0] if found else None


def near(text: str, at: int) -> str:
    """The text around a position, as it is shown."""
    return repr(text[max(0, at - 20) : at + 20])
