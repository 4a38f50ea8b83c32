"""The build: no row is lost, and the same inputs make the same bytes on whatever road."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner
from tests.tokens.test_shards import CONVERSATIONS, read, said, small_tokenizer, write_rows
from tokenizers import Tokenizer

from qdata import assemble, pipeline
from qdata.cli import main
from qdata.errors import QdataError
from qdata.recipe import DataRecipe, Source
from qdata.rows import source
from qdata.tokens import shards
from qdata.tokens.encoder import Encoder

MANY = [
    *(said(f"question {n}", f"answer {n}" * (1 + n % 7)) for n in range(40)),
    *CONVERSATIONS,  # one of them has a blank answer
    *(said("same", "twin") for _ in range(6)),
    *(said(f"你好 {n}", f"\n你好，我叫沐雪 {n}", "more", f"{n}") for n in range(12)),
]


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small tokenizer's folder."""
    return small_tokenizer(tmp_path_factory.mktemp("small"))


@pytest.fixture
def cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Makes the cache a new, empty one; returns its folder."""
    numbers = iter(range(100))

    def empty() -> Path:
        folder = tmp_path / f"cache{next(numbers)}"
        monkeypatch.setenv("QDATA_CACHE_DIR", str(folder))
        return folder

    empty()
    return empty


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Many conversations in one file."""
    return write_rows(tmp_path / "data/rows.jsonl", MANY)


def small_parts(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Files are cut into parts of about `size` bytes."""
    original = getattr(source.parts_of, "func", source.parts_of)
    monkeypatch.setattr(source, "parts_of", functools.partial(original, part_bytes=size))


def recipe_of(small: Path, *files: Path, **options: Any) -> DataRecipe:
    """A recipe of these files."""
    return DataRecipe(sources=tuple(Source(path=str(f)) for f in files), tokenizer=str(small), **options)


def hashes(manifest: dict[str, Any]) -> dict[str, list[str]]:
    """The SHA-256 of every shard, by split."""
    return {split: [s["sha256"] for s in facts["shards"]] for split, facts in manifest["splits"].items()}


def names(folder: Path, split: str = "train") -> list[str]:
    """The row ids of a split, in order."""
    return [name for row in read(folder, split) for name in row["rows"]]


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# No row is lost.


def test_in_is_kept_and_dropped_and_both_are_on_disk(rows: Path, small: Path, tmp_path: Path) -> None:
    """Every input line is in conversations.parquet and in the ledger once; the kept ones, and only they, in a shard."""
    manifest = pipeline.build(recipe_of(small, rows, val=0.2, max_length=150, pack=200), tmp_path / "out")
    told = manifest["rows"]
    assert told["in"] == len(MANY) == told["kept"] + sum(told["dropped"].values())
    assert told["dropped"].keys() == {"complete.empty_answer", "max_length.too_long"}
    texts = pl.read_parquet(tmp_path / "out/conversations.parquet")
    assert [[(m["role"], m["content"]) for m in one] for one in texts["messages"].to_list()] == [
        [(m["role"], m["content"]) for m in one] for one in MANY
    ]
    book = pl.read_parquet(tmp_path / "out/ledger.parquet")
    wanted = [f"data/rows.jsonl#{n + 1}" for n in range(len(MANY))]
    assert book["row"].to_list() == texts["row"].to_list() == wanted
    in_shards = set(names(tmp_path / "out")) | set(names(tmp_path / "out", "validation"))
    assert set(book.filter(pl.col("action") != "dropped")["row"]) == in_shards
    dropped = book.filter(pl.col("action") == "dropped")
    assert dropped["shard"].null_count() == dropped.height == sum(told["dropped"].values())


def test_blank_answers_are_dropped_with_their_reason(small: Path, tmp_path: Path) -> None:
    """Blank, or no answer at all; what they said stays on disk."""
    file = write_rows(tmp_path / "data/rows.jsonl", [said("q", " \n"), said("only a question"), said("q", "a")])
    manifest = pipeline.build(recipe_of(small, file), tmp_path / "out")
    assert manifest["rows"]["dropped"] == {"complete.empty_answer": 1, "complete.no_answer": 1}
    book = pl.read_parquet(tmp_path / "out/ledger.parquet").select("action", "step", "reason", "shard")
    assert book.rows()[:2] == [
        ("dropped", "complete", "empty_answer", None),
        ("dropped", "complete", "no_answer", None),
    ]
    assert names(tmp_path / "out") == ["data/rows.jsonl#3"]


def test_a_kept_row_is_in_a_shard(small: Path, tmp_path: Path) -> None:
    """A conversation whose answers are all `train: false` has nothing to train: it is dropped, and counted."""
    silent = said("q", "a")
    silent[1]["train"] = False
    file = write_rows(tmp_path / "data/rows.jsonl", [said("x", "y"), silent])
    manifest = pipeline.build(recipe_of(small, file), tmp_path / "out")
    kept = pl.read_parquet(tmp_path / "out/ledger.parquet").filter(pl.col("action") != "dropped")
    assert kept["row"].to_list() == names(tmp_path / "out") == ["data/rows.jsonl#1"]
    assert manifest["rows"]["kept"] == 1


def test_muted_answers_are_untrained_and_weights_stand_under_every_loss(small: Path, tmp_path: Path) -> None:
    """`weight: 0` and `train: false` also in a text trained whole; the last answer is the last that may be trained."""
    messages = said("q0", "first", "q1", "second", "q2", "third", "q3", "fourth")
    for at, extra in ((1, {"weight": 0}), (3, {"weight": 0.5}), (5, {}), (7, {"train": False})):
        messages[at] |= extra
    file = write_rows(tmp_path / "data/rows.jsonl", [messages])
    decode = Tokenizer.from_file(str(small / "tokenizer.json")).decode
    found = {}
    for loss in ("assistant", "last", "whole"):
        pipeline.build(recipe_of(small, file, loss=loss, template="chatml"), tmp_path / loss)
        (row,) = read(tmp_path / loss)
        texts = itertools.groupby(
            zip(row["input_ids"], row["labels"], row.get("weights") or [1.0] * len(row["labels"]), strict=True),
            lambda token: (token[1] != shards.IGNORED, token[2] if token[1] != shards.IGNORED else 1.0),
        )
        found[loss] = [(kind, decode([i for i, *_ in run], skip_special_tokens=False)) for kind, run in texts]
        assert row["input_ids"] == read(tmp_path / "assistant")[0]["input_ids"]
    user, assistant, end = "<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_end|>"
    assert [one for one in found["assistant"] if one[0][0]] == [
        ((True, 0.5), "second" + end),
        ((True, 1.0), "third" + end),
    ]
    assert [one for one in found["last"] if one[0][0]] == [((True, 1.0), "third" + end)]
    assert found["whole"] == [
        ((True, 1.0), f"{user}q0{end}\n{assistant}"),
        ((False, 1.0), "first" + end),
        ((True, 1.0), f"\n{user}q1{end}\n{assistant}"),
        ((True, 0.5), "second" + end),
        ((True, 1.0), f"\n{user}q2{end}\n{assistant}third{end}\n{user}q3{end}\n{assistant}"),
        ((False, 1.0), "fourth" + end),
        ((True, 1.0), "\n"),
    ]


def test_a_row_that_cannot_be_rendered_is_named(small: Path, tmp_path: Path) -> None:
    """By the id it has everywhere; under strict nothing is written."""
    bad = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "reasoning_content": "why"}]
    file = write_rows(tmp_path / "data/rows.jsonl", [said("q", "a"), bad, said("r", "b"), bad])
    recipe = recipe_of(small, file, template="chatml")
    named = r"data/rows\.jsonl#2: template chatml .*message 1 has some.*\ndata/rows\.jsonl#4: template chatml .*\nMend"
    with pytest.raises(QdataError, match=named):
        pipeline.build(recipe, tmp_path / "out", strict=True)
    assert not (tmp_path / "out").exists()
    pipeline.build(recipe, tmp_path / "out")
    assert names(tmp_path / "out") == ["data/rows.jsonl#1", "data/rows.jsonl#3"]


def test_too_long_rows_are_dropped_with_their_reason(rows: Path, small: Path, tmp_path: Path) -> None:
    """Exactly those with no sample that fits; the others are the same as without a limit."""
    free = pipeline.build(recipe_of(small, rows), tmp_path / "free")
    lengths = {row["rows"][0]: len(row["input_ids"]) for row in read(tmp_path / "free")}
    assert free["splits"]["train"]["longest"] == max(lengths.values())
    limit = sorted(lengths.values())[len(lengths) // 2]
    manifest = pipeline.build(recipe_of(small, rows, max_length=limit), tmp_path / "out")
    assert [r for r in read(tmp_path / "free") if len(r["input_ids"]) <= limit] == read(tmp_path / "out")
    book = pl.read_parquet(tmp_path / "out/ledger.parquet")
    gone = set(book.filter(pl.col("reason") == "too_long")["row"])
    assert gone == set(names(tmp_path / "free")) - set(names(tmp_path / "out"))
    assert manifest["rows"]["dropped"]["max_length.too_long"] == len(gone) > 0


@pytest.mark.parametrize("val", [None, 0.5, 5])
def test_when_all_is_dropped_the_reasons_are_told(val: float | None, small: Path, tmp_path: Path) -> None:
    """In one message, and nothing is written."""
    file = write_rows(tmp_path / "data/rows.jsonl", [said("q", ""), said("r", ""), said("only a question")])
    with pytest.raises(QdataError, match=r"nothing is left.*2 complete\.empty_answer, 1 complete\.no_answer"):
        pipeline.build(recipe_of(small, file, val=val), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_when_all_is_held_out_that_is_told(small: Path, tmp_path: Path) -> None:
    """More rows asked for than there are."""
    file = write_rows(tmp_path / "data/rows.jsonl", [said("q", "a"), said("r", "b")])
    with pytest.raises(QdataError, match="held out"):
        pipeline.build(recipe_of(small, file, val=10), tmp_path / "out")


@pytest.mark.parametrize(
    "option",
    [{"val": -0.5}, {"val": 1.5}, {"val": -3}, {"pack": 0}, {"pack": -1}, {"max_length": 0}, {"max_length": -3}],
    ids=str,
)
def test_a_number_without_a_meaning_is_refused(option: dict[str, Any], rows: Path, small: Path, tmp_path: Path) -> None:
    """In a recipe as on the command line: by the option's name, and before any work."""
    with pytest.raises(QdataError, match=next(iter(option))):
        pipeline.build(recipe_of(small, rows, **option), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_sources_is_one_message(small: Path, tmp_path: Path) -> None:
    """A recipe that names nothing to read is bad input, not a traceback."""
    with pytest.raises(QdataError):
        pipeline.build(recipe_of(small), tmp_path / "out")


# The same inputs make the same bytes.


def test_row_ids_do_not_hang_on_the_parts(
    rows: Path, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cold: Callable[[], Path]
) -> None:
    """Unique, the line number, and the same however the file is cut; and so are the shards."""
    whole = pipeline.build(recipe_of(small, rows), tmp_path / "whole")
    for size in (1, 333, 2000):
        cold()
        small_parts(monkeypatch, size)
        planned = pipeline.plan(recipe_of(small, rows))
        assert len(planned.works) > 3
        cut = pipeline.run(planned, tmp_path / f"cut{size}")
        assert hashes(cut) == hashes(whole)
        for name in ("conversations", "ledger"):
            frames = [pl.read_parquet(tmp_path / out / f"{name}.parquet") for out in ("whole", f"cut{size}")]
            assert frames[0].equals(frames[1])
            assert frames[0]["row"].is_unique().all()


@pytest.mark.parametrize(
    "options", [{}, {"pack": 256, "val": 0.3, "seed": 4, "template": "qwen2_5"}], ids=["plain", "all"]
)
def test_two_workers_write_the_bytes_of_one(
    options: dict[str, Any], rows: Path, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    cold: Callable[[], Path],
) -> None:  # fmt: skip
    """Every file of the output, manifest and ledger included."""
    small_parts(monkeypatch, 1500)
    recipe = recipe_of(small, rows, **options)
    one = pipeline.build(recipe, tmp_path / "one", workers=1)
    assert len(one["inputs"][0]["parts"]) > 3
    cold()
    two = pipeline.build(recipe, tmp_path / "two", workers=2)
    assert hashes(one) == hashes(two)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_the_same_build_twice_is_the_same_and_a_cache_changes_nothing(
    rows: Path, small: Path, tmp_path: Path, cold: Callable[[], Path]
) -> None:
    """Cold, warm, and cold again: byte for byte, every file."""
    recipe = recipe_of(small, rows, pack=200, val=5, placeholders={"name": "沐雪"})
    for name in ("cold", "warm", "again"):
        if name == "again":
            cold()
        pipeline.build(recipe, tmp_path / name)
    assert tree(tmp_path / "cold") == tree(tmp_path / "warm") == tree(tmp_path / "again")


def _parts_in(cache: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in (cache / "parts").glob("*/*")}


def test_views_over_the_tokens_tokenise_nothing_anew(
    rows: Path, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cold: Callable[[], Path]
) -> None:
    """Loss, length limit, packing, split and seed; a template or a placeholder is another matter."""
    cache = cold()
    small_parts(monkeypatch, 2500)
    calls: list[int] = []
    encode = Encoder.encode
    monkeypatch.setattr(Encoder, "encode", lambda self, texts: (calls.append(len(texts)), encode(self, texts))[1])
    pipeline.build(recipe_of(small, rows), tmp_path / "first")
    assert calls
    made = _parts_in(cache)
    calls.clear()
    views: list[dict[str, Any]] = [
        {"loss": "last"}, {"loss": "whole"}, {"max_length": 150}, {"pack": 256}, {"val": 0.25}, {"val": 3, "seed": 9},
        {"expand": False},
    ]  # fmt: skip
    distinct = set()
    for number, view in enumerate(views):
        manifest = pipeline.build(recipe_of(small, rows, **view), tmp_path / f"view{number}")
        distinct.add(json.dumps([hashes(manifest), manifest["fingerprint"]]))
    assert calls == []
    assert _parts_in(cache) == made
    assert len(distinct) == len(views)
    pipeline.build(recipe_of(small, rows, template="qwen2_5"), tmp_path / "other")
    assert calls
    assert len(_parts_in(cache)) == 2 * len(made)


def test_only_new_parts_are_tokenised(
    rows: Path, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cold: Callable[[], Path]
) -> None:
    """Rows added at the end, and a file beside, leave the finished parts as they are."""
    cache = cold()
    small_parts(monkeypatch, 2500)
    pipeline.build(recipe_of(small, rows), tmp_path / "first")
    made = _parts_in(cache)
    with rows.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"messages": said("new", "row")}) + "\n")
    other = write_rows(tmp_path / "data/other.jsonl", [said("other", "file")])
    pipeline.build(recipe_of(small, rows, other), tmp_path / "second")
    after = _parts_in(cache)
    assert made.items() <= after.items()
    assert len(after) - len(made) == 2


def test_a_tokenizer_changed_in_its_folder_is_noticed(
    rows: Path, small: Path, tmp_path: Path, cold: Callable[[], Path]
) -> None:
    """Also by a process that has used the folder before: the ids are those of the file as it is now."""
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    for file in small.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    pipeline.build(recipe_of(folder, rows), tmp_path / "first")
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["merges"] = content["model"]["merges"][:5]
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    pipeline.build(recipe_of(folder, rows), tmp_path / "second")
    fresh = tmp_path / "fresh"
    folder.rename(fresh)
    cold()
    pipeline.build(recipe_of(fresh, rows), tmp_path / "third")
    assert read(tmp_path / "first") != read(tmp_path / "third")
    assert read(tmp_path / "second") == read(tmp_path / "third")


# Validation.


def _sides(manifest: dict[str, Any], folder: Path) -> tuple[set[str], set[str]]:
    assert set(manifest["splits"]) == {"train", "validation"}
    return set(names(folder)), set(names(folder, "validation"))


@pytest.mark.parametrize(("val", "count"), [(0.2, None), (0.0001, 1), (7, 7), (1, 1)])
def test_val_holds_out_a_fraction_or_a_number(val: float, count: int | None, small: Path, tmp_path: Path) -> None:
    """So many of distinct rows (a fraction is of their hashes, and at least one), none on both sides or on none."""
    file = write_rows(tmp_path / "data/rows.jsonl", [said(f"q{n}", f"a{n}") for n in range(100)])
    manifest = pipeline.build(recipe_of(small, file, val=val), tmp_path / "out")
    train, held = _sides(manifest, tmp_path / "out")
    assert len(held) == count if count else 10 <= len(held) <= 30
    assert not train & held
    assert len(train | held) == 100


def test_duplicates_fall_on_the_same_side(small: Path, tmp_path: Path) -> None:
    """Whatever the seed: a row that is trained is never evaluated too."""
    texts = [f"q{n % 12}" for n in range(60)]
    file = write_rows(tmp_path / "data/rows.jsonl", [said(q, "a" + q) for q in texts])
    by_row = {f"data/rows.jsonl#{n + 1}": q for n, q in enumerate(texts)}
    for seed in range(5):
        manifest = pipeline.build(recipe_of(small, file, val=0.3, seed=seed), tmp_path / f"out{seed}")
        train, held = ({by_row[name] for name in side} for side in _sides(manifest, tmp_path / f"out{seed}"))
        assert not train & held


def test_the_seed_draws_the_held_out_rows(rows: Path, small: Path, tmp_path: Path) -> None:
    """Another seed, other rows; the same seed, the same rows in any order of the file."""
    held = []
    for number, seed in enumerate((0, 1, 0)):
        conversations = MANY if number < 2 else MANY[::-1]
        file = write_rows(tmp_path / f"data{number}/rows.jsonl", conversations)
        pipeline.build(recipe_of(small, file, val=0.3, seed=seed), tmp_path / f"out{number}")
        texts = pl.read_parquet(tmp_path / f"out{number}/conversations.parquet")
        inside = texts.filter(pl.col("row").is_in(names(tmp_path / f"out{number}", "validation")))
        held.append(sorted(inside["content_hash"]))
    assert held[0] != held[1]
    assert held[0] == held[2]


@pytest.mark.parametrize("val", [0.1, 0.5])
def test_a_row_stays_on_its_side_when_others_are_added(val: float, small: Path, tmp_path: Path) -> None:
    """What was held out once stays so, or a model is evaluated on what its predecessor was trained on."""
    distinct = [said(f"q{n}", f"a{n}") for n in range(400)]
    sides = []
    for number, count in enumerate((250, 300, 400)):
        file = write_rows(tmp_path / f"{number}/data/rows.jsonl", distinct[:count])
        manifest = pipeline.build(recipe_of(small, file, val=val), tmp_path / f"out{number}")
        sides.append(_sides(manifest, tmp_path / f"out{number}"))
    for train, held in sides[1:]:
        assert sides[0][0] <= train
        assert sides[0][1] <= held


def test_a_number_of_held_out_rows_moves_as_few_as_it_must(small: Path, tmp_path: Path) -> None:
    """With more rows some of the seven give way to new ones, but no trained row moves to the held-out side."""
    distinct = [said(f"q{n}", f"a{n}") for n in range(200)]
    sides = []
    for number, count in enumerate((100, 200)):
        file = write_rows(tmp_path / f"{number}/data/rows.jsonl", distinct[:count])
        manifest = pipeline.build(recipe_of(small, file, val=7), tmp_path / f"out{number}")
        sides.append(_sides(manifest, tmp_path / f"out{number}"))
    (train, _), (_, held) = sides
    assert not train & held


def test_validation_files_are_validation(rows: Path, small: Path, tmp_path: Path) -> None:
    """All of them, whatever `val` says of the sources."""
    other = write_rows(tmp_path / "held/valid.jsonl", [said(f"v{n}", f"w{n}") for n in range(5)])
    recipe = dataclasses.replace(recipe_of(small, rows), validation=(Source(path=str(other)),))
    manifest = pipeline.build(recipe, tmp_path / "out")
    _, held = _sides(manifest, tmp_path / "out")
    assert held == {f"held/valid.jsonl#{n + 1}" for n in range(5)}
    assert [one["split"] for one in manifest["inputs"]] == ["train", "validation"]
    more = pipeline.build(dataclasses.replace(recipe, val=3), tmp_path / "more")
    _, also = _sides(more, tmp_path / "more")
    assert held < also
    assert len(also) == 5 + 3


def test_a_validation_file_may_be_called_as_a_source_is(small: Path, tmp_path: Path) -> None:
    """Row ids tell the two apart by as much of their paths as it takes."""
    one, other = (
        write_rows(tmp_path / f"{name}/data/t.jsonl", [said(f"{name}{n}", "a") for n in range(3)]) for name in "xy"
    )
    recipe = dataclasses.replace(recipe_of(small, one), validation=(Source(path=str(other)),))
    train, held = _sides(pipeline.build(recipe, tmp_path / "out"), tmp_path / "out")
    assert (train, held) == tuple({f"data/{name}/data/t.jsonl#{n + 1}" for n in range(3)} for name in "xy")


# Placeholders.


def test_placeholders_are_filled_and_the_unfilled_are_counted(small: Path, tmp_path: Path) -> None:
    """By the language of the message; the ledger keeps the text before and after."""
    conversations = [
        said("who are you?", "I am {{name}}, by {{ AUTHOR }}."),
        said("你是谁？", "我是<NAME>，{{author}}做的。"),
        said("jinja?", "write {{ x }} in braces"),
        said("and", "plain"),
    ]
    file = write_rows(tmp_path / "data/rows.jsonl", conversations)
    manifest = pipeline.build(recipe_of(small, file), tmp_path / "open")
    assert (manifest["unfilled_placeholders"], manifest["rows"]["edited"]) == (2, 0)
    assert manifest["unfilled"] == ["<NAME>", "{{ AUTHOR }}", "{{author}}", "{{name}}"]
    half = pipeline.build(
        recipe_of(small, file, placeholders={"name": {"zh": "沐雪", "en": "Muxue"}}), tmp_path / "half"
    )
    assert (half["unfilled_placeholders"], half["unfilled"]) == (2, ["{{ AUTHOR }}", "{{author}}"])
    values = {"name": {"zh": "沐雪", "en": "Muxue"}, "author": "Moemu $1"}
    full = pipeline.build(recipe_of(small, file, placeholders=values), tmp_path / "full")
    assert (full["unfilled_placeholders"], full["unfilled"], full["rows"]["edited"]) == (0, [], 2)
    said_now = [m[1]["content"] for m in pl.read_parquet(tmp_path / "full/conversations.parquet")["messages"].to_list()]
    wanted = ["I am Muxue, by Moemu $1.", "我是沐雪，Moemu $1做的。", "write {{ x }} in braces", "plain"]
    assert said_now == wanted
    edited = pl.read_parquet(tmp_path / "full/ledger.parquet").filter(pl.col("action") == "edited")
    assert edited["step"].to_list() == ["placeholders", "placeholders"]
    assert "{{name}}" in edited["before"][0]
    assert "Muxue" in edited["after"][0]


# The output appears whole or not at all.


def _broken(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


@pytest.mark.parametrize("where", ["locate.save", "shards.write_json", "manifest.of_build", "ledger.write"])
def test_a_build_that_breaks_leaves_nothing(
    where: str, rows: Path, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any point of assembling; what stood there before stands there still."""
    module, function = where.split(".")
    monkeypatch.setattr(getattr(assemble, module), function, _broken)
    with pytest.raises(KeyboardInterrupt):
        pipeline.build(recipe_of(small, rows), tmp_path / "out/deep")
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    pipeline.build(recipe_of(small, rows), tmp_path / "out/deep")
    before = tree(tmp_path / "out")
    monkeypatch.setattr(getattr(assemble, module), function, _broken)
    with pytest.raises(KeyboardInterrupt):
        pipeline.build(recipe_of(small, rows, val=2), tmp_path / "out/deep", replace=True)
    assert tree(tmp_path / "out") == before


def test_an_existing_output_is_only_replaced_when_asked(rows: Path, small: Path, tmp_path: Path) -> None:
    """Else it is refused before any work; replaced, nothing of the old one is left."""
    pipeline.build(recipe_of(small, rows, val=2), tmp_path / "out")
    before = tree(tmp_path / "out")
    with pytest.raises(QdataError, match="exists already"):
        pipeline.build(recipe_of(small, rows), tmp_path / "out")
    assert tree(tmp_path / "out") == before
    pipeline.build(recipe_of(small, rows), tmp_path / "out", replace=True)
    assert not (tmp_path / "out/validation").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "out"]


KILLED = """
import os, sys
from pathlib import Path
from qdata import assemble, pipeline
from qdata.recipe import DataRecipe, Source
rows, tokenizer, output = sys.argv[1:]
assemble.ledger.write = lambda *_: os.kill(os.getpid(), 9)
pipeline.build(DataRecipe(sources=(Source(path=rows),), tokenizer=tokenizer), Path(output), replace=True)
"""


def test_what_a_killed_build_leaves_is_swept_by_the_next(
    rows: Path, small: Path, tmp_path: Path, cold: Callable[[], Path]
) -> None:
    """No output appears, the old one stays, and the next build takes the partial folder away."""
    output = tmp_path / "out"
    pipeline.build(recipe_of(small, rows), output)
    before = tree(output)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(rows), str(small), str(output)], check=False)
    assert killed.returncode == -9
    assert tree(output) == before
    (left,) = tmp_path.glob(".out.partial-*")
    assert (left / "train").is_dir()
    pipeline.build(recipe_of(small, rows), output, replace=True)
    assert tree(output) == before
    assert list(tmp_path.glob(".out*")) == []


def _dead_process() -> int:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_only_the_leftovers_of_the_dead_are_swept(rows: Path, small: Path, tmp_path: Path) -> None:
    """Not what a living process writes, nor another output's; an old output whose renaming was cut off returns."""
    dead, living = _dead_process(), os.getppid()
    for name in (f".out.partial-{dead}", f".out.partial-{living}", f".other.partial-{dead}", ".out.notes-1"):
        (tmp_path / name).mkdir()
    pipeline.build(recipe_of(small, rows), tmp_path / "out")
    assert sorted(p.name for p in tmp_path.glob(".*")) == sorted(
        [f".out.partial-{living}", f".other.partial-{dead}", ".out.notes-1"]
    )
    (tmp_path / "out").rename(tmp_path / f".out.old-{dead}")
    with rows.open("a", encoding="utf-8") as file:
        file.write("{broken\n")
    with pytest.raises(QdataError, match="not valid JSON"):
        pipeline.build(recipe_of(small, rows), tmp_path / "out", replace=True, strict=True)
    assert (tmp_path / "out/manifest.json").is_file()


def test_folders_may_have_any_name(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cold: Callable[[], Path]
) -> None:
    """Brackets in the path of input, output or cache are no pattern; leftovers of such an output are swept too."""
    cold()
    wanted = pipeline.build(recipe_of(small, write_rows(tmp_path / "data/rows.jsonl", MANY)), tmp_path / "out")
    monkeypatch.setenv("QDATA_CACHE_DIR", str(tmp_path / "cache [1]"))
    rows = write_rows(tmp_path / "[raw]/data/rows.jsonl", MANY)
    left = tmp_path / f".out [2].partial-{_dead_process()}"
    left.mkdir()
    assert hashes(pipeline.build(recipe_of(small, rows), tmp_path / "out [2]")) == hashes(wanted)
    assert tree(tmp_path / "out [2]") == tree(tmp_path / "out")
    assert not left.exists()


# Whether an output is current.


def test_current_notices_every_change(small: Path, tmp_path: Path) -> None:
    """Of inputs, recipe, template file and tokenizer; a changed time stamp alone is no change."""
    rows = write_rows(tmp_path / "data/rows.jsonl", MANY)
    template = tmp_path / "mine.jinja"
    template.write_text((Path(__file__).parents[2] / "templates/qwen2.jinja").read_text(encoding="utf-8"))
    output = tmp_path / "out"
    recipe = recipe_of(small, rows, template=str(template))
    assert not pipeline.current(recipe, output)
    pipeline.build(recipe, output)
    assert pipeline.current(recipe, output)
    os.utime(rows, (1, 1))
    assert pipeline.current(recipe, output)
    changes: list[dict[str, Any]] = [
        {"loss": "last"}, {"max_length": 100}, {"pack": 300}, {"val": 3}, {"seed": 1}, {"default_system": "x"},
        {"placeholders": {"name": "x"}}, {"steps": ({"step": "strip"},)}, {"template": "qwen2_5"},
        {"validation": (Source(path=str(rows)),), "sources": ()}, {"sources": (Source(path=str(rows), name="other"),)},
    ]  # fmt: skip
    for change in changes:
        assert not pipeline.current(dataclasses.replace(recipe, **change), output), change
    template.write_text(template.read_text(encoding="utf-8") + " ", encoding="utf-8")
    assert not pipeline.current(recipe, output)
    template.write_text(template.read_text(encoding="utf-8")[:-1], encoding="utf-8")
    assert pipeline.current(recipe, output)
    with rows.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"messages": said("one", "more")}) + "\n")
    assert not pipeline.current(recipe, output)


def test_current_is_true_for_what_set_rows_aside(small: Path, tmp_path: Path) -> None:
    """Rows set aside are part of a finished output, not a reason to make it again for ever; under strict they are."""
    rows = write_rows(tmp_path / "data/rows.jsonl", MANY)
    with rows.open("a", encoding="utf-8") as file:
        file.write("{broken\n")
    recipe = recipe_of(small, rows)
    with pytest.raises(QdataError, match="line 65"):
        pipeline.build(recipe, tmp_path / "out", strict=True)
    manifest = pipeline.build(recipe, tmp_path / "out")
    assert manifest["rows"]["in"] == len(MANY) + 1
    assert pipeline.current(recipe, tmp_path / "out")
    assert not pipeline.current(recipe, tmp_path / "out", strict=True), "a strict build would refuse"


# Two roads, one output.


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, with raw files in two dialects."""
    monkeypatch.chdir(tmp_path)
    muice = [
        {
            "system": "你是{{name}}",
            "conversation": [
                {"human": f"问{n}", "assistant": f"我是{{{{name}}}}，答{n}"},
                {"human": "还有呢", "assistant": f"再答{n}"},
            ],
            "score": n,
        }
        for n in range(30)
    ]
    alpaca = [{"instruction": f"say {n}", "input": "", "output": f"said {n}", "tag": n} for n in range(30)]
    alpaca[7]["output"] = ""
    Path("raw").mkdir()
    for name, rows in (("a_muice", muice), ("b_alpaca", alpaca)):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        Path(f"raw/{name}.jsonl").write_text(text, encoding="utf-8")
    yield tmp_path


def run(*words: str) -> None:
    """A command of qdata; its output is in the error if it fails."""
    result = CliRunner().invoke(main, list(words))
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"


@pytest.mark.parametrize("dialect", ["messages", "alpaca", "sharegpt"])
def test_the_step_by_step_road_is_the_recipes_road(dialect: str, workplace: Path, small: Path) -> None:
    """convert, then render with options, makes the recipe's shards, hash for hash, with the raw files' row ids."""
    recipe = DataRecipe(
        sources=(Source(path="raw"),), tokenizer=str(small), template="qwen2_5", default_system="Be 沐雪.", val=0.2,
        pack=256, max_length=250, loss="last", seed=3, placeholders={"name": "沐雪"},
    )  # fmt: skip
    wanted = pipeline.build(recipe, workplace / "by_recipe")
    run("convert", "raw", "--to", dialect, "-o", "rows.jsonl")
    options = ["--template", "qwen2_5", "--tokenizer", str(small), "--default-system", "Be 沐雪.", "--loss", "last"]
    options += ["--val", "0.2", "--pack", "256", "--max-length", "250", "--seed", "3", "--persona", "name=沐雪"]
    run("render", "rows.jsonl", *options, "-o", "by_steps")
    got = json.loads(Path("by_steps/manifest.json").read_text(encoding="utf-8"))
    assert hashes(got) == hashes(wanted)
    assert len(wanted["splits"]) == 2
    assert set(names(Path("by_steps"))) <= {f"raw/{f}.jsonl#{n}" for f in ("a_muice", "b_alpaca") for n in range(1, 31)}
    ledgers = [pl.read_parquet(Path(out) / "ledger.parquet") for out in ("by_recipe", "by_steps")]
    assert ledgers[0].equals(ledgers[1])
    assert got["rows"] == wanted["rows"]


def test_without_an_input_the_last_output_is_rendered(workplace: Path, small: Path) -> None:
    """And it says which; the shards are those of naming it."""
    run("convert", "raw", "--to", "messages", "-o", "rows.jsonl")
    result = CliRunner().invoke(main, ["render", "--tokenizer", str(small), "-o", "unnamed"])
    assert (result.exit_code, "taking the last output, rows.jsonl" in result.output) == (0, True)
    run("render", "rows.jsonl", "--tokenizer", str(small), "-o", "named")
    assert tree(Path("unnamed")) == tree(Path("named"))


def test_a_build_writes_as_many_files_as_it_must(
    rows: Path, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A smaller limit makes more files of the same rows."""
    pipeline.build(recipe_of(small, rows, pack=300), tmp_path / "one")
    monkeypatch.setattr(shards, "SHARD_TOKENS", 700)
    manifest = pipeline.build(recipe_of(small, rows, pack=300), tmp_path / "many")
    assert len(manifest["splits"]["train"]["shards"]) > 2
    assert read(tmp_path / "one") == read(tmp_path / "many")
