"""Lists of messages put together by their offsets, as Arrow has them.

polars' own `concat_list` does the same for structs, and `list.eval(… .explode())` for the items of lists, but both go
row by row: on alpaca's rows they took thirty times as long, and most of the time of reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from qdata.schema import MESSAGE, MESSAGES, lists

Lengths = npt.NDArray[np.int64]
ITEM = "item"  # what the expressions of `of_each` call an item


def joined(*parts: pl.Expr) -> pl.Expr:
    """One list of messages a row: the messages and lists of messages in `parts`, in their order.

    A message that is null is none; where a list is null, so is the result. Fields that a part lacks are null.
    """
    return pl.map_batches(list(parts), lambda columns: _made(_joined(columns)), return_dtype=MESSAGES)


def of_each(items: pl.Expr, *turns: pl.Expr) -> pl.Expr:
    """One list of messages a row: of each item of a list the `turns`, expressions over `pl.col("item")`.

    Null where the list is; as in `joined`, a turn that is null is none.
    """

    def made(columns: Sequence[pl.Series]) -> pl.Series:
        (column,) = columns
        of_items = _joined(_flat(column).to_frame(ITEM).select(turn.alias(str(n)) for n, turn in enumerate(turns)))
        ends = np.concatenate(([0], np.cumsum(of_items.lengths)))[np.cumsum(_lengths(column))]
        return _made(_Lists(of_items.values, np.diff(ends, prepend=0), column.is_null().to_numpy()))

    return pl.map_batches([items], made, return_dtype=MESSAGES)


class _Lists(NamedTuple):
    """Lists of messages: all their messages, how many are each row's, and which rows are null."""

    values: pl.Series
    lengths: Lengths
    null: npt.NDArray[np.bool_]


def _joined(columns: pl.DataFrame | Sequence[pl.Series]) -> _Lists:
    parts = [_lists(column) for column in columns]
    lengths = np.sum([part.lengths for part in parts], axis=0)
    at = np.cumsum(lengths) - lengths  # where the next message of each row belongs
    places = np.empty(int(lengths.sum()), np.int64)
    behind = 0
    for part in parts:
        count = len(part.values)
        first = np.cumsum(part.lengths) - part.lengths
        places[np.repeat(at - first, part.lengths) + np.arange(count)] = np.arange(behind, behind + count)
        at, behind = at + part.lengths, behind + count
    values = pl.concat([part.values for part in parts]).gather(places)
    return _Lists(values, lengths, np.any([part.null for part in parts], axis=0))


def _lists(column: pl.Series) -> _Lists:
    if isinstance(column.dtype, pl.List):
        return _Lists(_messages(_flat(column)), _lengths(column), column.is_null().to_numpy())
    said = column.is_not_null()
    return _Lists(_messages(column.filter(said)), said.to_numpy().astype(np.int64), np.zeros(len(column), np.bool_))


def _lengths(column: pl.Series) -> Lengths:
    return column.list.len().fill_null(0).to_numpy().astype(np.int64)


def _flat(column: pl.Series) -> pl.Series:
    return column.explode(empty_as_null=False, keep_nulls=False)


def _messages(values: pl.Series) -> pl.Series:
    """Structs with every field of MESSAGE."""
    dtype: Any = values.dtype
    have = {field.name for field in dtype.fields}
    field = pl.col(values.name).struct.field
    fields = (
        field(f.name).cast(f.dtype) if f.name in have else pl.lit(None, f.dtype).alias(f.name) for f in MESSAGE.fields
    )
    return values.to_frame().select(pl.struct(fields).alias("message")).to_series()


def _made(made: _Lists) -> pl.Series:
    return lists(made.values, made.lengths, made.null)
