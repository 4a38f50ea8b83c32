"""LLaMA-Factory v1, XTuner, MOSS and Firefly: what they can say comes back, what they cannot is told, real files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.rows.test_formats import CALL, CHATS, FORMATS, TOOL, loaded, read
from tests.test_schema import PLAIN_CALLS, TEXT, WEIGHTS, conversation, turn

from qdata.convert import convert
from qdata.recipe import Source
from qdata.rows import source
from qdata.rows.detect import detect
from qdata.rows.load import load


def part(kind: str, value: Any) -> dict[str, Any]:
    """A part of a message of LLaMA-Factory v1."""
    return {"type": kind, "value": value}


ARGUMENTS = st.dictionaries(TEXT, st.none() | TEXT | st.lists(TEXT, max_size=2), max_size=2)
OBJECTS = st.lists(st.fixed_dictionaries({"name": TEXT, "arguments": ARGUMENTS}), min_size=1)
SPACED = st.builds(lambda calls, indent: json.dumps(calls, indent=indent), OBJECTS, st.none() | st.integers(0, 2))


@st.composite
def v1_turns(draw: st.DrawFn) -> dict[str, Any]:
    """Any message without a name and a flag; calls in compact JSON and as other writers space it."""
    role = draw(st.sampled_from(["system", "user", "assistant", "tool"]))
    calls = draw(st.none() | PLAIN_CALLS | SPACED) if role == "assistant" else None
    content = draw(st.none() | TEXT if calls else TEXT)
    return turn(role, content, tool_calls=calls, reasoning=draw(st.none() | TEXT), weight=draw(st.none() | WEIGHTS))


@st.composite
def xtuner_exchanges(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A system prompt or none, a question, and an answer with a flag or none."""
    system = draw(st.none() | TEXT.filter(bool))
    answer = turn("assistant", draw(TEXT), train=draw(st.none() | st.booleans()))
    return [*([] if system is None else [turn("system", system)]), turn("user", draw(TEXT)), answer]


@st.composite
def moss_conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A system prompt or none, then questions and answers with reasoning or none; marks may stand in any text."""
    said = TEXT | st.sampled_from(["<eom>\n", "<|MOSS|>: ", "a <|1|><eor>", "None", "<eoh>\n<|Human|>: "])
    thought = said.filter(lambda text: text != "None")
    system = draw(st.none() | said.filter(bool))
    pairs = draw(st.lists(st.tuples(said, said, st.none() | thought), min_size=1, max_size=3))
    turns = [t for q, a, r in pairs for t in (turn("user", q), turn("assistant", a, reasoning=r))]
    return turns if system is None else [turn("system", system), *turns]


EXPRESSIBLE = {
    "llamafactory_v1": st.lists(v1_turns(), min_size=1, max_size=4),
    "xtuner": st.lists(xtuner_exchanges(), min_size=1, max_size=3)
    .map(lambda exchanges: [t for one in exchanges for t in one])
    .filter(lambda turns: any(t["content"] for t in turns if t["role"] == "user")),
    "moss": moss_conversations(),
}


@pytest.mark.parametrize("name", EXPRESSIBLE)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_what_it_can_say_comes_back(name: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Nothing of it is lost, the dialect knows its own rows, and they are the same conversations again."""
    made = data.draw(st.lists(EXPRESSIBLE[name], min_size=1, max_size=3))
    assert [FORMATS[name].loses(conversation(messages)) for messages in made] == [None] * len(made)
    written = [FORMATS[name].write(conversation(messages)) for messages in made]
    assert all(FORMATS[name].claims(row) for row in written)
    assert [one["messages"] for one in read(written, name, tmp_path_factory.getbasetemp())] == made


def test_v1_parts_are_text_reasoning_and_calls(tmp_path: Path) -> None:
    """The calls of a message are one list, their arguments letter for letter; a weight of the message is its weight."""
    first, second = '{"name": "f", "arguments": {"x": 1.50}}', '{"name":"g","arguments":"{\\"y\\": 1}"}'
    said = [part("reasoning", "r"), part("text", "t"), part("tool_call", first), part("tool_call", second)]
    row = {"messages": [{"role": "user", "content": [part("text", "q")], "loss_weight": 0},
                        {"role": "assistant", "content": said, "loss_weight": 0.5}],
           "tools": [{"name": "f"}]}  # fmt: skip
    (one,) = read([row], "llamafactory_v1", tmp_path)
    assert one["messages"] == [
        turn("user", "q", weight=0.0),
        turn("assistant", "t", reasoning="r", tool_calls=f"[{first},{second}]", weight=0.5),
    ]
    assert one["tools"] == '[{"name":"f"}]'
    assert FORMATS["llamafactory_v1"].write(one) == row | {"tools": '[{"name":"f"}]'}


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        (
            [part("image_url", "1.jpg"), part("text", "q")],
            "a part of type image_url; wanted reasoning, text, tool_call",
        ),
        ([part("text", "q"), part("audio_url", "1")], "a part of type audio_url; wanted reasoning, text, tool_call"),
        ([part(None, "q")], "a part of type untyped; wanted reasoning, text, tool_call"),
        ([part("text,", "q")], "a part of type text,; wanted reasoning, text, tool_call"),
        (
            [part("text", "q"), part("text", "r")],
            "parts text, text; wanted at most one reasoning, then at most one text",
        ),
        ([part("text", "q"), part("reasoning", "r")], "parts text, reasoning; wanted at most one reasoning"),
        ([part("tool_call", "{}"), part("text", "r")], "parts tool_call, text; wanted at most one reasoning"),
        ([part("tool_call", "f(x)")], "a tool_call whose value is not the JSON text of one call"),
        ([part("tool_call", None)], "a tool_call whose value is not the JSON text of one call"),
        ([part("tool_call", "[{}]")], "a tool_call whose value is not the JSON text of one call"),
    ],
    ids=str,
)
def test_v1_parts_that_make_no_message_are_told(parts: list[dict[str, Any]], reason: str, tmp_path: Path) -> None:
    """One sentence with the message and the kind of part; the row is kept whole, its neighbours are read."""
    rows = [{"messages": [{"role": "user", "content": [part("text", "q")]}, {"role": "assistant", "content": parts}]}]
    good = FORMATS["llamafactory_v1"].sample[0]
    assert FORMATS["llamafactory_v1"].claims(rows[0])
    frame, bad = loaded([good, *rows, good], "llamafactory_v1", tmp_path)
    assert len(frame) == 2
    assert [(b.ordinal, json.loads(b.raw)) for b in bad] == [(2, rows[0])]
    assert bad[0].reason.startswith(f"messages[1]: {reason}")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [{"role": "assistant", "content": []}]}, "the answer is null or missing"),
        ({"messages": [{"role": "user", "content": [part("reasoning", "r")]}]}, "a message without content"),
        ({"messages": [{"role": "human", "content": [part("text", "q")]}]}, 'message 0: role "human" is not one of'),
        ({"messages": []}, "an empty list of messages"),
    ],
    ids=str,
)
def test_v1_rows_that_are_no_conversation(row: dict[str, Any], reason: str, tmp_path: Path) -> None:
    """As in every dialect."""
    _, bad = loaded([row], "llamafactory_v1", tmp_path)
    assert [b.reason[: len(reason)] for b in bad] == [reason]


@pytest.mark.parametrize("name", ["sharegpt", "llamafactory_v1"])
@pytest.mark.parametrize(
    "call",
    [
        {"name": "f"},
        {"name": "f", "arguments": "{}"},
        {"name": "f", "arguments": {}, "id": "c1"},
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"name": None, "arguments": {}},
    ],
    ids=str,
)
def test_calls_that_llamafactory_cannot_load_are_no_rows_of_it(name: str, call: dict[str, Any]) -> None:
    """Its formatter takes a name, and arguments that are an object."""
    calls = json.dumps([{"name": "g", "arguments": {}}, call])
    one = conversation([turn("user", "q"), turn("assistant", None, tool_calls=calls)], tools=TOOL)
    assert str(FORMATS[name].loses(one)).startswith("ids of tool calls, arguments as text")


@pytest.mark.parametrize("calls", ["[]", "{}", "f(x)", "[1]", ' [{"name": "f"}]', f"{CALL}\n"], ids=repr)
def test_v1_loses_calls_that_are_no_list(calls: str) -> None:
    """Each call becomes a part; what is no list of calls, or would lose a blank, is refused."""
    one = conversation([turn("user", "q"), turn("assistant", "a", tool_calls=calls)], tools=TOOL)
    assert FORMATS["llamafactory_v1"].loses(one) == "tool calls that are not a JSON list of calls"


def test_xtuner_has_a_system_prompt_in_any_turn(tmp_path: Path) -> None:
    """It stands before its question; null and "" mean none; `output_with_loss` is `train`; the rest is kept."""
    exchange = {"input": "q", "output": "a"}
    untrained = exchange | {"system": "s2", "output_with_loss": False, "need_eos_token": False}
    row = {"conversation": [*(exchange | {"system": system} for system in ("s", "", None)), untrained]}
    frame, bad = loaded([row], "xtuner", tmp_path)
    assert not bad
    pair = [turn("user", "q"), turn("assistant", "a")]
    last = [turn("system", "s2"), turn("user", "q"), turn("assistant", "a", train=False)]
    assert frame["messages"][0].to_list() == [turn("system", "s"), *pair, *pair, *pair, *last]
    assert json.loads(frame["extra"][0]) == {"conversation[]": [{}, {}, {}, {"need_eos_token": False}]}


def test_xtuner_pretraining_text_is_no_conversation(tmp_path: Path) -> None:
    """All inputs empty: not claimed, and among conversations told of; one question makes it a conversation."""
    text = {"conversation": [{"input": "", "output": "once upon a time"}]}
    chat = {"conversation": [{"input": "", "output": "hello"}, {"input": "q", "output": "a"}]}
    assert (FORMATS["xtuner"].claims(text), FORMATS["xtuner"].claims(chat)) == (False, True)
    frame, bad = loaded([chat, text], "xtuner", tmp_path)
    assert frame["row"].to_list() == ["s/rows.jsonl#1"]
    assert [b.reason for b in bad] == ["every input is empty, which XTuner takes for pretraining text"]
    greeting = conversation([turn("user", ""), turn("assistant", "hello")])
    assert FORMATS["xtuner"].loses(greeting) == bad[0].reason


def moss(**texts: Any) -> dict[str, Any]:
    """A turn of MOSS; texts in place of the usual ones."""
    return {
        "Human": "<|Human|>: q<eoh>\n",
        "Inner Thoughts": "<|Inner Thoughts|>: None<eot>\n",
        "Commands": "<|Commands|>: None<eoc>\n",
        "Tool Responses": "<|Results|>: None<eor>\n",
        "MOSS": "<|MOSS|>: a<eom>\n",
    } | {key.replace("_", " "): value for key, value in texts.items()}


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (
            {"Commands": '<|Commands|>: Search("x")<eoc>\n'},
            'turn_2: the plugin call Search("x") and its result would be lost',
        ),
        ({"Tool_Responses": "<|Results|>: 1<eor>\n"}, "turn_2: a result of no command"),
        ({"Human": "q"}, "turn_2: Human: wanted <|Human|>: …<eoh> and a line end"),
        ({"MOSS": "<|MOSS|>: a"}, "turn_2: MOSS: wanted <|MOSS|>: …<eom> and a line end"),
        ({"Inner_Thoughts": "r<eot>\n"}, "turn_2: Inner Thoughts: wanted <|Inner Thoughts|>: …<eot> and a line end"),
        ({"MOSS": None}, "the answer is null or missing"),
    ],
    ids=str,
)
def test_moss_rows_that_would_lose_something_are_told(texts: dict[str, Any], reason: str, tmp_path: Path) -> None:
    """The turn and what is wrong with it; neighbours are read."""
    good, wrong = {"chat": {"turn_1": moss()}}, {"chat": {"turn_1": moss(), "turn_2": moss(**texts)}}
    frame, bad = loaded([good, wrong, good], "moss", tmp_path)
    assert [one.to_list() for one in frame["messages"]] == [[turn("user", "q"), turn("assistant", "a")]] * 2
    assert [(b.ordinal, b.reason) for b in bad] == [(2, reason)]


def test_moss_keeps_blanks_and_marks_that_are_said(tmp_path: Path) -> None:
    """Only the marks around a text are taken away; thoughts are the reasoning, and fields that are not there none."""
    said = moss(Human="<|Human|>: q <eoh>\n", Inner_Thoughts="<|Inner Thoughts|>: r<eot>\n",
                MOSS="<|MOSS|>: a <|1|><eor><eom>\n")  # fmt: skip
    short = {key: said[key] for key in ("Human", "MOSS")}
    rows = [{"meta_instruction": meta, "chat": {"turn_1": one}} for meta, one in (("m\n", said), ("", short))]
    full, bare = read(rows, "moss", tmp_path)
    question, answer = turn("user", "q "), turn("assistant", "a <|1|><eor>")
    assert full["messages"] == [turn("system", "m\n"), question, answer | {"reasoning": "r"}]
    assert bare["messages"] == [question, answer]


# file: dialect, rows read, rows told of. Each row that is read comes back out of `convert` as it stands in the file.
REAL = {
    "llamafactory/v1_sft_demo.jsonl": ("llamafactory_v1", 500, 0),
    "llamafactory/reason_tool_use_demo_50.jsonl": ("llamafactory_v1", 50, 0),
    "roleplay/aiwei.json": ("xtuner", 1600, 0),
    "roleplay/tiangou.json": ("xtuner", 1301, 0),
    "ruozhiba/EmoLLM/ruozhiba_format_emo.jsonl": ("xtuner", 240, 0),
    "ruozhiba/EmoLLM/processed_self_cognition_EmoLLM.json": ("xtuner", 85, 0),
    "multiturn/firefly_sample.jsonl": ("muice", 33, 0),
    "multiturn/moss_sft_samples.jsonl": ("moss", 623, 497),
    "mini_qwen/sft/7M/train-00000-of-00075.parquet": ("sharegpt", 100, 0),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files_come_back_as_they_are(
    name: str, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Detected, read, written again in the same dialect: row for row the same values; the rest is in the ledger."""
    monkeypatch.chdir(tmp_path)
    dialect, kept, refused = REAL[name]
    rows = [row for p in source.parts_of(real_data / name, "s", name) for row in source.read(p).rows]
    assert detect(rows[:100], name).format == dialect
    done = convert([Source(path=str(real_data / name))], dialect, Path("out.jsonl"))
    told = done.manifest["rows"]
    assert (told["in"], told["kept"]) == (kept + refused, kept)
    written = [json.loads(line) for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()]
    book = [int(line.rsplit("#", 1)[1]) for line in _kept(tmp_path / "out.jsonl.qdata")]
    assert written == [rows[ordinal - 1] for ordinal in book]


def _kept(beside: Path) -> list[str]:
    book = pl.read_parquet(beside / "ledger.parquet")
    return book.filter(pl.col("action") != "dropped").sort("index")["row"].to_list()


def test_real_pictures_are_refused_by_name(real_data: Path) -> None:
    """The rows of a multimodal file are recognised, and each is told of in one sentence that names the part."""
    name = "llamafactory/v1_multimodal_demo.jsonl"
    (one,) = source.parts_of(real_data / name, "s", name)
    assert detect(source.read(one).rows, name).format == "llamafactory_v1"
    frame, bad = load(one, "llamafactory_v1")
    assert frame.is_empty()
    assert {b.reason.partition(": ")[2] for b in bad} == {"a part of type image_url; wanted reasoning, text, tool_call"}
    assert len(bad) == 24


# Preference, KTO, pretraining, benchmarks and other tools' lists.
NO_CHAT = [
    "llamafactory/dpo_en_demo.json", "llamafactory/kto_en_demo.json", "llamafactory/v1_dpo_demo.jsonl",
    "llamafactory/c4_demo.jsonl", "llamafactory/dataset_info.json", "preference/dpo_zh_500.jsonl",
    "preference/orca_dpo_azure.jsonl", "preference/rasbt_preference.json", "preference/ultrafeedback_clean.jsonl",
    "mini_qwen/dpo/test-00000-of-00001.parquet", "benchmarks/mmlu_test.jsonl",
    "mini_qwen/pt/accommodation_catering_hotel/chinese/high/rank_00000.parquet",
]  # fmt: skip


@pytest.mark.parametrize("name", NO_CHAT)
def test_what_is_no_chat_is_claimed_by_no_dialect_of_chats(name: str, real_data: Path) -> None:
    """Not one row of it, so that no mixture of rows makes it one."""
    rows = source.peek(real_data / name, "s", name, rows=2000).rows
    assert rows
    assert {other for other in CHATS for row in rows if FORMATS[other].claims(row)} == set()
