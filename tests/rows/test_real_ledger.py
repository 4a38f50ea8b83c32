"""Nothing goes in silence on real files: what is wrong with their rows, counted here, is what the ledger says."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Hashable
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from qdata import pipeline
from qdata.cli import main
from qdata.recipe import DataRecipe, Source

Row = dict[str, Any]
CHARACTERS: dict[str, str] = {
    one["path"]: one["character"]
    for one in tomllib.loads((Path(__file__).parents[1] / "real_files.toml").read_text(encoding="utf-8"))["dialogue"]
}
HARRY = "roleplay/ChatHaruhi/Harry_Chinese_dialogue.jsonl"
SHAREGPT = "multiturn/sharegpt_zh_1K_format.jsonl"
PAIRS = "muice/muice_pairs.jsonl"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)


def raw(path: Path) -> list[Row]:
    """The rows of a JSONL file, by nothing of ours."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def book_of(file: Path, ledger: Path) -> pl.DataFrame:
    """The ledger, with the number of each row in its file; every row of the file stands in it once, and sums close."""
    book = pl.read_parquet(ledger).with_columns(at=pl.col("row").str.extract(r"#(\d+)$").cast(pl.Int64))
    assert book["at"].to_list() == list(range(1, len(raw(file)) + 1))
    assert set(book["row"].str.replace(r"#\d+$", "")) == {f"{file.parent.name}/{file.name}"}
    assert set(book["action"]) <= {"kept", "edited", "dropped"}
    dropped = pl.col("action") == "dropped"
    assert book.filter(dropped & (pl.col("step").is_null() | pl.col("reason").is_null())).is_empty()
    assert book.filter(~dropped & pl.col("index").is_null()).is_empty()
    assert book.filter(dropped & pl.col("index").is_not_null()).is_empty()
    return book


def ran(command: str, file: Path, *words: str) -> pl.DataFrame:
    """The ledger of a command; what it wrote is as many rows as it says are kept."""
    result = CliRunner().invoke(main, [command, str(file), *words, "-o", "out.jsonl", "--overwrite"])
    assert result.exit_code == 0, result.output
    book = book_of(file, Path("out.jsonl.qdata/ledger.parquet"))
    told = json.loads(Path("out.jsonl.qdata/manifest.json").read_text(encoding="utf-8"))["rows"]
    assert told["in"] == len(book) == told["kept"] + sum(told["dropped"].values())
    assert len(raw(Path("out.jsonl"))) == told["kept"] == book["index"].count()
    return book


def rendered(file: Path, tokenizer: Path, character: str | None = None, **how: Any) -> pl.DataFrame:
    """The ledger of shards; every row that is kept has a place in one."""
    recipe = DataRecipe(sources=(Source(path=str(file), character=character),), tokenizer=str(tokenizer), **how)
    told = pipeline.build(recipe, Path("shards"))["rows"]
    book = book_of(file, Path("shards/ledger.parquet"))
    assert told["in"] == len(book) == told["kept"] + sum(told["dropped"].values())
    assert told["kept"] == book["shard"].count()
    return book


def reasons(book: pl.DataFrame) -> dict[int, str]:
    """Why rows were dropped, by their numbers."""
    dropped = book.filter(pl.col("action") == "dropped")
    return {at: f"{step}.{why}" for at, step, why in dropped.select("at", "step", "reason").iter_rows()}


def nameless(rows: list[Row]) -> set[int]:
    """The numbers of dialogues in which somebody without a name speaks."""
    return {at for at, row in enumerate(rows, 1) if any(line["role"] == "" for line in row["dialogue"])}


@pytest.mark.parametrize("name", CHARACTERS)
def test_lines_of_nobody_are_in_the_ledger(name: str, real_data: Path, qwen2: Path) -> None:
    """`convert` says of each such row that a name was left out, `clean` and `render` drop it where they are told to."""
    file, character = real_data / name, CHARACTERS[name]
    wanted = nameless(raw(file))
    assert len(wanted) == 67 or name != HARRY

    book = ran("convert", file, "--character", character, "--to", "sharegpt", "--lossy")
    left = book.filter(pl.col("at").is_in(wanted))
    assert set(left["action"]) == {"edited"}
    assert set(left["reason"]) == {"left out: names"}
    for before, after in left.select("before", "after").iter_rows():
        was, now = (json.loads(text)["messages"] for text in (before, after))
        assert any(message.get("name") == "" for message in was)
        assert now == [{key: value for key, value in message.items() if key != "name"} for message in was]
    others = book.filter(~pl.col("at").is_in(wanted))
    assert others.filter(pl.col("reason").str.contains("names").fill_null(False)).is_empty()

    book = ran("clean", file, "--character", character, "--step", "empty_role")
    assert reasons(book) == dict.fromkeys(wanted, "empty_role.no_name")
    assert nameless(raw(Path("out.jsonl"))) == set()
    beside = pl.read_parquet("out.jsonl.qdata/dropped.parquet")
    assert set(beside["row"]) == set(book.filter(pl.col("action") == "dropped")["row"])

    book = rendered(file, qwen2, character, steps=({"step": "empty_role"},))
    assert {at for at, why in reasons(book).items() if why == "empty_role.no_name"} == wanted


def test_turns_that_do_not_alternate_are_in_the_ledger(real_data: Path, qwen2: Path) -> None:
    """Seven of sharegpt_zh end on a question: `role_order` names each, and repairs show the turn they took away."""
    file = real_data / SHAREGPT
    turns = [[turn["from"] for turn in row["conversations"] if turn["from"] != "system"] for row in raw(file)]
    odd = {at for at, who in enumerate(turns, 1) if who != ["human", "gpt"] * (len(who) // 2)}
    assert len(odd) == 7
    assert {turns[at - 1][-1] for at in odd} == {"human"} and not any(a == b for who in turns for a, b in pairwise(who))
    silent = {at for at in odd if "gpt" not in turns[at - 1]}

    assert reasons(ran("clean", file, "--step", "role_order")) == dict.fromkeys(odd, "role_order.unanswered")
    assert reasons(rendered(file, qwen2, steps=({"step": "role_order"},))) == dict.fromkeys(
        odd, "role_order.unanswered"
    )
    book = ran("clean", file, "--step", "trailing_question", "--step", "role_order")
    edited = book.filter(pl.col("action") == "edited")
    assert set(edited["at"]) == odd - silent and set(edited["step"]) == {"trailing_question"}
    for before, after in edited.select("before", "after").iter_rows():
        was, now = (json.loads(text)["messages"] for text in (before, after))
        assert was[-1]["role"] == "user" and was[:-1] == now
    assert set(reasons(book)) == silent


def repeated(rows: list[Row], key: Callable[[Row], Hashable]) -> dict[int, set[int]]:
    """Of each row that is not the only one with its key: all with that key, by number."""
    groups: dict[Hashable, set[int]] = {}
    for at, row in enumerate(rows, 1):
        groups.setdefault(key(row), set()).add(at)
    return {at: group for group in groups.values() if len(group) > 1 for at in group}


@pytest.mark.parametrize(("on", "count"), [("conversation", 67), ("prompt", 535)])
def test_twins_fall_to_a_row_that_stays(on: str, count: int, real_data: Path, qwen2: Path) -> None:
    """Of each group one row stays; the ledger of the others names it, after `dedup` and in shards."""
    file = real_data / PAIRS
    groups = repeated(raw(file), lambda row: (row["prompt"], on == "prompt" or row["response"]))
    fall = len(groups) - len({min(group) for group in groups.values()})
    assert fall == count
    for book in (
        ran("dedup", file, "--on", on),
        rendered(file, qwen2, global_steps=({"step": "exact", "on": on},)),
    ):
        place = dict(book.select("row", "at").iter_rows())
        stays = set(book.filter(pl.col("action") != "dropped")["at"])
        fallen = book.filter(pl.col("action") == "dropped")
        assert set(fallen.select("step", "reason").iter_rows()) == {("exact", "duplicate")} and len(fallen) == fall
        for at, by in fallen.select("at", "by").iter_rows():
            assert at in groups and place[by] in groups[at] & stays
        assert all(len(group & stays) == 1 for group in groups.values())
        assert book.filter(pl.col("action") != "dropped")["by"].null_count() == len(stays)
