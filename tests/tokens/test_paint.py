"""Looking at a row: what is painted as trained is exactly what is trained, and the text is all there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tokens.test_shards import IGNORED, build, read, said, small_tokenizer, write_rows
from tokenizers import Tokenizer

from qdata import pipeline
from qdata.errors import QdataError
from qdata.recipe import DataRecipe, Source
from qdata.tokens import paint

EMOJI = ["👩‍👩‍👧‍👦", "🏳️‍🌈", "𠮷", "龘", "e\u0301", "🇨🇳", "\n", "\n\n", " ", "I am Muxue!", "⟦", "[bold]"]
TEXTS = st.lists(st.sampled_from(EMOJI) | st.text(max_size=3), max_size=5).map("".join)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small tokenizer's folder: nearly every character but ASCII spans several of its tokens."""
    return small_tokenizer(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def shown(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has what `tokens_of` reads: tokenizer/tokenizer.json."""
    folder = tmp_path_factory.mktemp("shown")
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer/tokenizer.json").write_bytes((small / "tokenizer.json").read_bytes())
    return folder


@pytest.fixture(scope="session")
def built(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real shards, two conversations of which are held out."""
    folder, _ = build(tmp_path_factory.mktemp("built"), small, val=2)
    return folder


def row_of(tokenizer: Tokenizer, sequences: list[list[tuple[str, bool]]]) -> dict[str, Any]:
    """A shard row of sequences of stretches, each trained or not."""
    row: dict[str, Any] = {"input_ids": [], "labels": [], "seq_lengths": [], "rows": [], "sources": []}
    for number, stretches in enumerate(sequences):
        before = len(row["input_ids"])
        for text, trained in stretches:
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            row["input_ids"] += ids
            row["labels"] += ids if trained else [IGNORED] * len(ids)
        row["seq_lengths"].append(len(row["input_ids"]) - before)
        row["rows"].append(f"s/f.jsonl#{number}")
    return row


def check(shown: Path, sequences: list[list[tuple[str, bool]]]) -> None:
    """Asserts the laws for a row of these sequences."""
    tokenizer = Tokenizer.from_file(str(shown / "tokenizer/tokenizer.json"))
    row = row_of(tokenizer, sequences)
    start = 0
    told = list(paint.tokens_of(row, shown))
    assert len(told) == len(sequences)
    for tokens, length in zip(told, row["seq_lengths"], strict=True):
        ids, labels = (row[key][start : start + length] for key in ("input_ids", "labels"))
        start += length
        assert [i for t in tokens for i in t.ids] == ids
        assert [t.trained for t in tokens for _ in t.ids] == [label != IGNORED for label in labels]
        text = tokenizer.decode(ids, skip_special_tokens=False)
        assert "".join(t.text for t in tokens) == text
        wanted, trained = "", ""
        for at, stretch, is_trained in _stretches(ids, labels):
            part = tokenizer.decode(stretch, skip_special_tokens=False)
            wanted += f"⟦{part}⟧" if is_trained else part
            trained += _visible(part) if is_trained else ""
            assert at >= 0
        assert paint.bracketed(tokens) == wanted
        painted = paint.painted(tokens)
        assert painted.plain == _visible(text)
        green = "".join(painted.plain[s.start : s.end] for s in painted.spans if s.style in paint.TRAINED)
        grey = "".join(painted.plain[s.start : s.end] for s in painted.spans if s.style in paint.UNTRAINED)
        assert green == trained
        assert len(green) + len(grey) == len(painted.plain)


def _visible(text: str) -> str:
    """Rich takes out what would move the cursor: bell, backspace, vertical tab, form feed, carriage return."""
    return re.sub("[\x07\x08\x0b\x0c\r]", "", text).replace("\n", "⏎\n")


def _stretches(ids: list[int], labels: list[int]) -> list[tuple[int, list[int], bool]]:
    out: list[tuple[int, list[int], bool]] = []
    for at, (one, label) in enumerate(zip(ids, labels, strict=True)):
        if not out or out[-1][2] != (label != IGNORED):
            out.append((at, [], label != IGNORED))
        out[-1][1].append(one)
    return out


SEQUENCES = st.lists(
    st.lists(st.tuples(TEXTS, st.booleans()).map(lambda s: (s[0] + "<|im_end|>", s[1])), min_size=1, max_size=4),
    min_size=1,
    max_size=3,
)


def test_exactly_the_trained_tokens_are_marked(shown: Path) -> None:
    """In brackets and in colours; the text joins back, characters of several tokens whole; sequence by sequence."""

    @given(SEQUENCES)
    @settings(max_examples=200, deadline=None)
    def law(sequences: list[list[tuple[str, bool]]]) -> None:
        check(shown, sequences)

    law()


def test_a_border_within_a_character_is_shown_where_it_is(shown: Path) -> None:
    """`show` is for finding wrong masks: no token is painted like its neighbour, even if both are one character."""
    ids = Tokenizer.from_file(str(shown / "tokenizer/tokenizer.json")).encode("龘", add_special_tokens=False).ids
    assert len(ids) == 3
    for border in (1, 2):
        labels = [IGNORED] * border + ids[border:]
        row = {"input_ids": ids, "labels": labels, "seq_lengths": [3]}
        (tokens,) = paint.tokens_of(row, shown)
        assert [i for t in tokens for i in t.ids] == ids
        assert [t.trained for t in tokens for _ in t.ids] == [label != IGNORED for label in labels]


@pytest.mark.parametrize(
    "text", ["a\ufffdb", "\ufffd😀", "\ufffd\ufffd x", "\ufffda龘", "龘\ufffd" * 9, "\ufffd 👩‍👩‍👧‍👦 \ufffd"]
)
def test_a_replacement_character_of_the_data_is_no_broken_character(text: str, shown: Path) -> None:
    """U+FFFD is in real files; what follows it is shown as it stands."""
    check(shown, [[(text + "<|im_end|>", True), ("\n", False)]])


def test_a_row_is_found_by_its_number(built: Path) -> None:
    """From the front and from the back, in either split."""
    for split in ("train", "validation"):
        rows = read(built, split)
        for number, row in enumerate(rows):
            assert paint.row_of(built, split, str(number)) == (number, row)
            assert paint.row_of(built, split, str(number - len(rows))) == (number, row)


def test_a_row_is_found_by_its_id(built: Path) -> None:
    """The shard row it is packed into."""
    for split in ("train", "validation"):
        for number, row in enumerate(read(built, split)):
            for name in row["rows"]:
                found, content = paint.row_of(built, split, name)
                assert content == read(built, split)[found]
                assert name in content["rows"]
                assert found <= number


@pytest.mark.parametrize("wanted", ["99", "-99", "--5", "²", "-", ""])
def test_a_number_that_is_no_row_is_refused(wanted: str, built: Path) -> None:
    """One message that says which rows there are, or that there is no such id."""
    with pytest.raises(QdataError, match="no row"):
        paint.row_of(built, "train", wanted)


def test_a_row_that_is_elsewhere_is_named_with_its_place(built: Path) -> None:
    """A dropped row with its reason, a held-out one with its split, an unknown id with what ids look like."""
    book = pl.read_parquet(built / "ledger.parquet")
    dropped = book.filter(pl.col("action") == "dropped")["row"].item()
    with pytest.raises(QdataError, match=rf"row {dropped} was dropped: complete\.empty_answer"):
        paint.row_of(built, "train", dropped)
    held_out = read(built, "validation")[0]["rows"][0]
    with pytest.raises(QdataError, match=r"pass --split validation"):
        paint.row_of(built, "train", held_out)
    with pytest.raises(QdataError, match=r"no row 'nobody#1' in the ledger; row ids look like 'data/rows\.jsonl#1'"):
        paint.row_of(built, "train", "nobody#1")
    with pytest.raises(QdataError, match=r"no split 'test'; it has train, validation"):
        paint.row_of(built, "test", "0")


def test_a_row_without_trained_turns_is_named_too(small: Path, tmp_path: Path) -> None:
    """It is in no shard: the message says so and why."""
    silent = said("q", "a")
    silent[1]["train"] = False
    file = write_rows(tmp_path / "data/rows.jsonl", [said("x", "y"), silent])
    pipeline.build(DataRecipe(sources=(Source(path=str(file)),), tokenizer=str(small)), tmp_path / "out")
    with pytest.raises(QdataError, match="dropped"):
        paint.row_of(tmp_path / "out", "train", "data/rows.jsonl#2")
