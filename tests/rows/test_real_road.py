"""Every real file of tests/real_files.toml: to our own layouts and back, to alpaca and ShareGPT, no row unexplained."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

from qdata import pipeline
from qdata.convert import convert
from qdata.errors import QdataError
from qdata.recipe import Source
from qdata.rows import source
from qdata.rows.load import load

MANIFEST: dict[str, Any] = tomllib.loads((Path(__file__).parents[1] / "real_files.toml").read_text(encoding="utf-8"))
OURS = {
    "chat": "messages",
    "dialogue": "messages",
    "preference": "preference_messages",
    "judged": "kto_messages",
    "text": "text",
}
LARGE = 10_000  # rows; larger files take too long for every run of the tests
EVERY = [
    pytest.param(one | {"kind": kind}, marks=[pytest.mark.slow] if one["rows"] > LARGE else [], id=one["path"])
    for kind in OURS
    for one in MANIFEST[kind]
]
CHATS = [one for one in EVERY if OURS[one.values[0]["kind"]] == "messages"]
SAID = ("messages", "tools", "chosen", "rejected", "label", "text")
BESIDE = ("reasoning", "tool_calls", "name", "train", "weight")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)


def told(path: Path, **how: Any) -> str:
    """The dialect that the rows of a file tell."""
    return pipeline.find([Source(path=str(path), **how)])[0].detection.format


def said(path: Path, **how: Any) -> list[dict[str, Any]]:
    """What the rows of a file say that can be read. Tools and calls are JSON, whatever its blanks."""
    form = told(path, **how)
    loads = [load(part, form, character=how.get("character")) for part in source.parts_of(path, "s", path.name)]
    rows = pl.concat(one.frame for one in loads).select(SAID).to_dicts()
    for row in rows:
        for place in (row, *(row["messages"] or ()), *(row["chosen"] or ()), *(row["rejected"] or ())):
            place |= {key: json.loads(place[key]) for key in ("tools", "tool_calls") if place.get(key)}
    return rows


def road(path: Path, to: str, output: str, *, lossy: bool = False, **how: Any) -> tuple[Path, dict[str, Any]]:
    """A file converted, and the row counts of its manifest, which close."""
    made = convert([Source(path=str(path), **how)], to, Path(output), lossy=lossy)
    rows = made.manifest["rows"]
    assert rows["in"] == rows["kept"] + sum(rows["dropped"].values())
    return Path(output), rows


@pytest.mark.parametrize("one", EVERY)
def test_there_and_back(one: dict[str, Any], real_data: Path) -> None:
    """Every row that can be read is there; in our layout, and in its own again, each says the very same."""
    path = real_data / one["path"]
    how = {"character": one["character"]} if "character" in one else {}
    there, rows = road(path, OURS[one["kind"]], "there.jsonl", **how)
    assert (rows["in"], rows["kept"]) == (one["rows"], one.get("convertible", one["rows"]))
    assert all(reason.startswith("read.") for reason in rows["dropped"])
    back, again = road(there, told(path, **how), "back.jsonl")
    assert (again["kept"], again["dropped"]) == (rows["kept"], {})
    ids = [pl.read_parquet(f"{made}.qdata/ledger.parquet").filter(pl.col("index").is_not_null())["row"].to_list()
           for made in (there, back)]  # fmt: skip
    assert ids[0] == ids[1]
    first = said(path, **how)
    assert said(there) == first
    assert said(back, **how) == first


def alternates(conversation: dict[str, Any]) -> bool:
    """Whether a conversation is [system,] question, answer, question, answer … and no more than texts."""
    messages = conversation["messages"]
    turns = messages[1:] if messages[0]["role"] == "system" else messages
    return (
        conversation["tools"] is None
        and all(m[key] is None for m in messages for key in BESIDE)
        and [m["role"] for m in turns] == ["user", "assistant"] * (len(turns) // 2)
        and bool(turns)
        and not (messages[0]["role"] == "system" and messages[0]["content"] == "")
    )


@pytest.mark.parametrize("to", ["alpaca", "sharegpt"])
@pytest.mark.parametrize("one", CHATS)
def test_as_alpaca_and_sharegpt(one: dict[str, Any], to: str, real_data: Path) -> None:
    """What it can express comes out whole; what it cannot is refused, or reduced and said so, or set aside and said so.

    What alpaca can express is told by a rule of this test's own.
    """
    path = real_data / one["path"]
    how = {"character": one["character"]} if "character" in one else {}
    there, first = road(path, "messages", "there.jsonl", **how)
    made, rows = road(there, to, "lossy.jsonl", lossy=True)
    book = pl.read_parquet(f"{made}.qdata/ledger.parquet")
    assert rows["in"] == first["kept"] == book.height
    whole = book.filter(pl.col("action") == "kept")
    others = book.filter(pl.col("action") != "kept")
    assert others.filter(~pl.col("reason").str.contains("^left out: |cannot express ").fill_null(False)).is_empty()
    if others.is_empty():
        strict, _ = road(there, to, "strict.jsonl")
        assert strict.read_bytes() == made.read_bytes()
    else:
        with pytest.raises(QdataError, match=f"{to} cannot express"):
            road(there, to, "strict.jsonl")
        assert not Path("strict.jsonl").exists()
    before, after = said(there), said(made)
    place = {row: n for n, row in enumerate(book["row"])}
    assert [after[n] for n in whole["index"]] == [before[place[row]] for row in whole["row"]]
    if to == "alpaca":
        assert {row for row, n in place.items() if alternates(before[n])} <= set(whole["row"])


@pytest.mark.parametrize(
    ("glob", "to", "rows"),
    [("mini_qwen/sft/*/*.parquet", "sharegpt", 200), ("mini_qwen/pt/*/*/high/*.parquet", "text", 200)],
)
def test_files_of_one_set_load_together_although_their_columns_differ(
    glob: str, to: str, rows: int, real_data: Path
) -> None:
    """`id` is a number here and text there, columns stand in another order, some are in one file only: all come out."""
    files = sorted(real_data.glob(glob))
    types = [pq.read_schema(file).remove_metadata() for file in files]
    assert len({str(one) for one in types}) > 1, "the trap is gone"
    made, sums = road(real_data / glob, to, "together.jsonl")
    assert (sums["in"], sums["kept"]) == (200, 200)
    lines = [json.loads(line) for line in made.read_bytes().splitlines()]
    originals = [row for file in files for row in pq.read_table(file).to_pylist()]
    for line, original in zip(lines, originals, strict=True):
        assert {k: v for k, v in line.items() if v is not None} == {k: v for k, v in original.items() if v is not None}
