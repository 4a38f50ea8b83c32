"""Conversations too long for one sample, as several: each with the system prompt and a run of whole exchanges.

What a later part is trained on is what a server sees that has forgotten the earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc


def split_long(table: pa.Table, frame: pl.DataFrame, limit: int, again: Callable[[pl.DataFrame], pa.Table]) -> pa.Table:
    """The token table with every conversation of more than `limit` tokens halved until its parts fit.

    `frame` holds the conversations; `again` makes the token table of others. A single exchange that is too long stays
    as it is: what becomes of it is not ours to say. Samples stay in the order of their conversations, and their turns
    keep the numbers of the whole conversation. `skipped` says at which message the part of a sample begins.
    """
    parts = frame.with_columns(origin=pl.int_range(pl.len(), dtype=pl.UInt32), shift=pl.lit(0, pl.Int32))
    done = []
    while True:
        index = table["index"].to_numpy()
        too_long = pc.list_value_length(table["input_ids"]).to_numpy() > limit
        long = np.unique(index[too_long])
        divisible = long[_questions(parts)[long] > 1]
        done.append(_as_of_whole(table.filter(pa.array(~np.isin(index, divisible))), parts))
        if not len(divisible):
            return pa.concat_tables(done).sort_by([("index", "ascending"), ("skipped", "ascending")])
        parts = _halves(parts[divisible])
        table = again(parts.select(frame.columns))


def _questions(parts: pl.DataFrame) -> npt.NDArray[np.int64]:
    asks = pl.element().struct.field("role") == "user"
    return parts.select(pl.col("messages").list.eval(asks).list.sum())["messages"].cast(pl.Int64).to_numpy()


def _halves(parts: pl.DataFrame) -> pl.DataFrame:
    rows: list[dict[str, Any]] = []
    for row in parts.iter_rows(named=True):
        messages = row["messages"]
        starts = [i for i, m in enumerate(messages) if m["role"] == "user"]
        system = [m for m in messages[: starts[0]] if m["role"] == "system"]
        middle = starts[len(starts) // 2]
        rows.append({**row, "messages": messages[:middle]})
        shift = row["shift"] + middle - len(system)
        rows.append({**row, "messages": system + messages[middle:], "shift": shift})
    return pl.DataFrame(rows, schema=parts.schema)


def _as_of_whole(table: pa.Table, parts: pl.DataFrame) -> pa.Table:
    """The table with the conversation and turn numbers of the undivided frame."""
    index = table["index"].to_numpy()
    turns = table["turns"].combine_chunks()
    turns = turns if isinstance(turns, pa.ListArray) else pa.concat_arrays(turns.chunks)
    numbers, offsets = turns.flatten().to_numpy(), turns.offsets.to_numpy()
    skipped = parts["shift"].to_numpy()[index]
    shift = np.repeat(skipped, np.diff(offsets))
    shifted = np.where(numbers >= 0, numbers + shift, numbers).astype(np.int32)
    renumbered = pa.ListArray.from_arrays(pa.array((offsets - offsets[0]).astype(np.int32)), pa.array(shifted))
    origin = pa.array(parts["origin"].to_numpy()[index], pa.uint32())
    for name, column in (("index", origin), ("turns", renumbered), ("skipped", pa.array(skipped, pa.int32()))):
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table
