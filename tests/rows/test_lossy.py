"""What is left out of a row, and when: with --lossy only, no more than is in the way, told in ledger and manifest."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.rows.test_formats import CALL, CHATS, FORMATS, NAMES, SPECIAL, TOOL, chat, of_kind, said
from tests.test_schema import MESSAGES, TOOLS, conversation, json_text, turn

from qdata import pipeline
from qdata.convert import convert
from qdata.errors import QdataError
from qdata.recipe import DataRecipe, Source
from qdata.rows import kinds
from qdata.rows.detect import detect


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)


def write(rows: list[dict[str, Any]]) -> list[Source]:
    """A file of rows, as the only source."""
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return [Source(path="in.jsonl", name="s")]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(NAMES), st.sampled_from(NAMES), MESSAGES, st.none() | TOOLS.map(json_text))
def test_a_reduced_row_can_be_said_and_nothing_is_added(
    name: str, other: str, messages: list[dict[str, Any]], tools: str | None
) -> None:
    """The dialect expresses it; each message is one of the row's, with the same content and no field it had not.

    Only beside calls a text may go; calls stay, or the text they stood beside does; never is an empty answer left.
    """
    row = of_kind(other, conversation(messages, tools=tools))
    less = kinds.reduced(FORMATS[name], row)
    if kinds.loses(FORMATS[name], row) is None or less is None:
        return
    assert kinds.loses(FORMATS[name], less.conversation) is None
    assert less.left_out
    before = [m for key in ("messages", "chosen") for m in row[key] or []]
    for m in less.conversation["messages"] or []:
        assert any(_is_less(m, one) for one in before)
    assert less.conversation["row"] == row["row"]


def _is_less(m: dict[str, Any], one: dict[str, Any]) -> bool:
    """Whether a message is another one with less in it, and still says what that does."""
    alike = all(m[key] in (None, one[key]) for key in m if key != "tool_calls")
    said = m["content"] == one["content"] or (m["content"] is None and bool(m["tool_calls"]))
    called = bool(m["tool_calls"]) or not one["tool_calls"] or bool(m["content"])
    thought = bool(m["reasoning"]) or not one["reasoning"] or bool(m["content"] or m["tool_calls"])
    return alike and said and called and thought


@pytest.mark.parametrize("name", NAMES)
def test_of_a_lone_system_prompt_nothing_is_left(name: str) -> None:
    """Either the dialect holds such a row, or it says in words that it does not; leaving out the prompt is no way."""
    row = of_kind(name, conversation(chat(system="")))
    if (lost := kinds.loses(FORMATS[name], row)) is None:
        assert FORMATS[name].claims(FORMATS[name].write(row))
    else:
        assert (len(lost) > 3, kinds.reduced(FORMATS[name], row)) == (True, None)


def called(calls: str) -> Any:
    """A question and an answer that is these calls only."""
    return conversation([turn("user", "q"), turn("assistant", None, tool_calls=calls)])


UNWRAPPED = "ids of tool calls, arguments as text"
OPENAI_CALL = json_text([{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x":1.5}'}}])
REDUCED = [
    ("pairs", conversation(chat("q", "a", system="s"), tools=TOOL), "the tools, the system prompt", chat("q", "a")),
    ("alpaca", conversation(chat("q", "a", system="s"), tools=TOOL), "the tools", chat("q", "a", system="s")),
    ("alpaca", SPECIAL["reasoning"], "reasoning", chat("q", "a")),
    ("sharegpt", SPECIAL["name"], "names", chat("q", "a")),
    ("muice", SPECIAL["untrained"], "training flags and weights", chat("q", "a")),
    ("muice", SPECIAL["empty system"], "the system prompt", chat("q", "a")),
    ("sharegpt", SPECIAL["call and text"], "the text beside tool calls", SPECIAL["call"]["messages"]),
    ("sharegpt", SPECIAL["call and empty text"], "the text beside tool calls", SPECIAL["call"]["messages"]),
    ("pairs", SPECIAL["call and text"], "the tools, tool calls", chat("q", "t")),
    ("pairs", SPECIAL["call and empty text"], None, None),
    ("sharegpt", called(OPENAI_CALL), UNWRAPPED, called(json_text([{"name": "f", "arguments": {"x": 1.50}}]))),
    ("llamafactory_v1", called(OPENAI_CALL), UNWRAPPED, called(json_text([{"name": "f", "arguments": {"x": 1.50}}]))),
    ("sharegpt", called(OPENAI_CALL.replace('"{', '"').replace('}"', '"')), None, None),
    ("sharegpt", called('[{"name":"f"}]'), None, None),
    ("sharegpt", called("f(x)"), None, None),
    ("alpaca", conversation([turn("user", "q"), turn("assistant", "", reasoning="r")]), None, None),
    (
        "sharegpt",
        conversation([turn("user", "q"), turn("assistant", None, tool_calls=CALL, reasoning="r", name="n")]),
        "reasoning, names",
        [turn("user", "q"), turn("assistant", None, tool_calls=CALL)],
    ),
    ("alpaca", SPECIAL["call"], None, None),
    ("alpaca", SPECIAL["user last"], None, None),
    ("pairs", SPECIAL["two exchanges"], None, None),
    ("text", SPECIAL["plain"], None, None),
    ("preference", SPECIAL["plain"], None, None),
    ("completion_messages", conversation(chat(system="")), None, None),  # nothing is left of it
    ("kto", SPECIAL["plain"], None, None),
    ("pairs", of_kind("text", SPECIAL["plain"]), None, None),
    ("pairs", of_kind("preference", SPECIAL["plain"]), "the rejected answer", chat("q", "a")),
    ("pairs", of_kind("kto", SPECIAL["plain"]) | {"label": True}, "the verdict on the answer", chat("q", "a")),
    ("pairs", of_kind("kto", SPECIAL["plain"]) | {"label": False}, None, None),
    ("kto", of_kind("preference", SPECIAL["plain"]), None, None),
]


@pytest.mark.parametrize(("name", "row", "left_out", "messages"), REDUCED, ids=[f"{r[0]}-{r[2]}" for r in REDUCED])
def test_no_more_is_left_out_than_is_in_the_way(
    name: str, row: dict[str, Any], left_out: str | None, messages: Any
) -> None:
    """What goes is named; a turn never goes, nor does what only the turn says; an answer judged bad stays away."""
    less = kinds.reduced(FORMATS[name], row)
    assert (less and less.left_out) == left_out
    wanted = messages["messages"] if isinstance(messages, dict) else messages
    assert less is None or less.conversation["messages"] == wanted


def test_lossy_is_told() -> None:
    """Without it the row is refused, with it written; ledger and manifest say what was left out of which row."""
    rows = [FORMATS["messages"].write(SPECIAL[case]) for case in ("reasoning", "plain", "reasoning", "tools")]
    sources = write(rows)
    with pytest.raises(QdataError, match="or leave out what is in the way with --lossy; a row that cannot be"):
        convert(sources, "pairs", Path("out.jsonl"))
    manifest = convert(sources, "pairs", Path("out.jsonl"), lossy=True).manifest
    assert (manifest["rows"]["kept"], manifest["rows"]["edited"]) == (4, 3)
    assert manifest["left_out"] == {"reasoning": 2, "the tools": 1}
    book = pl.read_parquet("out.jsonl.qdata/ledger.parquet")
    assert book["action"].to_list() == ["edited", "kept", "edited", "edited"]
    assert book["reason"].to_list() == ["left out: reasoning", None, "left out: reasoning", "left out: the tools"]
    assert '"reasoning":"r"' in book["before"][0]
    assert '"reasoning"' not in book["after"][0]
    assert json.loads(book["after"][3]) == {"messages": json.loads(book["before"][3])["messages"]}


def test_lossy_sets_aside_what_would_be_another_row() -> None:
    """Turns in another order have no place in alpaca, and nothing that could be left out gives them one."""
    rows = [FORMATS["messages"].write(SPECIAL[case]) for case in ("user last", "plain", "user last")]
    told = convert(write(rows), "alpaca", Path("out.jsonl"), lossy=True).manifest["rows"]
    (why,) = told["dropped"]
    assert why.startswith("convert.alpaca cannot express the order of turns")
    assert (told["in"], told["kept"], told["dropped"][why]) == (3, 1, 2)
    with pytest.raises(QdataError, match="or set these rows aside with --lossy") as caught:
        convert(write(rows), "preference", Path("again.jsonl"))
    assert "leave out" not in str(caught.value), "it would not help"
    with pytest.raises(QdataError, match=r"in.jsonl#1: alpaca cannot express .*\nno row is left to write") as caught:
        convert(write(rows[:1]), "alpaca", Path("again.jsonl"), lossy=True)
    assert "--lossy" not in str(caught.value)
    assert not Path("again.jsonl").exists()


@pytest.mark.parametrize("name", ["messages", "sharegpt", "alpaca"])
@pytest.mark.parametrize(
    ("columns", "is_text"),
    [
        ({"images": ["1.png"]}, False),
        ({"videos": ["1.mp4"]}, False),
        ({"audios": [{"bytes": "x"}]}, False),
        ({"image": "1.png", "note": "<image>"}, False),
        ({"image": "1.png"}, True),
        ({"images": [], "videos": None}, True),
        ({"note": "<image>"}, True),
    ],
    ids=str,
)
def test_pictures_beside_the_text_are_refused(name: str, columns: dict[str, Any], is_text: bool) -> None:
    """One sentence names the column; empty lists, and a word in angle brackets, are no pictures."""
    row = FORMATS[name].sample[0] | columns
    sources = write([FORMATS[name].sample[0], row])
    if is_text:
        assert convert(sources, name, Path("out.jsonl")).manifest["rows"]["kept"] == 2
        return
    with pytest.raises(QdataError, match=rf"line 2: {next(iter(columns))}: pictures, videos and sound are not read"):
        convert(sources, name, Path("out.jsonl"), strict=True)
    told = convert(sources, name, Path("out.jsonl")).manifest["rows"]
    assert told["dropped"] == {"read.multimodal": 1}


def line(role: str | None, text: str) -> dict[str, Any]:
    """A line of a dialogue."""
    return {"role": role, "text": text}


def test_characters_become_roles() -> None:
    """Lines of the one who answers are the answers; all others the user's, by name; neighbours of a side one turn."""
    lines = [
        line("阿虚", "「早」"),
        line("", "（下雨了）"),
        line("春日", "「早」"),
        line("凉宫", "「走！」"),
        line("阿虚", "x"),
    ]
    sources = [Source(path=write([{"dialogue": lines, "id": 1}])[0].path, name="s", character="春日,凉宫")]
    convert(sources, "messages", Path("out.jsonl"))
    (row,) = (json.loads(text) for text in Path("out.jsonl").read_text(encoding="utf-8").splitlines())
    said_by = [(m["role"], m["content"]) for m in row["messages"]]
    assert said_by == [
        ("system", "你是春日。"),
        ("user", "阿虚：「早」\n（下雨了）"),
        ("assistant", "「早」\n「走！」"),
        ("user", "阿虚：x"),
    ]
    assert row["id"] == 1


def test_a_row_may_say_itself_who_answers() -> None:
    """`character` and `system` of the row stand above the option."""
    rows = [
        {"dialogue": [line("a", "q"), line("b", "x")]} | more
        for more in ({"character": "a"}, {"character": "a", "system": ""}, {"character": "a", "system": "s"}, {})
    ]
    convert([Source(path=write(rows)[0].path, character="b")], "messages", Path("out.jsonl"))
    made = [json.loads(text)["messages"] for text in Path("out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [[m["role"] for m in one] for one in made] == [
        ["system", "assistant", "user"], ["assistant", "user"], ["system", "assistant", "user"],
        ["system", "user", "assistant"]]  # fmt: skip
    assert [one[0]["content"] for one in made] == ["你是a。", "q", "s", "你是b。"]


def test_a_name_nobody_has_and_a_dialect_without_names() -> None:
    """A misspelt character is told with the names there are; where there are no characters, the option is refused."""
    rows = [{"dialogue": [line("阿虚", "q"), line("春日", "a"), line("", "x")]}]
    with pytest.raises(QdataError, match=r"no line is of 春曰; .* Lines: 阿虚 1, 春日 1; 1 row has an empty role name"):
        convert([Source(path=write(rows)[0].path, character="春曰")], "messages", Path("out.jsonl"))
    with pytest.raises(QdataError, match=r"in\.jsonl: pairs has no characters; --character is for talks of them"):
        convert([Source(path=write(FORMATS["pairs"].sample)[0].path, character="a")], "messages", Path("out.jsonl"))


def test_lines_of_nobody_are_told() -> None:
    """An empty role is a fault that a step can judge, and comes back as the line it was; null is none."""
    lines = [line("阿虚", "q"), line("", "x\ny"), line("春日", "a"), line("阿虚", "b"), line("春日", "c")]
    named = [line("阿虚", "q"), line("春日", "a"), line(None, "x"), line("春日", "c")]
    file = write([{"dialogue": lines}, {"dialogue": named}])
    source = [Source(path=file[0].path, character="春日")]
    convert(source, "messages", Path("out.jsonl"))
    first, second = (json.loads(text)["messages"] for text in Path("out.jsonl").read_text("utf-8").splitlines())
    assert first[1] == {"role": "user", "content": "阿虚：q\nx\ny", "name": ""}
    assert not any("name" in m for m in [*first[2:], *second])
    convert([Source(path="out.jsonl")], "chatharuhi", Path("back.jsonl"))
    back = [json.loads(text)["dialogue"] for text in Path("back.jsonl").read_text("utf-8").splitlines()]
    assert back == [lines, named]
    with pytest.raises(QdataError, match=r"sharegpt cannot express .*names"):
        convert(source, "sharegpt", Path("sharegpt.jsonl"))


TALK = st.text("：\n「」ab", max_size=8)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(TALK, TALK), min_size=1, max_size=3),
    st.sampled_from([None, "s", "你是a。", "你是a,b。"]),
    st.sampled_from([None, ""]),
)
def test_talk_with_colons_and_line_ends_comes_back(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]], system: str | None, name: str | None
) -> None:
    """A text that looks like lines of several names is the same text again, also where it bears the answerer's name.

    And so is whether a line of a question had an empty name.
    """
    from tests.rows.test_formats import read

    one = conversation(chat(*(text for pair in pairs for text in pair), system=system))
    one["messages"][-2]["name"] = name
    assert FORMATS["chatharuhi"].loses(one) is None
    row = FORMATS["chatharuhi"].write(one)
    assert FORMATS["chatharuhi"].claims(row)
    assert read([row], "chatharuhi", tmp_path_factory.getbasetemp()) == [said(one)]


def test_chatml_is_written_letter_for_letter(tmp_path: Path) -> None:
    """Reasoning and calls stay the text they are; only a missing line end at the very end is added."""
    from tests.rows.test_formats import read

    text = (
        "<|im_start|>system\ns\n\n# Tools<|im_end|>\n<|im_start|>user\n\n<|im_end|>\n"
        "<|im_start|>assistant\n<think>\nr\n</think>\n\n<tool_call>\n{}\n</tool_call><|im_end|>\n"
    )
    for given_text in (text, text[:-1]):
        (one,) = read([{"text": given_text}], "chatml_text", tmp_path)
        assert [m["role"] for m in one["messages"]] == ["system", "user", "assistant"]
        assert FORMATS["chatml_text"].write(one) == {"text": text}


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(CHATS)))
def test_render_takes_one_kind_at_a_time(name: str, qwen2: Path) -> None:
    """The sample of every other kind beside a chat is refused, both files named; alone it makes shards of its kind."""
    (one,) = write(FORMATS[name].sample)
    Path("chat.jsonl").write_text(json.dumps(FORMATS["messages"].sample[0]) + "\n", encoding="utf-8")
    recipe = DataRecipe(sources=(one, Source(path="chat.jsonl")), tokenizer=str(qwen2))
    wanted = rf"^in.jsonl: .* \({name}\); chat.jsonl: conversations \(messages\). .*build each by itself"
    with pytest.raises(QdataError, match=wanted) as refused:
        pipeline.build(recipe, Path("shards"))
    kind = kinds.kind(FORMATS[name])
    assert ("--to messages --lossy" in str(refused.value)) == (kind in ("preference", "judged"))
    assert not Path("shards").exists()
    assert pipeline.build(replace(recipe, sources=(one,)), Path("shards"))["kind"] == kind


def test_a_rendering_beside_a_conversation_is_no_document() -> None:
    """Stanford's alpaca with its `text`: the conversation is read, and the text kept."""
    row = FORMATS["alpaca"].sample[0] | {"text": "Below is an instruction …"}
    found = detect([row], "f")
    assert (found.format, found.keeps) == ("alpaca", ("text",))


JUDGED: list[dict[str, Any]] = [{"rejected": "b"}, {"label": False}, {"kto_tag": True}, {"rejected_response": "b"}]


@pytest.mark.parametrize("more", [*JUDGED, {"chosen_messages": []}])
@pytest.mark.parametrize("name", ["messages", "alpaca", "sharegpt", "pairs"])
def test_a_judged_row_among_chats_is_told(name: str, more: dict[str, Any]) -> None:
    """Most rows are chats, one has a second answer or a verdict: it is not trained as a chat by accident."""
    good = FORMATS[name].sample[0]
    sources = write([good, good | more, good | dict.fromkeys(more), good | {"label": "category"}, good])
    with pytest.raises(QdataError, match=rf"line 2: {next(iter(more))}: a second answer or a verdict in a row of chat"):
        convert(sources, name, Path("out.jsonl"), strict=True)
    told = convert(sources, name, Path("out.jsonl")).manifest["rows"]
    assert told["dropped"] == {"read.judged": 1}
