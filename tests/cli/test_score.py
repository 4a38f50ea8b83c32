"""`qdata score`, `filter`, `dedup` as they are typed: scores travel through files, and the ledger closes."""

from __future__ import annotations

import functools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.cli.test_convert import here, ledger, manifest, qdata, refused, rows_of, write
from tests.test_schema import conversation, frame, turn

from qdata.rows import source
from qdata.rows.steps.score_language import ScoreLanguage
from qdata.rows.steps.score_overlap import ScoreOverlap
from qdata.rows.steps.score_random import ScoreRandom
from qdata.rows.steps.score_repetition import ScoreRepetition

__all__ = ["here"]  # the fixture: an empty current directory

MORE: dict[str, Any] = {"input": "", "system": "", "history": []}  # all columns that the dialect writes
ROWS: list[dict[str, Any]] = [
    {"instruction": "q1", "output": "a1", **MORE, "score": 3, "id": 1},
    {"instruction": "q1", "output": "a1", **MORE, "score": 5, "id": 2},
    {"instruction": "你好", "output": "你好，我是沐雪。", **MORE, "id": 3},
    {"instruction": "q2", "output": "la la la la la la la la la la", **MORE, "id": 4},
    {"instruction": "Q1 ", "output": "a longer one", **MORE, "id": 5},
]


@pytest.mark.parametrize("name", ["s.jsonl", "s.json", "s.parquet", "s.csv", "s.jsonl.gz"])
def test_scores_travel_through_files(name: str) -> None:
    """Written into `scores`, read back, filtered by; scored again beside what is there; `score` stays what it was."""
    write("in.jsonl", ROWS)
    qdata("score", "in.jsonl", "--by", "repetition,language", "-o", name)
    qdata("score", name, "--by", "length", "-o", "twice.jsonl")
    made = rows_of("twice.jsonl")
    strip = [{k: v for k, v in row.items() if k != "scores"} for row in made]
    if not name.endswith("csv"):  # where cells are text, and null is empty
        assert strip == ROWS
    assert [row["scores"]["lang"] for row in made] == ["en", "en", "zh", "en", "en"]
    assert [row["scores"]["repetition"] > 0.5 for row in made] == [False, False, False, True, False]
    assert all(
        {"lang", "lang_share", "repetition", "repetition_lines", "length"} <= row["scores"].keys() for row in made
    )
    qdata("filter", "twice.jsonl", "--where", "score.repetition < 0.3 and lang = 'en' and score.given is null",
          "-o", "left.jsonl")  # fmt: skip
    assert [str(row["id"]) for row in rows_of("left.jsonl")] == ["5"]
    book = ledger("left.jsonl")
    assert book["row"].to_list() == [f"work/in.jsonl#{i}" for i in range(1, 6)]
    assert Counter(zip(book["step"], book["reason"], strict=True)) == {("filter", "where"): 4, (None, None): 1}
    assert manifest("left.jsonl")["rows"] == {"in": 5, "kept": 1, "edited": 0, "dropped": {"filter.where": 4}}


def test_scores_are_summed_up() -> None:
    """In the manifest and on the console: of the rows that are written, those of global steps too."""
    write("in.jsonl", ROWS)
    done = qdata("score", "in.jsonl", "--by", "length,language,prompt_cluster", "-o", "s.jsonl")
    told = manifest("s.jsonl")["scores"]
    lengths = sorted(len(row["instruction"]) + len(row["output"]) for row in ROWS)
    assert told["length"] == {"rows": 5, "min": lengths[0], "5%": lengths[0], "median": lengths[2], "95%": lengths[4],
                              "max": lengths[4]}  # fmt: skip
    assert told["lang"] == {"rows": 5, "commonest": {"en": 4, "zh": 1}}
    assert told["prompt_cluster"]["max"] == 3 and told["prompt_cluster"]["rows"] == 5
    assert "lang: en 4, zh 1" in done.stderr and "prompt_cluster" in done.stderr
    qdata("dedup", "s.jsonl", "-o", "d.jsonl")
    assert manifest("d.jsonl")["scores"]["length"]["rows"] == 4
    qdata("convert", "in.jsonl", "--to", "messages", "-o", "plain.jsonl")
    assert manifest("plain.jsonl")["scores"] == {}


def test_dedup_keeps_the_best_and_names_it() -> None:
    """By the score that came with the data; what stays is byte for byte what it was."""
    write("in.jsonl", ROWS)
    qdata("dedup", "in.jsonl", "-o", "out.jsonl")
    assert rows_of("out.jsonl") == ROWS[1:]
    first = ledger("out.jsonl").row(0, named=True)
    said = {k: first[k] for k in ("action", "step", "reason", "by", "shard", "index")}
    assert said == {"action": "dropped", "step": "exact", "reason": "duplicate", "by": "work/in.jsonl#2",
                    "shard": None, "index": None}  # fmt: skip
    assert ledger("out.jsonl")["index"].to_list() == [None, 0, 1, 2, 3]
    assert pl.read_parquet("out.jsonl.qdata/dropped.parquet")["row"].to_list() == ["work/in.jsonl#1"]
    qdata("dedup", "in.jsonl", "--on", "prompt", "--normalize", "strip,casefold", "-o", "prompts.jsonl")
    assert [row["id"] for row in rows_of("prompts.jsonl")] == [2, 3, 4]
    qdata("score", "in.jsonl", "--by", "length", "-o", "scored.jsonl")
    qdata("dedup", "scored.jsonl", "--on", "prompt", "--normalize", "strip,casefold", "--keep", "score.length",
          "-o", "longest.jsonl")  # fmt: skip
    assert [row["id"] for row in rows_of("longest.jsonl")] == [3, 4, 5]
    assert ledger("longest.jsonl")["by"].to_list() == ["work/in.jsonl#5"] * 2 + [None] * 3


def test_a_global_score_is_written_too() -> None:
    """Into the rows, beside those of other scorers, and read back."""
    write("in.jsonl", ROWS)
    qdata("score", "in.jsonl", "--by", "prompt_cluster,length", "-o", "out.jsonl")
    assert [row["scores"]["prompt_cluster"] for row in rows_of("out.jsonl")] == [3, 3, 1, 1, 3]
    assert [row["scores"]["length_user"] for row in rows_of("out.jsonl")] == [2, 2, 2, 2, 3]
    qdata("filter", "out.jsonl", "--where", "score.prompt_cluster = 1", "-o", "alone.jsonl")
    assert [row["id"] for row in rows_of("alone.jsonl")] == [3, 4]


def test_parts_and_workers_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows, ledger and dropped rows are the same from one part and from many, from one worker and from two."""
    rows = [ROWS[i % 5] | {"id": i} for i in range(60)]
    write("in.jsonl", rows)
    words = ["--by", "length,random,prompt_cluster"]
    qdata("score", "in.jsonl", *words, "-o", "s1.jsonl")
    qdata("dedup", "s1.jsonl", "--on", "prompt", "--keep", "score.random", "-o", "d1.jsonl")
    original = getattr(source.parts_of, "func", source.parts_of)
    monkeypatch.setattr(source, "parts_of", functools.partial(original, part_bytes=700))
    for workers in (1, 2):
        qdata("score", "in.jsonl", *words, "-o", "s.jsonl", "--overwrite", "--workers", workers)
        assert len(manifest("s.jsonl")["inputs"][0]["parts"]) > 3
        qdata("dedup", "s.jsonl", "--on", "prompt", "--keep", "score.random", "-o", "d.jsonl", "--overwrite",
              "--workers", workers)  # fmt: skip
        for name in ("s", "d"):
            assert Path(f"{name}.jsonl").read_bytes() == Path(f"{name}1.jsonl").read_bytes()
            assert ledger(f"{name}.jsonl").drop("shard").equals(ledger(f"{name}1.jsonl").drop("shard"))
            dropped = [pl.read_parquet(f"{one}.jsonl.qdata/dropped.parquet") for one in (name, f"{name}1")]
            assert dropped[0].equals(dropped[1])
    book = ledger("d.jsonl")
    stays = set(book.filter(pl.col("action") != "dropped")["row"])
    assert set(book["by"].drop_nulls()) <= stays and len(stays) == len(rows_of("d.jsonl"))
    assert manifest("d.jsonl")["rows"] == {"in": 60, "kept": 4, "edited": 0, "dropped": {"exact.duplicate": 56}}


def test_some_rows_have_scores_and_some_not() -> None:
    """Files, and parts, with other scores are put together; dropped rows have the fields of all."""
    write("a.jsonl", ROWS[:2])
    write("b.jsonl", ROWS[2:])
    qdata("score", "a.jsonl", "--by", "length", "-o", "sa.jsonl")
    qdata("dedup", "sa.jsonl", "b.jsonl", "-o", "out.jsonl")
    assert [("scores" in row) for row in rows_of("out.jsonl")] == [True, False, False, False]
    qdata("filter", "sa.jsonl", "b.jsonl", "--where", "score.length is null", "-o", "null.jsonl")
    assert len(rows_of("null.jsonl")) == 3
    qdata("filter", "b.jsonl", "sa.jsonl", "--where", "score.length > 0", "-o", "there.jsonl")
    assert len(rows_of("there.jsonl")) == 2
    dropped = pl.read_parquet("there.jsonl.qdata/dropped.parquet")
    assert dropped.height == 3 and "length" in [f.name for f in dropped.schema["score"].fields]  # type: ignore[attr-defined]


@pytest.mark.parametrize("foreign", ["5 stars", 3, [1], {}, {"a": True}, {"a": {"b": 1}}, {"given": 1}, {"lang": 1},
                                     {"a": None}, {"a": 2**60}, "{}"])  # fmt: skip
def test_a_column_of_that_name_that_is_no_scores_stays(foreign: Any) -> None:
    """It comes back out as it was; where scores are to be written it is in the way, and told."""
    write("in.jsonl", [row | {"scores": foreign} for row in ROWS[:2]])
    qdata("convert", "in.jsonl", "--to", "alpaca", "-o", "out.jsonl")
    assert [row["scores"] for row in rows_of("out.jsonl")] == [foreign] * 2
    assert "a column 'scores'" in refused("score", "in.jsonl", "--by", "length", "-o", "s.jsonl")
    assert "work/in.jsonl#1: a column 'scores'" in refused(
        "score", "in.jsonl", "--by", "prompt_cluster", "-o", "s.jsonl"
    )


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["score", "--by", "repetitoin"], "--by: no scorer is called 'repetitoin'. Did you mean 'repetition'?"),
        (["filter", "--where", "score.lenght > 1"], "filter: no row has a score.lenght. Known: given."),
        (["filter", "--where", "turns >"], "--where: column 8: wanted a number or a 'text', or a field, got the end"),
        (["filter", "--where", "turns > 9"], "no row is left to write; dropped: filter.where 5"),
        (["dedup", "--keep", "score.x"], "exact: no row has a score.x."),
        (["dedup", "--keep", "longest"], "--keep 'longest': wanted score.NAME"),
        (["dedup", "--normalize", "strp"], "--normalize: no 'strp' is known. Did you mean 'strip'?"),
    ],
)
def test_mistakes_are_told(words: list[str], wanted: str) -> None:
    """One message, exit code 2, and nothing is left behind."""
    write("in.jsonl", ROWS)
    assert wanted in refused(words[0], "in.jsonl", *words[1:], "-o", "out.jsonl")


def test_text_has_no_prompt_to_compare() -> None:
    """Else all documents would be kept without a word; whole ones can be compared."""
    Path("a.txt").write_text("once\ntwice\nonce\n")
    for on in ("prompt", "first_turn", "answer"):
        assert f"a.txt: plain text (text), which has no {on}" in refused("dedup", "a.txt", "--on", on, "-o", "o.jsonl")
    assert "2 kept, 1 dropped" in qdata("dedup", "a.txt", "-o", "o.jsonl").stderr


def test_scorers_are_listed() -> None:
    """With the fields they write."""
    told = qdata("score", "--by", "list").stderr
    assert "repetition_lines" in told and "prompt_cluster" in told


def test_the_twins_of_muice_are_named(real_data: Path) -> None:
    """67 exact duplicates and 535 repeated prompts, each with the row that stays; the rows left are what they were."""
    file = real_data / "muice" / "muice_pairs.jsonl"
    given = rows_of(file)
    for on, count in (("conversation", 67), ("prompt", 535)):
        qdata("dedup", file, "--on", on, "-o", f"{on}.jsonl")
        book = ledger(f"{on}.jsonl")
        gone = book.filter(pl.col("action") == "dropped")
        assert manifest(f"{on}.jsonl")["rows"]["dropped"] == {"exact.duplicate": count} and gone.height == count
        place = {row: i for i, row in enumerate(book["row"])}
        for row, by in gone.select("row", "by").iter_rows():
            mine, stays = given[place[row]], given[place[by]]
            assert mine["prompt"] == stays["prompt"]
            assert mine["response"] == stays["response"] or on == "prompt"
        kept = [given[place[row]] for row in book.filter(pl.col("action") == "kept")["row"]]
        assert rows_of(f"{on}.jsonl") == kept


def score(step: Any, prompt: str | None, answer: str) -> Any:
    said = [turn("user", prompt)] if prompt is not None else []
    made = frame([conversation([*said, turn("assistant", answer)], content_hash="h")])
    return step(made.lazy()).collect()["score"][0]


@pytest.mark.parametrize(
    ("text", "lang"),
    [
        ("我是沐雪，一个用Python写成的AI。", "zh"),
        ("私は学生です", "ja"),
        ("安녕하세요 반갑습니다", "ko"),
        ("The cat is on the mat", "en"),
        ("Paris", "en"),
        ("Où est la bibliothèque ? À côté", "latin"),
        ("Привет, мир", "cyrillic"),
        ("12 + 3 = 15 !!", None),
    ],
)
def test_languages(text: str, lang: str | None) -> None:
    """By script; words of other scripts count as much as a Han character."""
    made = score(ScoreLanguage(), None, text)
    assert made["lang"] == lang
    assert (made["lang_share"] is None) == (lang is None)


def test_the_parrot_is_heard() -> None:
    """Long ago said again; one short answer is no repetition, and neither is Chinese for having no spaces."""
    assert score(ScoreRepetition(), "q", "polly wants a cracker " * 50)["repetition"] > 0.95
    assert score(ScoreRepetition(), "q", "Yes.")["repetition"] == 0
    assert score(ScoreRepetition(), "q", "今天天气很好，我们去公园玩吧。")["repetition"] == 0
    assert score(ScoreRepetition(), "q", "哈哈哈哈哈哈哈哈哈哈")["repetition"] > 0.8
    assert score(ScoreRepetition(), "q", "a\n b\na\n\n\nc")["repetition_lines"] == 0.25
    assert score(ScoreOverlap(), "say it again", "Say it again!")["overlap"] == 1
    assert score(ScoreOverlap(), None, "Say it again!")["overlap"] is None


def test_random_is_of_the_row_and_evenly_spread() -> None:
    """Not of its place; a row that says the same has the same number; half of them are below a half."""
    rows = [conversation([turn("assistant", str(i))], content_hash=f"{i}") for i in range(2000)]
    made = ScoreRandom(seed=1)(frame(rows).lazy()).collect()["score"].struct.field("random")
    backwards = ScoreRandom(seed=1)(frame(rows[::-1]).lazy()).collect()["score"].struct.field("random")
    assert made.equals(backwards.reverse()) and made.n_unique() == 2000
    assert 900 < (made < 0.5).sum() < 1100
    assert json.dumps(made[0])
