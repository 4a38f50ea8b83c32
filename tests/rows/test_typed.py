"""Columns built flat are the columns polars builds, slowly, of the same values."""

from __future__ import annotations

from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from qdata.rows.formats._lists import ITEM, joined, of_each
from qdata.rows.typed import empty, typed
from qdata.schema import MESSAGE, MESSAGES, message

TEXT = st.text(max_size=4)
MAYBE = st.none() | TEXT
TURN = pl.Struct({"role": pl.String, "said": pl.List(pl.String), "flag": pl.Boolean, "weight": pl.Float64})
TURNS = st.fixed_dictionaries(
    {}, optional={
        "role": MAYBE, "said": st.none() | st.lists(MAYBE, max_size=2), "flag": st.none() | st.booleans(),
        "weight": st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53),
    },
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.none() | st.lists(st.none() | TURNS, max_size=3), max_size=5))
def test_typed_is_what_polars_makes(values: list[Any]) -> None:
    """Nulls at every level, keys that some objects lack, empty lists and empty objects."""
    dtype = pl.List(TURN)
    filled = [
        v and [t if t is None else dict.fromkeys(("role", "said", "flag", "weight")) | t for t in v] for v in values
    ]
    column = typed(values, dtype, "x")
    assert column is not None
    assert column.equals(pl.Series("x", filled, dtype, strict=False), check_dtypes=True)
    assert column.to_list() == pl.Series("x", filled, dtype, strict=False).to_list()


@settings(deadline=None)
@given(st.sampled_from([1, True, 1.5, float("nan"), float("inf"), 2**53 + 1, "a", b"a", [], ["a"], {}, {"role": "a"}]))
def test_only_the_very_types_are_taken(value: Any) -> None:
    """A value of another type is not converted: the column is None."""
    takes = {
        pl.String: isinstance(value, str),
        pl.Boolean: isinstance(value, bool),
        pl.Float64: type(value) in (int, float) and abs(value) <= 2**53,
    }
    for dtype, expected in takes.items():
        assert (typed(["a" if dtype == pl.String else None, value], dtype, "x") is not None) == expected
    assert (typed([value], pl.List(pl.String), "x") is not None) == isinstance(value, list)
    assert (typed([value], TURN, "x") is not None) == isinstance(value, dict)


def test_unknown_keys_and_json_text() -> None:
    """Inside, an object with a key nobody knows does not fit; outside it is passed over. Calls become their text."""
    dtype = pl.Struct({"tool_calls": pl.String})
    assert typed([{"other": 1}], dtype, "x", inside=True) is None
    made = typed([{"other": 1, "tool_calls": [{"name": "f"}]}, {"tool_calls": "as it is"}], dtype, "x")
    assert made is not None
    assert made.to_list() == [{"tool_calls": '[{"name":"f"}]'}, {"tool_calls": "as it is"}]
    assert empty("x", MESSAGES, 2).to_list() == [None, None]


MESSAGES_HERE = st.none() | st.lists(st.fixed_dictionaries({"role": TEXT, "content": MAYBE}), max_size=3)
ROWS = st.lists(st.tuples(MESSAGES_HERE, MAYBE, MESSAGES_HERE), min_size=1, max_size=6)
SHORT = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))


def full(one: dict[str, Any]) -> dict[str, Any]:
    """A message with all fields."""
    return dict.fromkeys(f.name for f in MESSAGE.fields) | one


@settings(deadline=None)
@given(ROWS)
def test_joined_is_list_addition(rows: list[Any]) -> None:
    """Null lists make null; null messages are none; every field of MESSAGE is there."""
    before, said, behind = zip(*rows, strict=True)
    frame = pl.DataFrame({"a": pl.Series(before, dtype=SHORT), "b": pl.Series(said, dtype=pl.String),
                          "c": pl.Series(behind, dtype=SHORT)})  # fmt: skip
    one = pl.when(pl.col("b") != "").then(message("user", pl.col("b")))
    made = frame.select(m=joined(pl.col("a"), one, pl.col("c")))["m"]
    assert made.dtype == MESSAGES
    assert made.to_list() == [
        None if a is None or c is None else
        [full(m) for m in (*a, *([{"role": "user", "content": b}] if b else []), *c)]
        for a, b, c in rows
    ]  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.none() | st.lists(st.tuples(MAYBE, MAYBE), max_size=3), min_size=1, max_size=6))
def test_of_each_is_a_loop_over_items(rows: list[Any]) -> None:
    """The turns of all items, in their order."""
    dtype = pl.List(pl.Struct({"q": pl.String, "a": pl.String}))
    items = [row and [{"q": q, "a": a} for q, a in row] for row in rows]
    field = pl.col(ITEM).struct.field
    maybe = pl.when(field("q").is_not_null()).then(message("user", field("q")))
    made = pl.DataFrame({"x": pl.Series(items, dtype=dtype)}).select(
        m=of_each(pl.col("x"), maybe, message("assistant", field("a")))
    )["m"]
    assert made.to_list() == [
        row if row is None else
        [full({"role": r, "content": c}) for q, a in row for r, c in (("user", q), ("assistant", a))
         if r == "assistant" or q is not None]
        for row in rows
    ]  # fmt: skip
