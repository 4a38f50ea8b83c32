"""One rule for rows that cannot be read or rendered: set aside and told, or under --strict refused by name."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result
from rich.console import Console
from tests.tokens.test_shards import said, small_tokenizer

from qdata import pipeline, report
from qdata.aside import Aside
from qdata.cli import main
from qdata.errors import QdataError
from qdata.recipe import DataRecipe, Source
from qdata.rows import source

GOOD = {"messages": said("q", "a")}
BROKEN = "{broken"
NULL = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant"}]}
ODD = {"messages": [GOOD["messages"][0], GOOD["messages"][1] | {"tool_calls": "x"}]}  # read, and never rendered


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory named `work`, and an empty cache."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("QDATA_CACHE_DIR", str(tmp_path / "cache"))
    return folder


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small tokenizer's folder."""
    return small_tokenizer(tmp_path_factory.mktemp("small"))


def write(path: str, rows: Sequence[Any]) -> Path:
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    Path(path).write_text(text, encoding="utf-8")
    return Path(path)


def invoke(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


def road(verb: str, small: Path) -> tuple[list[str], str]:
    """The words of a command behind its inputs, and where its ledger lies."""
    if verb == "convert":
        return ["--to", "messages", "-o", "out.jsonl"], "out.jsonl.qdata/ledger.parquet"
    return ["--tokenizer", str(small), "--template", "qwen3", "-o", "out"], "out/ledger.parquet"


def everything() -> set[str]:
    return {str(p) for p in Path().rglob("*")}


@pytest.mark.parametrize("verb", ["convert", "render"])
def test_a_bad_row_costs_that_row(verb: str, small: Path) -> None:
    """The others are in the output, it is in the ledger with its reason, the sums close, and a person is told."""
    write("a.jsonl", [GOOD, BROKEN, GOOD, NULL, "", GOOD])
    words, book_file = road(verb, small)
    done = invoke(verb, "a.jsonl", *words, "--json")
    assert done.exit_code == 0
    rows = json.loads(done.stdout)["rows"]
    assert rows == {"in": 5, "kept": 3, "edited": 0, "dropped": {"read.answer_missing": 1, "read.not_json": 1}}
    book = pl.read_parquet(book_file)
    assert sorted(book["row"]) == [f"work/a.jsonl#{n}" for n in (1, 2, 3, 4, 6)]
    dropped = book.filter(pl.col("action") == "dropped").sort("row")
    assert dropped.select("row", "step", "reason", "shard").rows() == [
        ("work/a.jsonl#2", "read", "not_json", None),
        ("work/a.jsonl#4", "read", "answer_missing", None),
    ]
    assert "a.jsonl, line 2: not valid JSON" in done.stderr
    assert (
        "a.jsonl, line 4: the answer is null or missing\n"
        "2 rows (of 5) were set aside; they are in the ledger with their reason. --strict refuses them instead."
    ) in done.stderr


def test_what_cannot_be_rendered_follows_the_same_rule(small: Path) -> None:
    """It is a row by then, so its id names it; beside rows that cannot be read it stands in one list."""
    write("a.jsonl", [GOOD, ODD, BROKEN])
    words, _ = road("render", small)
    refused = invoke("render", "a.jsonl", *words, "--strict")
    assert refused.exit_code == 2
    assert not Path("out").exists()
    named = ["a.jsonl, line 3: not valid JSON", "work/a.jsonl#2: message 1: tool_calls: not JSON"]
    for line in named:
        assert line in refused.stderr
    assert "Mend the 2 rows, or leave --strict out: they are then set aside in the ledger" in refused.stderr
    done = invoke("render", "a.jsonl", *words, "--json")
    rows = json.loads(done.stdout)["rows"]
    assert (rows["in"], rows["kept"], rows["dropped"]["read.not_json"]) == (3, 1, 1)
    assert sum(rows["dropped"].values()) == 2
    for line in [*named, "2 rows (of 3) were set aside"]:
        assert line in done.stderr


@pytest.mark.parametrize("verb", ["convert", "render"])
def test_strict_and_default_do_not_see_each_others_cache(verb: str, small: Path) -> None:
    """Strict refuses with the same words cold and warm, and writes nothing; the default makes the same after it."""
    write("a.jsonl", [GOOD, BROKEN, ODD if verb == "render" else NULL, GOOD])
    words, book_file = road(verb, small)
    before = everything()
    cold = invoke(verb, "a.jsonl", *words, "--strict")
    assert cold.exit_code == 2
    assert everything() == before
    done = invoke(verb, "a.jsonl", *words)
    assert done.exit_code == 0
    first = pl.read_parquet(book_file)
    warm = invoke(verb, "a.jsonl", *words, "--strict", "--overwrite")
    assert (warm.exit_code, warm.stderr.splitlines()[-3:]) == (2, cold.stderr.splitlines()[-3:])
    assert pl.read_parquet(book_file).equals(first), "the old output stays"
    again = invoke(verb, "a.jsonl", *words, "--overwrite")
    assert (again.exit_code, again.stderr) == (0, done.stderr)
    write("a.jsonl", [GOOD, json.dumps(GOOD), GOOD, GOOD])  # mended
    assert invoke(verb, "a.jsonl", *words, "--overwrite", "--strict").exit_code == 0


def test_one_row_is_spoken_of_as_one(small: Path) -> None:
    """In both modes."""
    write("a.jsonl", [GOOD, BROKEN])
    words, _ = road("render", small)
    refused = invoke("render", "a.jsonl", *words, "--strict").stderr
    assert "Mend the row, or leave --strict out: it is then set aside in the ledger with its reason." in refused
    told = invoke("render", "a.jsonl", *words).stderr
    assert "1 row (of 2) was set aside; it is in the ledger with its reason. --strict refuses it instead." in told


def test_five_are_named_in_order_and_all_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """However the files are cut, and from however many of them the rows come."""
    write("a.jsonl", [GOOD, BROKEN, GOOD, BROKEN, BROKEN])
    write("b.jsonl", [GOOD, *[NULL, BROKEN] * 1000])
    original = source.parts_of
    said_of = []
    for size in (100, 1 << 20):
        monkeypatch.setattr(source, "parts_of", functools.partial(original, part_bytes=size))
        with pytest.raises(QdataError) as caught:
            pipeline.conversations(DataRecipe(sources=(Source(path="a.jsonl"), Source(path="b.jsonl"))), strict=True)
        said_of.append(str(caught.value))
    assert said_of[0] == said_of[1]
    *lines, more, mend = said_of[0].splitlines()
    assert [line.partition(":")[0] for line in lines] == [f"a.jsonl, line {n}" for n in (2, 4, 5)] + [
        f"b.jsonl, line {n}" for n in (2, 3)
    ]
    assert more == "… and 1,998 more"
    assert mend.startswith("Mend the 2,003 rows, or")


@pytest.mark.parametrize("strict", [[], ["--strict"]], ids=["default", "strict"])
@pytest.mark.parametrize("bad", [BROKEN, NULL, ODD], ids=["broken", "null", "not rendered"])
def test_a_file_of_which_nothing_is_left_is_refused(bad: Any, strict: list[str], small: Path) -> None:
    """In both modes, beside a sound file too, with the first rows; leaving --strict out would not help."""
    write("a.jsonl", [GOOD])
    write("b.jsonl", [bad] * 6)
    before = everything()
    done = invoke("render", "a.jsonl", "b.jsonl", *road("render", small)[0], *strict)
    assert done.exit_code == 2
    assert everything() == before
    assert "b.jsonl, line 1: " in done.stderr or "work/b.jsonl#1: " in done.stderr
    what = "read and rendered" if bad is ODD else "read"
    assert f"\nb.jsonl: not one row of it can be {what}. Mend the rows, or leave the file out." in done.stderr
    assert ("… and 1 more\n" in done.stderr) == (bad is not BROKEN), "a glance at the file counts nothing"
    assert "--strict" not in done.stderr


def test_nothing_left_for_several_reasons_is_refused(small: Path) -> None:
    """Of one row nothing can be read, another has no answer: the reasons are counted."""
    write("a.jsonl", [{"messages": said("q", " ")}, BROKEN])
    done = invoke("render", "a.jsonl", *road("render", small)[0])
    assert done.exit_code == 2
    assert "nothing is left to train: 1 complete.empty_answer, 1 read.not_json" in done.stderr


def test_of_two_kinds_of_mistakes_both_are_named(small: Path) -> None:
    """Many lines of one kind do not hide the other."""
    write("mixed.jsonl", [BROKEN] * 9 + [GOOD, ODD])
    told = invoke("render", "mixed.jsonl", *road("render", small)[0]).stderr
    assert "mixed.jsonl, line 1: not valid JSON" in told
    assert "mixed.jsonl#11" in told
    assert "10 rows (of 11) were set aside" in told


def test_a_long_broken_beginning_costs_its_rows(here: Path) -> None:
    """Where the first megabytes are broken, the dialect is told by the first row that is not."""
    write("a.jsonl", [*["{" + "x" * 100_000] * 30, GOOD])
    done = invoke("convert", "a.jsonl", "--to", "pairs", "-o", "out.jsonl")
    assert done.exit_code == 0
    assert "30 rows (of 31) were set aside" in done.stderr


def test_stdout_has_no_ledger_to_speak_of() -> None:
    """With `-o -` the rows go to stdout and the words to stderr."""
    write("a.jsonl", [GOOD, BROKEN])
    done = invoke("convert", "a.jsonl", "--to", "pairs", "-o", "-")
    assert (done.exit_code, done.stdout) == (0, '{"prompt":"q","response":"a"}\n')
    assert "1 row (of 2) was set aside. --strict refuses it instead." in done.stderr


def test_it_is_yellow() -> None:
    """Every line of it, on a terminal; and nothing where nothing was set aside."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system="standard", width=20)
    report.set_aside(console, Aside([], 0, 3))
    assert not out.getvalue()
    report.set_aside(console, Aside(["[a].jsonl, line 1: x"], 2, 3))
    lines = out.getvalue().splitlines()
    assert [line.startswith(("\x1b[33m", "\x1b[1;33m")) for line in lines] == [True] * 3
    assert "[a].jsonl, line 1: x" in lines[0]


def test_conversations_follow(small: Path) -> None:
    """What qtrain's stand-in is made of."""
    write("a.jsonl", [GOOD, BROKEN, GOOD])
    recipe = DataRecipe(sources=(Source(path="a.jsonl"),))
    assert pipeline.conversations(recipe)["row"].to_list() == ["work/a.jsonl#1", "work/a.jsonl#3"]
    with pytest.raises(QdataError, match="line 2: not valid JSON"):
        pipeline.conversations(recipe, strict=True)


def test_a_registry_entry_is_told_by_the_rows_that_can_be_read() -> None:
    """The others are named, and that LLaMA-Factory reads the file as it is."""
    row = {"instruction": "q", "output": "a"}
    write("a.jsonl", [row, BROKEN, row | {"output": None, "history": []}, row | {"input": ""}])
    done = invoke("catalog", "a.jsonl", "--dataset-info", "dataset_info.json")
    assert done.exit_code == 0
    columns = json.loads(Path("dataset_info.json").read_text(encoding="utf-8"))["a"]["columns"]
    assert columns == {"prompt": "instruction", "query": "input", "response": "output"}
    assert "a.jsonl, line 2: not valid JSON" in done.stderr
    assert "a.jsonl, line 3: the answer is null or missing" in done.stderr
    assert "2 of 4 rows cannot be read, and LLaMA-Factory reads the file as it is" in done.stderr
