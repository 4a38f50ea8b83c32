"""Dialects, each file of formats/ alike: told from all others by their rows, and the same conversation both ways."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.test_schema import (
    JSON,
    MESSAGES,
    PLAIN_EXCHANGES,
    TEXT,
    TOOLS,
    conversation,
    conversations,
    frame,
    json_text,
    turn,
)

from qdata import plugin, written
from qdata.cli import main
from qdata.convert import convert
from qdata.errors import QdataError
from qdata.recipe import Source
from qdata.rows import exact, formats, kinds
from qdata.rows.detect import detect
from qdata.rows.load import Loaded, load
from qdata.rows.source import parts_of

NAMES = plugin.names(formats)
FORMATS = {name: plugin.find(formats, name) for name in NAMES}
CHATS = [name for name in NAMES if kinds.kind(FORMATS[name]) == "chat"]
each_format = pytest.mark.parametrize("name", NAMES)


def loaded(rows: Sequence[dict[str, Any]], name: str, folder: Path) -> Loaded:
    """Rows of a dialect, through a file, as CONVERSATION rows."""
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    (part,) = parts_of(file, "s", "rows.jsonl")
    return load(part, name)


def of_kind(name: str, chat: dict[str, Any]) -> dict[str, Any]:
    """A chat as what the dialect holds: its last answer chosen and another one rejected, or judged, or a text."""
    kind, (*before, last) = kinds.kind(FORMATS[name]), chat["messages"]
    if kind == "preference":
        answered = before and last["role"] == "assistant"
        chosen = last if answered else turn("assistant", "a")
        prompt = before if answered else chat["messages"]
        return chat | {"messages": prompt, "chosen": [chosen], "rejected": [turn("assistant", "b")]}
    if kind == "judged":
        return chat | {"label": len(before) % 2 == 0}
    return chat if kind == "chat" else conversation(None, text=last["content"] or "")


def said(row: dict[str, Any]) -> dict[str, Any]:
    """The content of a CONVERSATION row."""
    return {name: row[name] for name in ("messages", "tools", "chosen", "rejected", "label", "text")}


def read(rows: Sequence[dict[str, Any]], name: str, folder: Path) -> list[dict[str, Any]]:
    """What the rows say: the fields that make the content of a conversation."""
    frame, bad = loaded(rows, name, folder)
    assert not bad
    return frame.select("messages", "tools", "chosen", "rejected", "label", "text").to_dicts()


def chat(*contents: str | None, system: str | None = None) -> list[dict[str, Any]]:
    """User and assistant in turn."""
    turns = [turn(("user", "assistant")[i % 2], content) for i, content in enumerate(contents)]
    return turns if system is None else [turn("system", system), *turns]


QUESTION, ANSWER = ([{"role": role, "content": "x"}] for role in ("user", "assistant"))
PAIR = {"conversations": [{"from": "human", "value": "q"}], "rejected": {"from": "gpt", "value": "b"}}
CALL = json_text([{"name": "f", "arguments": {"x": 1}}])
TOOL = json_text([{"name": "f", "parameters": {}}])
# One conversation for each thing that some dialect has no place for.
SPECIAL: dict[str, dict[str, Any]] = {
    "plain": conversation(chat("q", "a")),
    "two exchanges": conversation(chat("q", "a", "q2", "a2")),
    "system": conversation(chat("q", "a", system="s")),
    "empty system": conversation(chat("q", "a", system="")),
    "system later": conversation([*chat("q", "a"), turn("system", "s"), *chat("q", "a")]),
    "user last": conversation(chat("q", "a", "q2")),
    "assistant first": conversation([turn("assistant", "a"), *chat("q", "a")]),
    "only an answer": conversation([turn("assistant", "a")]),
    "two answers": conversation([*chat("q", "a"), turn("assistant", "b")]),
    "reasoning": conversation([turn("user", "q"), turn("assistant", "a", reasoning="r")]),
    "name": conversation([turn("user", "q", name="n"), turn("assistant", "a")]),
    "untrained": conversation([turn("user", "q"), turn("assistant", "a", train=False)]),
    "reasoning of a question": conversation([turn("user", "q", reasoning="r"), turn("assistant", "a")]),
    "untrained question": conversation([turn("user", "q", train=False), turn("assistant", "a")]),
    "weight of a system prompt": conversation([turn("system", "s", weight=0.0), *chat("q", "a")]),
    "weight": conversation([turn("user", "q"), turn("assistant", "a", weight=0.5)]),
    "call": conversation([turn("user", "q"), turn("assistant", None, tool_calls=CALL)], tools=TOOL),
    "call and text": conversation([turn("user", "q"), turn("assistant", "t", tool_calls=CALL)], tools=TOOL),
    "call and empty text": conversation([turn("user", "q"), turn("assistant", "", tool_calls=CALL)], tools=TOOL),
    "tools": conversation(chat("q", "a"), tools=TOOL),
    "tool's answer": conversation([turn("user", "q"), turn("assistant", None, tool_calls=CALL), turn("tool", "1"),
                                   turn("assistant", "a")]),
}  # fmt: skip


@each_format
def test_samples_are_claimed_by_their_own_dialect_only(name: str) -> None:
    """Each sample row is told by its keys and values; no other dialect takes it for its own."""
    assert FORMATS[name].sample
    for row in FORMATS[name].sample:
        assert [other for other in NAMES if FORMATS[other].claims(row)] == [name]
        assert detect([row], "f").format == name


@each_format
def test_samples_come_back(name: str, tmp_path: Path) -> None:
    """read → write → read is the identity on what the samples say; each has a question and an answer."""
    first = read(FORMATS[name].sample, name, tmp_path)
    for one in first:
        assert kinds.kind_of(one) == kinds.kind(FORMATS[name])
        answers = {"user"} if one["chosen"] else {"user", "assistant"}
        assert one["text"] or answers <= {m["role"] for m in one["messages"]}
    written = [FORMATS[name].write(conversation(None) | one) for one in first]
    assert all(FORMATS[name].claims(row) for row in written)
    assert read(written, name, tmp_path) == first


@each_format
@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(MESSAGES, st.none() | TOOLS.map(json_text)), min_size=1, max_size=4))
def test_what_a_dialect_can_say_comes_back(
    name: str, tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[list[dict[str, Any]], str | None]]
) -> None:
    """Where `loses` says nothing, write → read gives the very same conversation, and the dialect knows its own row."""
    made = [SPECIAL["plain"], *(conversation(messages, tools=tools) for messages, tools in rows)]
    made = [one for one in (of_kind(name, chat) for chat in made) if kinds.loses(FORMATS[name], one) is None]
    written = [FORMATS[name].write(one) for one in made]
    assert all(FORMATS[name].claims(row) for row in written)
    back = read(written, name, tmp_path_factory.getbasetemp())
    assert back == [said(one) for one in made]


@each_format
@pytest.mark.parametrize("case", SPECIAL)
def test_what_is_lost_is_said(name: str, case: str, tmp_path: Path) -> None:
    """Either `loses` names what has no place in the dialect, or the conversation comes back whole."""
    one = of_kind(name, SPECIAL[case])
    if (lost := kinds.loses(FORMATS[name], one)) is not None:
        assert len(lost) > 3, lost
        return
    assert read([FORMATS[name].write(one)], name, tmp_path) == [said(one)]


# Columns nobody knows: some with names that have a place of their own, in some dialects or in all.
KEYS = st.sampled_from(
    ["id", "text", "label", "messages[]", "input", "score", "scores", "output", "tools", "", "{", '"']
)
EXTRA = st.dictionaries(KEYS | TEXT, JSON | st.just("text"), max_size=3).map(
    lambda made: exact.text(made) if made else None
)


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if hasattr(form, "lines")])
@settings(max_examples=80, deadline=None)
@given(chats=st.lists(conversations() | PLAIN_EXCHANGES.map(conversation), min_size=1, max_size=4), data=st.data())
def test_what_is_written_by_columns_is_what_rows_are_written_as(name: str, chats: Any, data: st.DataObject) -> None:
    """`lines` gives the very bytes that `write` would, or leaves the row to it; plain rows it never leaves."""
    form = FORMATS[name]
    rows = [chat | {"extra": data.draw(EXTRA)} for chat in chats]
    rows += [of_kind(name, row) | {"extra": row["extra"]} for row in rows if row["messages"]]
    for row, line in zip(rows, written._lines(form, frame(rows)).to_list(), strict=True):
        if line is not None:
            assert kinds.loses(form, row) is None
            assert line.encode() == exact.dumps(written._with_the_rest(form, row))
    plain = conversation([turn("user", "q\n\u2028"), turn("assistant", '"a" 你')])
    (line,) = written._lines(form, frame([of_kind(name, plain) | {"extra": '{"id":1}'}]))
    assert line is not None and line.endswith(',"id":1}')


def test_the_dialects_can_be_listed() -> None:
    """`qdata formats` names every dialect with a row of it."""
    listed = CliRunner().invoke(main, ["formats"], catch_exceptions=False).stdout.splitlines()
    assert [line.partition(":")[0] for line in listed[::2]] == NAMES
    assert [json.loads(line) for line in listed[1::2]] == [FORMATS[name].sample[0] for name in NAMES]


def test_messages_loses_nothing_and_plain_rows_are_lost_by_none() -> None:
    """One dialect expresses everything, and every dialect expresses a question with its answer."""
    for name in ("messages", "preference_messages", "openai_preference", "kto_messages"):
        every = {case: of_kind(name, one) for case, one in SPECIAL.items()}
        assert {case for case, one in every.items() if kinds.loses(FORMATS[name], one)} == set()
    assert {name for name in NAMES if kinds.loses(FORMATS[name], of_kind(name, SPECIAL["plain"]))} == set()
    assert {name for name in CHATS if FORMATS[name].loses(SPECIAL["reasoning"]) is None} >= {"messages", "moss"}


@each_format
def test_a_row_of_another_kind_is_lost_whole(name: str) -> None:
    """A pair is no chat, a chat no pair, and text neither: each dialect says so, whatever the row holds."""
    for other in NAMES:
        if kinds.kind(FORMATS[other]) != kinds.kind(FORMATS[name]):
            lost = kinds.loses(FORMATS[name], of_kind(other, SPECIAL["plain"]))
            assert lost is not None
            assert kinds.is_of_other_kind(lost)


@pytest.mark.parametrize("name", CHATS)
@pytest.mark.parametrize("judged", [{"rejected": "b"}, {"chosen": "a", "rejected": "b"}, {"rejected_response": "b"},
                                    {"rejected_messages": []}, {"label": False}, {"kto_tag": True}, {"kto_tag": 1},
                                    {"label": 0}, {"label": 1.0}, {"kto_tag": "False"}])  # fmt: skip
def test_answers_to_choose_from_are_no_chat(name: str, judged: dict[str, Any]) -> None:
    """A second answer or a verdict beside a chat: no dialect of chats claims it, for some is not to be imitated."""
    (row,) = FORMATS[name].sample[:1]
    others = [other for other in CHATS if FORMATS[other].claims(row | judged)]
    assert others == (["input_label"] if name == "input_label" and judged == {"label": "False"} else [])
    assert FORMATS[name].claims(row | {"label": "category", "reward": 0.5})
    assert FORMATS[name].claims(row | {"label": {"ability": ["maths"]}}) == (name != "input_label")


@each_format
@pytest.mark.parametrize("case", [c for c in SPECIAL if c != "plain"])
def test_convert_refuses_what_would_be_lost(
    name: str, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`loses` non-null: the file is refused with the row's id and the words; else it is written."""
    monkeypatch.chdir(tmp_path)
    lost = kinds.loses(FORMATS[name], SPECIAL[case])
    row = FORMATS["messages"].write(SPECIAL[case])
    Path("in.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    go = [Source(path="in.jsonl", name="s")], name, Path("out.jsonl")
    if lost is None:
        assert convert(*go).manifest["rows"]["kept"] == 1
        return
    with pytest.raises(QdataError) as caught:
        convert(*go)
    assert f"s/in.jsonl#1: {name} cannot express {lost}" in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["in.jsonl"]


@each_format
def test_any_value_anywhere_is_claimed_or_not(name: str) -> None:
    """A list where a role should be is no role, and no crash; neither is anything else."""
    (row,) = FORMATS[name].sample[:1]
    for other in places(row):
        if isinstance(other, dict):
            assert all(form.claims(other) in (True, False) for form in FORMATS.values())


def places(value: Any) -> Iterator[Any]:
    """The value with another one in each of its places, one by one."""
    yield from (None, True, 1, 0.5, "", "a", [], {}, [[]], [{}], [None], ["a"], {"a": {}})
    if isinstance(value, dict):
        yield from (value | {key: other} for key in value for other in places(value[key]))
    elif isinstance(value, list):
        yield from ([*value[:i], other, *value[i + 1 :]] for i in range(len(value)) for other in places(value[i]))


def test_a_verdict_in_words_is_one(tmp_path: Path) -> None:
    """As a cell of a CSV file or a workbook has it: judged, and never a chat whose bad answer is imitated."""
    rows = [{"prompt": "q", "completion": "a", "label": word} for word in ("true", "FALSE", "True")]
    assert [one["label"] for one in read(rows, "kto", tmp_path)] == [True, False, True]
    frame, bad = loaded([{"prompt": "q", "response": "a", "label": "False"}], "pairs", tmp_path)
    assert (frame.height, [b.code for b in bad]) == (0, ["judged"])
    assert read([{"input": "q", "label": "false"}], "input_label", tmp_path)[0]["messages"] == chat("q", "false")


def test_no_tools_in_a_cell_are_none(tmp_path: Path) -> None:
    """In CSV an empty cell: the same conversation as without the column."""
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    pair = {"prompt": row["messages"][:1], "chosen": row["messages"][1:], "rejected": row["messages"][1:]}
    for name, more in (("messages", {}), ("kto_messages", {"label": True}), ("preference_messages", pair)):
        assert read([row | more | {"tools": ""}], name, tmp_path) == read([row | more], name, tmp_path)


def test_a_text_in_a_cell_stays_one_though_it_is_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that are JSON are told from columns of lists by what a dialect knows."""
    monkeypatch.chdir(tmp_path)
    Path("f.csv").write_text('prompt,response\nq,"[1, 2]"\nq2,"{""a"": {}}"\n', encoding="utf-8")
    done = convert([Source(path="f.csv")], "pairs", Path("out.jsonl"))
    assert done.inputs[0].detection.format == "pairs"
    rows = [json.loads(line) for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows == [{"prompt": "q", "response": "[1, 2]"}, {"prompt": "q2", "response": '{"a": {}}'}]


def test_alpaca_joins_instruction_and_input(tmp_path: Path) -> None:
    """Input on a new line where it is not empty; system and history before; null, missing and empty mean none."""
    rows: list[dict[str, Any]] = [
        {"instruction": "i", "input": "x", "output": "o"},
        {"instruction": "i", "input": "", "output": "o"},
        {"instruction": "i", "input": None, "output": "o", "system": None, "history": None},
        {"instruction": "i", "output": "o", "system": "", "history": []},
        {"instruction": "i", "output": "o", "system": "s", "history": [["q", "a"], ["q2", "a2"]]},
        {"instruction": "", "input": "x", "output": "o"},
        {"instruction": None, "input": "x", "output": "o"},
        {"instruction": "", "input": "", "output": "o"},
    ]
    wanted = [chat("i\nx", "o"), *[chat("i", "o")] * 3, chat("q", "a", "q2", "a2", "i", "o", system="s")]
    wanted += [chat("x", "o"), chat("x", "o"), chat("", "o")]
    assert [one["messages"] for one in read(rows, "alpaca", tmp_path)] == wanted


def test_sharegpt_reads_every_spelling(tmp_path: Path) -> None:
    """All names of the roles, a system column, tools as text, and a call as an object or a list of them."""
    pairs = [("human", "user"), ("user", "user"), ("system", "system"), ("observation", "tool"), ("tool", "tool")]
    pairs += [(theirs, "assistant") for theirs in ("gpt", "assistant", "chatgpt", "bing", "bard")]
    rows: list[dict[str, Any]] = [{"conversations": [{"from": theirs, "value": "v"} for theirs, _ in pairs]}]
    rows.append({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "s",
                 "tools": ""})  # fmt: skip
    call = '{"name": "f", "arguments": {}}'
    rows += [{"conversations": [{"from": "function_call", "value": v}], "tools": "[1]"} for v in (call, f"[{call}]")]
    spelled, system, one, several = read(rows, "sharegpt", tmp_path)
    assert spelled["messages"] == [turn(ours, "v") for _, ours in pairs]
    assert (system["messages"], system["tools"]) == (chat("q", "a", system="s"), None)
    assert one == several
    assert one["messages"] == [turn("assistant", None, tool_calls=f"[{call}]")]
    assert one["tools"] == "[1]"


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": "f(x)"}]},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "tools": "f(x): doubles x"},
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "tools": "none"},
    ],
    ids=["call", "tools in sharegpt", "tools in messages"],
)
def test_calls_and_tools_that_are_no_json(row: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text where JSON belongs is refused in words or comes back as it was; it is no crash."""
    monkeypatch.chdir(tmp_path)
    Path("in.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    try:
        convert([Source(path="in.jsonl")], "messages", Path("out.jsonl"))
    except QdataError:
        return
    text = Path("out.jsonl").read_text(encoding="utf-8")
    assert "f(x)" in text or "none" in text


@pytest.mark.parametrize(
    ("rows", "label"),
    [
        ([{"text": ["once upon a time"]}], "text"),
        ([{}], ""),
        ([{"messages": []}], "messages"),
        ([{"messages": [{"role": "user", "content": [{"text": "q"}]}]}], "messages"),
        ([{"messages": [{"role": "user", "content": []}]}], "messages"),
        ([{"conversation": [{"input": "", "output": "once upon a time"}]}], "conversation"),
        ([{"conversation": [{"input": "q", "output": "a"}], "system": "s"}], "conversation, system"),
        ([{"chat": {"first": {"Human": "q", "MOSS": "a"}}}], "chat"),
        ([{"messages": [{"role": "human", "content": "q"}]}], "messages"),
        ([{"conversations": [{"from": "me", "value": "q"}]}], "conversations"),
        ([{"conversation": [{"human": "q"}]}], "conversation"),
        ([{"prompt": [{"role": "user"}], "response": "a"}], "prompt, response"),
        ([{"instruction": "q", "chosen": "a", "output": "c"}], "instruction"),
        ([{"question": "q", "answer": "a"}] * 3 + [{"prompt": "q", "response": "a"}] * 2, "question, answer"),
    ],
)
def test_an_unknown_dialect_is_refused(rows: list[dict[str, Any]], label: str) -> None:
    """Nothing is guessed: the keys of the first row, the row, the dialects we know, and how to name the columns."""
    with pytest.raises(QdataError) as caught:
        detect(rows, "f.jsonl")
    told = str(caught.value)
    assert told.startswith(f"f.jsonl: rows of an unknown dialect. The first has the keys {label}")
    assert json.dumps(rows[0])[:100] in told
    shared = [name for name in NAMES if FORMATS[name].sample[0].keys() & rows[0].keys()]
    assert all(f"{name} has " in told for name in shared)
    assert shared or "none has one of these columns" in told
    assert f"`qdata formats` shows all {len(NAMES)}" in told
    assert "--map" in told


def test_rows_of_two_dialects_at_once_are_refused() -> None:
    """A row that two dialects claim alike: both are named, and --from decides."""
    row = FORMATS["pairs"].sample[0] | FORMATS["messages"].sample[0]
    with pytest.raises(QdataError, match=r"f: the rows fit messages and pairs alike; say which with --from messages"):
        detect([row], "f")
    assert detect([row], "f", only="pairs").format == "pairs"
    half = [FORMATS["pairs"].sample[0], FORMATS["muice"].sample[0]]
    with pytest.raises(
        QdataError, match=r"Of the 2 looked at 1 is muice, 1 is pairs; row 2 .* first that is not pairs"
    ):
        detect(half, "f")


def test_the_most_claimed_dialect_wins() -> None:
    """At least half of the rows must speak it; the share and one row that does are told."""
    odd: dict[str, Any] = {"x": 1}
    sample = FORMATS["pairs"].sample[0]
    columns = {"prompt": "prompt", "response": "response"}
    assert detect([odd, sample, sample], "f") == ("pairs", 2 / 3, sample, columns, ("x",))
    assert detect([odd, sample], "f") == ("pairs", 0.5, sample, columns, ("x",))
    mapped = detect([{"q": "a", "response": "b", "score": 1}], "f", {"prompt": "q"})
    assert (mapped.reads, mapped.keeps) == ({"prompt": "q", "response": "response", "score": "score"}, ())
    with pytest.raises(QdataError, match="unknown dialect"):
        detect([odd, odd, sample], "f")


def test_a_named_dialect_is_not_believed_either() -> None:
    """--from must be what the rows speak."""
    with pytest.raises(QdataError, match=r"f: rows that are not alpaca\. The first has the keys prompt, response"):
        detect(FORMATS["pairs"].sample, "f", only="alpaca")


def test_a_map_is_applied_before_looking() -> None:
    """Renamed columns make a dialect; the sample shown is the row as it stands in the file."""
    row = {"question": "q", "answer": "a"}
    found = detect([row], "f", {"prompt": "question", "response": "answer"})
    assert found == ("pairs", 1.0, row, {"prompt": "question", "response": "answer"}, ())


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("pairs", {"prompt": "q", "response": None}, "the answer is null or missing"),
        ("pairs", {"prompt": "q"}, "the answer is null or missing"),
        ("pairs", {"prompt": None, "response": "a"}, "a message without content"),
        ("alpaca", {"instruction": "q", "output": None}, "the answer is null or missing"),
        ("alpaca", {"instruction": None, "output": "a"}, "a message without content"),
        ("alpaca", {"instruction": "q", "output": "a", "history": [["q"]]}, "the answer is null or missing"),
        ("alpaca", {"instruction": "q", "output": "a", "history": [["q", None]]}, "the answer is null or missing"),
        ("muice", {"conversation": [{"human": "q", "assistant": None}]}, "the answer is null or missing"),
        ("muice", {"conversation": [{"assistant": "a"}]}, "a message without content"),
        ("muice", {"conversation": []}, "an empty list of messages"),
        ("muice", {"system": "s"}, "no messages"),
        ("messages", {"messages": [{"role": "user", "content": "q"}, {"role": "assistant"}]}, "the answer is null or"),
        ("messages", {"messages": [{"role": "user"}]}, "a message without content"),
        (
            "messages",
            {"messages": [{"content": "q"}]},
            "message 0: no role; wanted one of system, user, assistant, tool",
        ),
        (
            "messages",
            {"messages": [*QUESTION, {"role": "User", "content": "q"}]},
            'message 1: role "User" is not one of sys',
        ),
        ("messages", {"messages": [{"role": "x" * 99, "content": "q"}]}, f'message 0: role "{"x" * 56}… is not one of'),
        ("messages", {"messages": [None]}, "message 0: no role; wanted one of"),
        ("messages", {"messages": []}, "an empty list of messages"),
        ("messages", {"text": "t"}, "no messages"),
        ("sharegpt", {"conversations": [{"from": "gpt", "value": None}]}, "the answer is null or missing"),
        ("sharegpt", {"conversations": [{"from": "human"}]}, "a message without content"),
        ("sharegpt", {"conversations": [{"value": "q"}]}, "message 0: no role; wanted one of"),
        ("preference", {"prompt": "q", "chosen": "a"}, "the rejected answer is null or missing"),
        ("preference", {"prompt": "q", "rejected": "b", "chosen": None}, "the chosen answer is null or missing"),
        ("preference", {"prompt": None, "rejected": "b", "chosen": "a"}, "a message without content"),
        (
            "sharegpt_preference",
            {"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt"}},
            "the chosen answer is null or missing",
        ),
        ("sharegpt_preference", PAIR | {"chosen": {"from": "human", "value": "x"}}, "chosen: a turn that is not the"),
        ("sharegpt_preference", PAIR | {"chosen": {"from": "gpt", "value": "x", "y": 1}}, "chosen: wanted nothing but"),
        ("preference_messages", {"prompt": [], "chosen": ANSWER, "rejected": ANSWER}, "an empty list of messages"),
        ("preference_messages", {"prompt": QUESTION, "chosen": [], "rejected": ANSWER}, "the chosen answer is null"),
        ("preference_repeated", {"chosen": QUESTION + ANSWER, "rejected": ANSWER}, "chosen and rejected differ before"),
        ("preference_repeated", {"chosen": ANSWER, "rejected": ANSWER}, "an empty list of messages"),
        ("preference_repeated", {"chosen": QUESTION, "rejected": QUESTION}, "chosen: a turn that is not the"),
        ("ultrafeedback", {"prompt": "y", "chosen": QUESTION + ANSWER, "rejected": QUESTION + ANSWER}, "prompt: is no"),
        (
            "llamafactory_v1_preference",
            {"chosen_messages": [{"role": "assistant", "content": []}]},
            "the chosen answer is",
        ),
        ("openai_preference", {"input": {"messages": QUESTION, "x": 1}}, "input: wanted nothing but messages, tools"),
        ("hh_rlhf", {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "b"}, "rejected: no talk of Human and"),
        (
            "hh_rlhf",
            {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "x\n\nHuman: q\n\nAssistant: a"},
            "rejected: a text before the first mark",
        ),
        (
            "hh_rlhf",
            {"chosen": "\n\nHuman: q\n\nAssistant: a\n\nHuman: r", "rejected": "\n\nHuman: q"},
            "chosen: the last turn is no answer",
        ),
        (
            "hh_rlhf",
            {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: r\n\nAssistant: a"},
            "chosen and rejected differ before their last turn",
        ),
        ("kto", {"prompt": "q", "completion": "a"}, "no label; wanted true or false"),
        ("kto", {"prompt": "q", "completion": "a", "label": 2}, "label: wanted true or false, got 2"),
        ("kto", {"prompt": "q", "completion": "a", "label": "good"}, 'label: wanted true or false, got "good"'),
        ("kto", {"prompt": "q", "completion": "a", "label": True, "kto_tag": False}, "label and kto_tag differ"),
        ("text", {"x": "y"}, "no messages"),
        ("chatml_text", {"text": "<|im_start|>user\nq"}, "text: wanted <|im_start|>ROLE"),
        (
            "chatml_text",
            {"text": "<|im_start|>user\nq\n<|im_start|>assistant\na<|im_end|>"},
            "text: wanted <|im_start|>",
        ),
        ("chatml_text", {"text": "<|im_start|>me\nq<|im_end|>\n"}, "text: wanted <|im_start|>ROLE"),
        ("chatml_text", {"text": "<|im_start|>user\nq<|im_end|>\n\n"}, "text: wanted <|im_start|>ROLE"),
        ("swift", {"query": "q", "response": None}, "the answer is null or missing"),
        (
            "swift",
            {"query": "q", "response": "a", "history": [["a", "b", "c"]]},
            "history[0]: wanted [query, response]",
        ),
        ("chatharuhi", {"dialogue": [], "character": "c"}, "dialogue: no lines"),
        ("chatharuhi", {"dialogue": [{"role": "c", "text": None}], "character": "c"}, "dialogue[0]: a line without a"),
    ],
)
def test_a_row_that_is_no_conversation_is_told(name: str, row: dict[str, Any], reason: str, tmp_path: Path) -> None:
    """A null or missing answer, a turn without text or role: its reason; its neighbours are kept."""
    good = FORMATS[name].sample[0]
    frame, bad = loaded([good, row, good], name, tmp_path)
    assert frame["row"].to_list() == ["s/rows.jsonl#1", "s/rows.jsonl#3"]
    assert [(b.ordinal, b.reason[: len(reason)]) for b in bad] == [(2, reason)]
    assert json.loads(bad[0].raw) == row


def test_a_history_entry_is_a_pair(tmp_path: Path) -> None:
    """What stands behind question and answer in alpaca's history is not lost in silence."""
    frame, bad = loaded([{"instruction": "q", "output": "a", "history": [["q", "a", "more"]]}], "alpaca", tmp_path)
    assert frame.is_empty()
    assert [b.reason for b in bad] == ["history[0]: wanted [question, answer], got more than two texts"]


def test_unknown_roles_are_one_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each message names its role and place; counted they are one kind of mistake."""
    monkeypatch.chdir(tmp_path)
    odd = [{"messages": [*QUESTION, *ANSWER, {"role": role, "content": "x"}]} for role in ("narrator", "critic")]
    good = {"messages": [*QUESTION, *ANSWER]}
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [good, good, *odd]), encoding="utf-8")
    done = convert([Source(path="in.jsonl")], "messages", Path("out.jsonl"))
    assert done.manifest["rows"]["dropped"] == {"read.unknown_role": 2}
    told = [json.loads(text)["reason"] for text in pl.read_parquet("out.jsonl.qdata/dropped.parquet")["extra"]]
    wanted = "is not one of system, user, assistant, tool"
    assert told == [f'message 2: role "{role}" {wanted}' for role in ("narrator", "critic")]
