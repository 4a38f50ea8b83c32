"""Shards: `datasets` opens them as they are, and what is trained is what the loss policy says."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from qdata import pipeline, schema
from qdata.errors import QdataError
from qdata.recipe import DataRecipe, Source
from qdata.tokens import pack, shards
from qdata.tokens.layout import Packed
from qdata.tokens.samples import samples_of
from qdata.tokens.table import TABLE

IGNORED = -100

QWENS_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LEARNT = [
    "\n\n\n\n  \n\n  \n" * 20,
    "system\nuser\nassistant\n\n",
    "You are a helpful assistant. Who are you? I am Muxue!\n",
    "你好，我叫沐雪。今天天气很好。",
]


def small_tokenizer(folder: Path) -> Path:
    """A Qwen-like tokenizer folder that loads in no time: its normaliser, pre-tokeniser and control tokens, few ids."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWENS_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(LEARNT * 3, trainer)
    control = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def write_rows(file: Path, conversations: list[list[dict[str, Any]]]) -> Path:
    """The conversations as a JSONL file in the messages dialect."""
    lines = [json.dumps({"messages": messages}, ensure_ascii=False) + "\n" for messages in conversations]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(lines), encoding="utf-8")
    return file


def said(*texts: str) -> list[dict[str, Any]]:
    """Texts in turn by user and assistant."""
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def read(folder: Path, split: str = "train") -> list[dict[str, Any]]:
    """The rows of a split, read with nothing of ours but the manifest's file names."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = []
    for shard in manifest["splits"][split]["shards"]:
        with pa.ipc.open_stream((folder / shard["name"]).read_bytes()) as stream:
            rows += stream.read_all().to_pylist()
    return rows


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small tokenizer's folder."""
    return small_tokenizer(tmp_path_factory.mktemp("small"))


Sample = list[tuple[int, list[int]]]
"""Pieces of a sample: the turn or -1, and its ids."""


@st.composite
def parts(draw: st.DrawFn) -> list[list[list[Sample]]]:
    """Parts of conversations of samples of pieces, each answer in one sample; some conversations have no answer."""
    ids = st.lists(st.integers(0, 9), min_size=1, max_size=4)
    out = []
    for _ in range(draw(st.integers(1, 3))):
        conversations = []
        for _ in range(draw(st.integers(0, 4))):
            turn, samples = 0, []
            for _ in range(draw(st.integers(1, 3))):
                sample: Sample = []
                for answer in draw(st.lists(st.booleans(), min_size=1, max_size=4)):
                    sample.append((turn if answer else -1, draw(ids)))
                    turn += 1
                samples.append(sample)
            conversations.append(samples)
        out.append(conversations)
    return out


def tables(drawn: list[list[list[Sample]]]) -> tuple[list[pa.Table], list[int]]:
    """As token tables, and the number of each table's first conversation."""
    made, bases, base = [], [], 0
    for conversations in drawn:
        flat = [(number, sample) for number, samples in enumerate(conversations) for sample in samples]
        columns = {
            "index": [number for number, _ in flat],
            "skipped": [0] * len(flat),
            "input_ids": [[i for _, ids in sample for i in ids] for _, sample in flat],
            "piece_ends": [np.cumsum([len(ids) for _, ids in sample]).tolist() for _, sample in flat],
            "turns": [[turn for turn, _ in sample] for _, sample in flat],
            "weights": [[1.0] * len(sample) for _, sample in flat],
        }
        made.append(pa.table(columns, schema=TABLE))
        bases.append(base)
        base += len(conversations)
    return made, bases


def expected(drawn: list[list[list[Sample]]], loss: str) -> Iterator[tuple[int, list[int], list[int]]]:
    """Conversation, ids and labels of every sample that trains something, the slow way."""
    for number, samples in enumerate(samples for conversations in drawn for samples in conversations):
        last = max((turn for sample in samples for turn, _ in sample), default=-1)
        for place, sample in enumerate(samples):
            ids, labels = [], []
            for at, (turn, piece) in enumerate(sample):
                trains = {
                    "assistant": turn >= 0,
                    "last": turn >= 0 and turn == last,
                    # The history that an earlier sample has trained is not trained again.
                    "whole": not (place > 0 and all(t < 0 for t, _ in sample[: at + 1])),
                }[loss]
                ids += piece
                labels += piece if trains else [IGNORED] * len(piece)
            if any(label != IGNORED for label in labels):
                yield number, ids, labels


@pytest.mark.parametrize("loss", ["assistant", "last", "whole"])
def test_labels_are_what_the_loss_policy_says(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is -100 or the id; samples with nothing to train are left out; packed or not, in one file or in many."""

    @given(parts(), st.booleans(), st.integers(0, 2), st.integers(1, 40), st.integers(1, 3))
    @settings(max_examples=120, deadline=None)
    def law(drawn: list[list[list[Sample]]], packed: bool, seed: int, shard_tokens: int, batch_rows: int) -> None:
        wanted = list(expected(drawn, loss))
        made, bases = tables(drawn)
        samples = samples_of(made, bases, loss)
        assert samples.length.tolist() == [len(ids) for _, ids, _ in wanted]
        assert samples.trained_length.tolist() == [sum(i != IGNORED for i in labels) for *_, labels in wanted]
        assert samples.conversation.tolist() == [number for number, *_ in wanted]
        if not wanted:
            return
        bins = pack.one_each(len(wanted))
        if packed:
            bins = pack.shuffled(pack.best_fit_decreasing(samples.length, 50), seed)
        names = [f"s/f.jsonl#{n}" for n in range(sum(map(len, drawn)))]
        with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
            patch.setattr(shards, "SHARD_TOKENS", shard_tokens)
            patch.setattr(shards, "BATCH_ROWS", batch_rows)
            sources = pa.array(["s"] * len(names))
            written, places = shards.write_split(
                samples, bins, pa.array(names), sources, Path(folder), "train", Packed()
            )
            rows = [
                row
                for shard in written
                for row in pa.ipc.open_stream((Path(folder) / shard.name).read_bytes()).read_all().to_pylist()
            ]
            sizes = [(s.rows, s.tokens, s.trained_tokens) for s in written]
        at = [bins.order[a:b].tolist() for a, b in zip(bins.offsets[:-1], bins.offsets[1:], strict=True)]
        assert [row["input_ids"] for row in rows] == [[i for n in one for i in wanted[n][1]] for one in at]
        assert [row["labels"] for row in rows] == [[i for n in one for i in wanted[n][2]] for one in at]
        assert [row["seq_lengths"] for row in rows] == [[len(wanted[n][1]) for n in one] for one in at]
        assert [row["rows"] for row in rows] == [[names[wanted[n][0]] for n in one] for one in at]
        assert [row["sources"] for row in rows] == [["s"] * len(one) for one in at]
        shape = [(row["input_ids"], [label for label in row["labels"] if label != IGNORED]) for row in rows]
        assert sum(r for r, *_ in sizes) == len(rows)
        assert sum(t for _, t, _ in sizes) == sum(len(ids) for ids, _ in shape)
        assert sum(t for *_, t in sizes) == sum(len(trained) for _, trained in shape)
        longest = max(len(ids) for ids, _ in shape)
        assert all(tokens < shard_tokens + longest for _, tokens, _ in sizes)
        where = [(wanted[n][0], name, i) for name, i, n in _where(written, at)]
        assert places.select("conversation", "shard", "index").rows() == where

    law()


def _where(written: list[shards.Shard], bins: list[list[int]]) -> Iterator[tuple[str, int, int]]:
    """File, place in it, and sample."""
    each = iter(bins)
    for shard in written:
        for index in range(shard.rows):
            for sample in next(each):
                yield shard.name, index, sample


CONVERSATIONS = [
    said("who are you?", "I am Muxue!"),
    said("你好", "你好，我叫沐雪。", "天气？", "今天天气很好。"),
    said("q", "\nmerged", "r", "s"),
    said("long " * 30, "yes"),
    said("empty", " "),
    said("x", "y"),
]


def build(folder: Path, small: Path, name: str = "out", **options: Any) -> tuple[Path, dict[str, Any]]:
    """Shards of CONVERSATIONS and their manifest."""
    file = write_rows(folder / "data" / "rows.jsonl", CONVERSATIONS)
    recipe = DataRecipe(sources=(Source(path=str(file)),), tokenizer=str(small), **options)
    return folder / name, pipeline.build(recipe, folder / name)


@pytest.mark.parametrize("options", [{}, {"pack": 200}, {"val": 2}, {"loss": "last"}], ids=str)
def test_datasets_opens_the_folder(options: dict[str, Any], tmp_path: Path, small: Path) -> None:
    """As a DatasetDict of our columns, with the rows that were written, whatever was asked for."""
    datasets = pytest.importorskip("datasets")
    folder, manifest = build(tmp_path, small, **options)
    opened = datasets.load_from_disk(str(folder))
    assert isinstance(opened, datasets.DatasetDict)
    assert list(opened) == (["train", "validation"] if "val" in options else ["train"])
    for split, content in opened.items():
        assert content.column_names == schema.TOKENS.names
        assert content.features.arrow_schema.remove_metadata() == schema.TOKENS
        assert content.split == split
        assert content.to_list() == read(folder, split)
        assert content.num_rows == manifest["splits"][split]["rows"]


def test_large_splits_become_several_files(tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same rows in the same order, also for `datasets`; the manifest tells what is in each."""
    datasets = pytest.importorskip("datasets")
    one, _ = build(tmp_path, small, "one", val=2)
    monkeypatch.setattr(shards, "SHARD_TOKENS", 60)
    many, manifest = build(tmp_path, small, "many", val=2)
    listed = manifest["splits"]["train"]["shards"]
    assert len(listed) > 1
    assert [s["name"] for s in listed] == [f"train/data-{i:05d}-of-{len(listed):05d}.arrow" for i in range(len(listed))]
    assert read(many) == read(one) == datasets.load_from_disk(str(many))["train"].to_list()
    assert [dict(row) for batch in shards.read_split(many, "train") for row in batch.to_pylist()] == read(one)


def test_the_manifest_describes_the_files(tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SHA-256, rows and tokens of every shard and split, of the template and of the tokenizer."""
    monkeypatch.setattr(shards, "SHARD_TOKENS", 100)
    folder, manifest = build(tmp_path, small, pack=200, val=2)
    for split, facts in manifest["splits"].items():
        rows = read(folder, split)
        for shard in facts["shards"]:
            assert shard["sha256"] == hashlib.sha256((folder / shard["name"]).read_bytes()).hexdigest()
        assert facts["rows"] == len(rows) == sum(s["rows"] for s in facts["shards"])
        assert facts["samples"] == sum(len(row["seq_lengths"]) for row in rows)
        assert (
            facts["tokens"] == sum(len(row["input_ids"]) for row in rows) == sum(s["tokens"] for s in facts["shards"])
        )
        trained = sum(label != IGNORED for row in rows for label in row["labels"])
        assert facts["trained_tokens"] == trained == sum(s["trained_tokens"] for s in facts["shards"])
        assert facts["longest"] == max(n for row in rows for n in row["seq_lengths"])
        assert facts["conversations"] == len({name for row in rows for name in row["rows"]})
        assert facts["fill"] == round(facts["tokens"] / (200 * facts["rows"]), 6)
    for key, name in (("template", "chat_template.jinja"), ("tokenizer", "tokenizer.json")):
        assert manifest[key]["sha256"] == hashlib.sha256((folder / "tokenizer" / name).read_bytes()).hexdigest()


def test_the_ledger_says_where_each_row_went(tmp_path: Path, small: Path) -> None:
    """The first shard row that holds it; dropped rows went nowhere."""
    folder, _ = build(tmp_path, small, pack=200, val=2)
    there = {}
    for split in ("validation", "train"):
        for index, row in reversed(list(enumerate(read(folder, split)))):
            there |= dict.fromkeys(row["rows"], (f"{split}/data-00000-of-00001.arrow", index))
    book = pl.read_parquet(folder / "ledger.parquet")
    assert {row: (shard, index) for row, shard, index in book.select("row", "shard", "index").iter_rows()} == {
        name: there.get(name, (None, None)) for name in book["row"]
    }
    assert set(there) == set(book.filter(pl.col("action") != "dropped")["row"])


def test_a_folder_that_is_no_shards_is_refused(tmp_path: Path) -> None:
    """Without a manifest, or with the manifest of another command."""
    with pytest.raises(QdataError, match=r"no manifest\.json in it"):
        shards.manifest_of(tmp_path)
    (tmp_path / "manifest.json").write_text('{"command": "convert"}', encoding="utf-8")
    with pytest.raises(QdataError, match="written by `qdata convert`"):
        shards.manifest_of(tmp_path)
