"""Tables of Arrow to plain dicts. Values that JSON has no word for become text, so that nothing crashes on the way out
and nothing is lost."""

from __future__ import annotations

import base64
import datetime
import math
from collections.abc import Iterable
from typing import Any

import polars as pl
import pyarrow as pa

from qdata.errors import QdataError


def rows_of(table: pa.Table, label: str) -> list[dict[str, Any]]:
    """The rows of a table; a null is a missing key. Raises QdataError where two columns have one name, and Arrow's own
    error where the bytes are not what the types say: texts that are not UTF-8, lists that end before they begin."""
    table.validate(full=True)  # polars panics at such bytes
    names = table.column_names
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise QdataError(f"{label}: two columns are called {twice!r}; wanted a name for each")
    if not names:
        return [{} for _ in range(table.num_rows)]
    columns = [_values(column) for column in table.columns]
    if not any(column.null_count for column in table.columns):
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
    return [
        {k: v for k, v in zip(names, values, strict=True) if v is not None} for values in zip(*columns, strict=True)
    ]


def rows_within(batches: Iterable[pa.RecordBatch], start: int, stop: int, at: int, label: str) -> list[dict[str, Any]]:
    """The rows `start` to `stop` of batches that follow each other, the first of which begins at row `at`."""
    rows: list[dict[str, Any]] = []
    for batch in batches:
        low, high = max(start - at, 0), min(stop - at, batch.num_rows)
        if low < high:
            rows += rows_of(pa.Table.from_batches([batch.slice(low, high - low)]), label)
        at += batch.num_rows
        if at >= stop:
            break
    return rows


def _values(column: pa.ChunkedArray) -> list[Any]:
    """A column as Python values. polars makes those of strings and lists of objects several times as fast."""
    kind = column.type
    if _is_plain(kind):
        listed: list[Any] = pl.from_arrow(pa.table({"c": column}))["c"].to_list()  # type: ignore[index]
        if pa.types.is_floating(kind):
            return [_number(v) for v in listed]
        return [_said(v) for v in listed] if _has_floats(kind) else listed
    return [_said(value) for value in column.to_pylist()]


def _is_plain(kind: pa.DataType) -> bool:
    """Whether every value of an Arrow type is one JSON has a word for, and polars and Arrow make the same of it.

    polars takes no object with two fields of one name, and the name of a field as ending at a NUL.
    """
    types = pa.types
    if types.is_struct(kind) or types.is_list(kind) or types.is_large_list(kind):
        fields = [kind.field(i) for i in range(kind.num_fields)]
        names = {field.name for field in fields if "\0" not in field.name}  # raises where one is not UTF-8
        return 0 < len(fields) == len(names) and all(_is_plain(field.type) for field in fields)
    simple = (types.is_string, types.is_large_string, types.is_boolean, types.is_integer, types.is_float32,
              types.is_float64, types.is_null, types.is_string_view)  # fmt: skip
    return any(one(kind) for one in simple)


def _has_floats(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or any(_has_floats(kind.field(i).type) for i in range(kind.num_fields))


def _number(value: float | None) -> float | str | None:
    """A number; what is none, as text: NaN is not null, though many a table means it."""
    return value if value is None or math.isfinite(value) else str(value)


def _said(value: Any) -> Any:
    """A value with everything JSON has no word for as text: times in ISO 8601, decimals in full, bytes as the UTF-8
    they are, else in base64."""
    if isinstance(value, dict):
        return {key: _said(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_said(one) for one in value]
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return base64.b64encode(value).decode("ascii")
    if isinstance(value, (datetime.date, datetime.time)):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, float):
        return _number(value)
    return value if value is None or isinstance(value, (str, int)) else str(value)
