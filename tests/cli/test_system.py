"""`qdata system` as it is typed: what is written, what the ledger and the dry run show, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.cli.test_convert import here, ledger, manifest, messages, pair, qdata, refused, rows_of, write

from qdata.changes import changes, lines

__all__ = ["here"]  # the fixture: an empty current directory


def talk(system: str | None, user: str = "q", answer: str = "a", **more: Any) -> dict[str, Any]:
    row = messages(user, answer, **more)
    opening = [] if system is None else [{"role": "system", "content": system}]
    return row | {"messages": [*opening, *row["messages"]]}


def prompts(path: str | Path) -> list[str | None]:
    return [m["content"] if (m := row["messages"][0])["role"] == "system" else None for row in rows_of(path)]


@pytest.fixture
def mixed(here: Path) -> Path:
    """Four conversations under three prompts and none, one of them with a column of its own."""
    return write(
        "mixed.jsonl", [talk("old"), talk(None, topic="x"), talk("new"), talk("You are Qwen.", "你好", "我是Qwen。")]
    )


OUT = "data/mixed.system.jsonl"


def test_set_replaces_all_and_the_ledger_shows_it(mixed: Path) -> None:
    """In the rows' own dialect, with their own columns; a row that had that prompt already is kept, not edited."""
    done = qdata("system", mixed, "--set", "new")
    assert prompts(OUT) == ["new"] * 4
    assert rows_of(OUT)[1] == talk("new", topic="x")
    book = ledger(OUT)
    assert book["action"].to_list() == ["edited", "edited", "kept", "edited"]
    assert book["step"].to_list() == ["system_set", "system_set", None, "system_set"]
    before, after = json.loads(book["before"][0]), json.loads(book["after"][0])
    assert [m["content"] for m in before["messages"]] == ["old", "q", "a"]
    assert [m["content"] for m in after["messages"]] == ["new", "q", "a"]
    assert "1 rows: system prompt added" in done.stderr and "2 rows: system prompt replaced" in done.stderr
    assert manifest(OUT)["steps"] == [["system_set", {"do": "replace", "text": "new", "sources": {}}]]
    assert json.loads(Path("data/.qdata.json").read_text(encoding="utf-8")) == {"rows": OUT}


def test_fill_and_drop(mixed: Path) -> None:
    """Only what is missing; all of them."""
    qdata("system", mixed, "--fill", "new")
    assert prompts(OUT) == ["old", "new", "new", "You are Qwen."]
    done = qdata("system", mixed, "--drop")
    assert prompts(OUT) == [None] * 4
    assert "3 rows: system prompt dropped" in done.stderr


def test_identity_with_the_prompt(mixed: Path) -> None:
    """Placeholders of the new prompt are filled, answers speak as the persona, and each step is named."""
    qdata("system", mixed, "--fill", "Be {{name}}.", "--persona", "name=沐雪", "author=Moemu", "--identity")
    assert prompts(OUT) == ["old", "Be 沐雪.", "new", "You are 沐雪."]
    assert rows_of(OUT)[3]["messages"][2]["content"] == "我是沐雪。"
    assert ledger(OUT)["step"].to_list() == [None, "system_set,placeholders", None, "identity"]


def test_pool_and_card(mixed: Path) -> None:
    """From files; a card is filled with the persona's user."""
    Path("pool.toml").write_text('by = "language"\ntexts = [{ of = { zh = "好", en = "Good" } }]\n', encoding="utf-8")
    qdata("system", mixed, "--pool", "pool.toml", "-o", "pool.jsonl")
    assert prompts("pool.jsonl") == ["Good", "Good", "Good", "好"]
    Path("mia.json").write_text(
        json.dumps({"name": "Mia", "description": "{{char}} knows {{user}}."}), encoding="utf-8"
    )
    qdata("system", mixed, "--card", "mia.json", "--persona", "user=Ann", "-o", "card.jsonl")
    assert prompts("card.jsonl") == ["Mia knows Ann."] * 4
    ((name, said), _) = manifest("card.jsonl")["steps"]
    assert (name, said["card"]["name"], said["file"]) == ("system_card", "Mia", None)


def test_another_dialect_where_the_own_has_no_place(here: Path) -> None:
    """Rows of pairs are refused with the way out, which works; without a prompt to write they stay pairs."""
    write("pairs.jsonl", [pair("q", "I am Qwen.")])
    told = refused("system", "pairs.jsonl", "--set", "new")
    assert "pairs.jsonl: rows of pairs have no place for a system prompt" in told and "--to messages" in told
    qdata("system", "pairs.jsonl", "--set", "new", "--to", "messages")
    assert prompts("data/pairs.system.jsonl") == ["new"]
    qdata("system", "pairs.jsonl", "--persona", "name=M", "author=A", "--identity")
    assert rows_of("data/pairs.system.jsonl") == [pair("q", "I am M.")]


def test_a_dry_run_writes_nothing_and_shows_lines(mixed: Path) -> None:
    """Before and after by line, with the row's name; the folder is as it was."""
    before = sorted(Path().rglob("*"))
    done = qdata("system", mixed, "--set", "new", "--persona", "name=沐雪", "author=Moemu", "--identity", "--dry-run")
    assert sorted(Path().rglob("*")) == before
    told = re.sub(r" +$", "", done.stderr, flags=re.MULTILINE)
    assert "work/mixed.jsonl#1 (system prompt replaced)\n  - system: old\n  + system: new\n    user: q\n" in told
    assert "work/mixed.jsonl#2 (system prompt added)\n  + system: new\n    user: q\n" in told
    assert "  - assistant: 我是Qwen。\n  + assistant: 我是沐雪。\n" in told
    assert "mixed.jsonl#3" not in told
    counts = re.findall(r"^([\d,]+) rows: (.+)$", told, flags=re.MULTILINE)
    assert counts == [("1", "identity rewritten"), ("1", "system prompt added"), ("2", "system prompt replaced")]
    assert "nothing was written" in told


def test_a_dry_run_shows_ten_rows_of_every_kind(here: Path) -> None:
    """Of a hundred replaced and two added, both kinds are seen; where nothing changes it says so."""
    write("many.jsonl", [*(talk(f"s{n}") for n in range(100)), talk(None), talk(None)])
    told = qdata("system", "many.jsonl", "--set", "new", "--dry-run").stderr
    assert told.count("(system prompt replaced)") == 8 and told.count("(system prompt added)") == 2
    assert "100 rows: system prompt replaced" in told and "2 rows: system prompt added" in told
    assert "no row is changed" in qdata("system", "many.jsonl", "--persona", "name=M", "--dry-run").stderr


def test_the_counts_are_those_of_the_ledger(mixed: Path) -> None:
    """Every edited row has at least one kind of change, and no other row has any."""
    qdata("system", mixed, "--set", "new", "-o", "out.jsonl")
    found = changes(Path("out.jsonl"))
    assert found.edited.height == ledger("out.jsonl").filter(pl.col("action") == "edited").height == 3
    assert sum(found.counts.values()) == 3
    assert len(found.samples(2)) == 2 and found.samples(0) == []
    shown = list(lines(found.samples(1)[0].before, found.samples(1)[0].after))
    assert shown == [("-", "system: old"), ("+", "system: new"), (" ", "user: q")]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "nothing to do; wanted --set, --fill"),
        (["--set", "a", "--drop"], "--set and --drop: wanted one of them"),
        (["--set", "a", "--fill", "b"], "--set and --fill: wanted one"),
        (["--set", " "], "--set: text: an empty text"),
        (["--set", "{% if x %}"], "jinja statements"),
        (["--identity"], "--identity: wanted --persona name=… author=…; name and author missing"),
        (["--identity", "--persona", "name=M"], "author missing"),
        (["--identity", "--persona", "name=Qwen", "author=A"], "--persona: name: 'Qwen' holds 'qwen'"),
        (["--pool", "nowhere.toml"], "--pool nowhere.toml: No such file"),
        (["--pool", "mixed.jsonl"], "not valid TOML"),
        (["--card", "nowhere.json"], "nowhere.json: No such file"),
        (["--card", "mixed.jsonl"], "not valid JSON"),
        (["--set", "a", "--to", "mesages"], "Did you mean 'messages'"),
        (["--set", "a", "--to", "pairs"], "--to: rows of pairs have no place for a system prompt"),
        (["--set", "a", "-o", "mixed.jsonl"], "one of the inputs"),
    ],
)
def test_what_cannot_be_done_is_told(mixed: Path, words: list[str], told: str) -> None:
    """One message, exit code 2, nothing written."""
    assert told in refused("system", mixed, *words)


def test_text_has_no_system_prompt(here: Path) -> None:
    """Nothing would be changed, and nobody would be told."""
    (here / "a.txt").write_text("once\n")
    for words in (["--set", "a"], ["--drop"]):
        assert "a.txt: plain text (text), which has no system prompts" in refused("system", "a.txt", *words)


def test_an_open_placeholder_is_told(mixed: Path) -> None:
    """Unless it is filled on the way."""
    assert (
        "UNFILLED  the prompt holds {{name}}"
        in qdata("system", mixed, "--set", "You are {{name}}.", "--dry-run").stderr
    )
    filled = qdata("system", mixed, "--set", "You are {{name}}.", "--persona", "name=M", "--dry-run")
    assert "UNFILLED" not in filled.stderr


def test_no_input_is_told(here: Path) -> None:
    """As convert does."""
    assert "no input given" in refused("system", "--drop")
    assert "no such file" in refused("system", "nowhere.jsonl", "--set", "a")


def test_a_real_talk_speaks_as_the_persona(here: Path, real_data: Path) -> None:
    """sharegpt_zh: the rows that ChatGPT names itself in, and only these, are edited; every other line is the same."""
    file = real_data / "multiturn" / "sharegpt_zh_1K_format.jsonl"
    qdata("system", file, "--persona", "name=沐雪", "author=Moemu", "--identity", "-o", "out.jsonl")
    book = ledger("out.jsonl")
    edited = book.filter(pl.col("action") == "edited")
    assert book.height == 1000 and 25 <= edited.height <= 60
    assert edited["step"].unique().to_list() == ["identity"]
    was, now = rows_of(file), rows_of("out.jsonl")
    touched = {n for n, action in enumerate(book["action"]) if action == "edited"}
    assert {n for n in range(1000) if was[n]["conversations"] != now[n]["conversations"]} == touched
