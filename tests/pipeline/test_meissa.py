"""Meissa's two recipes: the data half is built offline from the samples, and the ledger shows each change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.test_recipe import load

from qdata import pipeline
from qdata.paths import shipped

PROMPT = "You are Meissa, a thoughtful companion who answers plainly and kindly."


def built(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, Any], pl.DataFrame, pl.DataFrame]:
    """The manifest, the rows and the ledger of a recipe's shards, made in an empty directory."""
    monkeypatch.chdir(folder)
    file = shipped("recipes") / f"{name}.toml"
    manifest = pipeline.build(load(file), folder / "out", base=file.parent)
    return manifest, *(pl.read_parquet(folder / f"out/{table}.parquet") for table in ("conversations", "ledger"))


def openings(rows: pl.DataFrame) -> list[tuple[str, str]]:
    first = rows["messages"].list.first().struct.unnest()
    return list(zip(first["role"], first["content"], strict=True))


def test_every_row_has_the_very_same_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight prompts and none become one, in rows, ledger and saved template."""
    manifest, rows, book = built("meissa-system", tmp_path, monkeypatch)
    assert set(openings(rows)) == {("system", PROMPT)}
    assert (
        rows["messages"].list.eval(pl.element().struct.field("role") == "system").list.sum().to_list()
        == [1] * rows.height
    )
    assert manifest["rows"] == {"in": 102, "kept": 102, "edited": 102, "dropped": {}}
    assert manifest["splits"].keys() == {"train", "validation"}
    assert set(book["step"]) == {"system_set"}
    before, after = ([json.loads(text)["messages"] for text in book[column]] for column in ("before", "after"))
    old = {talk[0]["content"] if talk[0]["role"] == "system" else None for talk in before}
    assert len(old) == 8 and None in old and PROMPT not in old
    for was, now in zip(before, after, strict=True):
        assert now == [{"role": "system", "content": PROMPT}, *(m for m in was if m["role"] != "system")]
    template = (tmp_path / "out/tokenizer/chat_template.jinja").read_text(encoding="utf-8")
    assert PROMPT in template and "You are Qwen" not in template


def test_cards_stay_and_what_is_missing_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each character keeps its card; the row without one and the open {{user}} are in the ledger, and only they."""
    manifest, rows, book = built("meissa-roleplay", tmp_path, monkeypatch)
    assert {role for role, _ in openings(rows)} == {"system"}
    assert sum(text == PROMPT for _, text in openings(rows)) == 1
    assert len({text for _, text in openings(rows)}) == rows.height == 21
    assert manifest["rows"]["dropped"] == {} and manifest["unfilled_placeholders"] == 0
    edited = book.filter(pl.col("action") == "edited")
    assert sorted(edited["step"]) == ["placeholders", "system_set"]
    assert not any("{{" in text for text in edited["after"])
    assert {row.split("/")[0] for row in rows["row"]} == {"aesir-preview", "sonnet-charcard"}
