"""`qdata convert` through pipes, into every container, and over folders that hold other things too."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result

from qdata.cli import main
from qdata.rows import source

ROWS = [
    {"messages": [{"role": "user", "content": "你好\r\n\"q\"\u2028"}, {"role": "assistant", "content": "答"}], "id": 7},
    {"messages": [{"role": "user", "content": "天气？"},
                  {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": {"a": 1}}]}],
     "tools": [{"name": "f", "parameters": {"a": {}}}, {"name": "g"}]},
]  # fmt: skip
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with one sound file in it, and a cache of its own."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("QDATA_CACHE_DIR", str(tmp_path / "cache"))
    (folder / "in.jsonl").write_bytes(LINES)
    return folder


def qdata(*words: str, piped: bytes | None = None) -> Result:
    return CliRunner().invoke(main, list(words), catch_exceptions=False, input=io.BytesIO(piped) if piped else None)


def rows(text: str | bytes) -> list[Any]:
    return [json.loads(line) for line in (text.encode() if isinstance(text, str) else text).splitlines()]


def test_rows_go_through_a_pipe() -> None:
    """In a process of its own: rows alone on stdout, the report on stderr, nothing written here."""
    words = [sys.executable, "-m", "qdata.cli", "convert", "-", "--to", "messages", "-o", "-"]
    done = subprocess.run(words, input=LINES, capture_output=True, check=True, timeout=120)
    assert [json.loads(line) for line in done.stdout.split(b"\n")[:-1]] == ROWS
    assert b"2 rows in: 2 kept" in done.stderr
    assert [p.name for p in Path().iterdir()] == ["in.jsonl"]


def test_piped_rows_have_the_source_stdin() -> None:
    """And the same ids each time, whatever they are compressed with."""
    for name in ("a.jsonl", "b.jsonl"):
        assert qdata("convert", "-", "--to", "messages", "-o", name, piped=LINES).exit_code == 0
        assert pl.read_parquet(f"{name}.qdata/ledger.parquet")["row"].to_list() == ["stdin/stdin#1", "stdin/stdin#2"]
    assert Path("a.jsonl").read_bytes() == Path("b.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("words", "piped", "wanted"),
    [
        (["-", "--to", "alpaca", "-o", "-"], b"{bad\n", "stdin, line 1: not valid JSON"),
        (["-", "-", "--to", "alpaca", "-o", "-"], LINES, "stdin: given twice"),
        (["in.jsonl", "--to", "messages", "-o", "-", "--json"], None, "-o - and --json: both would go to stdout"),
        (["in.jsonl", "--to", "messages", "-o", "x.xlsx.gz"], None, "-o x.xlsx.gz: wanted a name ending in .csv"),
    ],
)
def test_what_cannot_be_piped_is_told(words: list[str], piped: bytes | None, wanted: str) -> None:
    """One message, exit code 2, nothing on stdout."""
    done = qdata("convert", *words, piped=piped)
    assert (done.exit_code, done.stdout) == (2, "")
    assert wanted in done.stderr


@pytest.mark.parametrize("ending", source.writable())
@pytest.mark.parametrize("packed", ["", ".gz", ".zst", ".bz2", ".xz"])
def test_there_and_back_through_every_container(ending: str, packed: str) -> None:
    """Messages, tool calls and schemas come back as they were; a column nobody knows too (of CSV as text)."""
    name = f"out{ending}{packed}"
    assert qdata("convert", "in.jsonl", "--to", "messages", "-o", name).exit_code == 0
    done = qdata("convert", name, "--to", "messages", "-o", "-")
    assert done.exit_code == 0, done.stderr
    back = rows(done.stdout_bytes.replace("\u2028".encode(), b"\\u2028"))
    if ending in (".csv", ".tsv"):
        assert [row.pop("id") for row in back] == ["7", ""]
        assert back == [{k: v for k, v in row.items() if k != "id"} for row in ROWS]
    else:
        assert back == ROWS


def test_what_is_piped_is_called_stdin() -> None:
    """In reports and errors, and not by its place in the cache."""
    done = qdata("convert", "-", "--to", "messages", "-o", "a.jsonl", piped=LINES)
    assert done.stderr.lstrip().startswith("stdin: messages (100%")
    for piped in (b"{bad\n", b'{"x": 1}\n', b"\n"):
        done = qdata("convert", "-", "--to", "messages", "-o", "b.jsonl", piped=piped)
        assert (done.exit_code, "error: stdin" in done.stderr, "cache" in done.stderr) == (2, True, False), done.stderr


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", LINES, "a.csv: JSON lines, and its name says .csv; give it one that ends in .jsonl"),
        ("a.tsv", b'{"a":"x, y","b":1}', "a.tsv: JSON lines, and its name says .tsv"),
        ("a.jsonl", b"prompt,response\nq,a\nr,b\n", "It looks like a table: give it a name that ends in .csv"),
        ("a.json", b'{"data": [{"prompt": "q", "response": "a"}], "n": 1}', "jq -c '.data[]' FILE > rows.jsonl"),
    ],
)
def test_a_file_that_is_something_else_is_told(name: str, text: bytes, told: str) -> None:
    """JSON lines called a table, a table called lines, rows inside an object."""
    Path(name).write_bytes(text)
    done = qdata("convert", name, "--to", "messages", "-o", "o.jsonl")
    assert (done.exit_code, told in done.stderr) == (2, True), done.stderr


def test_unreadable_rows_have_hashes_of_their_own() -> None:
    """In the ledger: of their raw text, so that two that differ are not taken for one."""
    Path("b.jsonl").write_bytes(LINES + b"{bad\n{worse\n{bad\n")
    assert qdata("convert", "b.jsonl", "--to", "messages", "-o", "o.jsonl").exit_code == 0
    book = pl.read_parquet("o.jsonl.qdata/ledger.parquet").filter(pl.col("action") == "dropped")
    one, two, three = book["content_hash"].to_list()
    assert one == three != two


def test_no_workers_are_refused() -> None:
    """At least one process does the work."""
    done = qdata("convert", "in.jsonl", "--to", "messages", "-o", "o.jsonl", "--workers", "0")
    assert (done.exit_code, "--workers" in done.stderr) == (2, True)


def test_the_catalogue_is_whole_where_nobody_looks() -> None:
    """In a pipe no name and no word is cut, however long; a file that is not there is told as such."""
    name, about = "a" * 70, "b " * 90
    Path("datasets.toml").write_text(f'[{name}]\nhub = "x/y"\nabout = "{about.strip()}"\n', encoding="utf-8")
    words = [sys.executable, "-m", "qdata.cli", "catalog"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
    assert any(name in line and about.strip() in line for line in done.stdout.splitlines())
    told = qdata("catalog", "gone.json")
    assert (told.exit_code, "gone.json: no such file" in told.stderr) == (2, True)


def test_the_default_output_is_named_without_the_compression() -> None:
    """x.jsonl.gz becomes data/x.messages.jsonl."""
    assert qdata("convert", "in.jsonl", "--to", "messages", "-o", "x.jsonl.gz").exit_code == 0
    assert qdata("convert", "x.jsonl.gz", "--to", "messages").exit_code == 0
    assert sorted(p.name for p in Path("data").glob("*.jsonl")) == ["x.messages.jsonl"]


def test_a_folder_with_shards_in_it_is_still_a_folder_of_rows() -> None:
    """What render put there is left out, and told; so is what only describes a data set."""
    Path("data/shards/train").mkdir(parents=True)
    Path("data/shards/manifest.json").write_text('{"command": "render"}')
    Path("data/shards/train/state.json").write_text("{}")
    Path("data/dataset_info.json").write_text("{}")
    Path("data/a.jsonl").write_bytes(LINES)
    done = qdata("convert", "data", "--to", "messages", "-o", "out.jsonl")
    assert done.exit_code == 0, done.stderr
    assert "not read: data/shards (shards that qdata render made)" in done.stderr
    assert "not read: data/dataset_info.json (about the data set, no rows)" in done.stderr
    assert rows(Path("out.jsonl").read_bytes().replace("\u2028".encode(), b"\\u2028")) == ROWS
