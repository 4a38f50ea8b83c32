"""`qdata why`, `ledger` and `diff` as they are typed: every row is accounted for, and every difference found."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result
from tests.cli.test_convert import here, qdata, refused, rows_of, write
from tests.test_recipe import golden

from qdata import audit, difference, history, output
from qdata.cli import main

__all__ = ["here"]  # the fixture: an empty current directory


def row(question: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"instruction": question, "input": "", "output": answer, **more}


ROWS = [
    row("Greet me.", "HellÃ©!\u200b"),
    row("Name a colour.\n<noinput>", "Red"),
    row("Why?", "As an AI language model, I cannot know."),
    row("Say hi.", "Hi, and welcome.", score=1),
    row("Say hi.", "Hi there.", score=2),
    row("Draw a cat.", "<nooutput>"),
    row("Tell me a long story.", "Once upon a time. " * 30),
    row("Say bye.", "Bye."),
]


@pytest.fixture
def road(qwen2: Path) -> Path:
    """Rows on their way: clean → dedup → render, with something dropped at each of them."""
    write("raw/in.jsonl", [*ROWS, "{"])
    steps = [
        word for name in ("fix_text", "control_characters", "empty_turn", "boilerplate") for word in ("--step", name)
    ]
    qdata("clean", "raw/in.jsonl", *steps, "--step", "placeholder_input", "do=trim", "-o", "clean.jsonl")
    qdata("dedup", "clean.jsonl", "--on", "prompt", "--keep", "score.given", "-o", "dedup.jsonl")
    qdata("render", "dedup.jsonl", "--tokenizer", qwen2, "--max-length", "64", "-o", "shards")
    return Path("shards")


def asked(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


def test_the_history_of_rows(road: Path, request: pytest.FixtureRequest) -> None:
    """Edited, dropped because of another, too long, unreadable: read these files as somebody would who wonders."""
    for ordinal, name in ((1, "edited"), (4, "fell"), (7, "too_long"), (9, "unreadable")):
        golden(request, f"ledger/why_{name}.txt", qdata("why", f"in.jsonl#{ordinal}").stdout)


def test_every_dropped_row_tells_its_reason(road: Path) -> None:
    """At whatever stage it fell, asked from the last: with the reason of that ledger, and what it said then."""
    outputs = history.lineage(output.find(road))
    assert [one.manifest["command"] for one in outputs] == ["clean", "dedup", "render"]
    seen = Counter[str]()
    for one in outputs:
        gone = one.ledger().filter(pl.col("action") == "dropped").collect()
        for line in gone.to_dicts():
            told = history.told(line["row"], outputs[-1])
            last = told["stages"][-1]
            assert (last["output"], last["dropped_by"]) == (str(one.path), f"{line['step']}.{line['reason']}")
            assert (last["by"] or {}).get("row") == line["by"]
            assert told["now"]
            seen[one.manifest["command"]] += 1
    assert seen == {"clean": 3, "dedup": 1, "render": 1}


def test_every_kept_row_stands_where_it_says(road: Path) -> None:
    """In each file, and in the shards; and says what stands there."""
    found = output.find(road)
    kept = found.ledger().filter(pl.col("action") != "dropped").collect()["row"]
    assert len(kept) == 4
    for one in kept:
        told = history.told(one, found)
        clean, dedup, render = told["stages"]
        for stage in (clean, dedup):
            line = rows_of(stage["output"])[stage["place"]["ordinal"] - 1]
            assert json.loads(told["now"])["messages"][1]["content"] == line["output"]
        (sample,) = render["place"]["samples"]
        shown = json.loads(qdata("show", "shards", "--row", str(sample["row"]), "--json").stdout)
        assert [sequence["row"] for sequence in shown] == [one]


def test_samples_of_an_expanded_conversation(qwen2: Path) -> None:
    """All of them are told, those in other rows too."""
    turns = [{"role": role, "content": f"{role} {n}", "reasoning": "so" if role == "assistant" else None}
             for n in range(3) for role in ("user", "assistant")]  # fmt: skip
    write("talks.jsonl", [{"messages": turns}, {"messages": turns[:2]}])
    qdata("render", "talks.jsonl", "--template", "qwen3", "--tokenizer", qwen2, "-o", "shards")
    told = json.loads(qdata("why", "talks.jsonl#1", "--json").stdout)
    samples = told["stages"][0]["place"]["samples"]
    assert len(samples) == 3 == len({sample["row"] for sample in samples})


@pytest.mark.parametrize(
    "word",
    ["work/../raw/in.jsonl#2", "raw/in.jsonl#2", "in.jsonl#2", "clean.jsonl#2", "dedup.jsonl#2", "ABS/in.jsonl#2"],
)
def test_a_row_by_all_its_names(road: Path, word: str) -> None:
    """By its id, its end, the file on the disk, or a place in an output of ours: one history."""
    word = word.replace("ABS", str(Path("raw").resolve()))
    assert json.loads(qdata("why", word, "--json").stdout)["row"] == "raw/in.jsonl#2"


def test_a_place_means_what_stands_there_now(road: Path) -> None:
    """Row 4 of the deduplicated file is another row of the first; a file that was edited is not believed."""
    told = json.loads(qdata("why", "dedup.jsonl#3", "--json").stdout)
    assert told["row"] == "raw/in.jsonl#5"
    write("dedup.jsonl", rows_of("dedup.jsonl")[::-1])
    assert "dedup.jsonl: edited since `qdata dedup` wrote it" in refused("why", "dedup.jsonl#3")


def test_a_stage_that_is_gone_is_named(road: Path, request: pytest.FixtureRequest) -> None:
    """By command, name and hash; the later ones still answer, and a row that is nowhere may have fallen there."""
    Path("clean.jsonl").unlink()
    sha256 = output.find(Path("dedup.jsonl")).manifest["inputs"][0]["made_by"]["sha256"]
    done = qdata("why", "in.jsonl#2").stdout
    assert f"qdata clean wrote clean.jsonl (sha256 {sha256[:12]}…)" in done
    assert "qdata render → shards" in done
    assert json.loads(qdata("why", "in.jsonl#2", "--json").stdout)["missing"][0]["sha256"] == sha256
    said = refused("why", "in.jsonl#3")
    assert "raw/in.jsonl#3: no such row. Of raw/in.jsonl there are 6 rows, from #1 to #8." in said
    assert "It may have been dropped earlier, when `qdata clean` wrote clean.jsonl" in said


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["why", "in.jsonl#99"], "raw/in.jsonl#99: no such row. Of raw/in.jsonl there are 9 rows, from #1 to #9."),
        (["why", "im.jsonl#1"], "no row in clean.jsonl, dedup.jsonl, shards came from im.jsonl; they came from raw/in"),
        (["why", "im.jsonl#1"], "Did you mean 'in.jsonl'"),
        (["why", "in.jsonl"], "in.jsonl: no row id; wanted FILE#ORDINAL"),
        (["why", "#3"], "#3: no row id; wanted FILE#ORDINAL"),
        (["why", "dedup.jsonl#77"], "dedup.jsonl#77: no such row; it has 5, from dedup.jsonl#1"),
        (["why", "in.jsonl#1", "gone"], "gone: no such folder"),
        (["why", "in.jsonl#1", "raw/in.jsonl"], "raw/in.jsonl: no ledger of ours beside it"),
        (["ledger", "gone"], "gone: no such folder"),
        (["ledger", "--by", "sorce"], "source, file, survivor. Did you mean 'source'"),
        (["ledger", "--action", "droped"], "Did you mean 'dropped'?"),
        (["ledger", "clean.jsonl", "--reason", "boilerplat"], "was edited or dropped so. Did you mean 'boilerplate'"),
        (["ledger", "-o", "x.xlsx"], "-o x.xlsx: wanted a name ending in .csv, .parquet, .jsonl"),
        (["ledger", "-o", "raw/in.jsonl"], "raw/in.jsonl: exists already"),
        (["diff", "raw/in.jsonl", "gone.jsonl"], "gone.jsonl: no such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_what_cannot_be_answered_is_told(road: Path, words: list[str], wanted: str) -> None:
    """Near misses, and what there is instead."""
    assert wanted in refused(*words)


def test_two_files_of_one_name_are_told_apart() -> None:
    """An ending that means both is refused with both; one folder more tells."""
    write("a/in.jsonl", [ROWS[3]])
    write("b/in.jsonl", [ROWS[4]])
    qdata("convert", "a/in.jsonl", "b/in.jsonl", "--to", "messages", "-o", "out.jsonl")
    assert "several files are called so; name one of a/in.jsonl#1, b/in.jsonl#1" in refused("why", "in.jsonl#1")
    assert json.loads(qdata("why", "b/in.jsonl#1", "--json").stdout)["row"] == "b/in.jsonl#1"


def test_a_file_under_another_source_name_is_known_by_its_bytes(qwen2: Path) -> None:
    """Row ids begin with the source's name; the file on the disk means the same row."""
    from qdata.convert import convert
    from qdata.recipe import Source

    file = write("raw/in.jsonl", ROWS[:2])
    convert([Source(path=str(file), name="mine", files=())], "messages", Path("out.jsonl"))
    told = json.loads(qdata("why", "raw/in.jsonl#1", "out.jsonl", "--json").stdout)
    assert told["row"] == "mine/in.jsonl#1"


def test_the_sums_as_they_are_printed(road: Path, request: pytest.FixtureRequest) -> None:
    """A table for each output, a listing, and how they read."""
    said = [qdata("ledger", name).stdout for name in ("clean.jsonl", "dedup.jsonl", "shards")]
    said.append(qdata("ledger", "dedup.jsonl", "--by", "survivor").stdout)
    said += [qdata("ledger", "clean.jsonl", "--action", action).stdout for action in ("dropped", "edited")]
    said.append(qdata("ledger", "clean.jsonl", "--samples", "2").stdout)
    golden(request, "ledger/ledger.txt", "\n".join(said))


@pytest.mark.parametrize("name", ["clean.jsonl", "dedup.jsonl", "shards"])
def test_sums_close_whatever_they_are_counted_by(road: Path, name: str) -> None:
    """And equal what the commands said when they wrote it."""
    found = output.find(Path(name))
    sums = audit.check(found)
    assert sums["in"] == sums["kept"] + sums["dropped"]
    for by in audit.BY:
        counted = audit.counts(found, by).select(pl.col(list(audit.COUNTS)).sum()).row(0, named=True)
        assert counted == sums, by
        told = json.loads(qdata("ledger", name, "--by", by, "--json").stdout)
        assert {n: told[n] for n in sums} == sums == {n: sum(g[n] for g in told["groups"]) for n in sums}


def _edit(change: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        file = folder / "ledger.parquet"
        change(pl.read_parquet(file)).write_parquet(file)

    return apply


def _with(column: str, value: Any, where: pl.Expr) -> Callable[[Path], None]:
    """The first line of which `where` holds gets another value."""
    first = where & (where.cum_sum() == 1)
    return _edit(lambda book: book.with_columns(pl.when(first).then(value).otherwise(column).alias(column)))


def _manifest(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        file = folder / "manifest.json"
        manifest = json.loads(file.read_text(encoding="utf-8"))
        change(manifest["rows"])
        file.write_text(json.dumps(manifest), encoding="utf-8")

    return apply


KEPT, DROPPED = pl.col("action") != "dropped", pl.col("action") == "dropped"
BREAKS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a line is missing": (_edit(lambda book: book[1:]), "8 in, and the manifest says 9"),
    "a row stands twice": (_edit(lambda book: pl.concat([book[:-1], book[:1]])), "different rows"),
    "another action": (_with("action", pl.lit("lost"), KEPT), "neither kept, edited nor dropped"),
    "no action": (_with("action", pl.lit(None), KEPT), "neither kept, edited nor dropped"),
    "dropped, but placed": (_with("action", pl.lit("dropped"), KEPT), "dropped rows have a place"),
    "kept without a place": (_with("index", pl.lit(None), KEPT), "kept rows have no place"),
    "another reason": (_with("reason", pl.lit("other"), DROPPED), "and the manifest says"),
    "no reason": (_with("reason", pl.lit(None), DROPPED), "dropped rows have no reason"),
    "a place twice": (_with("index", pl.lit(1), KEPT), "wanted each place once"),
    "another sum": (_manifest(lambda rows: rows.update(kept=4)), "6 kept, and the manifest says 4"),
    "a reason nobody has": (_manifest(lambda rows: rows["dropped"].update({"x.y": 2})), "0 dropped by x.y"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_ledger_that_does_not_close_is_refused(road: Path, name: str) -> None:
    """Broken on purpose, in every way that sums can be wrong: exit 2, and what is wrong."""
    spoil, wanted = BREAKS[name]
    qdata("ledger", "clean.jsonl")
    spoil(Path("clean.jsonl.qdata"))
    said = refused("ledger", "clean.jsonl")
    assert "the ledger does not close" in said and wanted in said


@pytest.mark.parametrize(
    ("spoil", "wanted"),
    [
        (lambda file: file.write_bytes(b"PAR1 broken"), "not the ledger that was written"),
        (_edit(lambda book: book.drop("by")), "its columns are row, content_hash"),
    ],
    ids=["broken", "another version"],
)
@pytest.mark.parametrize("command", [["why", "in.jsonl#1"], ["ledger"]], ids=lambda words: words[0])
def test_a_ledger_that_is_none_is_told(
    road: Path, command: list[str], spoil: Callable[[Path], Any], wanted: str
) -> None:
    """In words, whoever asks it."""
    spoil(road / "ledger.parquet" if wanted.startswith("not") else road)
    assert wanted in refused(*command)


def test_an_output_that_lacks_a_row_is_refused(road: Path) -> None:
    """The ledger has a place for each row; the file, or the shards, have one row less or none."""
    lines = rows_of("clean.jsonl")
    write("clean.jsonl", lines[:-1])
    assert "6 rows have a place in clean.jsonl, which has 5" in refused("ledger", "clean.jsonl")
    Path("clean.jsonl").unlink()
    assert "its rows are gone" in refused("ledger", "clean.jsonl")
    _edit(lambda book: book.with_columns(row=pl.col("row").replace("raw/in.jsonl#8", "raw/in.jsonl#88")))(road)
    said = refused("ledger", "shards")
    assert "1 rows have a place in the ledger and none in the shards: raw/in.jsonl#88" in said
    assert "1 rows are in the shards and have no place in the ledger: raw/in.jsonl#8 " in said


@pytest.mark.parametrize("name", ["lines.jsonl", "lines.csv", "lines.parquet"])
def test_all_lines_into_a_file(road: Path, name: str) -> None:
    """Each with what it said before: of edited and of dropped rows."""
    qdata("ledger", "clean.jsonl", "--action", "dropped", "-o", name, "--samples", "1")
    read = {"jsonl": pl.read_ndjson, "csv": pl.read_csv, "parquet": pl.read_parquet}[name.rpartition(".")[2]]
    lines = read(name)
    gone = output.find(Path("clean.jsonl")).dropped().collect()
    assert sorted(lines["row"]) == sorted(gone["row"]) and len(lines) == 3
    assert sum("As an AI" in (text or "") for text in lines["before"]) == 1
    qdata("ledger", "clean.jsonl", "--reason", "control_characters", "-o", name, "--overwrite")
    (edited,) = read(name).to_dicts()
    assert "\u200b" in edited["before"] and "\u200b" not in edited["after"]


def test_a_listing_is_bounded_and_says_of_how_many(road: Path) -> None:
    """By reason, by step, by action."""
    told = json.loads(qdata("ledger", "clean.jsonl", "--action", "kept", "--samples", "2", "--json").stdout)
    assert (told["rows"], len(told["listed"])) == (4, 2)
    for reason in ("boilerplate", "boilerplate.as_an_ai"):
        told = json.loads(qdata("ledger", "clean.jsonl", "--reason", reason, "--json").stdout)
        assert [line["row"] for line in told["listed"]] == ["raw/in.jsonl#3"]
        assert "As an AI" in told["listed"][0]["said"]


def test_nothing_differs_from_itself(road: Path) -> None:
    """Of a file, an output, shards; in another container and dialect; and the kept rows of shards from their input."""
    qdata("convert", "dedup.jsonl", "--to", "messages", "-o", "other.parquet")
    for a, b in (("raw/in.jsonl",) * 2, ("dedup.jsonl",) * 2, ("shards",) * 2, ("dedup.jsonl", "other.parquet")):
        done = asked("diff", a, b, "--json")
        told = json.loads(done.stdout)
        assert done.exit_code == 0, (a, b)
        assert (told["matched_by"], told["only_a"], told["only_b"], told["changed"]) == ("row", 0, 0, 0)
        assert told["same"] == told["a"]["rows"] == told["b"]["rows"] > 0
    Path("copy.jsonl").write_bytes(Path("dedup.jsonl").read_bytes())
    told = json.loads(asked("diff", "copy.jsonl", "dedup.jsonl", "--json").stdout)
    assert (told["matched_by"], told["same"]) == ("content", 5)


def test_a_difference_as_it_is_printed(road: Path, request: pytest.FixtureRequest) -> None:
    """An output from the file it was made of; and two files that know nothing of each other."""
    first = asked("diff", "raw/in.jsonl", "clean.jsonl")
    write("other.jsonl", [ROWS[3], ROWS[3], row("New?", "Yes.")])
    second = asked("diff", "clean.jsonl", "other.jsonl", "--samples", "1")
    assert (first.exit_code, second.exit_code) == (1, 1)
    golden(request, "ledger/diff.txt", first.stdout + "\n" + second.stdout)


@pytest.mark.parametrize("seed", range(5))
def test_exactly_the_rows_that_a_script_changed(seed: int) -> None:
    """Rows dropped, edited and added at random: each is found, by id where the ledger knows, else by content."""
    draw = random.Random(seed)
    rows = [row(f"question {n}", draw.choice("ab") * 3) for n in range(60)]
    write("in.jsonl", rows)
    qdata("convert", "in.jsonl", "--to", "messages", "-o", "a.jsonl")
    gone, edited = set(draw.sample(range(60), 7)), set(draw.sample(range(60), 9))
    terms = " and ".join(f"score.given != {n}" for n in sorted(gone))
    write("in.jsonl", [{**one, "score": n} for n, one in enumerate(rows)])
    qdata("filter", "in.jsonl", "--where", terms, "-o", "b.jsonl")
    write("c.jsonl", [row(f"question {n}", "new" if n in edited else one["output"])
                      for n, one in enumerate(rows) if n not in gone])  # fmt: skip
    found = difference.difference(difference.side("in.jsonl"), difference.side("b.jsonl"))
    assert found.by == "row" and found.same == 53 and not len(found.only_b) and not len(found.changed)
    assert set(found.only_a["row"]) == {f"work/in.jsonl#{n + 1}" for n in gone}
    found = difference.difference(difference.side("a.jsonl"), difference.side("c.jsonl"))
    assert found.by == "content"
    assert set(found.only_a["row"]) == {f"work/in.jsonl#{n + 1}" for n in gone | edited}
    assert len(found.only_b) == len(edited - gone) and found.same == 60 - len(gone | edited)


def test_edits_are_found_by_row_id() -> None:
    """Exactly the rows that a step edited, each as lines before and after."""
    write("in.jsonl", ROWS)
    qdata("system", "in.jsonl", "--fill", "Be kind.", "--to", "messages", "-o", "a.jsonl")
    qdata("clean", "a.jsonl", "--step", "control_characters", "-o", "b.jsonl")
    told = json.loads(asked("diff", "a.jsonl", "b.jsonl", "--json").stdout)
    assert (told["matched_by"], told["changed"], told["same"]) == ("row", 1, 7)
    (one,) = told["samples"]["changed"]
    assert one["row"] == "work/in.jsonl#1"
    assert [sign for sign, _ in one["diff"] if sign != " "] == ["-", "+"]


def test_a_row_counts_as_often_as_it_stands() -> None:
    """By content, twice in one and once in the other is one only there."""
    write("a.jsonl", [ROWS[3], ROWS[3], ROWS[7]])
    write("b.jsonl", [ROWS[7], ROWS[3], ROWS[7]])
    told = json.loads(asked("diff", "a.jsonl", "b.jsonl", "--json").stdout)
    assert {n: told[n] for n in ("only_a", "only_b", "same")} == {"only_a": 1, "only_b": 1, "same": 2}


def test_files_of_one_name_and_other_bytes_are_not_matched_by_row() -> None:
    """Row 1 of one is not row 1 of the other, though their ids are equal."""
    for folder, rows in (("v1", ROWS[3:]), ("v2", ROWS[4:])):
        write(f"{folder}/mine/in.jsonl", rows)
        qdata("convert", f"{folder}/mine/in.jsonl", "--to", "messages", "-o", f"{folder}.jsonl")
    for a, b in (("v1.jsonl", "v2.jsonl"), ("v1/mine/in.jsonl", "v2/mine/in.jsonl"), ("v1/mine/in.jsonl", "v2.jsonl")):
        told = json.loads(asked("diff", a, b, "--json").stdout)
        assert (told["matched_by"], told["only_a"], told["only_b"], told["same"]) == ("content", 1, 0, 4)


@pytest.mark.slow
def test_alpaca_cleaned(real_data: Path) -> None:
    """All 52,002 rows: the sums close, a row of each reason says it, and the difference is the ledger's."""
    raw = real_data / "alpaca" / "alpaca_data.json"
    qdata("clean", raw, "--preset", "sft-en", "-o", "clean.jsonl")
    found = output.find(Path("clean.jsonl"))
    sums = audit.check(found)
    assert sums["in"] == 52_002 and sums["dropped"] > 400 and sums["edited"] > 600
    gone = found.ledger().filter(DROPPED).group_by("step", "reason").agg(pl.col("row").first()).collect()
    for step, reason, one in gone.iter_rows():
        assert history.told(one, found)["stages"][0]["dropped_by"] == f"{step}.{reason}"
    told = json.loads(asked("diff", raw, "clean.jsonl", "--json").stdout)
    assert (told["matched_by"], told["only_b"]) == ("row", 0)
    assert (told["only_a"], told["changed"]) == (sums["dropped"], sums["edited"])
