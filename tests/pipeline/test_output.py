"""Outputs opened again: rows, shards and runs, and what they were made of."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from qdata import output, pipeline
from qdata.convert import convert
from qdata.errors import QdataError
from qdata.recipe import DataRecipe, Source
from qdata.rows.global_steps.exact import Exact
from qdata.schema import CONVERSATION

ROWS = [
    {"prompt": "你好", "response": "你好呀"},
    {"prompt": "hi", "response": ""},
    {"prompt": "hi", "response": "hello"},
]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Rows, and one of them twice."""
    file = tmp_path / "in.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in [*ROWS, ROWS[0]]), encoding="utf-8")
    return file


def test_a_file_its_folder_and_what_it_was_made_of(rows: Path, tmp_path: Path) -> None:
    """Each is found from the one after it, by content; an edited one is not."""
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    convert([Source(path=str(rows), name="in")], "messages", first, command="clean")
    convert([Source(path=str(first))], None, second, global_steps=(Exact(),), command="dedup")
    found = output.find(second)
    assert output.find(tmp_path / "second.jsonl.qdata") == found
    assert (found.manifest["command"], found.is_shards) == ("dedup", False)
    assert found.dropped().select("row", "drop").collect().rows() == [("in/in.jsonl#4", "exact.duplicate")]
    assert [one.path.name for one in output.before(found)] == ["first.jsonl"]
    assert list(output.before(output.find(first))) == []
    first.write_text(first.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert list(output.before(found)) == []


def test_shards_and_their_run(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their dropped rows are conversations with the ledger's reasons, whichever way they fell; a run leads to them."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "shards"
    pipeline.build(DataRecipe(sources=(Source(path=str(rows)),), max_length=23), folder)
    found = output.find(folder)
    dropped = found.dropped().collect()
    assert dropped.schema.names() == CONVERSATION.names()
    book = found.ledger().collect()
    gone = book.filter(action="dropped")
    assert dict(dropped.select("row", "drop").rows()) == {
        r: f"{s}.{w}" for r, s, w in gone.select("row", "step", "reason").rows()
    }
    assert len(gone) and book.height == 4
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    (run / "manifest.json").write_text(json.dumps({"data": found.manifest, "shards": "shards"}))
    assert output.find(run).folder.resolve() == folder
    shutil.rmtree(folder)
    with pytest.raises(QdataError, match=r"its shards .* are not here"):
        output.find(run)


def test_what_is_nobodys(tmp_path: Path) -> None:
    """A file without a ledger, an empty folder, a name of nothing: one sentence."""
    file = tmp_path / "a.jsonl"
    file.write_text("{}\n")
    (tmp_path / "empty").mkdir()
    for path, said in ((file, "no ledger of ours"), (tmp_path / "empty", "no manifest"), (tmp_path / "no", "no such")):
        with pytest.raises(QdataError, match=said):
            output.find(path)


def test_ledgers_of_both_kinds_have_one_schema(rows: Path, tmp_path: Path) -> None:
    """So that whoever asks need not know which it is."""
    convert([Source(path=str(rows))], "messages", tmp_path / "out.jsonl")
    pipeline.build(DataRecipe(sources=(Source(path=str(rows)),)), tmp_path / "shards")
    schemas = [output.find(tmp_path / name).ledger().collect_schema() for name in ("out.jsonl", "shards")]
    assert schemas[0] == schemas[1]
    assert schemas[0].names()[:3] == ["row", "content_hash", "action"] and schemas[0]["index"] == pl.Int64
