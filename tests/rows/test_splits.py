"""What a data set holds for testing and validation is not trained by naming its folder; it is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.rows.test_walk import saved_dataset

from qdata.cli import main
from qdata.errors import QdataError
from qdata.recipe import Source
from qdata.rows import catalog, source
from qdata.rows.repository import held_out

ROW = {"prompt": "q", "response": "a"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)


def write(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(json.dumps(ROW | {"id": name}) + "\n", encoding="utf-8")


def qdata(*words: str) -> Any:
    return CliRunner().invoke(main, list(words), catch_exceptions=False)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("test.jsonl", "test"),
        ("a-test.jsonl.gz", "test"),
        ("my_test_2.json", "test"),
        ("dev.json", "validation"),
        ("valid-0.json", "validation"),
        ("data/validation-00000-of-00001.parquet", "validation"),
        ("eval/x.jsonl", "test"),
        ("train/test.jsonl", "test"),
        ("test_sft-00000-of-00001.parquet", "test"),
        ("Test/a/b.jsonl", "test"),
        ("eval/train.jsonl", None),
        ("train_test.jsonl", None),
        ("latest.jsonl", None),
        ("contest.jsonl", None),
        ("developer.jsonl", None),
        ("a.jsonl", None),
    ],
)
def test_whole_words_of_names_say_what_is_held_out(name: str, split: str | None) -> None:
    """As `datasets` goes by them; the name nearest the file counts."""
    assert held_out(Path(name)) == split


def test_of_a_folder_the_training_rows_are_read() -> None:
    """The others in one loud line, not where they are given for validation; a file or glob that is named is read."""
    write("d/train.jsonl", "d/test.jsonl", "d/dev/x.jsonl", "d/dev/y.jsonl")
    done = qdata("convert", "d", "--to", "pairs", "-o", "o.jsonl")
    assert done.exit_code == 0, done.stderr
    assert [json.loads(line)["id"] for line in Path("o.jsonl").read_text().splitlines()] == ["d/train.jsonl"]
    told = [line for line in done.stderr.splitlines() if line.startswith("not read")]
    assert told == [
        "not read: d/dev (2 files for validation; name it to read it, or give it with --validation)",
        "not read: d/test.jsonl (1 file for testing; name it to read it, or give it with --validation)",
    ]
    both = qdata("convert", "d", "d/dev", "--to", "pairs", "-o", "p.jsonl")
    assert "not read: d/dev" not in both.stderr and "not read: d/test.jsonl" in both.stderr
    for named, rows in (("d/test.jsonl", 1), ("d/*.jsonl", 2), ("d/dev", 2)):
        assert len(catalog.resolve([Source(path=named)])) == rows
    assert len(catalog.resolve([Source(path="d", files=("t*.jsonl",))])) == 2


def test_of_a_saved_data_set_the_training_rows_are_read() -> None:
    """A DatasetDict: its test split is a folder, which can be named."""
    shards = [[{"prompt": "q", "response": "a"}]]
    folder = saved_dataset(Path("dd"), {"train": shards, "test": shards * 2})
    assert [p.parent.name for p in source.files_of(folder)] == ["train"]
    assert [p.parent.name for p in source.files_of(folder, every_split=True)] == ["train", "test", "test"]
    assert [p.parent.name for p in source.files_of(folder / "test")] == ["test", "test"]
    assert "not read: dd/test (2 files for testing" in qdata("convert", "dd", "--to", "pairs", "-o", "o.jsonl").stderr


def test_a_folder_of_tests_only_must_be_named_file_by_file() -> None:
    """Its rows are not trained by accident, and the message says how to read them."""
    write("mmlu/x_test.jsonl", "mmlu/x_dev.jsonl")
    with pytest.raises(QdataError, match=r"mmlu: all in it is for testing or validation \(x_dev.jsonl …\); name its"):
        source.files_of(Path("mmlu"))
    assert len(source.files_of(Path("mmlu/*"))) == 2


def test_a_data_set_of_the_catalogue_is_a_folder_too() -> None:
    """Fetched or as a sample: what it holds for validation is not read, and told."""
    catalog.entries.cache_clear()
    names = [one.relative for one in catalog.resolve([Source(path="muice")])]
    assert "train.jsonl" in names and "validation.jsonl" not in names
    done = qdata("convert", "muice", "--to", "messages", "-o", "o.jsonl")
    assert "muice/validation.jsonl (1 file for validation" in done.stderr
    write("data/muice/train.jsonl", "data/muice/eval.jsonl")
    assert [one.relative for one in catalog.resolve([Source(path="muice")])] == ["train.jsonl"]
    assert "not read: data/muice/eval.jsonl" in qdata("convert", "muice", "--to", "pairs", "-o", "p.jsonl").stderr
