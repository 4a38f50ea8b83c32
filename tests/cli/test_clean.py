"""`qdata clean` as it is typed: presets, steps, the funnel, and that the ledger explains every row."""

from __future__ import annotations

import errno
import functools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.cli.test_convert import qdata, refused, write

from qdata import preset, stepping
from qdata.paths import shipped
from qdata.rows import source


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands write below the current directory."""
    monkeypatch.chdir(tmp_path)


def row(question: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"instruction": question, "input": "", "output": answer, **more}


ROWS = [
    row("Greet me.", "HellÃ©!\u200b"),
    row("Name a colour.\n<noinput>", "Red", note={"kept": 1}),
    row("Sum up the article.\nhttps://a.org/b", "It is about whales."),
    row("Why?", "As an AI language model, I cannot know."),
    row("Draw a cat.", "<nooutput>"),
    row("Say hi.", "Hi, and welcome."),
]


def lines(path: str) -> list[Any]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def book(path: str) -> dict[str, tuple[Any, ...]]:
    frame = pl.read_parquet(f"{path}.qdata/ledger.parquet")
    return {
        r.rpartition("#")[2]: tuple(rest) for r, *rest in frame.select("row", "action", "step", "reason").iter_rows()
    }


def test_a_preset_cleans_and_the_ledger_explains() -> None:
    """Rows stay in their dialect, with columns nobody knows; every other row is edited or dropped with a reason."""
    write("rows.jsonl", ROWS)
    done = qdata("clean", "rows.jsonl", "--preset", "sft-en")
    out = "data/rows.clean.jsonl"
    assert [(r["instruction"], r["output"]) for r in lines(out)] == [
        ("Greet me.", "Hellé!"),
        ("Name a colour.", "Red"),
        ("Say hi.", "Hi, and welcome."),
    ]
    assert lines(out)[1]["note"] == {"kept": 1}
    assert book(out) == {
        "1": ("edited", "fix_text,control_characters", None),
        "2": ("edited", "placeholder_input", None),
        "3": ("dropped", "placeholder_input", "url_input"),
        "4": ("dropped", "boilerplate", "as_an_ai"),
        "5": ("dropped", "empty_turn", "no_output"),
        "6": ("kept", None, None),
    }
    assert "1 edited  fix_text" in done.stderr and "1 dropped boilerplate.as_an_ai" in done.stderr
    assert "HellÃ©!\\u200b → Hellé!" in done.stderr, "what nobody sees is written out"
    assert "6 rows in: 3 kept (2 edited), 3 dropped" in done.stderr
    again = qdata("clean", out, "--preset", "sft-en", "-o", "again.jsonl")
    assert "3 rows in: 3 kept, 0 dropped" in again.stderr
    assert Path("again.jsonl").read_bytes() == Path(out).read_bytes()


def test_steps_are_named_on_the_command_line() -> None:
    """With their settings as TOML or as bare words, in order, behind those of a preset."""
    write("rows.jsonl", ROWS)
    words = ["--step", "length", "min_answer=4", "max_answer=100", "--step", "placeholder_input", "do=trim"]
    qdata("clean", "rows.jsonl", *words, "--step", "boilerplate", 'patterns=["welcome"]', "-o", "out.jsonl")
    assert book("out.jsonl")["2"] == ("dropped", "length", "answer_too_short")
    assert book("out.jsonl")["6"] == ("dropped", "boilerplate", "own_pattern")
    facts = json.loads(Path("out.jsonl.qdata/manifest.json").read_text(encoding="utf-8"))
    assert [name for name, _ in facts["steps"]] == ["length", "placeholder_input", "boilerplate"]
    assert facts["steps"][0][1]["min_answer"] == 4


def test_a_dry_run_writes_nothing() -> None:
    """It shows the same funnel."""
    write("rows.jsonl", ROWS)
    before = sorted(Path().rglob("*"))
    done = qdata("clean", "rows.jsonl", "--preset", "sft-en", "--dry-run", "--json")
    assert sorted(Path().rglob("*")) == before
    assert "nothing was written" in done.stderr and "1 dropped empty_turn.no_output" in done.stderr
    assert json.loads(done.stdout)["rows"]["kept"] == 3


def test_a_folder_that_takes_no_file_is_told_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the reason is, in the system's words."""
    write("rows.jsonl", ROWS)

    def touch(path: Path, *_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "touch", touch)
    told = refused("clean", "rows.jsonl", "--preset", "sft-en", "-o", "out.jsonl")
    assert "out.jsonl: cannot be written there (Permission denied)" in told


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_and_leaves_nothing(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of the writing."""
    write("rows.jsonl", ROWS)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code), "out")

    monkeypatch.setattr("qdata.convert.write_json", full)
    assert "the disk is full (out)" in refused("clean", "rows.jsonl", "--preset", "sft-en", "-o", "out.jsonl")


def test_cleaned_rows_go_through_a_pipe() -> None:
    """The rows and nothing else on stdout."""
    write("rows.jsonl", ROWS)
    done = qdata("clean", "rows.jsonl", "--preset", "sft-en", "-o", "-")
    assert [json.loads(line)["output"] for line in done.stdout.splitlines()] == ["Hellé!", "Red", "Hi, and welcome."]
    assert "1 dropped empty_turn.no_output" in done.stderr


def test_a_dropped_line_that_nobody_could_read_is_shown() -> None:
    """As it stands in the file."""
    write("rows.jsonl", [*ROWS, "{broken"])
    done = qdata("clean", "rows.jsonl", "--preset", "sft-en", "--dry-run")
    assert "1 dropped read.not_json" in done.stderr and "rows.jsonl#7  {broken" in done.stderr


def test_another_dialect_and_a_preset_of_ones_own() -> None:
    """A shipped preset is a file to copy."""
    write("rows.jsonl", ROWS)
    shutil.copy(shipped("recipes/presets") / "sft-en.toml", "mine.toml")
    qdata("clean", "rows.jsonl", "--preset", "mine.toml", "--to", "messages", "-o", "out.jsonl")
    assert lines("out.jsonl")[1]["messages"][0] == {"role": "user", "content": "Name a colour."}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "no steps: wanted --preset (preference, pretrain, sft-en, sft-zh, or a .toml file) or --step NAME"),
        (["--preset", "sft-eng"], "no preset is called 'sft-eng'. Did you mean 'sft-en' or 'sft-zh'?"),
        (["--preset", "none.toml"], "none.toml: no such preset."),
        (["--step", "lenght"], "--step[0].step: no step is called 'lenght'. Did you mean 'length'?"),
        (["--step", "length", "min=3"], "--step[0].min: no such key."),
        (["--step", "length", "min_answer=few"], "--step[0].min_answer: wanted a whole number, got 'few'"),
        (["--step", "strip", "--step", "length", "a=1", "a=2"], "--step length: a is given twice"),
        (["--step", "word_list", "file=gone.txt"], "gone.txt: cannot be read"),
        (["--step", "word_list", "words=的"], """--step[0].words: wanted an array, here ["的"], got '的'"""),
        (["--step", "exact"], "exact is a global step; it stands in [[data.global_steps]] of a recipe (`qdata dedup`"),
        (["--preset", "sft-en", "-o", "."], "-o .: wanted a name ending in"),
    ],
)
def test_a_mistake_is_one_message(words: list[str], told: str) -> None:
    """Before any work, and nothing is left behind."""
    write("rows.jsonl", ROWS)
    assert told in " ".join(refused("clean", "rows.jsonl", *words).split())


def test_all_mistakes_of_a_preset_at_once() -> None:
    """Keys of the file, and what its steps may be set to."""
    write("rows.jsonl", ROWS)
    Path("bad.toml").write_text('aboutt = "x"\nsteps = []\n', encoding="utf-8")
    assert "bad.toml.aboutt: no such key. Did you mean 'about'?" in refused(
        "clean", "rows.jsonl", "--preset", "bad.toml"
    )
    Path("bad.toml").write_text('[[steps]]\nstep = "strip"\nx = 1\n[[steps]]\ndo = 1\n', encoding="utf-8")
    told = refused("clean", "rows.jsonl", "--preset", "bad.toml")
    assert "bad.toml: steps[0].x: no such key" in told and "bad.toml: steps[1].step: missing" in told
    Path("bad.toml").write_text('about = "x"\n', encoding="utf-8")
    assert "bad.toml.steps: empty" in refused("clean", "rows.jsonl", "--preset", "bad.toml")


def test_a_preset_for_other_rows_is_told() -> None:
    """It is carried out all the same: what it does not know it leaves."""
    write("rows.jsonl", ROWS)
    told = qdata("clean", "rows.jsonl", "--preset", "pretrain").stderr
    assert "--preset pretrain: its steps are made for pretraining text, and these rows are conversations" in told
    assert "are made for" not in qdata("clean", "rows.jsonl", "--preset", "sft-en").stderr


@pytest.mark.parametrize("name", preset.names())
def test_a_shipped_preset_is_right(name: str) -> None:
    """It says what it is for, and its steps can be made; one that only drops stands behind those that edit."""
    loaded = preset.load(name)
    assert loaded.about and loaded.kinds
    assert stepping.steps_of(loaded.steps, name)


def test_workers_do_not_matter() -> None:
    """The same bytes from one and from two."""
    write("a.jsonl", ROWS * 3)
    write("b.jsonl", ROWS[::-1])
    for workers in ("1", "2"):
        qdata("clean", "a.jsonl", "b.jsonl", "--preset", "sft-zh", "--workers", workers, "-o", f"out{workers}.jsonl")
    assert Path("out1.jsonl").read_bytes() == Path("out2.jsonl").read_bytes()


def test_alpaca_against_what_people_found(real_data: Path, tmp_path: Path) -> None:
    """Every class that rules can see: recall 0.95 or more; under 2 % of other rows touched; the rest byte-identical."""
    from benchmarks.clean import score

    result = score(real_data, tmp_path)
    assert len(result["classes"]) == 6
    assert {name: one["recall"] >= 0.95 for name, one in result["classes"].items()} == dict.fromkeys(
        result["classes"], True
    )
    assert result["unlisted_touched_share"] < 0.02
    assert result["untouched"] > 50_000 and result["untouched_not_identical"] == 0


def test_the_real_rows_that_do_not_alternate_are_explained(real_data: Path) -> None:
    """Seven of sharegpt_zh end on a question."""
    file = real_data / "multiturn/sharegpt_zh_1K_format.jsonl"
    qdata("clean", file, "--step", "role_order", "-o", "out.jsonl")
    dropped = [(step, why) for action, step, why in book("out.jsonl").values() if action == "dropped"]
    assert dropped == [("role_order", "unanswered")] * 7


SIX = (
    "fix_text everything=true",
    "whitespace spaces=true ends=true",
    "length min_answer=3",
    "special_characters max=0.5",
    "character_repetition",
    "length min_words=4",
)


def test_any_number_of_workers_writes_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows, ledger and dropped rows, from many small parts; and each of the six steps finds something."""
    original = source.parts_of
    monkeypatch.setattr(source, "parts_of", functools.partial(original, part_bytes=2000))
    dirty = [row("Name\ta colour.", "“Red”, it is"), row("Laugh.", "haha" * 40), row("Count on.", "1 2 3 4 5 6 7 8")]
    dirty += [
        row("Greet me.", "Yo"),
        row("Why?", "Because.", note="text"),
        row("Speak.", "HellÃ© &amp; welcome to you "),
    ]
    write("rows.jsonl", dirty * 20)
    steps = [word for step in SIX for word in ("--step", *step.split())]
    for workers in "12":
        monkeypatch.setenv("QDATA_CACHE_DIR", f"cache{workers}")
        qdata("clean", "rows.jsonl", *steps, "--workers", workers, "-o", f"{workers}/out.jsonl")
    for name in ("out.jsonl", "out.jsonl.qdata/ledger.parquet", "out.jsonl.qdata/dropped.parquet"):
        assert Path("1", name).read_bytes() == Path("2", name).read_bytes(), name
    book = pl.read_parquet("1/out.jsonl.qdata/ledger.parquet")
    assert book["step"].head(len(dirty)).to_list() == [
        "fix_text,whitespace",
        "character_repetition",
        "special_characters",
        "length",
        "length",
        "fix_text,whitespace",
    ]
