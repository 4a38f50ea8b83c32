"""`--map`: columns, keys inside messages, and roles under the file's names; nothing gets lost on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.test_schema import MESSAGES

from qdata.cli import main
from qdata.convert import convert
from qdata.recipe import Source
from qdata.rows.renaming import renamed, twice

NAMES = st.sampled_from(["a", "b", "c", "d", "messages", "role"])


@pytest.mark.parametrize(
    ("row", "rename", "wanted"),
    [
        ({"q": 1, "x": 2}, {"prompt": "q"}, {"prompt": 1, "x": 2}),
        ({"q": 1, "prompt": 2}, {"prompt": "q"}, {"prompt": 1}),
        ({"a": 1, "b": 2}, {"a": "b", "b": "a"}, {"b": 1, "a": 2}),
        ({"system": 1, "x": 2}, {"system": ""}, {"x": 2}),
        ({"": 1}, {"system": ""}, {"": 1}),
        ({"m": [{"who": "H"}]}, {"messages": "m", "messages[].role": "who"}, {"messages": [{"role": "H"}]}),
        ({"m": [{"role": "H"}]}, {"m[].role.user": "H"}, {"m": [{"role": "user"}]}),
        ({"m": [{"role": "B"}]}, {"m[].role.user": "H"}, {"m": [{"role": "B"}]}),
        ({"m": [{"r": 1, "role": 2}]}, {"m[].role": "r"}, {"m": [{"role": 1, "role[]": 2}]}),
        ({"m": [{"loss": 1}]}, {"m[].loss": ""}, {"m": [{"loss[]": 1}]}),
        ({"m": [{"role": ["H"]}, 7, None]}, {"m[].role.user": "H"}, {"m": [{"role": ["H"]}, 7, None]}),
        ({"m": "text"}, {"m[].role": "r"}, {"m": "text"}),
        ({"m": [{"r": "a"}, {"r": "b"}]}, {"m[].r.a": "b", "m[].r.b": "a"}, {"m": [{"r": "b"}, {"r": "a"}]}),
    ],
)
def test_names_are_replaced(row: dict[str, Any], rename: dict[str, str], wanted: dict[str, Any]) -> None:
    """Each kind of name, swaps, and values that are something else than expected."""
    assert renamed(row, rename) == wanted


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, st.integers()), st.dictionaries(NAMES, NAMES))
def test_no_value_is_doubled(row: dict[str, int], rename: dict[str, str]) -> None:
    """Each value of a row comes out once, or is left out because its name means something else."""
    if not twice(rename):
        out = renamed(row, rename)
        assert len(out) <= len(row)
        assert sorted(out.values()) == sorted(v for k, v in row.items() if k in rename.values() or k not in rename)


@settings(max_examples=40, deadline=None)
@given(st.lists(MESSAGES, min_size=1, max_size=3))
def test_other_names_say_the_same(tmp_path_factory: pytest.TempPathFactory, talks: list[list[dict[str, Any]]]) -> None:
    """Rows written under other names and read through a map are the rows under our names."""
    folder = tmp_path_factory.mktemp("m")
    roles = {"user": "Kunde", "assistant": "Bot", "system": "Regel", "tool": "Werkzeug"}
    plain = [[{"role": m["role"], "content": m["content"] or "x"} for m in talk] for talk in talks]
    odd = [[{"wer": roles[m["role"]], "was": m["content"]} for m in talk] for talk in plain]
    for name, key, rows in (("ours", "messages", plain), ("odd", "talk", odd)):
        text = "".join(json.dumps({key: row}) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    rename = {"messages": "talk", "messages[].role": "wer", "messages[].content": "was"}
    rename |= {f"messages[].role.{ours}": theirs for ours, theirs in roles.items()}
    for name, given_map in (("ours", {}), ("odd", rename)):
        convert([Source(path=str(folder / f"{name}.jsonl"), map=given_map)], "messages", folder / f"{name}.out.jsonl")
    assert (folder / "ours.out.jsonl").read_bytes() == (folder / "odd.out.jsonl").read_bytes()


def test_a_list_that_stands_as_text_is_renamed_too() -> None:
    """As tables carry messages."""
    row, rename = {"m": '[{"who": "H"}]'}, {"messages": "m", "messages[].role": "who"}
    assert renamed(row, rename, json.loads) == {"messages": [{"role": "H"}]}


def test_the_command_line_takes_them(tmp_path: Path) -> None:
    """`--map messages=talk,messages[].role=who,…`"""
    rename = "messages=talk,messages[].role=who,messages[].role.user=Q,messages[].role.assistant=A"
    rows = tmp_path / "t.jsonl"
    rows.write_text(json.dumps({"talk": [{"who": "Q", "content": "q"}, {"who": "A", "content": "a"}]}) + "\n")
    words = ["convert", str(rows), "--to", "pairs", "--map", rename, "-o", str(tmp_path / "o.jsonl")]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    assert json.loads((tmp_path / "o.jsonl").read_text(encoding="utf-8")) == {"prompt": "q", "response": "a"}
