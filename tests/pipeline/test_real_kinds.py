"""Pretraining text, preference pairs and judged answers of other people: made shards, and every row of them proven."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.pipeline.test_real_data import qdata, rendered
from tests.tokens.test_shards import read
from tokenizers import Tokenizer

MANIFEST: dict[str, Any] = tomllib.loads((Path(__file__).parents[1] / "real_files.toml").read_text(encoding="utf-8"))
CASES = [(kind, one["path"], one["rows"]) for kind in ("preference", "judged", "text") for one in MANIFEST[kind]]
# Files of which not every row can be taken, and why; the rows of the others are kept to the last.
DROPPED = {
    "preference/rasbt_preference.json": {"preference.same_answers": 6},
    "preference/ultrafeedback_clean.jsonl": {"preference.same_answers": 4, "complete.empty_answer": 1},
    "preference/ultrafeedback_label_flip_20.jsonl": {"preference.same_answers": 4, "complete.empty_answer": 1},
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands write below the current directory."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "path", "rows"), CASES, ids=[path for _, path, _ in CASES])
def test_real_files_are_rendered_and_proven(
    kind: str, path: str, rows: int, real_data: Path, real_tokenizers: Path
) -> None:
    """Every row of every file, with Qwen's tokenizer; Qwen3's template for the pairs."""
    template = "qwen3" if kind == "preference" else "qwen2_5"
    options = ["--template", template, "--tokenizer", real_tokenizers / template, "--val", "0.1"]
    manifest = rendered("out", real_data / path, *options, *(["--pack", "1024"] if kind == "text" else []))
    assert (manifest["kind"], manifest["rows"]["in"]) == (kind, rows)
    assert manifest["rows"]["dropped"] == DROPPED.get(path, {})
    assert sum(split["conversations"] for split in manifest["splits"].values()) == manifest["rows"]["kept"]
    if kind == "text":
        assert manifest["splits"]["train"]["fill"] > 0.9
    qdata("verify", "out")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["quantangshi.txt", "wikitext2_test.txt"])
def test_plain_text_is_packed_and_proven(name: str, real_data: Path, real_tokenizers: Path) -> None:
    """Chinese and English, a document a paragraph; blocks are full, and a sample of them is looked at."""
    options = ["--documents", "paragraphs", "--tokenizer", real_tokenizers / "qwen2_5", "--pack", "1024"]
    manifest = rendered("out", real_data / "pretrain" / name, *options)
    assert manifest["rows"]["in"] == manifest["rows"]["kept"] > 100
    assert manifest["splits"]["train"]["fill"] > 0.99
    qdata("verify", "out", "--sample", "200")


@pytest.mark.slow
def test_a_file_that_is_one_document_is_its_blocks(real_data: Path, real_tokenizers: Path) -> None:
    """A book in blocks: put together they are the ids of the whole, and its end."""
    options = ["--documents", "file", "--tokenizer", real_tokenizers / "qwen2_5", "--max-length", "1024"]
    rendered("out", real_data / "pretrain/wikitext2_test.txt", *options)
    found = [i for row in read(Path("out")) for i in row["input_ids"]]
    tokenizer = Tokenizer.from_file(str(real_tokenizers / "qwen2_5/tokenizer.json"))
    (text,) = pl.read_parquet("out/conversations.parquet")["text"]
    assert found == [*tokenizer.encode(text, add_special_tokens=False).ids, tokenizer.token_to_id("<|endoftext|>")]
    qdata("verify", "out")


@pytest.mark.slow
def test_files_with_other_columns_are_one_build(real_data: Path, real_tokenizers: Path) -> None:
    """mini_qwen's two Parquet files, whose extra columns differ."""
    parts = [one["path"] for one in MANIFEST["text"] if one["path"].startswith("mini_qwen")]
    assert len(parts) == 2
    options = ["--tokenizer", real_tokenizers / "qwen2_5", "--pack", "1024"]
    manifest = rendered("out", *(real_data / path for path in parts), *options)
    assert manifest["rows"] == {"in": 200, "kept": 200, "edited": 0, "dropped": {}}
    qdata("verify", "out")


def test_kinds_of_real_files_are_not_mixed(real_data: Path, real_tokenizers: Path) -> None:
    """Both files are named, and how the chosen answers can be had as chat."""
    pairs, chat = real_data / "llamafactory/dpo_zh_demo.json", real_data / "llamafactory/alpaca_zh_demo.json"
    wanted = r"(?s)dpo_zh_demo\.json: preference pairs .*alpaca_zh_demo\.json: conversations .*--lossy"
    with pytest.raises(AssertionError, match=wanted):
        rendered("out", pairs, chat, "--tokenizer", real_tokenizers / "qwen2_5")
