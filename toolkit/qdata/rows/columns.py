"""Rows as plain dicts to typed columns: what a dialect knows, and everything else as JSON text, so nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson
import polars as pl

from qdata.rows.source import Bad, Rows, short

# Fields whose nested values are kept as JSON text: see schema.py.
JSON_TEXT = frozenset({"tools", "tool_calls"})


def columns(
    rows: Rows, wanted: Mapping[str, pl.DataType | type[pl.DataType]], rename: Mapping[str, str] | None = None
) -> tuple[pl.DataFrame, list[Bad]]:
    """Rows as a frame of `ordinal`, the columns a dialect knows, and `extra`: the JSON text of everything else.

    `rename` maps a dialect's column to the file's. A nested value in a text column becomes its JSON text; a value
    that does not fit its column makes the row `Bad`.
    """
    renamed = {theirs: ours for ours, theirs in (rename or {}).items()}
    dicts, ordinals, bad = rows.rows, rows.ordinals, []
    if renamed:
        dicts = [{renamed.get(k, k): v for k, v in row.items()} for row in dicts]
    data: dict[str, pl.Series] = {"ordinal": pl.Series(ordinals, dtype=pl.Int64)}
    misfits: dict[int, str] = {}
    for name, dtype in wanted.items():
        values = [row.get(name) for row in dicts]
        if name in JSON_TEXT:
            values = [v if v is None or isinstance(v, str) else orjson.dumps(v).decode() for v in values]
        try:
            data[name] = pl.Series(name, values, dtype, strict=True)
        except (TypeError, pl.exceptions.PolarsError, OverflowError):
            fitted = [_fit(v, dtype, name) for v in values]
            for index, value in enumerate(fitted):
                if isinstance(value, _Misfit):
                    misfits.setdefault(index, f"{value.wanted}, got {short(value.value)}")
                    fitted[index] = None
            data[name] = pl.Series(name, fitted, dtype, strict=True)
    nested = {name: known for name, dtype in wanted.items() if (known := _struct_fields(dtype))}
    extra = [orjson.dumps(rest).decode() if (rest := _rest(row, wanted, nested)) else None for row in dicts]
    data["extra"] = pl.Series(extra, dtype=pl.String)
    frame = pl.DataFrame(data)
    if misfits:
        bad = [Bad(ordinals[i], reason, json.dumps(dicts[i], ensure_ascii=False)) for i, reason in misfits.items()]
        frame = frame.filter(~pl.int_range(pl.len()).is_in(list(misfits)))
    return frame, bad


def _struct_fields(dtype: Any) -> frozenset[str]:
    inner = dtype.inner if isinstance(dtype, pl.List) else None
    return frozenset(f.name for f in inner.fields) if isinstance(inner, pl.Struct) else frozenset()


def _rest(row: dict[str, Any], wanted: Any, nested: dict[str, frozenset[str]]) -> dict[str, Any]:
    """What a dialect does not know of a row: whole columns, and as `"messages[]"` the unknown keys of messages."""
    rest = {k: v for k, v in row.items() if k not in wanted}
    for name, known in nested.items():
        items = row.get(name)
        if isinstance(items, list) and any(isinstance(m, dict) and not m.keys() <= known for m in items):
            rest[f"{name}[]"] = [
                {k: v for k, v in m.items() if k not in known} if isinstance(m, dict) else {} for m in items
            ]
    return rest


class _Misfit(NamedTuple):
    wanted: str
    value: Any


def _fit(value: Any, dtype: Any, name: str) -> Any:
    """`value` as the Python object polars takes for `dtype`, or a _Misfit."""
    if value is None:
        return None
    if isinstance(dtype, pl.List):
        if isinstance(value, str) and value.lstrip().startswith("["):
            value = _decoded(value)  # CSV and some Parquet files carry the messages as JSON text
        if not isinstance(value, (list, tuple)):
            return _Misfit(f"{name}: wanted a list", value)
        fitted = [_fit(v, dtype.inner, f"{name}[{i}]") for i, v in enumerate(value)]
        return next((v for v in fitted if isinstance(v, _Misfit)), fitted)
    if isinstance(dtype, pl.Struct):
        if not isinstance(value, dict):
            return _Misfit(f"{name}: wanted an object", value)
        out = {f.name: _fit(value.get(f.name), f.dtype, f"{name}.{f.name}") for f in dtype.fields}
        return next((v for v in out.values() if isinstance(v, _Misfit)), out)
    if dtype == pl.String:
        return _fit_text(value, name)
    if dtype == pl.Boolean:
        return value if isinstance(value, bool) else _Misfit(f"{name}: wanted true or false", value)
    return _fit_number(value, name)


def _fit_text(value: Any, name: str) -> Any:
    if isinstance(value, str):
        return value
    if name.rsplit(".", 1)[-1] not in JSON_TEXT and isinstance(value, (list, dict)):
        return _Misfit(f"{name}: wanted text", value)
    return orjson.dumps(value).decode()


def _fit_number(value: Any, name: str) -> Any:
    try:
        return _Misfit(f"{name}: wanted a number", value) if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return _Misfit(f"{name}: wanted a number", value)


def _decoded(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
