"""The type of a column that is written to a table: of all its values, none of which is lost or changed."""

from __future__ import annotations

from typing import Any

import polars as pl

from qdata.rows import exact
from qdata.rows.containers._spool import cell

_WHOLE = 2**53  # up to here a whole number is the same as a float


class Column:
    """What was seen of a column so far. `wanted`: its type in the dialect, where that is a list of objects or lists.

    Such a column becomes real lists, of objects with the keys that occur, unless some value does not fit; a column of
    nothing but numbers or truth values is one; every other is text, its values as CSV has them.
    """

    def __init__(self, wanted: Any) -> None:
        self.wanted = wanted if isinstance(wanted, pl.List) else None
        self.kinds: set[type] = set()
        self.keys: set[str] = set()
        self.whole_as_float = True

    def see(self, value: Any) -> None:
        """Takes notice of a value."""
        if value is None:
            return
        if self.wanted is not None:
            try:
                _fit(value, self.wanted)
            except _MisfitError:
                self.wanted = None
            else:
                self.keys.update(key for item in value if isinstance(item, dict) for key in item)
        is_long = isinstance(value, int) and not -(2**63) <= value < 2**63
        self.kinds.add(object if is_long else type(value))
        self.whole_as_float &= not isinstance(value, int) or abs(value) <= _WHOLE

    def series(self, name: str, values: list[Any]) -> pl.Series:
        """The values as a column; of the same type for any values that were seen."""
        if self.wanted is not None and self.kinds:
            inner: Any = self.wanted.inner
            if isinstance(inner, pl.Struct):
                inner = pl.Struct([field for field in inner.fields if field.name in self.keys])
            if not isinstance(inner, pl.Struct) or inner.fields:
                fitted = [None if v is None else _fit(v, pl.List(inner)) for v in values]
                return pl.Series(name, fitted, pl.List(inner), strict=True)
        if self.kinds == {bool}:
            return pl.Series(name, values, pl.Boolean, strict=True)
        if self.kinds == {int}:
            return pl.Series(name, values, pl.Int64, strict=True)
        if self.kinds == {float} or (self.kinds == {int, float} and self.whole_as_float):
            return pl.Series(name, [None if v is None else float(v) for v in values], pl.Float64, strict=True)
        return pl.Series(name, [cell(v) for v in values], pl.String, strict=True)


class _MisfitError(Exception):
    """A value that its type has no place for."""


def _fit(value: Any, dtype: Any) -> Any:
    """The value as `dtype` holds it: tool calls and other nested values of text fields as JSON text."""
    if value is None:
        return None
    if isinstance(dtype, pl.List) and isinstance(value, list):
        return [_fit(one, dtype.inner) for one in value]
    if isinstance(dtype, pl.Struct) and isinstance(value, dict):
        types = {field.name: field.dtype for field in dtype.fields}
        if value.keys() <= types.keys():
            return {key: _fit(value.get(key), kind) for key, kind in types.items()}
    if dtype == pl.String and isinstance(value, (str, list, dict)):
        return value if isinstance(value, str) else exact.text(value)
    if dtype == pl.Boolean and isinstance(value, bool):
        return value
    if dtype == pl.Float64 and isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _WHOLE:
        return float(value)
    raise _MisfitError
