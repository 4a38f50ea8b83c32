"""Python values to columns of a type, without conversions.

polars takes lists of dicts too, at 40 µs for a conversation of three messages. Here all messages of all rows are laid
end to end first, then each of their fields is one flat column: 2 µs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from qdata import schema
from qdata.rows import exact

# Fields whose nested values are kept as JSON text: see schema.py.
JSON_TEXT = frozenset({"tools", "tool_calls", "functions", "function_call"})

_NONE = type(None)
_TYPES = {pl.String: str, pl.Boolean: bool, pl.Float64: float}
_EXACT = 1 << 53  # up to here every whole number is a float


def typed(values: list[Any], dtype: Any, name: str, *, inside: bool = False) -> pl.Series | None:
    """The column of values that are None or of the very Python types of `dtype`; None where some are not.

    `inside`: these are values of objects, where an object with keys nobody knows does not fit; outside, such keys are
    passed over. What JSON_TEXT names may be anything, and becomes its text.
    """
    if isinstance(dtype, pl.List):
        return _lists(values, dtype, name, inside)
    if isinstance(dtype, pl.Struct):
        return _objects(values, dtype, name, inside)
    if name in JSON_TEXT:
        values = [v if v is None or isinstance(v, str) else exact.text(v) for v in values]
    kinds = set(map(type, values)) - {_NONE}
    if dtype == pl.Float64 and kinds <= {int, float}:
        fits = all(v is None or (math.isfinite(v) if type(v) is float else abs(v) <= _EXACT) for v in values)
        return pl.Series(name, [v if v is None else float(v) for v in values], dtype) if fits else None
    return pl.Series(name, values, dtype, strict=True) if kinds <= {_TYPES[dtype]} else None


def keys_of(objects: Iterable[dict[str, Any]]) -> set[str]:
    """All keys. Most objects have the same ones in the same order, so these are looked at once."""
    return set(chain.from_iterable(set(map(tuple, objects))))


def _lists(values: list[Any], dtype: pl.List, name: str, inside: bool) -> pl.Series | None:
    kinds = set(map(type, values))
    if not kinds <= {list, _NONE}:
        return None
    full = [v or () for v in values] if _NONE in kinds else values
    items = typed(list(chain.from_iterable(full)), dtype.inner, name, inside=inside)
    if items is None:
        return None
    return schema.lists(items, np.array(list(map(len, full)), np.int64), _nulls(values)).alias(name)


def _objects(values: list[Any], dtype: pl.Struct, name: str, inside: bool) -> pl.Series | None:
    kinds = set(map(type, values))
    if not kinds <= {dict, _NONE}:
        return None
    full: list[dict[str, Any]] = [v or {} for v in values] if _NONE in kinds else values
    keys = keys_of(full)
    if inside and not keys <= {field.name for field in dtype.fields}:
        return None
    columns = []
    for field in dtype.fields:
        if field.name in keys:
            column = typed([v.get(field.name) for v in full], field.dtype, field.name, inside=True)
            if column is None:
                return None
        else:
            column = empty(field.name, field.dtype, len(full))
        columns.append(column)
    return schema.structs(columns, _nulls(values)).alias(name)


def empty(name: str, dtype: Any, length: int) -> pl.Series:
    """A column of nulls."""
    return pl.Series(name, [None], dtype).new_from_index(0, length)


def _nulls(values: Sequence[Any]) -> npt.NDArray[np.bool_]:
    return np.array([v is None for v in values], np.bool_)
