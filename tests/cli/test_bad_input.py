"""Bad input gets one clear message that names file and line, exit code 2, and leaves nothing behind.

The messages themselves are golden files: read them as a person would who has just made the mistake.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from tests.test_recipe import golden

from qdata import plugin
from qdata.cli import main
from qdata.cli_base import persona_values
from qdata.errors import QdataError
from qdata.pipeline import local_steps
from qdata.recipe import DataRecipe, read_toml, refuse, structure
from qdata.rows import steps

GOOD = {"prompt": "q", "response": "a"}
TO = ("--to", "alpaca", "-o", "out.jsonl")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory named `work` with one sound file in it."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    write("good.jsonl", [GOOD])
    return folder


def write(path: str, rows: Sequence[Any] | bytes) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(rows, bytes):
        rows = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()
    Path(path).write_bytes(rows)


def everything() -> dict[str, bytes | None]:
    """Every file with its content and every folder, hidden ones too."""
    return {str(p): p.read_bytes() if p.is_file() else None for p in Path().rglob("*")}


def message(*words: str | Path) -> str:
    """What a refused command says; it must exit with 2, without a traceback, and change nothing."""
    before = everything()
    done = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    assert done.stdout == ""
    assert done.stderr.count("error:") == 1 or done.stderr.count("Error:") == 1
    assert everything() == before
    return done.stderr.strip() + "\n"


def case(name: str, files: dict[str, Sequence[Any] | bytes], words: Sequence[str], *wanted: str) -> Any:
    """One mistake: the files it takes, the command, and what its message must hold."""
    return pytest.param(name, files, words, wanted, id=name)


MISSING = {"prompt": "q2"}
NULL = {"prompt": "q2", "response": None}
CASES = [
    case("missing file", {}, ["gone.jsonl", *TO], "gone.jsonl: no such file"),
    case("missing folder", {}, ["gone/deep", *TO], "gone/deep: no such file or folder"),
    case("glob without a match", {}, ["rows/*.jsonl", *TO], "rows/*.jsonl: no such file or folder"),
    case("misspelt data set", {}, ["align-anythin", *TO], "Did you mean 'align-anything'?"),
    case("folder without data", {"docs/a.md": b"x"}, ["docs", *TO], "docs: wanted files ending in", ".jsonl"),
    case("empty file", {"e.jsonl": b""}, ["e.jsonl", *TO], "e.jsonl: the file is empty"),
    case("empty csv", {"e.csv": b""}, ["e.csv", *TO], "e.csv: the file is empty"),
    case("only a header", {"e.csv": b"prompt,response\n"}, ["e.csv", *TO], "e.csv: no rows in it"),
    case("only blank lines", {"e.jsonl": b"\n \n"}, ["e.jsonl", *TO], "e.jsonl: no rows in it"),
    case("an empty array", {"e.json": b"[]"}, ["e.json", *TO], "e.json: no rows in it"),
    case("one good and one empty", {"e.jsonl": b""}, ["good.jsonl", "e.jsonl", *TO], "e.jsonl: the file is empty"),
    case("not UTF-8", {"b.jsonl": b'{"prompt": "q", "response": "a"}\n{"prompt": "\xe9", "response": "a"}\n'},
         ["b.jsonl", *TO], "b.jsonl, line 2: not UTF-8 (byte 0xe9"),
    case("not UTF-8 at all", {"b.jsonl": b"\xe9\xe8\n"}, ["b.jsonl", *TO], "b.jsonl, line 1: not UTF-8"),
    case("not UTF-8 in an array", {"b.json": b'[\n{"prompt": "\xe9"}]'}, ["b.json", *TO],
         "b.json", "not UTF-8 (byte 0xe9 in line 2)"),
    case("not UTF-8 in csv", {"b.csv": b"prompt,response\nq,\xe9\n"}, ["b.csv", *TO], "b.csv, row 1: not UTF-8"),
    case("UTF-16", {"b.jsonl": json.dumps(GOOD).encode("utf-16")}, ["b.jsonl", *TO], "b.jsonl: the file is UTF-16"),
    case("broken JSON", {"b.jsonl": [GOOD, "", GOOD, '{"prompt": "q", "response": "a"', GOOD]}, ["b.jsonl", *TO],
         "b.jsonl, line 4: not valid JSON"),
    case("broken JSON in line 1", {"b.jsonl": ["{'prompt': 'q'}", GOOD]}, ["b.jsonl", *TO],
         "b.jsonl, line 1: not valid JSON", "column 2"),
    case("nothing but broken JSON", {"b.jsonl": ["{'prompt': 'q'}"]}, ["b.jsonl", *TO],
         "b.jsonl, line 1: not valid JSON", "b.jsonl: not one row of it can be read"),
    case("a thousand broken lines", {"b.jsonl": ["{"] * 1000}, ["b.jsonl", *TO],
         "b.jsonl, line 5: not valid JSON", "b.jsonl: not one row of it can be read"),
    case("nothing but null answers", {"b.jsonl": [NULL] * 7}, ["good.jsonl", "b.jsonl", *TO],
         "b.jsonl, line 1: the answer is null or missing", "and 2 more", "b.jsonl: not one row of it can be read"),
    case("broken JSON in an array", {"b.json": b'[{"prompt": "q", "response": "a"},\n{"prompt": }]'}, ["b.json", *TO],
         "b.json, row 2: not valid JSON", "at line 2, column 12"),
    case("seven broken lines", {"b.jsonl": [GOOD] * 8 + ["{"] * 7}, ["b.jsonl", *TO],
         "b.jsonl, line 9", "b.jsonl, line 13", "and 2 more", "Mend the 7 rows"),
    case("a line that is no object", {"b.jsonl": [GOOD, [1]]}, ["b.jsonl", *TO],
         "b.jsonl, line 2: wanted a JSON object, got [1]"),
    case("unknown dialect", {"b.jsonl": [{"question": "q", "answer": "a"}]}, ["b.jsonl", *TO],
         "b.jsonl: rows of an unknown dialect", "question, answer", "--map prompt=question"),
    case("two dialects at once", {"b.jsonl": [GOOD | {"instruction": "q", "output": "a"}]}, ["b.jsonl", *TO],
         "b.jsonl: the rows fit alpaca and pairs alike", "--from alpaca"),
    case("another dialect than named", {}, ["good.jsonl", "--from", "alpaca", *TO],
         "good.jsonl: rows that are not alpaca"),
    case("null answer", {"b.jsonl": [GOOD, NULL]}, ["b.jsonl", *TO], "b.jsonl, line 2: the answer is null or missing"),
    case("missing answer", {"b.jsonl": [GOOD, GOOD, MISSING]}, ["b.jsonl", *TO],
         "b.jsonl, line 3: the answer is null or missing"),
    case("null answer in an array", {"b.json": json.dumps([GOOD, NULL]).encode()}, ["b.json", *TO],
         "b.json, row 2: the answer is null or missing"),
    case("a short csv row", {"b.csv": b"prompt,response\nq,a\nq2\n"}, ["b.csv", *TO], "b.csv, row 2: wanted 2 fields"),
    case("a value of another kind", {"b.jsonl": [GOOD, {"prompt": {"x": 1}, "response": "a"}]}, ["b.jsonl", *TO],
         'b.jsonl, line 2: prompt: wanted text, got {"x": 1}'),
    case("a file given twice", {}, ["good.jsonl", "./good.jsonl", *TO], "good.jsonl: given twice"),
    case("output exists", {"out.jsonl": b"mine"}, ["good.jsonl", *TO], "out.jsonl: exists already", "--overwrite"),
    case("output is a folder", {"out.jsonl/x": b"mine"}, ["good.jsonl", *TO], "out.jsonl: exists already"),
    case("output of another kind", {}, ["good.jsonl", "--to", "alpaca", "-o", "out.xlsx"],
         "-o out.xlsx: wanted a name ending"),
    case("misspelt --to", {}, ["good.jsonl", "--to", "alpacca", "-o", "out.jsonl"],
         "'alpacca'. Did you mean 'alpaca' or 'kto_alpaca'?"),
    case("misspelt --from", {}, ["good.jsonl", "--from", "pair", *TO], "'pair'. Did you mean 'pairs'?"),
    case("misspelt --map", {}, ["good.jsonl", "--map", "prompt:question", *TO],
         "--map 'prompt:question': wanted name=value"),
    case("nothing given", {}, [*TO], "no input given"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "files", "words", "wanted"), CASES)
def test_bad_input_gets_one_message(
    name: str, files: dict[str, Any], words: Sequence[str], wanted: Sequence[str], request: pytest.FixtureRequest
) -> None:
    """Exit 2, one message with the file and the line, nothing left behind."""
    for path, rows in files.items():
        write(path, rows)
    said = message("convert", *words, "--strict")
    for part in wanted:
        assert part in said
    if "leave --strict out" not in said:
        assert message("convert", *words) == said, "not a matter of single rows"
    golden(request, f"bad_input/{name.replace(' ', '_')}.txt", said)


@pytest.mark.parametrize("name", ["seven broken lines", "null answer"])
def test_what_is_refused_under_strict_is_told_without(name: str, request: pytest.FixtureRequest) -> None:
    """The same lines, then what became of the rows; the others are written."""
    _, files, words, _ = next(one.values for one in CASES if one.id == name)
    for path, rows in files.items():
        write(path, rows)
    refusal = message("convert", *words, "--strict").removeprefix("error: ").splitlines()
    done = CliRunner().invoke(main, ["convert", *words], catch_exceptions=False)
    assert (done.exit_code, done.stdout) == (0, "")
    assert "\n".join(refusal[:-1]) in done.stderr
    golden(request, f"set_aside/{name.replace(' ', '_')}.txt", done.stderr)


def test_every_case_has_its_golden_file() -> None:
    """And no golden file is left of a case that is gone."""
    names = {f"{one.id}".replace(" ", "_") + ".txt" for one in CASES}
    assert {p.name for p in (Path(__file__).parents[1] / "golden" / "bad_input").iterdir()} == names


def test_bad_input_in_the_default_place_leaves_no_folder() -> None:
    """Without -o too: not even an empty data/."""
    assert "gone.jsonl" in message("convert", "gone.jsonl", "--to", "alpaca")


def test_bad_input_leaves_no_folder_for_the_output() -> None:
    """A folder that -o would have made is not there after a refusal."""
    assert "gone.jsonl" in message("convert", "gone.jsonl", "--to", "alpaca", "-o", "a/b/out.jsonl")


@pytest.mark.parametrize("output", ["good.jsonl/out.jsonl", "good.jsonl/deep/out.jsonl"])
def test_an_output_below_a_file_is_told(output: str) -> None:
    """A folder cannot be made where a file lies: in words."""
    assert "good.jsonl" in message("convert", "good.jsonl", "--to", "alpaca", "-o", output)


def test_a_file_called_data_is_told() -> None:
    """Where data/ should be, a file: in words, for the default output too."""
    write("data", b"x")
    assert "data" in message("convert", "good.jsonl", "--to", "alpaca")


def test_a_killed_run_leaves_nothing_for_good() -> None:
    """What a process that is gone left half-written beside the output is swept by the next run."""
    write(".out.jsonl.partial-999999999", b"half")
    write(".out.jsonl.qdata.partial-999999999/x", b"half")
    done = CliRunner().invoke(main, ["convert", "good.jsonl", *TO], catch_exceptions=False)
    assert done.exit_code == 0
    assert not [p for p in Path().iterdir() if "partial" in p.name]


def test_a_failed_run_leaves_the_old_output() -> None:
    """With --overwrite and bad input the output that was there stays, byte for byte, with all beside it."""
    assert CliRunner().invoke(main, ["convert", "good.jsonl", *TO]).exit_code == 0
    write("bad.jsonl", [GOOD, "{"])
    assert "bad.jsonl, line 2" in message("convert", "bad.jsonl", *TO, "--overwrite", "--strict")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["convrt", "good.jsonl"], "no command is called 'convrt'. Did you mean 'convert'?"),
        (["rendr"], "no command is called 'rendr'. Did you mean 'render'?"),
        (["zzz"], "no command is called 'zzz'. Known: cache, catalog, clean, "),
        (["convert", "good.jsonl", "--too", "alpaca"], "No such option '--too'"),
        (["convert", "good.jsonl"], "Missing option '--to'"),
        (["convert", "good.jsonl", *TO, "--workers", "two"], "Invalid value for '--workers'"),
        (["render", "good.jsonl", "--template", "qwen22"], "no template is called 'qwen22'. Did you mean 'qwen2'"),
        (["render", "good.jsonl", "--template", "my.jinja"], "my.jinja: no such template file"),
        (["render", "good.jsonl", "--tokenizer", "./gone"], "--tokenizer ./gone: no such folder, and not a hub id"),
        (["render", "good.jsonl", "--tokenizer", "qwen2"], "--tokenizer qwen2: no such folder, and not a hub id"),
        (["render", "good.jsonl", "--tokenizer", "Qwenn/Qwen9"], "tokenizer Qwenn/Qwen9: not in the local hub cache"),
        (["render", "good.jsonl", "--val", "2.5"], "--val '2.5': wanted a fraction between 0 and 1"),
        (["render", "good.jsonl", "--val", "-1"], "--val '-1': wanted a fraction between 0 and 1"),
        (["render", "good.jsonl", "--val", "some"], "--val 'some': wanted a fraction between 0 and 1"),
        (["render", "good.jsonl", "--pack", "0"], "Invalid value for '--pack'"),
        (["render", "good.jsonl", "--loss", "asistant"], "Invalid value for '--loss'"),
        (["render", "good.jsonl", "--persona", "name"], "--persona 'name': wanted name=value"),
        (["render"], "no input given, and no rows were made here yet (data/.qdata.json)"),
        (["show"], "no input given, and no shards were made here yet (data/.qdata.json)"),
        (["verify"], "no input given, and no shards were made here yet (data/.qdata.json)"),
        (["fetch", "align-anythin"], "align-anythin: no such catalogue entry. Did you mean 'align-anything'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_misspelt_word_is_told(words: list[str], wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Command, option, template, tokenizer, number: what was meant, or what is wanted; nothing is made."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert wanted in message(*words)


def test_an_output_folder_that_exists_is_refused(qwen2: Path) -> None:
    """render -o: a folder with anything in it, or ours, does not give way without --overwrite."""
    write("mine/notes.txt", b"mine")
    said = message("render", "good.jsonl", "--tokenizer", qwen2, "-o", "mine")
    assert "mine: exists already. Choose another -o, or pass --overwrite to replace it." in said


def test_overwrite_does_not_take_a_folder_that_is_not_ours(qwen2: Path) -> None:
    """--overwrite replaces an output. A folder of other things (a home, a data folder) is no output."""
    write("thesis/chapter1.txt", b"years of work")
    words = ["render", "good.jsonl", "--tokenizer", str(qwen2), "-o", "thesis", "--overwrite"]
    CliRunner().invoke(main, words, catch_exceptions=False)
    assert Path("thesis/chapter1.txt").is_file()


def test_convert_takes_no_folder_that_is_not_ours() -> None:
    """Neither one that has the output's name, nor one where its ledger would lie."""
    write("mine.jsonl/x.txt", b"mine")
    words = ["convert", "good.jsonl", "--to", "alpaca", "--overwrite", "-o"]
    assert "mine.jsonl: there is a folder of that name" in message(*words, "mine.jsonl")
    write("out.jsonl.qdata/x.txt", b"mine")
    assert "out.jsonl.qdata: the ledger of out.jsonl would lie here" in message(*words, "out.jsonl")


def test_one_column_is_not_mapped_twice() -> None:
    """The second name would silently win."""
    said = message("convert", "good.jsonl", "--map", "prompt=x,response=x", *TO)
    assert "good.jsonl: map names x for two columns" in said
    assert "prompt was given as 'x' before" in message("convert", "good.jsonl", "--map", "prompt=x,prompt=y", *TO)


@pytest.mark.parametrize("words", [("name=a", "name.en=b"), ("name.en=b", "name=a")], ids=" ".join)
def test_a_persona_has_a_value_for_all_languages_and_for_one(words: tuple[str, ...]) -> None:
    """In both orders: the special one where it is given, the general one elsewhere."""
    values = persona_values(None, click.Option(["--persona"]), words)  # type: ignore[arg-type]
    assert values == {"name": {"zh": "a", "en": "b"}}


@pytest.mark.parametrize("words", [["name=a", "name.en=b"], ["name.en=b", "name=a"]], ids=" ".join)
def test_a_persona_of_two_kinds_is_no_crash(words: list[str], qwen2: Path) -> None:
    """A value for all languages and one for a single language: taken together or refused in words."""
    line = ["render", "good.jsonl", "--tokenizer", str(qwen2), "-o", "shards", "--persona", *words]
    assert CliRunner().invoke(main, line, catch_exceptions=False).exit_code in (0, 2)


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ([GOOD, "{"], "b.jsonl, line 2: not valid JSON"),
        ([GOOD, NULL], "b.jsonl, line 2: the answer is null or missing"),
        ([{"prompt": "q", "response": " "}], "nothing is left to train: 1 complete.empty_answer"),
        (b"", "b.jsonl: the file is empty"),
    ],
)
def test_render_refuses_what_convert_refuses(qwen2: Path, rows: Any, wanted: str) -> None:
    """The same words for the same mistakes, and no shard folder, whole or half."""
    write("b.jsonl", rows)
    assert wanted in message("render", "b.jsonl", "--tokenizer", qwen2, "-o", "shards", "--strict")


def test_the_last_output_that_is_gone_is_told() -> None:
    """The note of the workspace outlives its file: in words."""
    write("data/.qdata.json", json.dumps({"rows": "data/gone.jsonl"}).encode())
    assert "the last rows made here are gone: data/gone.jsonl. Name a path." in message("render")
    write("data/.qdata.json", b"{broken")
    assert "data/.qdata.json: not readable; remove it" in message("render")


@pytest.mark.parametrize("note", [b"{broken", b"[]", b'"x"'], ids=["broken", "a list", "a text"])
def test_a_workspace_note_that_is_not_ours_is_told(note: bytes) -> None:
    """Before anything is written: convert would have to add its own line to it."""
    write("data/.qdata.json", note)
    assert "data/.qdata.json" in message("convert", "good.jsonl", *TO)


@pytest.mark.parametrize("text", [b"{}", b"[]", b"{broken", b'{"output": {}}'], ids=repr)
def test_a_manifest_that_is_not_ours_is_told_or_left_alone(text: bytes) -> None:
    """A folder good.jsonl.qdata/ that somebody else made: no crash."""
    write("good.jsonl.qdata/manifest.json", text)
    done = CliRunner().invoke(main, ["convert", "good.jsonl", *TO], catch_exceptions=False)
    assert done.exit_code in (0, 2)


def test_a_recipe_with_three_mistakes(request: pytest.FixtureRequest) -> None:
    """All three at once, each with its address; nothing is built."""
    write("r.toml", b'[data]\nsauces = ["good.jsonl"]\nval = "10%"\nloss = "answers"\n')
    before, mistakes = everything(), []
    with pytest.raises(QdataError) as caught:
        structure(DataRecipe, read_toml(Path("r.toml"))["data"], "data", mistakes)
        refuse(Path("r.toml"), mistakes)
    assert everything() == before
    golden(request, "recipe/three_mistakes.txt", f"{caught.value}\n")
    for wanted in (
        "r.toml: 3 mistakes",
        "data.sauces: no such key. Did you mean 'sources'?",
        "data.val: wanted",
        "data.loss:",
    ):
        assert wanted in str(caught.value)


def test_steps_that_cannot_be_made_are_told_at_once() -> None:
    """A misspelt step, a step without a name and a setting that no step has, each with its address."""
    recipe = DataRecipe(steps=({"step": "stripp"}, {"min": 2}, {"step": "strip", "sides": "left"}, {"step": "strip"}))
    with pytest.raises(QdataError) as caught:
        local_steps(recipe)
    told = str(caught.value)
    assert "data.steps[0].step: no step is called 'stripp'. Did you mean 'strip'?" in told
    assert f"data.steps[1].step: missing; wanted one of {', '.join(plugin.names(steps))}\n" in told
    assert "data.steps[2].sides: no such key" in told
    assert "data.steps[3]" not in told


@pytest.mark.parametrize(
    ("words", "make"),
    [
        (["convert", "gone.jsonl", *TO], lambda: None),
        (["convert", "b.jsonl", *TO, "--strict"], lambda: write("b.jsonl", [GOOD, "{"])),
        (["convert", "align-anything", *TO, "--strict"], lambda: None),
        (["rendr"], lambda: None),
    ],
    ids=["missing", "broken", "strict", "misspelt"],
)
def test_the_real_command_does_the_same(words: list[str], make: Callable[[], None]) -> None:
    """In a process of its own: exit code 2, the message on stderr, nothing on stdout, no traceback."""
    make()
    before = everything()
    done = subprocess.run([sys.executable, "-m", "qdata.cli", *words], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.lstrip().startswith("error:") and "Traceback" not in done.stderr
    assert everything() == before
