"""Scores, filters and global steps on the road to shards: nothing is tokenised again, and the ledger closes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.pipeline.test_build import MANY, cold, hashes, recipe_of, rows, small, small_parts
from tests.tokens.test_shards import said, write_rows

from qdata import part, pipeline
from qdata.errors import QdataError
from qdata.recipe import DataRecipe, Source, structure
from qdata.rows import ledger

__all__ = ["cold", "rows", "small"]  # fixtures

EXACT: dict[str, Any] = {"step": "exact"}


def book_of(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "ledger.parquet")


def test_twins_fall_before_packing(small: Path, rows: Path, tmp_path: Path) -> None:
    """Each is dropped with the row that stays, which is in a shard; sums close; the settings are in the manifest."""
    plain = pipeline.build(recipe_of(small, rows, pack=64), tmp_path / "plain")
    made = pipeline.build(recipe_of(small, rows, pack=64, global_steps=(EXACT,)), tmp_path / "out")
    book = book_of(tmp_path / "out")
    fell = book.filter(pl.col("step") == "exact")
    assert fell.height == 5 and set(fell["reason"]) == {"duplicate"} and set(fell["action"]) == {"dropped"}
    assert fell["shard"].null_count() == 5 and fell["by"].n_unique() == 1
    (stays,) = book.filter(pl.col("row") == fell["by"][0]).to_dicts()
    assert stays["action"] == "kept" and stays["shard"] is not None
    assert ledger.sums(book) == made["rows"]
    assert made["rows"]["kept"] == plain["rows"]["kept"] - 5
    assert made["splits"]["train"]["samples"] == plain["splits"]["train"]["samples"] - 5
    settings = {"on": "conversation", "system": False, "normalize": [], "keep": "score.given"}
    assert json.loads(json.dumps(made["global_steps"])) == [["exact", settings]]
    kept = pl.read_parquet(tmp_path / "out/conversations.parquet").filter(pl.col("drop").is_null())
    assert set(fell["row"]).isdisjoint(kept["row"])
    assert made["fingerprint"] != plain["fingerprint"]


def test_parts_and_workers_make_no_difference(
    small: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cold: Callable[[], Path]
) -> None:
    """Shards and ledger are byte for byte the same."""
    steps: tuple[dict[str, Any], ...] = ({"step": "score_random"}, {"step": "score_length"})
    dedup = {"step": "exact", "on": "prompt", "keep": "score.random"}
    recipe = recipe_of(small, rows, pack=64, val=0.2, steps=steps, global_steps=(dedup, {"step": "prompt_cluster"}))
    one = pipeline.build(recipe, tmp_path / "one")
    small_parts(monkeypatch, 600)
    for workers in (1, 2):
        cold()
        made = pipeline.build(recipe, tmp_path / f"out{workers}", workers=workers)
        assert len(made["inputs"][0]["parts"]) > 3
        assert hashes(made) == hashes(one)
        assert book_of(tmp_path / f"out{workers}").equals(book_of(tmp_path / "one"))
    scores = pl.read_parquet(tmp_path / "one/conversations.parquet")["score"].struct.unnest()
    assert {"given", "random", "length", "prompt_cluster"} <= set(scores.columns)


def test_a_filter_in_a_recipe(small: Path, rows: Path, tmp_path: Path) -> None:
    """Scores of the steps before it, and of the file."""
    steps: tuple[dict[str, Any], ...] = (
        {"step": "score_repetition"},
        {"step": "filter", "where": "score.repetition < 0.3"},
    )
    made = pipeline.build(recipe_of(small, rows, steps=steps), tmp_path / "out")
    assert made["rows"]["dropped"]["filter.where"] > 0
    assert made["rows"]["in"] == made["rows"]["kept"] + sum(made["rows"]["dropped"].values())
    wrong = recipe_of(small, rows, steps=({"step": "filter", "where": "score.repetition < 0.3"},))
    with pytest.raises(QdataError, match=r"filter: no row has a score\.repetition"):
        pipeline.build(wrong, tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


def test_a_row_that_is_too_long_is_no_survivor(small: Path, tmp_path: Path) -> None:
    """The shorter row of its prompt is trained: what falls, falls to a row that stays."""
    long = said("q", "word " * 200)
    file = write_rows(tmp_path / "rows.jsonl", [long, said("q", "short"), said("q", "x")])
    recipe = recipe_of(small, file, max_length=60, global_steps=({"step": "exact", "on": "prompt"},))
    pipeline.build(recipe, tmp_path / "out")
    book = book_of(tmp_path / "out")
    assert book["step"].to_list() == ["max_length", None, "exact"]
    assert book["by"].to_list() == [None, None, book["row"][1]]


def test_validation_files_are_looked_at_by_themselves(small: Path, rows: Path, tmp_path: Path) -> None:
    """No row of them falls to a row of training, and the other way round."""
    held = write_rows(tmp_path / "held/rows.jsonl", MANY)
    recipe = DataRecipe(
        sources=(Source(path=str(rows)),),
        validation=(Source(path=str(held)),),
        tokenizer=str(small),
        global_steps=(EXACT,),
    )
    pipeline.build(recipe, tmp_path / "out")
    fell = book_of(tmp_path / "out").filter(pl.col("step") == "exact")
    assert fell.height == 10
    assert all(row.split("#")[0] == by.split("#")[0] for row, by in fell.select("row", "by").iter_rows())


def test_nothing_is_tokenised_again(small: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is decided is decided over parts that are done: a second build with another val renders no part."""
    recipe = recipe_of(small, rows, global_steps=(EXACT,))
    pipeline.build(recipe, tmp_path / "one")

    def never(*_: Any) -> Any:
        raise AssertionError("a part was rendered again")

    monkeypatch.setattr(part, "_rendered", never)
    again = recipe_of(small, rows, global_steps=(EXACT,), val=3, loss="last")
    made = pipeline.build(again, tmp_path / "two")
    assert made["splits"]["validation"]["conversations"] >= 3


def test_conversations_are_those_that_stay(rows: Path, tmp_path: Path) -> None:
    """What a stand-in is trained on is what the shards would hold."""
    recipe = DataRecipe(sources=(Source(path=str(rows)),))
    plain = pipeline.conversations(recipe)
    left = pipeline.conversations(DataRecipe(sources=recipe.sources, global_steps=(EXACT,)))
    assert plain.height - left.height == 5
    assert left.select("content_hash").n_unique() == left.height


def test_mistakes_of_a_recipe_are_told_at_once(rows: Path) -> None:
    """Each with its address."""
    table = {
        "sources": [str(rows)],
        "global_steps": [{"step": "exat"}, {"on": "prompt"}, {"step": "exact", "on": "promt", "keep": "x", "y": 1}],
        "steps": [],
    }
    mistakes: list[str] = []
    recipe = structure(DataRecipe, table, "data", mistakes)
    assert recipe is not None and not mistakes
    with pytest.raises(QdataError) as caught:
        pipeline.conversations(recipe)
    lines = str(caught.value).splitlines()
    assert lines[1].strip() == "data.global_steps[0].step: no global step is called 'exat'. Did you mean 'exact'?"
    assert lines[2].strip() == "data.global_steps[1].step: missing; wanted one of exact, prompt_cluster"
    assert any("data.global_steps[2].on: 'promt' is not one of" in line for line in lines)
    assert any("data.global_steps[2].y: no such key" in line for line in lines)
    where = DataRecipe(sources=recipe.sources, steps=({"step": "filter", "where": "turns >"},))
    with pytest.raises(QdataError, match=r"data\.steps\[0\]: column 8: wanted a number"):
        pipeline.conversations(where)
