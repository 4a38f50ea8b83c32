"""OpenAI's rows in older and other spellings: read as what they mean, written as ours, and never guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.rows.test_formats import FORMATS, loaded, read
from tests.test_schema import TEXT, conversation, json_text

from qdata.convert import convert
from qdata.recipe import Source

Q = {"role": "user", "content": "q"}
CALL = {"name": "f", "arguments": '{"x": 1}'}
TOOL = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}
WRAPPED = {"type": "function", "function": TOOL}
CALLING = {"role": "assistant", "content": None}


def answer(**fields: Any) -> dict[str, Any]:
    return {"messages": [Q, {"role": "assistant", "content": "a"} | fields]}


@pytest.mark.parametrize(
    ("row", "canonical"),
    [
        (answer() | {"system": "s"}, {"messages": [{"role": "system", "content": "s"}, *answer()["messages"]]}),
        (answer() | {"system": ""}, answer()),
        (answer() | {"system": None, "functions": None}, answer()),
        *(({"messages": [{"role": "system", "content": "s"}, Q], "system": system},
           {"messages": [{"role": "system", "content": "s"}, Q]}) for system in ("s", "", None)),
        (answer(reasoning="r"), answer(reasoning_content="r")),
        (answer(reasoning="r", reasoning_content="r"), answer(reasoning_content="r")),
        (answer(reasoning="r", reasoning_content=None), answer(reasoning_content="r")),
        (answer() | {"functions": [TOOL, {"name": "g"}]},
         answer() | {"tools": [WRAPPED, {"type": "function", "function": {"name": "g"}}]}),
        (answer() | {"functions": json_text([TOOL])}, answer() | {"tools": [WRAPPED]}),
        (answer() | {"functions": []}, answer()),
        (answer() | {"functions": [TOOL], "tools": None}, answer() | {"tools": [WRAPPED]}),
        (answer() | {"functions": [TOOL], "tools": [WRAPPED]}, answer() | {"tools": [WRAPPED]}),
        (answer() | {"functions": [], "tools": [WRAPPED]}, answer() | {"tools": [WRAPPED]}),
        *(({"messages": [Q, CALLING | {"function_call": CALL} | beside]}, {"messages": [Q, {"role": "assistant"}
           | {"tool_calls": [CALL]}]}) for beside in ({}, {"tool_calls": None}, {"tool_calls": []})),
        *((answer(function_call=none), answer()) for none in (None, {}, "", {"name": None, "arguments": None})),
        (answer(function_call={}, tool_calls=[CALL]), answer(tool_calls=[CALL])),
        ({"messages": [Q, CALLING | {"function_call": CALL}, {"role": "function", "name": "f", "content": "1"}]},
         {"messages": [Q, {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "content": "1", "name": "f"}]}),
    ],
    ids=str,
)  # fmt: skip
def test_every_spelling_is_read_and_ours_is_written(
    row: dict[str, Any], canonical: dict[str, Any], tmp_path: Path
) -> None:
    """Claimed, read, nothing of it in `extra`; written it is the canonical row, which says the very same."""
    assert [name for name in FORMATS if FORMATS[name].claims(row)] == ["messages"]
    frame, bad = loaded([row], "messages", tmp_path)
    assert not bad
    assert frame["extra"][0] is None
    (made,) = read([row], "messages", tmp_path)
    written = FORMATS["messages"].write(conversation(None) | made)
    assert written == canonical
    assert read([written], "messages", tmp_path) == [made]


SYSTEM = {"role": "system", "content": "s"}
OTHER = {"type": "function", "function": {"name": "g"}}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [SYSTEM, Q], "system": "t"}, "two system prompts: column `system` and the first message; which"),
        ({"messages": [SYSTEM | {"content": ""}, Q], "system": "t"}, "two system prompts"),
        ({"messages": [Q], "system": ["t"]}, "system: wanted text"),
        ({"messages": [], "system": "t"}, "an empty list of messages"),
        ({"messages": None, "system": "t"}, "no messages"),
        (answer(reasoning="r", reasoning_content="s"), "messages[1]: reasoning_content and reasoning differ, two"),
        (
            answer(function_call="auto"),
            "messages[1]: function_call: wanted an object with name and arguments, got auto",
        ),
        (answer(function_call=[CALL]), "messages[1]: function_call: wanted an object"),
        (answer(function_call={"arguments": "{}"}), "messages[1]: function_call: wanted an object"),
        (answer(function_call=CALL, tool_calls=[CALL]), "messages[1]: tool_calls and function_call both call"),
        (answer() | {"functions": {"name": "f"}}, "functions: wanted a list of objects with a name; --map functions="),
        (answer() | {"functions": ["f"]}, "functions: wanted a list of objects with a name"),
        (answer() | {"functions": [{"description": "d"}]}, "functions: wanted a list of objects with a name"),
        (answer() | {"functions": "search()"}, "functions: wanted a list of objects with a name"),
        (answer() | {"functions": [TOOL], "tools": [OTHER]}, "tools and functions differ"),
    ],
    ids=str,
)
def test_what_contradicts_itself_is_told_and_kept_whole(row: dict[str, Any], reason: str, tmp_path: Path) -> None:
    """Its neighbours are read; nothing is guessed, and `raw` is the row."""
    frame, bad = loaded([answer(), row, answer()], "messages", tmp_path)
    assert frame["row"].to_list() == ["s/rows.jsonl#1", "s/rows.jsonl#3"]
    assert [b.ordinal for b in bad] == [2]
    assert bad[0].reason.startswith(reason)
    assert json.loads(bad[0].raw) == row


@pytest.mark.parametrize("name", ["kto_messages", "messages_rejected"])
def test_dialects_that_are_messages_and_more_read_them_too(name: str, tmp_path: Path) -> None:
    """The system prompt and the functions of a pair or of a judged answer."""
    row = FORMATS[name].sample[0] | {"system": "s", "functions": [TOOL]}
    (made,) = read([row], name, tmp_path)
    assert (made["messages"][0]["role"], made["messages"][0]["content"]) == ("system", "s")
    assert json.loads(made["tools"]) == [WRAPPED]


def test_the_prompt_of_a_pair_is_not_guessed_either(tmp_path: Path) -> None:
    """Two spellings that differ inside `input` of OpenAI's pairs."""
    row = dict(FORMATS["openai_preference"].sample[0])
    row["input"] = {"messages": [Q | {"reasoning": "r", "reasoning_content": "s"}]}
    _, bad = loaded([row], "openai_preference", tmp_path)
    assert [b.reason.partition(" and")[0] for b in bad] == ["input.messages[0]: reasoning_content"]


def test_a_column_that_was_not_read_is_written_so_that_it_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--map system=`: what is not meant as a system prompt does not become one in the next file."""
    monkeypatch.chdir(tmp_path)
    row = answer() | {"system": "linux", "system[]": 1}
    Path("in.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    convert([Source(path="in.jsonl", map={"system": ""})], "messages", Path("out.jsonl"))
    (line,) = Path("out.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line) == answer() | {"system[]": 1, "system[][]": "linux"}


@pytest.mark.parametrize("none", [[], None, "[]", "null", ""])
def test_an_empty_list_of_calls_is_none(none: Any, tmp_path: Path) -> None:
    """As clients fill it in: the answer is its text, and without one it is missing."""
    rows = [answer(tool_calls=none), {"messages": [Q, {"role": "assistant", "content": None, "tool_calls": none}]}]
    frame, bad = loaded(rows, "messages", tmp_path)
    assert [m["tool_calls"] for m in frame["messages"][0]] == [None, None]
    assert [b.reason for b in bad] == ["the answer is null or missing"]


@pytest.mark.parametrize("empty", [None, "", [], {}])
def test_a_column_that_says_nothing_keeps_its_name(empty: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alpaca knows no tools: an empty column of them may be read as none by the next dialect."""
    monkeypatch.chdir(tmp_path)
    row = {"instruction": "q", "output": "a", "tools": empty, "functions": None}
    Path("in.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    convert([Source(path="in.jsonl")], "messages", Path("out.jsonl"))
    (line,) = Path("out.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line) == answer() | {"tools": empty, "functions": None}


def test_what_nobody_read_of_a_turn_is_not_read_later_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ShareGPT knows no reasoning: a key of that name does not become some in the next file, and is not lost."""
    monkeypatch.chdir(tmp_path)
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a", "reasoning": "r", "mood": "m"}]
    Path("in.jsonl").write_text(json.dumps({"conversations": turns}) + "\n", encoding="utf-8")
    convert([Source(path="in.jsonl")], "messages", Path("out.jsonl"))
    (line,) = Path("out.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line) == answer(**{"reasoning[]": "r", "mood": "m"})
    convert([Source(path="in.jsonl")], "sharegpt", Path("back.jsonl"))
    assert json.loads(Path("back.jsonl").read_text(encoding="utf-8")) == {"conversations": turns}


ROWS = st.fixed_dictionaries(
    {"messages": st.lists(st.fixed_dictionaries({"role": st.sampled_from(("system", "user", "function"))},
                                                optional={"reasoning": TEXT}).map(lambda m: m | {"content": "c"}),
                          min_size=1, max_size=3)},
    optional={"system": st.none() | st.sampled_from(["", "c", "s"]), "functions": st.sampled_from([None, [], [TOOL]])},
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=4))
def test_rows_are_read_alone(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    """Against the rule said plainly, whatever the neighbours hold."""
    frame, bad = loaded(rows, "messages", tmp_path_factory.getbasetemp())
    first = [row["messages"][0]["role"] == "system" for row in rows]
    two = [i for i, row in enumerate(rows) if first[i] and row.get("system") == "s"]
    assert [b.ordinal - 1 for b in bad] == two
    wanted = []
    for i, row in enumerate(rows):
        system = [("system", row["system"], None)] if row.get("system") and not first[i] else []
        roles = [{"function": "tool"}.get(m["role"], m["role"]) for m in row["messages"]]
        turns = [(role, "c", m.get("reasoning")) for role, m in zip(roles, row["messages"], strict=True)]
        tools = [WRAPPED] if row.get("functions") else None
        wanted += [(system + turns, tools)] if i not in two else []
    got = [
        ([(m["role"], m["content"], m["reasoning"]) for m in messages], tools and json.loads(tools))
        for messages, tools in frame.select("messages", "tools").iter_rows()
    ]
    assert got == wanted
