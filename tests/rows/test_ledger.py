"""What became of each row: one line each, in order, and the sums close."""

from __future__ import annotations

from collections import Counter
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.test_schema import conversations, frame

from qdata import schema
from qdata.rows import ledger

REASONS = ["a.b", "a.c", "read.not valid JSON: x at line 1.5", "convert.pairs cannot express the tools", "max_length.x"]
ROWS = pl.Schema({"row": pl.String, "content_hash": pl.String, "drop": pl.String})
PLACES = pl.Schema({"row": pl.String, "shard": pl.String, "index": pl.Int64})


def book(
    drops: list[str | None], edits: list[tuple[str, str, str, str]], places: list[tuple[str, str, int]]
) -> pl.DataFrame:
    rows = [(f"r{i}", f"h{i}", drop) for i, drop in enumerate(drops)]
    return ledger.ledger(
        pl.DataFrame(rows, schema=ROWS, orient="row"),
        pl.DataFrame(edits, schema=ledger.EDITS, orient="row"),
        pl.DataFrame(places, schema=PLACES, orient="row"),
    )


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_the_sums_close(data: st.DataObject) -> None:
    """in = kept + dropped, whatever was edited, dropped or placed; every row once, in order, reasons counted."""
    drops = data.draw(st.lists(st.none() | st.sampled_from(REASONS), max_size=8))
    known = st.integers(0, len(drops) - 1).map("r{}".format)
    edit = st.tuples(known, st.sampled_from(["s", "t"]), st.just("x"), st.just("y"))
    edits = data.draw(st.lists(edit, max_size=4)) if drops else []
    kept = [f"r{i}" for i, drop in enumerate(drops) if drop is None]
    places = [(row, "f", i) for i, row in enumerate(data.draw(st.permutations(kept)))]
    made = book(drops, edits, places)
    assert made.schema == schema.LEDGER
    assert made["row"].to_list() == [f"r{i}" for i in range(len(drops))]
    assert made["content_hash"].to_list() == [f"h{i}" for i in range(len(drops))]
    sums = ledger.sums(made)
    assert sums["in"] == len(drops) == sums["kept"] + sum(sums["dropped"].values())
    assert sums["kept"] == len(kept)
    assert sums["edited"] == len({row for row, *_ in edits} & set(kept))
    assert sums["dropped"] == dict(Counter(drop for drop in drops if drop is not None))
    for line in made.iter_rows(named=True):
        drop = drops[int(line["row"][1:])]
        assert (line["action"] == "dropped") == (drop is not None)
        assert drop is None or f"{line['step']}.{line['reason']}" == drop
        assert line["reason"] is None or drop is not None
        assert (line["index"] is not None) == (drop is None)
        assert drop is not None or (line["row"], line["shard"], line["index"]) in places


def test_a_row_edited_twice_has_one_line() -> None:
    """The steps in order, the text before the first and after the last."""
    made = book([None, None], [("r1", "strip", " a ", "a"), ("r1", "placeholders", "a", "b")], [])
    assert made["action"].to_list() == ["kept", "edited"]
    assert made.row(1, named=True) | {"row": 0, "content_hash": 0} == {
        "row": 0, "content_hash": 0, "action": "edited", "step": "strip,placeholders", "reason": None,
        "before": " a ", "after": "b", "shard": None, "index": None, "by": None,
    }  # fmt: skip


def test_a_row_dropped_after_an_edit_is_dropped() -> None:
    """The reason is of the drop; what the edit did stays told."""
    (line,) = book(["complete.empty_answer"], [("r0", "strip", " ", "")], []).to_dicts()
    assert (line["action"], line["step"], line["reason"]) == ("dropped", "complete", "empty_answer")
    assert (line["before"], line["after"]) == (" ", "")


def test_the_first_place_counts() -> None:
    """A conversation that became several samples is found at the first of them."""
    (line,) = book([None], [], [("r0", "train", 7), ("r0", "train", 3)]).to_dicts()
    assert (line["shard"], line["index"]) == ("train", 7)


@pytest.mark.parametrize(
    "broken",
    [{"row": ["a", "a"], "action": ["kept", "kept"]}, {"row": ["a", "b"], "action": ["kept", "lost"]}],
    ids=["a row twice", "an unknown action"],
)
def test_a_ledger_that_does_not_close_is_our_mistake(broken: dict[str, Any]) -> None:
    """A row that occurs twice or has no known action raises; it is never reported as if all were well."""
    made = pl.DataFrame(broken).lazy().with_columns(step=pl.lit(None), reason=pl.lit(None)).collect()
    with pytest.raises(AssertionError, match="does not close"):
        ledger.sums(made.cast({"step": pl.String, "reason": pl.String}))


def test_reasons_are_counted_most_first() -> None:
    """The order of reasons is by count, then by name: the same on every run."""
    sums = ledger.sums(book(["b.x", "a.x", "c.x", "c.x", None], [], []))
    assert list(sums["dropped"].items()) == [("c.x", 2), ("a.x", 1), ("b.x", 1)]


def test_edits_are_what_differs() -> None:
    """Only rows whose hash changed, with the text before and after."""
    before = pl.DataFrame({"row": ["a", "b"], "hash": ["1", "2"], "text": ["x", "y"]})
    after = pl.DataFrame({"row": ["a", "b"], "hash": ["1", "3"], "text": ["x", "z"]})
    made = ledger.edits_between(before, after, "strip")
    assert made.schema == ledger.EDITS
    assert made.rows() == [("b", "strip", "y", "z")]
    assert ledger.edits_between(before, before, "strip").is_empty()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(conversations(), conversations(), st.booleans()), max_size=4))
def test_changed_rows_are_those_whose_canonical_json_differs(made: list[Any]) -> None:
    """The quick comparison by columns tells what the hashes would; also where lists have other lengths."""
    old = schema.with_content_hash(frame([row for row, _, _ in made]))
    new = schema.with_content_hash(frame([other if swap else row for row, other, swap in made]))
    assert ledger.changed(old, new).to_list() == (old["content_hash"] != new["content_hash"]).to_list()
