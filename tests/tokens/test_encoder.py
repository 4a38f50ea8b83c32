"""Whatever encodes, the ids are those of `tokenizers`; an engine that makes others is not used, and that is told."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console
from tokenizers import Tokenizer, models, pre_tokenizers

from qdata import pipeline
from qdata.recipe import DataRecipe, Source
from qdata.tokens import encoder as module
from qdata.tokens import fast
from qdata.tokens.encoder import FAST, TOKENIZERS, Encoder, choose, load_encoder
from qdata.tokens.fast import Ids, Offsets

pytest.importorskip("fastokens", reason="there is no wheel for this machine")

TEXTS = st.lists(st.one_of(st.text(max_size=30), st.sampled_from(fast.hard_texts(("<|im_end|>", "<think>"))[:-4])))
Engine = Callable[[list[str]], tuple[Ids, Offsets]]


@pytest.fixture(autouse=True)
def anew() -> None:
    """No encoder of another test."""
    module._loaded.cache_clear()


@pytest.fixture(scope="module")
def quick(qwen2: Path) -> Encoder:
    """The fast one."""
    return Encoder(qwen2, FAST)


@pytest.fixture
def liar(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes the fast engine err where a text holds some word."""
    honest = fast.load

    def lie_of(word: str) -> None:
        def load(file: Path) -> Engine:
            engine = honest(file)

            def encode(texts: list[str]) -> tuple[Ids, Offsets]:
                ids, offsets = engine(texts)
                ids = ids.copy()
                for place, text in enumerate(texts):
                    if word in text:
                        ids[offsets[place]] += 1
                return ids, offsets

            return encode

        monkeypatch.setattr(fast, "load", load)

    return lie_of


def test_qwens_tokenizers_pass_the_test(qwen2: Path, tmp_path: Path) -> None:
    encoder, why = choose(qwen2, tmp_path)
    assert (encoder.engine, why) == (FAST, None)


@given(TEXTS)
@example(["<|im_end|>", "a<|im_end", "", "\u1112\u1161 e\u0301 \u212b"])
@settings(max_examples=150)
def test_the_ids_are_those_of_tokenizers(quick: Encoder, texts: list[str]) -> None:
    """In texts, and in texts whose control tokens are text."""
    for ours, theirs in (
        (quick.encode(texts), quick.reference(texts)),
        (quick.encode_plain(pl.Series(texts, dtype=pl.String)), module._by_tokenizers(quick._plain, texts)),
    ):
        for one, other in zip(ours, theirs, strict=True):
            assert one.tolist() == other.tolist()
            assert one.dtype == other.dtype


def test_an_engine_that_errs_is_not_taken(liar: Callable[[str], None], qwen2: Path, tmp_path: Path) -> None:
    liar("<|im_end|>")
    encoder, why = choose(qwen2, tmp_path)
    assert encoder.engine == TOKENIZERS
    assert why is not None and "<|im_end|>" in why


def test_the_verdict_is_kept(liar: Callable[[str], None], qwen2: Path, tmp_path: Path) -> None:
    assert choose(qwen2, tmp_path)[0].engine == FAST
    liar("<|im_end|>")
    module._loaded.cache_clear()
    assert choose(qwen2, tmp_path)[0].engine == FAST
    assert choose(qwen2, tmp_path / "another")[0].engine == TOKENIZERS


def test_what_it_cannot_read_is_read_by_tokenizers(tmp_path: Path) -> None:
    words = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    encoder, why = choose(tmp_path, tmp_path / "cache")
    assert encoder.engine == TOKENIZERS and why is not None and why.startswith("fastokens")
    assert encoder.encode(["a b a", "c"])[0].tolist() == [0, 1, 0, 2]


def test_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch, qwen2: Path, tmp_path: Path) -> None:
    monkeypatch.setattr(fast, "version", lambda: None)
    encoder, why = choose(qwen2, tmp_path)
    assert (encoder.engine, why) == (TOKENIZERS, "fastokens is not installed")


def test_an_engine_that_errs_on_the_way_is_left(
    liar: Callable[[str], None], qwen2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test did not know the word; the sample of the build does, and all is encoded anew."""
    monkeypatch.setenv("QDATA_CACHE_DIR", str(tmp_path / "cache"))
    rows = [{"instruction": f"How is a zorgle {n}?", "output": f"It is {n}."} for n in range(60)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe = DataRecipe(sources=(Source(path=str(file)),), template="qwen2", tokenizer=str(qwen2))
    honest = pipeline.build(recipe, tmp_path / "honest")
    assert honest["encoder"]["engine"].startswith(FAST) and honest["encoder"]["checked"] > 0
    monkeypatch.setenv("QDATA_CACHE_DIR", str(tmp_path / "other cache"))
    module._loaded.cache_clear()
    liar("zorgle")
    said = io.StringIO()
    told = pipeline.build(recipe, tmp_path / "told", console=Console(file=said, width=300))
    assert told["encoder"]["engine"].startswith(TOKENIZERS) and "zorgle" in told["encoder"]["slow"]
    assert "encoded again, by tokenizers" in said.getvalue()
    assert _ids(tmp_path / "told") == _ids(tmp_path / "honest")


def _ids(shards: Path) -> list[Any]:
    from qdata.tokens.shards import read_split

    return [ids for batch in read_split(shards, "train") for ids in batch["input_ids"].to_pylist()]


def test_patches_stand_where_they_belong(quick: Encoder) -> None:
    texts = ["one two", "", "three", "four five six"]
    encoded = quick.encode(texts)
    ids, offsets = module.patched(
        encoded, pl.Series([False, True, False, True]), lambda at: np.array([at, at], np.int32)
    )
    runs = np.split(ids, offsets[1:-1])
    untouched = np.split(encoded[0], encoded[1][1:-1])
    assert [run.tolist() for run in runs] == [untouched[0].tolist(), [1, 1], untouched[2].tolist(), [3, 3]]


@pytest.mark.slow
def test_every_text_of_the_real_files(real_data: Path, quick: Encoder) -> None:
    """alpaca's 52,002 answers and questions, and conversations in Chinese."""
    alpaca = pl.read_json(real_data / "alpaca/alpaca_data.json")
    texts = [text for name in ("instruction", "input", "output") for text in alpaca[name].to_list()]
    for ours, theirs in zip(quick.encode(texts), quick.reference(texts), strict=True):
        assert np.array_equal(ours, theirs)


def test_one_is_loaded_for_each_engine(qwen2: Path) -> None:
    assert load_encoder(qwen2, FAST) is load_encoder(qwen2, FAST)
    assert load_encoder(qwen2, FAST) is not load_encoder(qwen2)
