"""`qdata convert` as it is typed: what comes out, what lies beside it, and that no row and no column is lost."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.rows.test_formats import CHATS, of_kind
from tests.test_recipe import golden
from tests.test_schema import JSON, TEXT, conversation, turn

from qdata import plugin
from qdata.cli import main
from qdata.rows import catalog, formats
from qdata.rows import kinds as kind_of

NAMES = plugin.names(formats)
FORMATS = {name: plugin.find(formats, name) for name in NAMES}
Row = dict[str, Any]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory, named `work`."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def qdata(*words: str | Path) -> Result:
    """A command that is expected to work. A crash shows as what it is."""
    done = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


def refused(*words: str | Path) -> str:
    """The one message of a command that is expected to refuse; nothing is left behind."""
    before = sorted(Path().rglob("*"))
    done = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 2, done.output
    assert sorted(Path().rglob("*")) == before
    return done.stderr


def write(path: str | Path, rows: Sequence[Any]) -> Path:
    """A JSONL file; a row that is text already goes in as it stands."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    Path(path).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return Path(path)


def rows_of(path: str | Path) -> list[Row]:
    return [json.loads(line) for line in Path(path).read_bytes().removesuffix(b"\n").split(b"\n")]


def ledger(path: str | Path) -> pl.DataFrame:
    return pl.read_parquet(f"{path}.qdata/ledger.parquet")


def manifest(path: str | Path) -> Row:
    loaded: Row = json.loads(Path(f"{path}.qdata/manifest.json").read_text(encoding="utf-8"))
    return loaded


def pair(question: str = "q", answer: str = "a", **more: Any) -> Row:
    return {"prompt": question, "response": answer} | more


def messages(*contents: str, **more: Any) -> Row:
    turns = [{"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(contents)]
    return {"messages": turns} | more


def test_the_command_as_written(request: pytest.FixtureRequest) -> None:
    """A file, what lies beside it, the note for the next command, and loudly that it is a sample."""
    done = qdata("convert", "align-anything", "--to", "alpaca")
    target = Path("data/align-anything.alpaca.jsonl")
    kept = rows_of(target)
    assert len(kept) >= 64
    assert all(set(row) >= {"instruction", "input", "output"} for row in kept)
    beside = [f"{target}.qdata/{name}" for name in ("dropped.parquet", "ledger.parquet", "manifest.json")]
    made = [p.as_posix() for p in Path().rglob("*") if p.is_file()]
    assert sorted(made) == ["data/.qdata.json", str(target), *beside]
    assert json.loads(Path("data/.qdata.json").read_text(encoding="utf-8")) == {"rows": str(target)}
    assert manifest(target)["sample"] is True
    assert manifest(target)["rows"] == {"in": len(kept), "kept": len(kept), "edited": 0, "dropped": {}}
    assert done.stdout == ""
    report = done.stderr.replace(str(catalog.SAMPLES), "SAMPLES")
    golden(request, "convert/align-anything.txt", re.sub(r"(?m)^\s+$", "", report).lstrip("\n"))
    assert " SAMPLE  align-anything: these are the few rows that ship with qdata, not the data set." in report


def test_twice_in_a_row() -> None:
    """The same command again replaces its own output, byte for byte the same, without --overwrite."""
    qdata("convert", "align-anything", "--to", "alpaca")
    before = {p: p.read_bytes() for p in Path().rglob("*") if p.is_file()}
    qdata("convert", "align-anything", "--to", "alpaca")
    after = {p: p.read_bytes() for p in Path().rglob("*") if p.is_file()}
    assert before == after


def test_what_a_person_edited_is_not_replaced() -> None:
    """A default output that is not ours any more gives way only to --overwrite."""
    write("a.jsonl", [pair()])
    qdata("convert", "a.jsonl", "--to", "alpaca")
    target = Path("data/a.alpaca.jsonl")
    target.write_text(target.read_text(encoding="utf-8").replace("q", "mine"), encoding="utf-8")
    assert "exists already" in refused("convert", "a.jsonl", "--to", "alpaca")
    assert "mine" in target.read_text(encoding="utf-8")
    qdata("convert", "a.jsonl", "--to", "alpaca", "--overwrite")
    assert "mine" not in target.read_text(encoding="utf-8")


def test_an_explicit_output_that_exists_is_refused() -> None:
    """Also one of ours; --overwrite replaces it and what lies beside it."""
    write("a.jsonl", [pair()])
    qdata("convert", "a.jsonl", "--to", "alpaca", "-o", "out.jsonl")
    assert "out.jsonl: exists already. Choose another -o, or pass --overwrite" in refused(
        "convert", "a.jsonl", "--to", "muice", "-o", "out.jsonl"
    )
    qdata("convert", "a.jsonl", "--to", "muice", "-o", "out.jsonl", "--overwrite")
    assert "conversation" in rows_of("out.jsonl")[0]
    assert manifest("out.jsonl")["to"] == "muice"


PLAIN = [
    conversation([turn("user", '问\n"q" \u2028 😀'), turn("assistant", "答 \\ {{name}}")]),
    conversation([turn("user", ""), turn("assistant", " a ")]),
    conversation([turn("user", " "), turn("assistant", "")]),
]
LONGER = [
    conversation([turn("system", "s"), turn("user", "q"), turn("assistant", "a")]),
    conversation([turn("user", "q"), turn("assistant", "a"), turn("user", "q2"), turn("assistant", "a2")]),
]


KIN = [(a, b) for a in NAMES for b in NAMES if kind_of.kind(FORMATS[a]) == kind_of.kind(FORMATS[b])]


@pytest.mark.parametrize(("a", "b"), KIN)
def test_all_pairs_of_dialects_round_trip(a: str, b: str) -> None:
    """A → B → A through files: the same rows as dialect A writes them, the same ids and content hashes on the way."""
    every = [of_kind(a, one) for one in PLAIN + LONGER]
    said = [one for one in every if not FORMATS[a].loses(one) and not FORMATS[b].loses(one)]
    assert len(said) >= 2
    rows = [FORMATS[a].write(one) | {"id": i} for i, one in enumerate(said)]
    write("a.jsonl", rows)
    qdata("convert", "a.jsonl", "--to", b, "-o", "b.jsonl")
    qdata("convert", "b.jsonl", "--to", a, "-o", "c.jsonl")
    assert rows_of("c.jsonl") == rows
    assert [row["id"] for row in rows_of("b.jsonl")] == list(range(len(rows)))
    assert manifest("b.jsonl")["inputs"][0]["format"] == a
    assert manifest("c.jsonl")["inputs"][0]["format"] == b
    for column in ("row", "content_hash"):
        assert ledger("b.jsonl")[column].equals(ledger("c.jsonl")[column])


REFUSED = {"images", "videos", "audios", "kto_tag"}  # they make a row another matter
KNOWN = frozenset(chain(REFUSED, *(form.columns for form in FORMATS.values())))
OTHERS = TEXT.filter(lambda key: not key.endswith("[]") and key not in KNOWN)


@pytest.mark.parametrize("to", CHATS)
@settings(max_examples=15, deadline=None)
@given(st.lists(st.dictionaries(OTHERS.filter(lambda key: key != "score"), JSON, max_size=4), min_size=1, max_size=3))
def test_unknown_columns_come_back_out(to: str, extras: list[Row]) -> None:
    """Byte for byte the same JSON values, in the same order, whatever they hold."""
    shutil.rmtree("unknown", ignore_errors=True)
    rows = [pair() | extra for extra in extras]
    write("unknown/a.jsonl", [orjson.dumps(row).decode() for row in rows])
    qdata("convert", "unknown/a.jsonl", "--to", to, "-o", "unknown/b.jsonl")
    known = FORMATS[to].write(PLAIN[0]).keys()
    lines = Path("unknown/b.jsonl").read_bytes().splitlines()
    back = [{k: v for k, v in orjson.loads(line).items() if k not in known} for line in lines]
    assert [orjson.dumps(row) for row in back] == [orjson.dumps(extra) for extra in extras]


@pytest.mark.parametrize("score", [1, 9.5, 0, -1, 0.1, 1e20, 1e300, 2**53 + 1, "good", {"x": 1}, [1], True])
def test_a_score_comes_back(score: Any) -> None:
    """The one number every dialect understands is neither lost nor rounded, and what is none makes no row bad."""
    write("a.jsonl", [pair(score=score)])
    qdata("convert", "a.jsonl", "--to", "alpaca", "-o", "b.jsonl")
    assert rows_of("b.jsonl")[0]["score"] == score


def test_unknown_keys_of_messages_come_back_in_their_place() -> None:
    """messages → sharegpt keeps them on the turns; through a dialect without a place they wait in a column."""
    row = messages("q", "a", id=7)
    row["messages"][0]["time"], row["messages"][1]["votes"] = "now", [1, None]
    write("a.jsonl", [row])
    for to in ("sharegpt", "alpaca", "pairs", "muice"):
        qdata("convert", "a.jsonl", "--to", to, "-o", f"{to}.jsonl")
        qdata("convert", f"{to}.jsonl", "--to", "messages", "-o", f"{to}.back.jsonl")
        assert rows_of(f"{to}.back.jsonl") == [row], to
    assert rows_of("sharegpt.jsonl")[0]["conversations"][0] == {"from": "human", "value": "q", "time": "now"}


def test_unknown_keys_of_messages_do_not_wander() -> None:
    """They never end up in another column that happens to be a list of as many objects."""
    row = messages("q", "a", sources=[{"url": "x"}, {"url": "y"}])
    row["messages"][0]["id"] = 1
    write("a.jsonl", [row])
    qdata("convert", "a.jsonl", "--to", "alpaca", "-o", "b.jsonl")
    assert rows_of("b.jsonl")[0]["sources"] == [{"url": "x"}, {"url": "y"}]


@pytest.mark.parametrize("value", [["x", "y"], 3, None, "xy", [1], {"a": 1}])
def test_a_column_may_be_named_like_ours(value: Any) -> None:
    """A column of the user's whose name ends in [] is a column like any other."""
    write("a.jsonl", [messages("q", "a") | {"tags[]": value}])
    qdata("convert", "a.jsonl", "--to", "messages", "-o", "b.jsonl")
    assert rows_of("b.jsonl") == [messages("q", "a") | {"tags[]": value}]


@pytest.mark.parametrize(
    ("row", "to"),
    [
        (pair(system="KEEP ME"), "alpaca"),
        (pair(input="KEEP ME"), "alpaca"),
        (pair(system="KEEP ME"), "muice"),
        (pair(messages="KEEP ME"), "messages"),
        ({"instruction": "q", "output": "a", "response": "KEEP ME"}, "pairs"),
        ({"conversations": [{"from": "human", "value": "q", "content": "KEEP ME"}, {"from": "gpt", "value": "a"}]},
         "messages"),
    ],
    ids=["system to alpaca", "input to alpaca", "system to muice", "messages", "response", "in a turn"],
)  # fmt: skip
def test_an_unknown_column_is_not_lost_to_a_name(row: Row, to: str) -> None:
    """Where a column nobody knew has the name of one that is written, it is refused, or kept under another name."""
    write("a.jsonl", [row])
    done = CliRunner().invoke(main, ["convert", "a.jsonl", "--to", to, "-o", "b.jsonl"], catch_exceptions=False)
    if done.exit_code == 0:
        assert "KEEP ME" in Path("b.jsonl").read_text(encoding="utf-8")
        return
    assert f"work/a.jsonl#1: {to} cannot express a" in done.stderr
    write("a.jsonl", [row, {k: v for k, v in row.items() if v != "KEEP ME" and k != "conversations"} | (
        {"conversations": [{"from": "human", "value": "q"}]} if "conversations" in row else {})])  # fmt: skip
    qdata("convert", "a.jsonl", "--to", to, "-o", "b.jsonl", "--lossy")
    assert "KEEP ME" in str(pl.read_parquet("b.jsonl.qdata/dropped.parquet")["extra"][0]), "set aside, not lost"


def test_columns_can_be_named() -> None:
    """--map makes a dialect of home-made columns; they are in the manifest; the others stay."""
    write("a.jsonl", [{"question": "q", "answer": "a", "id": 1}])
    done = qdata("convert", "a.jsonl", "--map", "prompt=question,response=answer", "--to", "messages", "-o", "b.jsonl")
    assert rows_of("b.jsonl") == [messages("q", "a", id=1)]
    assert manifest("b.jsonl")["inputs"][0]["map"] == {"prompt": "question", "response": "answer"}
    assert "a.jsonl: pairs (100% of the rows looked at)" in done.stderr
    assert '{"question": "q", "answer": "a", "id": 1}' in done.stderr, "the row as it stands in the file"
    assert "wanted name=value" in refused("convert", "a.jsonl", "--map", "prompt", "--to", "messages", "-o", "c.jsonl")


def test_a_dialect_can_be_named() -> None:
    """--from decides where two dialects fit, and is refused where the rows do not speak it."""
    write("a.jsonl", [pair("p", "r") | messages("q", "a")])
    assert "fit messages and pairs alike" in refused("convert", "a.jsonl", "--to", "muice", "-o", "b.jsonl")
    qdata("convert", "a.jsonl", "--from", "pairs", "--to", "muice", "-o", "b.jsonl")
    assert rows_of("b.jsonl")[0]["conversation"] == [{"human": "p", "assistant": "r"}]
    message = refused("convert", "a.jsonl", "--from", "alpaca", "--to", "muice", "-o", "c.jsonl")
    assert "a.jsonl: rows that are not alpaca" in message


@pytest.mark.parametrize("paths", [["rows"], ["rows/*.jsonl"], ["rows/a.jsonl", "rows/b.jsonl"]])
def test_folders_globs_and_lists(paths: list[str]) -> None:
    """All files in order, each in its own dialect, into one output."""
    write("rows/a.jsonl", [pair("1")])
    write("rows/b.jsonl", [messages("2", "a"), messages("3", "a")])
    qdata("convert", *paths, "--to", "pairs", "-o", "out.jsonl")
    assert [row["prompt"] for row in rows_of("out.jsonl")] == ["1", "2", "3"]
    assert [i["format"] for i in manifest("out.jsonl")["inputs"]] == ["pairs", "messages"]
    assert ledger("out.jsonl")["row"].to_list() == ["rows/a.jsonl#1", "rows/b.jsonl#1", "rows/b.jsonl#2"]
    assert ledger("out.jsonl")["index"].to_list() == [0, 1, 2]


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_an_input_is_never_written_over(more: list[str]) -> None:
    """Under any of its names: the file, a link to it, a folder it lies in; nothing is touched."""
    write("d/a.jsonl", [pair()])
    Path("link.jsonl").symlink_to("d/a.jsonl")
    Path("hard.jsonl").hardlink_to("d/a.jsonl")
    before = Path("d/a.jsonl").read_bytes()
    for words in (["d/a.jsonl", "-o", "d/a.jsonl"], ["d", "-o", "./d/../d/a.jsonl"], ["link.jsonl", "-o", "d/a.jsonl"],
                  ["d/a.jsonl", "-o", "hard.jsonl"]):  # fmt: skip
        told = refused("convert", *words, "--to", "alpaca", *more)
        assert "is one of the inputs; choose another -o" in told and "--overwrite" not in told
    assert Path("d/a.jsonl").read_bytes() == before
    assert sorted(p.name for p in Path().rglob("*")) == ["a.jsonl", "d", "hard.jsonl", "link.jsonl"]


def test_a_default_output_has_the_name_of_its_input() -> None:
    """A file's, a folder's or a data set's; several inputs have no one name."""
    write("rows/a.b.jsonl", [pair()])
    for path, target in (("rows/a.b.jsonl", "a.b.alpaca.jsonl"), ("rows", "rows.alpaca.jsonl")):
        qdata("convert", path, "--to", "alpaca")
        assert (Path("data") / target).is_file()
    write("x.jsonl", [pair()])
    assert "several inputs: name the output with -o" in refused("convert", "rows", "x.jsonl", "--to", "alpaca")


@pytest.mark.parametrize("path", ["rows/*.jsonl", ".", "./"])
def test_a_default_output_is_a_name_one_can_use(path: str) -> None:
    """No star and no hidden file, whatever the input is called."""
    write("rows/a.jsonl", [pair()])
    qdata("convert", path, "--to", "alpaca")
    (target,) = [p.name for p in Path("data").glob("*alpaca.jsonl")]
    assert target == ("rows" if "rows" in path else "work") + ".alpaca.jsonl"


def test_an_array_is_written_for_json() -> None:
    """-o x.json is one array of the same rows, and read again they have their ids."""
    write("a.jsonl", [pair("1", id=[1]), pair("2")])
    qdata("convert", "a.jsonl", "--to", "alpaca", "-o", "out.json")
    qdata("convert", "a.jsonl", "--to", "alpaca", "-o", "out.jsonl")
    assert json.loads(Path("out.json").read_bytes()) == rows_of("out.jsonl")
    qdata("convert", "out.json", "--to", "pairs", "-o", "back.jsonl")
    assert ledger("back.jsonl")["row"].to_list() == ["work/a.jsonl#1", "work/a.jsonl#2"]
    assert "wanted a name ending in .csv, .json" in refused("convert", "a.jsonl", "--to", "alpaca", "-o", "out.md")


def test_documents_of_plain_text() -> None:
    """By option and through a pipe; ids name the lines where they begin, the manifest says how the file was read."""
    text = "# one\nstill one\n\n\ntwo\n"
    Path("a.txt").write_text(text, encoding="utf-8")
    how = {"lines": ["# one", "still one", "two"], "paragraphs": ["# one\nstill one", "two"], "file": [text[:-1]]}
    for name, wanted in how.items():
        qdata("convert", "a.txt", "--to", "text", "--documents", name, "-o", f"{name}.jsonl")
        assert [row["text"] for row in rows_of(f"{name}.jsonl")] == wanted
        assert manifest(f"{name}.jsonl")["inputs"][0]["documents"] == name
    assert ledger("paragraphs.jsonl")["row"].to_list() == ["work/a.txt#1", "work/a.txt#5"]
    words = ["convert", "-", "--to", "text", "--documents", "paragraphs", "-o", "-"]
    piped = CliRunner().invoke(main, words, input=text, catch_exceptions=False)
    assert [json.loads(line)["text"] for line in piped.stdout.splitlines()] == how["paragraphs"], piped.stderr
    write("b.jsonl", [{"text": "x"}])
    words = ["convert", "b.jsonl", "--to", "text", "--documents", "file", "-o", "o.jsonl"]
    assert "b.jsonl: documents = file is for plain text only (.txt, .text)" in refused(*words)


def test_row_ids_survive_any_number_of_files(qwen2: Path) -> None:
    """convert → convert → render: a row of the shards is found with the line it came from."""
    write("muice/a.jsonl", [pair("1"), pair("2", ""), pair("3")])
    qdata("convert", "muice/a.jsonl", "--to", "alpaca", "-o", "one.jsonl")
    qdata("convert", "one.jsonl", "--to", "messages", "-o", "two.jsonl")
    qdata("render", "two.jsonl", "--tokenizer", qwen2, "-o", "shards")
    book = pl.read_parquet("shards/ledger.parquet")
    assert book["row"].to_list() == ["muice/a.jsonl#1", "muice/a.jsonl#2", "muice/a.jsonl#3"]
    assert book["action"].to_list() == ["kept", "dropped", "kept"]
    assert set(pl.read_parquet("shards/conversations.parquet")["source"]) == {"muice"}
    shown = CliRunner().invoke(main, ["show", "shards", "--row", "muice/a.jsonl#3", "--json"], catch_exceptions=False)
    assert [one["row"] for one in json.loads(shown.stdout)] == ["muice/a.jsonl#3"]


def test_rows_set_aside_on_the_way_leave_the_others_their_ids() -> None:
    """With a gap in the first file, ids still name its lines; the second file counts only what was kept."""
    write("m/a.jsonl", [pair("1"), "{broken", "", pair("4")])
    qdata("convert", "m/a.jsonl", "--to", "alpaca", "-o", "one.jsonl")
    qdata("convert", "one.jsonl", "--to", "pairs", "-o", "two.jsonl")
    assert ledger("two.jsonl")["row"].to_list() == ["m/a.jsonl#1", "m/a.jsonl#4"]
    assert manifest("two.jsonl")["rows"]["in"] == 2


def test_an_edited_file_has_rows_of_its_own() -> None:
    """One byte changed: the sidecar does not speak for it any more, and it is no sample of anything."""
    qdata("convert", "align-anything", "--to", "alpaca", "-o", "one.jsonl")
    with Path("one.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"instruction": "mine", "input": "", "output": "too"}) + "\n")
    qdata("convert", "one.jsonl", "--to", "pairs", "-o", "two.jsonl")
    assert ledger("two.jsonl")["row"][0] == "work/one.jsonl#1"
    assert manifest("two.jsonl")["sample"] is False


def test_strict_refuses_samples() -> None:
    """The sample itself, and what was made from it."""
    message = refused("convert", "align-anything", "--to", "alpaca", "--strict", "-o", "one.jsonl")
    assert "align-anything: only the sample is here, and --strict refuses samples." in message
    assert "qdata fetch align-anything" in message
    qdata("convert", "align-anything", "--to", "alpaca", "-o", "one.jsonl")
    assert "only the sample" in refused("convert", "one.jsonl", "--to", "pairs", "--strict", "-o", "two.jsonl")
    done = qdata("convert", "one.jsonl", "--to", "pairs", "-o", "two.jsonl")
    assert "SAMPLE" in done.stderr and manifest("two.jsonl")["sample"] is True
    write("own.jsonl", [pair()])
    qdata("convert", "own.jsonl", "--to", "alpaca", "--strict", "-o", "three.jsonl")


def test_rows_that_cannot_be_said_are_refused_or_set_aside() -> None:
    """The file is refused and the rows named; --lossy keeps them in the ledger with what would be lost."""
    write("a.jsonl", [messages("1", "a"), messages("2", "a", "2", "a"), messages("3", "a")])
    message = refused("convert", "a.jsonl", "--to", "pairs", "-o", "b.jsonl")
    assert "work/a.jsonl#2: pairs cannot express the turns user, assistant, user, assistant" in message
    assert "work/a.jsonl#1" not in message
    done = qdata("convert", "a.jsonl", "--to", "pairs", "-o", "b.jsonl", "--lossy")
    assert [row["prompt"] for row in rows_of("b.jsonl")] == ["1", "3"]
    book = ledger("b.jsonl")
    assert book["action"].to_list() == ["kept", "dropped", "kept"]
    assert (book["step"][1], book["reason"][1][:20]) == ("convert", "pairs cannot express")
    assert book["index"].to_list() == [0, None, 1]
    assert "3 rows in: 2 kept, 1 dropped" in done.stderr
    dropped = pl.read_parquet("b.jsonl.qdata/dropped.parquet")
    assert [m["content"] for m in dropped["messages"][0]] == ["2", "a", "2", "a"]


def test_nothing_left_is_refused() -> None:
    """An output without a single row is no output."""
    write("a.jsonl", [messages("1", "a", "2", "a")])
    message = refused("convert", "a.jsonl", "--to", "pairs", "-o", "b.jsonl", "--lossy")
    assert "no row is left to write" in message


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from(["good", "blank", "broken", "no object", "no answer", "misfit", "longer"]), max_size=8))
def test_no_row_is_lost(kinds: list[str]) -> None:
    """in = kept + dropped; the kept are in the file, the dropped beside it with their text, every line once."""
    lines = {"good": messages("q", "a"), "blank": "", "broken": '{"broken', "no object": "[1]",
             "no answer": {"messages": [{"role": "user", "content": "q"}, {"role": "assistant"}]},
             "misfit": {"messages": "text"}, "longer": messages("q", "a", "q", "a")}  # fmt: skip
    shutil.rmtree("lost", ignore_errors=True)
    kinds = ["good", "good", *kinds, *["good"] * len(kinds)]  # at least half speak the dialect
    write("lost/a.jsonl", [lines[kind] for kind in kinds])
    qdata("convert", "lost/a.jsonl", "--to", "pairs", "-o", "lost/b.jsonl", "--lossy")
    there = [f"lost/a.jsonl#{i}" for i, kind in enumerate(kinds, 1) if kind != "blank"]
    kept = [f"lost/a.jsonl#{i}" for i, kind in enumerate(kinds, 1) if kind == "good"]
    book = ledger("lost/b.jsonl")
    assert sorted(book["row"]) == sorted(there)
    placed = book.filter(pl.col("action") == "kept")
    assert sorted(placed["row"]) == sorted(kept)
    assert sorted(placed["index"]) == list(range(len(kept)))
    assert len(rows_of("lost/b.jsonl")) == len(kept)
    dropped = pl.read_parquet("lost/b.jsonl.qdata/dropped.parquet")
    assert sorted([*kept, *dropped["row"]]) == sorted(there)
    assert book.filter(pl.col("action") == "dropped")["reason"].null_count() == 0
    for row, extra, said in dropped.select("row", "extra", "messages").iter_rows():
        kind = kinds[int(row.rpartition("#")[2]) - 1]
        if kind == "longer":
            assert len(said) == 4
        else:
            wanted = lines[kind] if isinstance(lines[kind], str) else json.dumps(lines[kind])
            assert json.loads(extra)["raw"].replace(" ", "") == wanted.replace(" ", "")
    sums = manifest("lost/b.jsonl")["rows"]
    assert sums["in"] == len(there) == sums["kept"] + sum(sums["dropped"].values())
    assert sums["kept"] == len(kept)


def test_reasons_are_counted_not_listed() -> None:
    """A thousand broken lines are a few reasons with their counts, in the report and in the manifest."""
    write("a.jsonl", [pair(), *(f"{{broken {i}" for i in range(1000))])
    done = qdata("convert", "a.jsonl", "--to", "alpaca", "-o", "b.jsonl")
    assert sum(manifest("b.jsonl")["rows"]["dropped"].values()) == 1000
    assert manifest("b.jsonl")["rows"]["dropped"] == {"read.not_json": 1000}
    first = json.loads(pl.read_parquet("b.jsonl.qdata/dropped.parquet")["extra"][0])
    assert first["raw"] == "{broken 0" and "at column 2" in first["reason"], "the words are kept with the row"
    assert len(done.stderr) < 3000


def test_no_row_group_of_a_parquet_file_is_lost() -> None:
    """Also after an empty row group, which begins at the same ordinal as the next one."""
    table = pa.table({"prompt": ["q"], "response": ["a"]})
    with pq.ParquetWriter("a.parquet", table.schema) as writer:
        for one in (table, table.schema.empty_table(), table):
            writer.write_table(one)
    qdata("convert", "a.parquet", "--to", "alpaca", "-o", "b.jsonl")
    assert ledger("b.jsonl")["row"].to_list() == ["work/a.parquet#1", "work/a.parquet#2"]
    assert len(rows_of("b.jsonl")) == 2


KINDS = [pa.binary(), pa.decimal128(5, 2), pa.duration("s"), pa.date32(), pa.timestamp("us")]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_columns_that_json_has_no_word_for(kind: Any) -> None:
    """A Parquet column of bytes, decimals or times is written somehow or refused in words; it is no crash."""
    column = pa.array([b"\x00\xff" if kind == pa.binary() else 1], kind)
    pq.write_table(pa.table({"prompt": ["q"], "response": ["a"], "x": column}), "a.parquet")
    done = CliRunner().invoke(main, ["convert", "a.parquet", "--to", "alpaca", "-o", "b.jsonl"], catch_exceptions=False)
    assert "a.parquet" in done.stderr if done.exit_code == 2 else "x" in rows_of("b.jsonl")[0]


def test_a_row_and_its_copy_are_not_both_taken() -> None:
    """A file and what was made from it have the same rows: told in words, as a file given twice is."""
    write("a.jsonl", [pair()])
    qdata("convert", "a.jsonl", "--to", "alpaca", "-o", "b.jsonl")
    assert "a.jsonl#1" in refused("convert", "a.jsonl", "b.jsonl", "--to", "pairs", "-o", "c.jsonl")


def test_two_files_of_one_name_stay_two() -> None:
    """Rows of en/data/t.jsonl and zh/data/t.jsonl, converted one by one, then together: ids of their own, or words."""
    for language in ("en", "zh"):
        write(f"{language}/data/t.jsonl", [pair(language)])
        qdata("convert", f"{language}/data/t.jsonl", "--to", "alpaca", "-o", f"{language}.jsonl")
    words = ["convert", "en.jsonl", "zh.jsonl", "--to", "pairs", "-o", "both.jsonl"]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert "data/t.jsonl#1" in done.stderr if done.exit_code == 2 else ledger("both.jsonl")["row"].n_unique() == 2


def test_json_report() -> None:
    """--json prints the manifest on stdout, alone."""
    write("a.jsonl", [pair()])
    done = qdata("convert", "a.jsonl", "--to", "alpaca", "-o", "b.jsonl", "--json")
    assert json.loads(done.stdout) == manifest("b.jsonl")


def test_the_number_of_workers_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes write the very bytes that one writes, manifest and ledger included."""
    for name in ("a", "b", "c"):
        write(f"rows/{name}.jsonl", [pair(f"{name}{i}", id=i) for i in range(20)])
    qdata("convert", "rows", "--to", "alpaca", "-o", "one/x.jsonl")
    monkeypatch.setenv("QDATA_CACHE_DIR", str(Path("cache").resolve()))
    qdata("convert", "rows", "--to", "alpaca", "-o", "two/x.jsonl", "--workers", "2")
    assert Path("cache/parts").is_dir(), "nothing came from the first run's cache"
    for file in ("x.jsonl", "x.jsonl.qdata/manifest.json", "x.jsonl.qdata/ledger.parquet"):
        assert Path("one", file).read_bytes() == Path("two", file).read_bytes()
