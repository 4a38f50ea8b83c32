"""The real files that are no plain chat: told by their rows, read whole, written as they stand, and never chat unasked.

Which files there are is said in tests/real_files.toml.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from qdata.convert import convert
from qdata.errors import QdataError
from qdata.recipe import Source
from qdata.rows import source
from qdata.rows.detect import detect
from qdata.rows.load import load

MANIFEST: dict[str, Any] = tomllib.loads((Path(__file__).parents[1] / "real_files.toml").read_text(encoding="utf-8"))
PREFERENCE, JUDGED, TEXT, DIALOGUE = (MANIFEST[name] for name in ("preference", "judged", "text", "dialogue"))
SAID = ("messages", "tools", "chosen", "rejected", "label", "text")


def by_path(one: dict[str, Any]) -> str:
    """For the names of tests."""
    return str(one["path"])


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a file as they stand in it."""
    return [row for part in source.parts_of(path, "s", path.name) for row in source.read(part).rows]


def said(path: Path, dialect: str, character: str | None = None) -> list[dict[str, Any]]:
    """What the rows of a file say; all of them can be read."""
    loads = [load(part, dialect, character=character) for part in source.parts_of(path, "s", path.name)]
    assert not any(one.bad for one in loads)
    return pl.concat(one.frame for one in loads).select(SAID).to_dicts()


def written(path: Path, to: str, **options: Any) -> Path:
    """A file converted."""
    output = Path(f"{to}.jsonl")
    convert([Source(path=str(path), character=options.pop("character", None))], to, output, **options)
    return output


@pytest.mark.parametrize("one", PREFERENCE + JUDGED + TEXT, ids=by_path)
def test_they_come_back_value_for_value(one: dict[str, Any], real_data: Path) -> None:
    """Every row is read in the dialect its rows tell, and written again as it stands in the file."""
    path = real_data / one["path"]
    rows = rows_of(path)
    found = detect(rows, one["path"])
    assert (found.format, found.share, len(rows)) == (one["dialect"], 1.0, one["rows"])
    back = written(path, one["dialect"])
    assert said(back, one["dialect"]) == said(path, one["dialect"])
    if not one.get("joined"):
        assert rows_of(back) == json.loads(json.dumps(rows))


@pytest.mark.parametrize("one", PREFERENCE, ids=by_path)
def test_pairs_go_through_the_layout_that_says_all(one: dict[str, Any], real_data: Path) -> None:
    """To TRL's messages and back: the same pairs."""
    path = real_data / one["path"]
    there = written(path, "preference_messages")
    assert said(there, "preference_messages") == said(path, one["dialect"])
    assert said(written(there, one["dialect"]), one["dialect"]) == said(path, one["dialect"])


@pytest.mark.parametrize("one", PREFERENCE, ids=by_path)
def test_pairs_are_chat_only_where_that_is_asked_for(one: dict[str, Any], real_data: Path) -> None:
    """Else `convert` refuses; with --lossy the chosen answer comes last, and ledger and manifest tell of the other."""
    path = real_data / one["path"]
    with pytest.raises(QdataError, match=r"(?s)messages cannot express preference pairs .* leave out .* with --lossy"):
        written(path, "messages")
    chat = said(written(path, "messages", lossy=True), "messages")
    assert [row["messages"] for row in chat] == [row["messages"] + row["chosen"] for row in said(path, one["dialect"])]
    manifest = json.loads(Path("messages.jsonl.qdata/manifest.json").read_text(encoding="utf-8"))
    assert manifest["left_out"] == {"the rejected answer": one["rows"]}
    book = pl.read_parquet("messages.jsonl.qdata/ledger.parquet")
    assert set(book.select("action", "step", "reason").iter_rows()) == {
        ("edited", "convert", "left out: the rejected answer")
    }
    before, after = (json.loads(book[column][0]) for column in ("before", "after"))
    assert after == {"messages": before["messages"] + before["chosen"]}


@pytest.mark.parametrize("one", JUDGED, ids=by_path)
def test_bad_answers_are_never_chat(one: dict[str, Any], real_data: Path) -> None:
    """They are refused; with --lossy set aside, and the good ones are."""
    path = real_data / one["path"]
    with pytest.raises(QdataError, match="a bad answer imitated"):
        written(path, "messages")
    chat = said(written(path, "messages", lossy=True), "messages")
    good = [row["messages"] for row in said(path, one["dialect"]) if row["label"]]
    assert len(good) == one["good"]
    assert [row["messages"] for row in chat] == good


@pytest.mark.parametrize("one", DIALOGUE, ids=by_path)
def test_dialogues_need_to_be_told_who_answers(one: dict[str, Any], real_data: Path) -> None:
    """Without a name the characters are listed; with it every row is read, and read → write → read changes nothing."""
    path = real_data / one["path"]
    found = detect(rows_of(path), one["path"])
    assert (found.format, found.share) == ("chatharuhi", 1.0)
    with pytest.raises(QdataError, match=r"nothing says which character answers; .*--character NAME.* Lines: \S+ \d+"):
        said(path, "chatharuhi")
    chats = said(path, "chatharuhi", one["character"])
    assert len(chats) == one["rows"]
    assert said(written(path, "chatharuhi", character=one["character"]), "chatharuhi") == chats


def test_empty_names_are_counted(real_data: Path) -> None:
    """The refusal says in how many rows a line has no name."""
    with pytest.raises(QdataError, match="67 rows have an empty role name"):
        said(real_data / "roleplay/ChatHaruhi/Harry_Chinese_dialogue.jsonl", "chatharuhi")
