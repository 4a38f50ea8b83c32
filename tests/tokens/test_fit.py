"""Samples that are too long: whole turns go first, an answer never loses its end in silence, nothing is left empty."""

from __future__ import annotations

import dataclasses
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from tests.tokens.test_render import frame_of
from tests.tokens.test_shards import Sample, parts, read, said, small_tokenizer, write_rows
from tokenizers import Tokenizer

from qdata import pipeline, report
from qdata.errors import QdataError
from qdata.recipe import DataRecipe, Source
from qdata.tokens import fit, verify
from qdata.tokens.encoder import load_encoder
from qdata.tokens.render import render
from qdata.tokens.samples import Samples, samples_of
from qdata.tokens.split import split_long
from qdata.tokens.table import TABLE
from qdata.tokens.template import Template
from qdata.tokens.tokenize import tokenize

Row = dict[str, Any]

IGNORED = -100
POLICIES = ("drop", "truncate_turns", "truncate", "split", "error")
BRIEF = {"role": "system", "content": "Be brief."}
LONG = [BRIEF, *[m for n in range(6) for m in said(f"question {n}", f"answer number {n}")]]
SHORT = said("hi", "you")
HUGE = said("hi", "go on " * 60)
LISTENER = said("listen " * 60, "yes")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small tokenizer's folder."""
    return small_tokenizer(tmp_path_factory.mktemp("small"))


def built(folder: Path, tokenizer: Path, rows: list[list[Row]], **options: Any) -> Path:
    """Shards of the rows under ChatML."""
    file = write_rows(folder / "data/rows.jsonl", rows)
    settings_ = {"template": "chatml"} | options
    pipeline.build(DataRecipe(sources=(Source(path=str(file)),), tokenizer=str(tokenizer), **settings_), folder / "out")
    return folder / "out"


def passes(folder: Path) -> None:
    """The proof holds."""
    pytest.importorskip("transformers")
    result = verify.verify(folder)
    assert (dict(result.failures), result.cases) == ({}, [])


def texts(folder: Path, tokenizer: Path) -> list[tuple[str, str, list[str], int]]:
    """Of each row of the shards: its name, its whole text, its trained stretches, and its length."""
    decode = Tokenizer.from_file(str(tokenizer / "tokenizer.json")).decode
    out = []
    for row in read(folder):
        ids, labels = row["input_ids"], row["labels"]
        stretches: list[list[int]] = []
        for at, label in enumerate(labels):
            if label != IGNORED:
                if at == 0 or labels[at - 1] == IGNORED:
                    stretches.append([])
                stretches[-1].append(ids[at])
        answers = [decode(ids_, skip_special_tokens=False) for ids_ in stretches]
        out.append((row["rows"][0], decode(ids, skip_special_tokens=False), answers, len(ids)))
    return out


def manifest(folder: Path) -> dict[str, Any]:
    """What the build says of itself."""
    return dict(json.loads((folder / "manifest.json").read_text(encoding="utf-8")))


def told(counts: dict[str, Any]) -> str:
    """What the report says of a manifest."""
    console = Console(width=400, record=True, file=io.StringIO())
    report.built(console, counts, Path("out"))
    return console.export_text()


LIMIT = 150


@pytest.fixture(scope="module")
def folders(small: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same rows under each policy."""
    rows = [SHORT, LONG, HUGE, LISTENER]
    return {
        policy: built(tmp_path_factory.mktemp(policy), small, rows, max_length=LIMIT, too_long=policy)
        for policy in ("drop", "truncate_turns", "truncate", "split")
    }


@pytest.mark.parametrize("policy", ["drop", "truncate_turns", "truncate", "split"])
def test_no_sample_is_longer_than_asked_and_none_is_empty(policy: str, folders: dict[str, Path], small: Path) -> None:
    """Every row fits and trains something, and the proof holds under every policy."""
    for name, _, answers, length in texts(folders[policy], small):
        assert length <= LIMIT, name
        assert answers, name
    passes(folders[policy])


@pytest.mark.parametrize("policy", ["drop", "truncate_turns", "split"])
def test_the_stop_token_is_never_cut(policy: str, folders: dict[str, Path], small: Path) -> None:
    """Every answer that is left ends as it ended; the manifest counts no cut answer."""
    whole = {m["content"] + "<|im_end|>" for m in (*SHORT, *LONG, *HUGE, *LISTENER) if m["role"] == "assistant"}
    for _, _, answers, _ in texts(folders[policy], small):
        assert set(answers) <= whole
    assert manifest(folders[policy])["cut_answers"] == 0


def test_drop_drops_the_row(folders: dict[str, Path], small: Path) -> None:
    """With its reason in the ledger."""
    ((name, _, answers, _),) = texts(folders["drop"], small)
    assert (name.endswith("#1"), answers) == (True, ["you<|im_end|>"])
    assert manifest(folders["drop"])["rows"]["dropped"] == {"max_length.too_long": 3}


def test_truncate_turns_takes_whole_turns_from_the_end(folders: dict[str, Path], small: Path) -> None:
    """The system prompt stays, the first exchanges stay, and the text ends with an answer's stop token."""
    found = {
        name.rpartition("#")[2]: (text, answers) for name, text, answers, _ in texts(folders["truncate_turns"], small)
    }
    assert set(found) == {"1", "2"}
    text, answers = found["2"]
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n")
    assert text.endswith("<|im_end|>")
    assert 0 < len(answers) < 6
    assert answers == [f"answer number {n}<|im_end|>" for n in range(len(answers))]
    whole = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in LONG)
    assert whole.startswith(text)


def test_truncate_cuts_at_the_token_and_counts_it(folders: dict[str, Path], small: Path) -> None:
    """What is cut is exactly the end; answers that lost theirs are counted; a row cut before its answer goes."""
    found = {
        name.rpartition("#")[2]: (text, answers, n) for name, text, answers, n in texts(folders["truncate"], small)
    }
    assert set(found) == {"1", "2", "3"}
    assert found["2"][2] == found["3"][2] == LIMIT
    cut = [a for _, answers, _ in found.values() for a in answers if not a.endswith("<|im_end|>")]
    assert manifest(folders["truncate"])["cut_answers"] == len(cut) > 0
    assert HUGE[1]["content"].startswith(found["3"][1][0])
    assert manifest(folders["truncate"])["rows"]["dropped"] == {"max_length.too_long": 1}


def test_split_trains_every_answer_once(folders: dict[str, Path], small: Path) -> None:
    """In parts that each begin with the system prompt; only a single exchange that is too long goes."""
    found = [one for one in texts(folders["split"], small) if one[0].endswith("#2")]
    assert len(found) > 1
    for _, text, _, _ in found:
        assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nquestion ")
    assert Counter(a for _, _, answers, _ in found for a in answers) == Counter(
        f"answer number {n}<|im_end|>" for n in range(6)
    )
    assert manifest(folders["split"])["rows"]["dropped"] == {"max_length.too_long": 2}


@pytest.mark.parametrize("loss", ["assistant", "last"])
def test_split_under_another_template_passes(loss: str, tmp_path: Path, small: Path) -> None:
    """Where turns are samples of their own (qwen3), a part is what a server sees that forgot what was before."""
    if loss == "last":
        folder = built(tmp_path, small, [LONG, SHORT], max_length=LIMIT, too_long="split", loss=loss)
        answers = [a for _, _, found, _ in texts(folder, small) for a in found]
        assert sorted(answers) == ["answer number 5<|im_end|>", "you<|im_end|>"]
    else:
        reasoned = [m | ({"reasoning_content": "why"} if m["role"] == "assistant" else {}) for m in LONG]
        folder = built(tmp_path, small, [reasoned, SHORT], max_length=LIMIT, too_long="split", template="qwen3")
        answers = [a for _, _, found, _ in texts(folder, small) for a in found]
        wanted = [f"<think>\nwhy\n</think>\n\nanswer number {n}<|im_end|>" for n in range(6)]
        assert sorted(answers) == sorted([*wanted, "you<|im_end|>"])
    passes(folder)


def test_the_turns_of_a_part_keep_their_numbers(small: Path) -> None:
    """Those of the whole conversation: what is said of message 7 is said of message 7, and in the order of the rows."""
    encoder, template = load_encoder(small), Template.load("chatml")
    frame = frame_of([(SHORT, None), (LONG, None), (LONG[1:], None)])

    def again(part: pl.DataFrame) -> pa.Table:
        return tokenize(render(template, part).pieces, encoder)

    table = split_long(again(frame), frame, LIMIT, again)
    found: dict[int, list[int]] = {}
    for index, turns in zip(table["index"].to_pylist(), table["turns"].to_pylist(), strict=True):
        found.setdefault(index, []).extend(turn for turn in turns if turn >= 0)
    assert table["index"].to_pylist() == sorted(table["index"].to_pylist())
    assert {index: sorted(turns) for index, turns in found.items()} == {
        0: [1],
        1: [2, 4, 6, 8, 10, 12],
        2: [1, 3, 5, 7, 9, 11],
    }


def test_error_names_rows_and_lengths(tmp_path: Path, small: Path) -> None:
    """How many, which, and how long; without any that is too long it builds."""
    (length,) = [n for *_, n in texts(built(tmp_path / "all", small, [HUGE]), small)]
    with pytest.raises(
        QdataError, match=rf"2 samples are longer than {LIMIT} tokens.*rows\.jsonl#2 \({length} tokens\)"
    ):
        built(tmp_path / "error", small, [SHORT, HUGE, LISTENER], max_length=LIMIT, too_long="error")
    assert not (tmp_path / "error/out").exists()
    assert read(built(tmp_path / "fits", small, [SHORT], max_length=LIMIT, too_long="error"))


@pytest.mark.parametrize("policy", ["drop", "truncate_turns", "truncate", "split"])
def test_nothing_left_is_an_error(policy: str, tmp_path: Path, small: Path) -> None:
    """A build of which nothing can be trained says so, and leaves no folder."""
    with pytest.raises(QdataError, match=r"nothing is left to train: 1 max_length\.too_long"):
        built(tmp_path, small, [LISTENER], max_length=60, too_long=policy)
    assert not (tmp_path / "out").exists()


def test_growth_is_what_expansion_costs(tmp_path: Path, small: Path) -> None:
    """The tokens of all samples over those of each conversation's longest; 1 where nothing expands."""
    rows = [said("a", "b", "c", "d", "e", "f"), SHORT]
    folder = built(tmp_path / "qwen3", small, rows, template="qwen3", think="empty_masked")
    lengths: dict[str, list[int]] = {}
    for name, *_, length in texts(folder, small):
        lengths.setdefault(name, []).append(length)
    assert sorted(map(len, lengths.values())) == [1, 3]
    growth = sum(map(sum, lengths.values())) / sum(map(max, lengths.values()))
    assert manifest(folder)["splits"]["train"]["growth"] == pytest.approx(growth, abs=1e-4)
    assert growth > 1.3
    assert manifest(built(tmp_path / "chatml", small, rows))["splits"]["train"]["growth"] == 1


def test_growth_is_told_of_each_source(tmp_path: Path, small: Path) -> None:
    """Where one expands and the other does not, neither is the mean of both."""
    files = [write_rows(tmp_path / f"{name}/rows.jsonl", [row]) for name, row in (("wide", LONG), ("slim", SHORT))]
    sources = tuple(Source(path=str(file)) for file in files)
    recipe = DataRecipe(sources=sources, tokenizer=str(small), template="qwen3")
    made = pipeline.build(recipe, tmp_path / "out")
    facts = made["splits"]["train"]
    assert f"(slim 1.0×, wide {facts['growth_by_source']['wide']:.1f}×)" in told(made)
    assert facts["growth_by_source"]["slim"] == 1
    assert facts["growth_by_source"]["wide"] > facts["growth"] > 2
    assert facts["expanded"] == 5
    split = pipeline.build(dataclasses.replace(recipe, max_length=LIMIT, too_long="split"), tmp_path / "split")
    samples = [name for row in read(tmp_path / "split") for name in row["rows"]]
    assert split["splits"]["train"]["expanded"] < len(samples) - 2  # the parts of a long one are no expansion


@pytest.mark.parametrize("policy", ["drop", "truncate_turns"])
def test_answers_that_are_too_long_are_counted_where_others_stay(policy: str, tmp_path: Path, small: Path) -> None:
    """Of a row with a sample for each answer only the long ones go: the row is kept, and the answers are told."""
    folder = built(tmp_path, small, [LONG, SHORT], template="qwen3", max_length=LIMIT, too_long=policy)
    found = Counter(name.rpartition("#")[2] for name, *_ in texts(folder, small))
    counts = manifest(folder)
    assert found == {"1": 6 - counts["too_long_answers"], "2": 1}
    assert 0 < counts["too_long_answers"] < 6
    assert counts["too_long_conversations"] == 1
    assert counts["rows"] == {"in": 2, "kept": 2, "edited": 0, "dropped": {}}
    assert f"max_length {LIMIT}: {counts['too_long_answers']} answers of 1 conversations are dropped" in told(counts)


def test_whole_turns_are_answers_also_under_whole(tmp_path: Path, small: Path) -> None:
    """A text that is trained from its first token on still ends with an answer, never with a question."""
    folder = built(tmp_path, small, [LONG], max_length=LIMIT, too_long="truncate_turns", loss="whole")
    ((_, text, answers_, _),) = texts(folder, small)
    assert text.endswith("<|im_end|>")
    assert "answer number" in text.rpartition("<|im_start|>")[2]
    assert answers_ == [text]


def test_each_part_of_a_split_conversation_keeps_a_sample_without_expansion(tmp_path: Path, small: Path) -> None:
    """Parts are no expansion: only turns that would have samples of their own within a part go."""
    options: dict[str, Any] = {"max_length": LIMIT, "too_long": "split", "expand": False}
    folder = built(tmp_path / "same", small, [LONG], **options)
    assert sum(len(found) for _, _, found, _ in texts(folder, small)) == 6
    assert manifest(folder)["unexpanded_answers"] == 0
    folder = built(tmp_path / "qwen3", small, [LONG], template="qwen3", **options)
    trained = sum(len(found) for _, _, found, _ in texts(folder, small))
    assert 1 < trained < 6
    assert manifest(folder)["unexpanded_answers"] == 6 - trained
    assert f"{6 - trained} answers are not trained" in told(manifest(folder))


# On token tables made by hand.


def view(made: list[list[list[Sample]]]) -> Samples:
    """The samples of parts of conversations (see `parts`)."""
    tables, bases, base = [], [], 0
    for conversations in made:
        flat = [(c, sample) for c, samples in enumerate(conversations) for sample in samples]
        columns = {
            "index": [c for c, _ in flat],
            "skipped": [0] * len(flat),
            "input_ids": [[i for _, ids in s for i in ids] for _, s in flat],
            "piece_ends": [np.cumsum([len(ids) for _, ids in s]).tolist() for _, s in flat],
            "turns": [[turn for turn, _ in s] for _, s in flat],
            "weights": [[1.0] * len(s) for _, s in flat],
        }
        tables.append(pa.table(columns, schema=TABLE))
        bases.append(base)
        base += len(conversations)
    return samples_of(tables, bases, "assistant")


def listed(samples: Samples) -> list[tuple[int, list[int], list[bool]]]:
    """Each sample's conversation, ids and mask."""
    ids, mask, _ = samples.copied()
    ends = np.cumsum(samples.length)
    return [
        (int(c), ids[e - n : e].tolist(), mask[e - n : e].tolist())
        for c, e, n in zip(samples.conversation, ends, samples.length, strict=True)
    ]


def slow(one: tuple[int, list[int], list[bool]], ends: list[int], limit: int, policy: str) -> int:
    """How long a sample may stay, told by its mask and the ends of its answers."""
    length = len(one[1])
    if length <= limit:
        return length
    if policy == "truncate":
        return limit
    return max((e for e in ends if e <= limit), default=0) if policy == "truncate_turns" else 0


def answers(samples: Samples) -> list[tuple[int, int]]:
    """The conversation and turn of each answer of which something is left, counted one by one."""
    return [
        (int(samples.conversation[n]), int(samples.piece_turn[p]))
        for n in range(len(samples))
        for p in range(samples.pieces[n], samples.pieces[n + 1])
        if samples.piece_turn[p] >= 0 and samples.piece_start[p] < samples.length[n]
    ]


@pytest.mark.parametrize("policy", POLICIES)
@given(made=parts(), limit=st.none() | st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_fit_shortens_at_the_end_only(policy: str, made: list[list[list[Sample]]], limit: int | None) -> None:
    """What stays is a beginning of what was, as long as the policy allows; nothing stays that trains nothing."""
    samples = view(made)
    fitted = fit.fit(samples, limit, policy)
    if limit is None:
        assert listed(fitted.samples) == listed(samples)
        return
    wanted, cut = [], 0
    for n, one in enumerate(listed(samples)):
        mine = range(samples.pieces[n], samples.pieces[n + 1])
        ends = [int(samples.piece_end[p]) for p in mine if samples.piece_trained[p]]
        starts = [int(samples.piece_start[p]) for p in mine if samples.piece_trained[p]]
        keep = slow(one, ends, limit, policy)
        cut += policy == "truncate" and any(s < limit < e for s, e in zip(starts, ends, strict=True))
        if any(one[2][:keep]):
            wanted.append((one[0], one[1][:keep], one[2][:keep]))
    assert listed(fitted.samples) == wanted
    assert fitted.cut_answers == cut
    before, after = (Counter(one) for one in (answers(samples), answers(fitted.samples)))
    assert fitted.lost_answers == (before - after).total()
    assert fitted.lost_conversations == len({conversation for conversation, _ in before - after})


@given(made=parts(), scale=st.sampled_from([1, 100, 1500]))
@settings(max_examples=30, deadline=None)
def test_lost_is_a_slow_count(made: list[list[list[Sample]]], scale: int) -> None:
    """The share of trained tokens beyond each length: falling, and 0 at the last, which holds the longest sample."""
    long = [[[[(t, ids * scale) for t, ids in s] for s in c] for c in part] for part in made]
    samples = view(long)
    shares = fit.lost(samples)
    masks = [mask for _, _, mask in listed(samples)]
    total = sum(map(sum, masks))
    for length, share in shares.items():
        beyond = sum(sum(mask[length:]) for mask in masks)
        assert share == pytest.approx(beyond / total if total else 0, abs=1e-6)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    longest = max(map(len, masks), default=0)
    assert list(shares) == [n for n in fit.LENGTHS if n // 2 < longest or n == fit.LENGTHS[0]]
    if longest <= fit.LENGTHS[-1]:
        assert list(shares.values())[-1] == 0
