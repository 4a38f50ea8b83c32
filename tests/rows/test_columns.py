"""Nothing is lost between a row and its columns: what a dialect knows and the rest as JSON text make the row again."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.test_schema import FLOATS, JSON, TEXT, WEIGHTS

from qdata import plugin
from qdata.rows import formats
from qdata.rows.columns import columns, struct_fields
from qdata.rows.formats.alpaca import Alpaca
from qdata.rows.formats.llamafactory_v1 import LlamafactoryV1
from qdata.rows.formats.messages import Messages
from qdata.rows.formats.moss import Moss
from qdata.rows.source import Bad, Rows

WITH_SCORE = {"score": pl.Float64}
MESSAGES = Messages.columns | WITH_SCORE
ALPACA = Alpaca.columns | WITH_SCORE
PARTS = LlamafactoryV1.columns | WITH_SCORE
TURNS = Moss.columns | WITH_SCORE


def taken(rows: list[dict[str, Any]], wanted: dict[str, Any], rename: dict[str, str] | None = None) -> Any:
    """The frame's rows as dicts, and the bad rows; ordinals count by ten."""
    frame, bad = columns(Rows([10 * i for i in range(1, len(rows) + 1)], rows, []), wanted, rename)
    return frame.to_dicts(), bad


def said(value: Any) -> str:
    """JSON text: tells 1 from 1.0 and true, and one order of keys from another."""
    return json.dumps(value, ensure_ascii=False)


KEYS = TEXT.filter(lambda key: key not in ALPACA)
ALPACA_ROWS = st.builds(
    lambda known, unknown: known | unknown,
    st.fixed_dictionaries(
        {"instruction": TEXT, "output": TEXT},
        optional={"input": TEXT, "system": TEXT, "score": FLOATS, "history": st.lists(st.tuples(TEXT, TEXT).map(list))},
    ),
    st.dictionaries(KEYS, JSON, max_size=4),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ALPACA_ROWS, min_size=1, max_size=3))
def test_columns_and_extra_make_the_row_again(rows: list[dict[str, Any]]) -> None:
    """Known columns beside the parsed `extra` are the row, value for value, unknown nulls and empties included."""
    made, bad = taken(rows, ALPACA)
    assert not bad
    assert [row["ordinal"] for row in made] == [10, 20, 30][: len(rows)]
    for row, one in zip(rows, made, strict=True):
        known = {k: v for k, v in one.items() if k in ALPACA and v is not None}
        rest = json.loads(one["extra"]) if one["extra"] else {}
        assert known == {k: v for k, v in row.items() if k in ALPACA}
        assert said(rest) == said({k: v for k, v in row.items() if k not in ALPACA})


KNOWN_OF_A_MESSAGE = struct_fields(MESSAGES["messages"])
RAW_MESSAGES = st.builds(
    lambda known, unknown: known | unknown,
    st.fixed_dictionaries(
        {"role": TEXT, "content": TEXT},
        optional={"name": TEXT, "train": st.booleans(), "weight": WEIGHTS, "reasoning_content": TEXT},
    ),
    st.dictionaries(TEXT.filter(lambda key: key not in KNOWN_OF_A_MESSAGE), JSON, max_size=2),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(RAW_MESSAGES, min_size=1, max_size=3), min_size=1, max_size=2))
def test_unknown_keys_of_messages_come_back(rows: list[list[dict[str, Any]]]) -> None:
    """`"messages[]"` in `extra` holds, message by message, what nobody knew; with the known keys it is the message."""
    made, bad = taken([{"messages": messages} for messages in rows], MESSAGES)
    assert not bad
    for messages, one in zip(rows, made, strict=True):
        unknown = json.loads(one["extra"])["messages[]"] if one["extra"] else [{}] * len(messages)
        assert (one["extra"] is None) == all(m.keys() <= KNOWN_OF_A_MESSAGE for m in messages)
        for message, known, rest in zip(messages, one["messages"], unknown, strict=True):
            assert {k: v for k, v in known.items() if v is not None} | rest == message
            assert said(rest) == said({k: v for k, v in message.items() if k not in KNOWN_OF_A_MESSAGE})


def test_tools_and_calls_are_json_text() -> None:
    """As Arrow structs they would be padded with other rows' null keys; text that is text already stays as it is."""
    call, tool = {"name": "f", "arguments": {"x": 1}}, {"name": "f", "parameters": {"a": {}}}
    rows = [
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [call]}], "tools": [tool, {"name": "g"}]},
        {"messages": [{"role": "assistant", "content": "", "tool_calls": '[{"name": "f"}]'}], "tools": "[ ]"},
        {"messages": [{"role": "user", "content": "q"}]},
    ]
    made, bad = taken(rows, MESSAGES)
    assert not bad
    assert [row["tools"] for row in made] == ['[{"name":"f","parameters":{"a":{}}},{"name":"g"}]', "[ ]", None]
    calls = [row["messages"][0]["tool_calls"] for row in made]
    assert calls == ['[{"name":"f","arguments":{"x":1}}]', '[{"name": "f"}]', None]


@pytest.mark.parametrize("whole", [2**53 + 1, 2**63, 2**64 + 1, 10**29, -(2**63) - 1])
def test_whole_numbers_come_back_to_the_last_digit(whole: int) -> None:
    """An id of 20 or 30 digits in a column nobody knows is not rounded: nothing is lost."""
    from qdata.rows.containers._objects import objects

    line = f'{{"instruction": "q", "output": "a", "id": {whole}}}'.encode()
    frame, bad = columns(objects([1], [line]), ALPACA)
    assert not bad
    assert said(json.loads(frame["extra"][0])) == said({"id": whole})


MISFITS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (ALPACA, {"instruction": ["q"]}, 'instruction: wanted text, got ["q"]'),
    (ALPACA, {"instruction": {"q": 1}}, 'instruction: wanted text, got {"q": 1}'),
    (ALPACA, {"history": "q"}, 'history: wanted a list, got "q"'),
    (ALPACA, {"history": {"q": "a"}}, 'history: wanted a list, got {"q": "a"}'),
    (ALPACA, {"history": ["qa"]}, 'history[0]: wanted a list, got "qa"'),
    (ALPACA, {"history": [{"q": "a"}]}, 'history[0]: wanted a list, got {"q": "a"}'),
    (ALPACA, {"history": [["q", ["a"]]]}, 'history[0][1]: wanted text, got ["a"]'),
    (MESSAGES, {"messages": "hi"}, 'messages: wanted a list, got "hi"'),
    (MESSAGES, {"messages": {"role": "user"}}, 'messages: wanted a list, got {"role": "user"}'),
    (MESSAGES, {"messages": ["hi"]}, 'messages[0]: wanted an object, got "hi"'),
    (MESSAGES, {"messages": [{"role": "user", "content": ["x"]}]}, 'messages[0].content: wanted text, got ["x"]'),
    (MESSAGES, {"messages": [{"role": "user"}, {"role": []}]}, "messages[1].role: wanted text, got []"),
    (MESSAGES, {"messages": [{"role": "a", "train": "no"}]}, 'messages[0].train: wanted true or false, got "no"'),
    (MESSAGES, {"messages": [{"role": "a", "weight": "x"}]}, 'messages[0].weight: wanted a number, got "x"'),
    (MESSAGES, {"messages": [{"loss": 1}]}, "messages[0].loss: wanted true or false, got 1"),
    (MESSAGES, {"messages": [{"loss_scale": True}]}, "messages[0].loss_scale: wanted a number, got true"),
    (
        MESSAGES,
        {"messages": [{"weight": 2**53 + 1}]},
        ("messages[0].weight: wanted a number of at most 53 bits, got 9007199254740993"),
    ),
    (
        MESSAGES,
        {"messages": [{"content": [{"type": "image_url", "image_url": 1}]}]},
        (
            "messages[0].content: wanted text,"
            ' and no part of type image_url, got [{"type": "image_url", "image_url": 1}]'
        ),
    ),
    (
        MESSAGES,
        {"messages": [{"content": [{"type": "text", "text": "a"}, {"type": "audio"}]}]},
        (
            "messages[0].content: "
            'wanted text, and no part of type audio, got [{"type": "text", "text": "a"}, {"type": "audio"}]'
        ),
    ),
    (
        MESSAGES,
        {"messages": [{"content": [{"type": "text"}] * 2}]},
        (
            "messages[0].content: wanted text, or one part "
            'with nothing but type and text, got [{"type": "text"}, {"type": "text"}]'
        ),
    ),
    (
        MESSAGES,
        {"messages": [{"content": [{"type": "text", "text": "a", "x": 1}]}]},
        (
            "messages[0].content: wanted text,"
            ' or one part with nothing but type and text, got [{"type": "text", "text": "a", "x": 1}]'
        ),
    ),
    (PARTS, {"messages": [{"content": "a"}]}, 'messages[0].content: wanted a list, got "a"'),
    (
        PARTS,
        {"messages": [{"content": [{"type": "text", "value": "a", "x": 1}]}]},
        ('messages[0].content[0]: wanted nothing but type, value, got {"type": "text", "value": "a", "x": 1}'),
    ),
    (TURNS, {"chat": {"turn_2": {}}}, 'chat: wanted a list, got {"turn_2": {}}'),
]


@pytest.mark.parametrize(("wanted", "row", "reason"), MISFITS, ids=[said(m[1]) for m in MISFITS])
def test_a_misfit_is_named_with_its_path(wanted: dict[str, Any], row: dict[str, Any], reason: str) -> None:
    """The row's ordinal, the place of the value, what was wanted and seen, and the whole row; neighbours are kept."""
    fine: dict[str, Any] = {"other": 1}
    made, bad = taken([fine, row, fine], wanted)
    assert bad == [Bad(20, reason, said(row))]
    assert [one["ordinal"] for one in made] == [10, 30]


@pytest.mark.parametrize("value", ["good", "", [1], {"x": 1}, True, "inf", 2**53 + 1, -(10**29), "9007199254740993"])
def test_a_score_that_is_no_number_is_a_column_like_any_other(value: Any) -> None:
    """Files have scores of their own kinds: what is no number, or would be rounded, comes back out as it was."""
    ((one,), bad) = taken([{"instruction": "q", "score": value, "x": 1}], ALPACA)
    assert not bad
    assert one["score"] is None
    assert said(json.loads(one["extra"])) == said({"score": value, "x": 1})


@pytest.mark.parametrize("value", [0, -7, 0.1, 2**53, -(2**60), 1e300, "4.5", "9007199254740992"])
def test_a_score_that_is_a_number_is_exact(value: Any) -> None:
    """A number, also as a table without types writes it; none is rounded."""
    ((one,), bad) = taken([{"score": value}], ALPACA)
    assert not bad
    assert (one["score"], one["extra"]) == (float(value), None)
    assert isinstance(value, str) or one["score"] == value


@pytest.mark.parametrize("part", [{"type": "text", "text": "a"}, {"text": "a", "type": "text", "image_url": None}])
def test_one_text_part_is_its_text(part: dict[str, Any]) -> None:
    """OpenAI's content of one text part; tables fill objects up with nulls."""
    ((one,), bad) = taken([{"messages": [{"role": "user", "content": [part]}]}], MESSAGES)
    assert not bad
    assert one["messages"][0]["content"] == "a"


def test_what_lies_deep_in_a_message_is_read_or_told_of() -> None:
    """Parts of parts have no place in `extra`: nulls there are filling, everything else makes the row bad."""
    part = {"type": "text", "value": "a"}
    rows = [{"messages": [{"content": [part | {"x": null}], "y": 1}]} for null in (None, 0, "")]
    made, bad = taken(rows, PARTS)
    assert [(one["ordinal"], one["messages"][0]["content"], one["extra"]) for one in made] == [
        (10, [part], '{"messages[]":[{"y":1}]}')
    ]
    assert [b.ordinal for b in bad] == [20, 30]


def test_turns_under_numbered_keys_are_a_list() -> None:
    """MOSS' turn_1, turn_2 …: a list of turns, and what is unknown of each of them; other keys are no turns."""
    chat = {"turn_1": {"Human": "q", "x": 1}, "turn_2": {"MOSS": "a"}}
    made, bad = taken([{"chat": chat}, {"chat": dict(reversed(chat.items()))}], TURNS)
    assert [[turn["Human"], turn["MOSS"]] for turn in made[0]["chat"]] == [["q", None], [None, "a"]]
    assert json.loads(made[0]["extra"]) == {"chat[]": [{"x": 1}, {}]}
    assert [b.ordinal for b in bad] == [20]


# Values as people write them: right, nearly right and wrong, for a text, a number, a list of lists, of messages.
POOL: list[Any] = [None, False, True, 0, 1, -7, 0.5, 1.0, 1e16, 1e-7, "", "a", "1", " [", "[]", '["x"]', '[["x", "y"]]']
POOL += [[], ["ab"], [None], [1], [[]], [["a", "b"]], [["a", 1, True, None]], [["a", ["b"]]], {}, {"role": "a"}]
POOL += [[{}], [{"role": "a", "content": "b", "x": 1}], '[{"role": "a"}]']
POOL += [2**53 + 1, "9" * 20, {"turn_1": {}}, {"turn_1": {"Human": "q", "x": 1}}, {"turn_2": {}}]
POOL += [[{"content": [{"type": "text", key: "a"}]}] for key in ("text", "value", "x")]
POOL += [[{key: value}] for key in KNOWN_OF_A_MESSAGE for value in (None, True, 1, 0.5, "", "a", "1", [], ["x"], {})]
CELLS = [(n, c) for n in plugin.names(formats) for c in [*plugin.find(formats, n).columns, "score"]]


@pytest.mark.parametrize(("name", "column"), CELLS, ids=[f"{n}-{c}" for n, c in CELLS])
def test_a_row_is_read_alike_whatever_its_neighbours(name: str, column: str) -> None:
    """columns(a ++ b) == columns(a) ++ columns(b): what a value becomes, or why it does not fit, is its own affair."""
    wanted = plugin.find(formats, name).columns | WITH_SCORE
    rows = [{column: value} for value in POOL]
    together, bad = taken(rows, wanted)
    at = {row["ordinal"]: row for row in together} | {b.ordinal: b.reason for b in bad}
    assert len(at) == len(rows) == len(together) + len(bad), "each row is either read or told of"
    for number, row in enumerate(rows, 1):
        made, alone_bad = taken([row], wanted)
        alone = made[0] | {"ordinal": 10 * number} if made else alone_bad[0].reason
        assert at[10 * number] == alone, f"{row} among others, and alone"


def test_a_map_renames() -> None:
    """`--map ours=theirs`: their column is read as ours, all the others stay; two may change places."""
    made, _ = taken([{"question": "q", "answer": "a", "x": 1}], {"prompt": pl.String, "response": pl.String},
                    {"prompt": "question", "response": "answer"})  # fmt: skip
    assert made == [{"ordinal": 10, "prompt": "q", "response": "a", "extra": '{"x":1}'}]
    made, _ = taken([{"prompt": "p", "response": "r"}], {"prompt": pl.String, "response": pl.String},
                    {"prompt": "response", "response": "prompt"})  # fmt: skip
    assert made == [{"ordinal": 10, "prompt": "r", "response": "p", "extra": None}]


def test_a_map_loses_no_column() -> None:
    """A column whose name another one is mapped to is not overwritten in silence: it comes back out."""
    row = {"prompt": "the one that must not vanish", "question": "q", "response": "a"}
    for one in (row, dict(reversed(row.items()))):
        made, bad = taken([one], {"prompt": pl.String, "response": pl.String}, {"prompt": "question"})
        assert not bad
        assert made[0]["prompt"] == "q"
        assert json.loads(made[0]["extra"]) == {"prompt": "the one that must not vanish"}
