"""Rows as plain dicts to typed columns: what a dialect knows, and everything else as JSON text, so nothing is lost."""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Mapping
from itertools import chain
from typing import Any, NamedTuple

import polars as pl

from qdata.rows import exact
from qdata.rows.formats._turns import VERDICTS, verdict_of
from qdata.rows.parts import Bad, Rows, short
from qdata.rows.renaming import renamed, renaming
from qdata.rows.typed import JSON_TEXT, empty, keys_of, typed

# Columns that files have for reasons of their own: what does not fit is a column nobody knows, and no fault.
LENIENT = frozenset({"score"})


def columns(
    rows: Rows, wanted: Mapping[str, pl.DataType | type[pl.DataType]], rename: Mapping[str, str] | None = None
) -> tuple[pl.DataFrame, list[Bad]]:
    """Rows as a frame of `ordinal`, the columns a dialect knows, and `extra`: the JSON text of everything else.

    `rename` maps a dialect's column to the file's. A nested value in a text column becomes its JSON text; a value
    that does not fit its column makes the row `Bad`, or goes to `extra` where the column is LENIENT. What becomes of
    a value never depends on other rows.
    """
    dicts = [renamed(row, rename, _listed) for row in rows.rows] if rename else rows.rows
    data: dict[str, pl.Series] = {"ordinal": pl.Series(rows.ordinals, dtype=pl.Int64)}
    misfits: dict[int, str] = {}
    lenient: dict[int, set[str]] = {}
    have = keys_of(dicts)
    for name, dtype in wanted.items():
        if name not in have:
            data[name] = empty(name, dtype, len(dicts))
            continue
        values = _values(dicts, name)
        column = typed(values, dtype, name, inside=isinstance(dtype, pl.Struct))
        if column is None:
            values = [_fit(v, dtype, name) for v in values]
            for index, value in enumerate(values):
                if isinstance(value, _Misfit):
                    if name in LENIENT:
                        lenient.setdefault(index, set()).add(name)
                    else:
                        misfits.setdefault(index, f"{value.wanted}, got {short(value.value)}")
                    values[index] = None
            column = typed(values, dtype, name)
        if column is None:
            raise AssertionError(f"{name}: values that were made to fit {dtype} do not")
        data[name] = column
    nested = {name: known for name, dtype in wanted.items() if name in have and (known := struct_fields(dtype))}
    if have <= wanted.keys() and not (rename or lenient or _have_more(dicts, nested)):
        data["extra"] = empty("extra", pl.String, len(dicts))
    else:
        understood = [wanted.keys() - lenient[i] if i in lenient else wanted for i in range(len(dicts))]
        rests = [_rest(row, names, nested) for row, names in zip(dicts, understood, strict=True)]
        if rename:
            rests = [_shadowed(row, rename) | rest for row, rest in zip(rows.rows, rests, strict=True)]
        data["extra"] = pl.Series([exact.text(rest) if rest else None for rest in rests], dtype=pl.String)
    frame = pl.DataFrame(data)
    if not misfits:
        return frame, []
    bad = [Bad(rows.ordinals[i], why, json.dumps(rows.rows[i], ensure_ascii=False)) for i, why in misfits.items()]
    return frame.filter(~pl.int_range(pl.len()).is_in(list(misfits))), bad


def _values(rows: list[dict[str, Any]], name: str) -> list[Any]:
    try:
        return list(map(operator.itemgetter(name), rows))
    except KeyError:  # some have none
        return [row.get(name) for row in rows]


def _shadowed(row: Mapping[str, Any], rename: Mapping[str, str]) -> dict[str, Any]:
    """The columns that `renamed` leaves out: columns nobody knows, as all others."""
    return {k: v for k, v in row.items() if k in rename and k not in renaming(rename).columns}


def struct_fields(dtype: Any) -> frozenset[str]:
    """The keys of the items of a list of objects; none for every other type."""
    inner = dtype.inner if isinstance(dtype, pl.List) else None
    return frozenset(f.name for f in inner.fields) if isinstance(inner, pl.Struct) else frozenset()


def _have_more(rows: list[dict[str, Any]], nested: dict[str, frozenset[str]]) -> bool:
    """Whether some item of a list may have a key nobody knows: what `_rest` would tell row by row."""
    for name, known in nested.items():
        lists = [value for row in rows if (value := row.get(name)) is not None]
        if set(map(type, lists)) - {list}:
            return True
        items = list(chain.from_iterable(lists))
        if set(map(type, items)) - {dict} or not keys_of(items) <= known:
            return True
    return False


def _rest(row: dict[str, Any], wanted: Any, nested: dict[str, frozenset[str]]) -> dict[str, Any]:
    """What a dialect does not know of a row: whole columns, and as `"messages[]"` the unknown keys of messages."""
    rest = {k: v for k, v in row.items() if k not in wanted}
    for name, known in nested.items():
        items = _listed(row.get(name))
        if isinstance(items, list) and any(isinstance(m, dict) and not m.keys() <= known for m in items):
            key = f"{name}[]"
            while key in rest:  # somebody's own column
                key += "[]"
            rest[key] = [{k: v for k, v in m.items() if k not in known} if isinstance(m, dict) else {} for m in items]
    return rest


class _Misfit(NamedTuple):
    wanted: str
    value: Any


def _fit(value: Any, dtype: Any, name: str) -> Any:
    """`value` as the Python object polars takes for `dtype`, or a _Misfit."""
    if value is None:
        return None
    if isinstance(dtype, pl.List):
        value = _listed(value)
        if not isinstance(value, (list, tuple)):
            return _Misfit(f"{name}: wanted a list", value)
        fitted = [_fit(v, dtype.inner, f"{name}[{i}]") for i, v in enumerate(value)]
        return next((v for v in fitted if isinstance(v, _Misfit)), fitted)
    if isinstance(dtype, pl.Struct):
        value = value if "[" in name else _decoded(value)  # a cell, and no item of a list
        if not isinstance(value, dict):
            return _Misfit(f"{name}: wanted an object", value)
        known = [f.name for f in dtype.fields]
        if ("." in name or "[" not in name) and any(v is not None for k, v in value.items() if k not in known):
            # `extra` keeps what nobody knows of rows and of the items of their lists; nulls are how tables fill up
            return _Misfit(f"{name}: wanted nothing but {', '.join(known)}", value)
        out = {f.name: _fit(value.get(f.name), f.dtype, f"{name}.{f.name}") for f in dtype.fields}
        return next((v for v in out.values() if isinstance(v, _Misfit)), out)
    if dtype == pl.String:
        return _fit_text(value, name)
    if dtype == pl.Boolean:
        return _fit_truth(value, name)
    return _fit_number(value, name)


def _fit_text(value: Any, name: str) -> Any:
    if isinstance(value, str):
        return value
    field = name.rsplit(".", 1)[-1]
    if field == "content" and isinstance(value, list) and value:
        return _text_of_parts(value, name)
    if field not in JSON_TEXT and isinstance(value, (list, dict)):
        return _Misfit(f"{name}: wanted text", value)
    return exact.text(value)


def _text_of_parts(parts: list[Any], name: str) -> Any:
    """The text of OpenAI's `[{"type": "text", "text": …}]`; other parts, and several, could not be written back."""
    said = [{k: v for k, v in p.items() if v is not None} if isinstance(p, dict) else {} for p in parts]
    kinds = [p["type"] for p in said if isinstance(p.get("type"), str)]
    if (other := next((kind for kind in kinds if kind != "text"), None)) is not None:
        return _Misfit(f"{name}: wanted text, and no part of type {other}", parts)
    if len(said) == 1 and said[0].keys() == {"type", "text"} and isinstance(said[0]["text"], str):
        return said[0]["text"]
    return _Misfit(f"{name}: wanted text" + (", or one part with nothing but type and text" if kinds else ""), parts)


def _fit_truth(value: Any, name: str) -> Any:
    said = verdict_of(value) if name in VERDICTS else value if isinstance(value, bool) else None
    return _Misfit(f"{name}: wanted true or false", value) if said is None else said


def _fit_number(value: Any, name: str) -> Any:
    misfit = _Misfit(f"{name}: wanted a number", value)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return misfit
    if math.isnan(number) and isinstance(value, float):
        return None  # how tables say that there is none
    if not math.isfinite(number) or isinstance(value, bool):
        return misfit
    whole = value if isinstance(value, int) else int(value) if _WHOLE.fullmatch(str(value)) else number
    return number if whole == number else _Misfit(f"{name}: wanted a number of at most 53 bits", value)


_WHOLE = re.compile(r"[+-]?[0-9]{16,4000}")  # as text; shorter ones are exact


def _listed(value: Any) -> Any:
    """A list as it is, or as CSV and some Parquet files carry it: as JSON text; or as MOSS does: turn_1, turn_2, …"""
    value = _decoded(value)
    if isinstance(value, dict) and value and list(value) == [f"turn_{i}" for i in range(1, len(value) + 1)]:
        return list(value.values())
    return value


def _decoded(value: Any) -> Any:
    """The list or object that a text is in JSON; everything else as it is."""
    if not (isinstance(value, str) and value.lstrip().startswith(("[", "{"))):
        return value
    try:
        made = exact.loads(value.encode())
    except (ValueError, RecursionError):  # more digits or brackets than can be read
        return value
    return value if exact.is_too_deep(made) else made
