"""The proof of text, pairs and judged answers: good shards pass (test_kinds.py), planted faults are caught."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from tests.pipeline.test_kinds import DOCUMENTS, JUDGED, PAIRS, build
from tests.tokens.test_shards import read, small_tokenizer
from tokenizers import Tokenizer

from qdata import schema

pytest.importorskip("transformers")

Rows = list[dict[str, Any]]
Change = Callable[[Rows], Any]


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small tokenizer's folder."""
    return small_tokenizer(tmp_path_factory.mktemp("small"))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)


def faults(change: Change, shape: pa.Schema, folder: str = "out", sample: int | None = None) -> dict[str, int]:
    """What verify finds after the rows were changed, and the manifest told the new hash."""
    from qdata.tokens import verify

    rows = read(Path(folder))
    change(rows)
    manifest = json.loads(Path(folder, "manifest.json").read_text(encoding="utf-8"))
    (shard,) = manifest["splits"]["train"]["shards"]
    file = Path(folder, shard["name"])
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, shape) as writer:
        writer.write_table(pa.Table.from_pylist(rows, shape))
    shard["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    shard["rows"] = manifest["splits"]["train"]["rows"] = len(rows)
    Path(folder, "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return dict(verify.verify(Path(folder), sample=sample).failures)


def without(row: dict[str, Any], at: int) -> None:
    """A row of one sequence without one of its tokens."""
    del row["input_ids"][at], row["labels"][at]
    row["seq_lengths"][0] -= 1


def unlabelled(rows: Rows) -> None:
    """The first token is not trained."""
    rows[0]["labels"][0] = -100


def misplaced(rows: Rows) -> None:
    """Two neighbours take each other's names."""
    rows[0]["rows"], rows[1]["rows"] = rows[1]["rows"], rows[0]["rows"]


TEXT: dict[str, tuple[Change, str]] = {
    "a token is missing": (lambda rows: without(rows[0], 0), "document"),
    "the end is missing": (lambda rows: without(rows[0], -1), "document"),
    "a document is missing": (lambda rows: rows.pop(0), "not trained"),
    "a document is there twice": (lambda rows: rows.append(rows[0]), "document"),
    "a token is not trained": (unlabelled, "untrained"),
    "another document's": (misplaced, "document"),
    "of nobody": (lambda rows: rows[0].update(rows=["x#1"]), "dropped row"),
}


@pytest.mark.parametrize("fault", TEXT)
def test_a_fault_in_text_is_found(fault: str, small: Path) -> None:
    """Each is told as what it is."""
    build(small, DOCUMENTS)
    change, kind = TEXT[fault]
    assert kind in faults(change, schema.TOKENS)


@pytest.mark.parametrize("block", [0, -1])
def test_a_block_of_a_long_document_is_missed(block: int, small: Path) -> None:
    """The first, or the last one, which ends it; where a block is changed, a sample of the rows finds that too."""
    build(small, DOCUMENTS[1:2], max_length=50)
    assert faults(lambda rows: rows.pop(block), schema.TOKENS) == {"document": 1}
    build(small, DOCUMENTS[1:2], "again", max_length=50)
    assert faults(lambda rows: without(rows[block], 3), schema.TOKENS, "again").keys() == {"document"}
    long = len(read(Path("again")))
    build(small, DOCUMENTS[1:2], "sampled", max_length=50)
    change: Change = lambda rows: [without(row, 3) for row in rows]  # noqa: E731
    assert faults(change, schema.TOKENS, "sampled", sample=long - 1).keys() == {"document"}


def test_a_sample_finds_a_lost_end(small: Path) -> None:
    """Documents that are no longer than allowed are looked at whole, though not all of them."""
    build(small, DOCUMENTS[5:15], max_length=1000)
    assert faults(lambda rows: [without(row, -1) for row in rows], schema.TOKENS, sample=2) == {"document": 2}


def shorter(column: str) -> Change:
    """Takes a column's last token away."""
    return lambda rows: rows[0].update({column: rows[0][column][:-1]})


def swapped(rows: Rows) -> None:
    """The rejected answer is chosen."""
    one = rows[0]
    one["chosen_ids"], one["rejected_ids"] = one["rejected_ids"], one["chosen_ids"]


def moved(rows: Rows) -> None:
    """The answer's first token goes over to the prompt: the text is the same."""
    one = rows[0]
    one["prompt_ids"], one["chosen_ids"] = [*one["prompt_ids"], one["chosen_ids"][0]], one["chosen_ids"][1:]


def forged(small: Path) -> Change:
    """The answer that says <|im_end|> is tokenised as a server would parse it."""
    tokenizer = Tokenizer.from_file(str(small / "tokenizer.json"))
    ids = tokenizer.encode(f"{PAIRS[3]['chosen'][0]['content']}<|im_end|>", add_special_tokens=False).ids
    return lambda rows: rows[3].update(chosen_ids=ids)


PAIRED: dict[str, tuple[Change, str]] = {
    "the stop token is missing": (shorter("rejected_ids"), "answer"),
    "the prompt is cut": (shorter("prompt_ids"), "prompt"),
    "chosen is rejected": (swapped, "answer"),
    "the generation point moved": (moved, "prompt"),
    "one is missing": (lambda rows: rows.pop(0), "not trained"),
    "one is there twice": (lambda rows: rows.append(rows[0]), "repeated"),
    "both are one": (lambda rows: rows[0].update(rejected_ids=rows[0]["chosen_ids"]), "answer"),
    "of nobody": (lambda rows: rows[0].update(rows=["x#1"]), "dropped row"),
    "two names": (lambda rows: rows[0].update(rows=rows[0]["rows"] * 2), "lengths"),
}


@pytest.mark.parametrize("fault", [*PAIRED, "forged"])
def test_a_fault_in_a_pair_is_found(fault: str, small: Path) -> None:
    """Each is told as what it is."""
    build(small, PAIRS)
    change, kind = PAIRED.get(fault) or (forged(small), "answer")
    assert kind in faults(change, schema.PREFERENCE)


def test_another_verdict_is_found(small: Path) -> None:
    """A bad answer that is told to be good; one without its stop token."""
    build(small, JUDGED, "verdict")
    assert faults(lambda rows: rows[1].update(label=True), schema.JUDGED, "verdict") == {"label": 1}
    build(small, JUDGED)
    assert faults(shorter("completion_ids"), schema.JUDGED) == {"answer": 1}


def test_sums_that_do_not_close_are_found(small: Path) -> None:
    """The manifest speaks of more rows than there are lines."""
    from qdata.tokens import verify

    build(small, DOCUMENTS)
    manifest = json.loads(Path("out/manifest.json").read_text(encoding="utf-8"))
    assert manifest["rows"]["in"] == pl.read_parquet("out/ledger.parquet").height
    manifest["rows"]["in"] += 1
    Path("out/manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert dict(verify.verify(Path("out")).failures) == {"ledger": 1}
