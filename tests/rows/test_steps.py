"""Every step of steps/ keeps the law a distributed engine needs, f(a ++ b) == f(a) ++ f(b); then each one its own."""

from __future__ import annotations

import json
import math
import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.test_schema import TEXT, conversation, conversations, frame, turn

from qdata import plugin, schema
from qdata.rows import steps
from qdata.rows.steps.complete import Complete
from qdata.rows.steps.placeholders import Placeholders, unfilled
from qdata.rows.steps.strip import Strip
from qdata.rows.steps.system_pool import _Choice as Choice
from qdata.schema import PLACEHOLDER_NAMES

PERSONA = {"name": {"zh": "沐雪", "en": "Muxue"}, "author": "Moemu $1 \\1"}
# Each step with its defaults, unless others are named here, and as NAME/1 … under further settings.
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "placeholders": [{"values": PERSONA}],
    "merge_turns": [{}, {"do": "drop"}, {"separator": " $1 ", "roles": ("system", "user", "assistant", "tool")}],
    "leading_answer": [{}, {"do": "drop"}],
    "trailing_question": [{}, {"do": "drop"}],
    "unanswered_call": [{}, {"last": True}],
    "identity": [{"name": {"zh": "沐雪", "en": "Muxue"}, "author": "Moemu"}],
    "system_set": [
        {"text": "$1 {{name}}"},
        {"do": "fill", "text": {"zh": "你好", "en": "Hello"}},
        {"do": "drop"},
        {"text": "a", "sources": {"s": {"zh": "你好", "en": "Hello"}}},
    ],
    "system_pool": [
        {"texts": (Choice("a"), Choice("", weight=0.5), Choice(of={"zh": "好"})), "by": "language"},
        {"texts": (Choice(of={"s": "one"}), Choice(of={"t": "other"})), "do": "fill", "seed": 7},
    ],
    "system_card": [{"card": {"name": "Mia $1", "description": "{{char}} and {{user}}"}, "user": "\\1"}],
    "fix_text": [{}, {"everything": True}],
    "normalize": [{}, {"form": "NFKC"}],
    "whitespace": [
        {},
        {"trailing": False, "blank_lines": 0},
        {"trailing": False, "blank_lines": -1, "spaces": True, "ends": True},
    ],
    "html": [{}, {"tags": False}, {"entities": False}],
    "chinese_script": [{}, {"to": "traditional"}, {"to": "taiwan"}, {"to": "hong_kong"}],
    "mask_pii": [{}, {"do": "drop"}, {"kinds": ("email", "key")}],
    "boilerplate": [{}, {"patterns": ("a.", "[你]"), "roles": ("user", "assistant")}],
    "placeholder_input": [{}, {"do": "trim"}, {"kinds": ("url_input",)}],
    "merged_instructions": [{}, {"do": "trim"}],
    "tool_json": [{}, {"do": "drop"}],
    "length": [
        {"min_answer": 2},
        {"min_words": 2, "max_words": 4},
        {"max_question": 3, "max_answer": 3, "max_system": 2, "max_text": 3, "max_messages": 2},
    ],
    "length_ratio": [{}, {"min": 0.5, "max": 2.0}],
    "special_characters": [{}, {"max": 0.0, "roles": ("user", "text")}],
    "character_repetition": [{}, {"n": 1, "max": 0.2}],
    "repetition": [{}, {"characters": 2, "phrases": 0.1, "lines": 0.1, "n": 1}, {"phrases": 1.0, "lines": 1.0}],
    "language": [{}, {"allowed": ("en",), "min_letters": 1, "confidence": 0.0}],
    "word_list": [{"words": ("a", "你", "<name>")}, {"words": ("A", "{{name}}", "{{Ä}}"), "ignore_case": False}],
    "filter": [
        {"where": "score.other > 0.5 or not (source in ('s', \"t\") and answer.chars < 3) or score.never is not null"}
    ],
    "score_repetition": [{}, {"n": 1}],
    "score_random": [{}, {"seed": 1}],
}
STEPS = {
    f"{name}/{number}" if number else name: plugin.find(steps, name)(**settings)
    for name in plugin.names(steps)
    for number, settings in enumerate(SETTINGS.get(name, [{}]))
}
# Steps that edit texts only.
SAME_SHAPE = {"placeholders", "strip", "identity", "fix_text", "normalize", "control_characters", "whitespace", "html"}
SAME_SHAPE |= {"chinese_script", "mask_pii", "mask_pii/2", "placeholder_input/1", "merged_instructions/1", "tool_json"}
ADD_A_SYSTEM = {"system_set", "system_pool", "system_card"}
each_step = pytest.mark.parametrize("name", STEPS)

WORDS = st.sampled_from(["{{name}}", "{{ NAME }}", "<AUTHOR>", "{{author}}", " ", "\n", "你", "$1", "{{x}}"])
# What cleaners look for, whole and in halves.
MARKS = ["```\n", "\n~~~", "`", "<b>", "</b>", "<p>", "</p>", "<br/>", "&amp;", "lt;", "&#60;", "<!--", "-->", "  \n"]
UNSEEN = ["\n\n\n", "\u200d", "\u200b", "\U0001f469", "\U0001f680", "\u202e", "א", "\x1b[0m", "\r\n", "Ã©", "â€™", "ﬁ"]
PHRASES = [
    "漢后面",
    "乾干坤",
    "を",
    "<noinput>",
    "\nN/A",
    "\n6. Instruction: x",
    "\n6. Output: y",
    "so it goes " * 20,
    "null",
]
PHRASES += ["As an AI language model, ", "我是人工智能，无法", "哈" * 40, "https://a.b/c", "Sum up the article\n"]
PHRASES += ["Il fait beau aujourd'hui et nous allons à la mer. ", "a@b.cn", "13812345678", "11010519491231002X"]
PHRASES += ["sk-" + "a1" * 12]
DIRT = st.sampled_from([*MARKS, *UNSEEN, *PHRASES])
WORDY = st.lists(WORDS | DIRT | TEXT, max_size=4).map("".join)


@st.composite
def rows(draw: st.DrawFn) -> dict[str, Any]:
    """Conversations with white space, placeholders and dirt in them, some of them dropped already."""
    row = draw(conversations())
    for column in ("messages", "chosen", "rejected"):
        row[column] = row[column] and [t | {"content": t["content"] and draw(WORDY)} for t in row[column]]
    row["text"] = row["text"] and draw(WORDY)
    given = draw(st.none() | st.fixed_dictionaries({"given": st.none() | st.floats(0, 1)}))
    return row | {"drop": draw(st.none() | st.just("earlier.reason")), "score": given}


def scored(made: pl.DataFrame) -> pl.DataFrame:
    """With a score of another scorer beside the one that came with the data."""
    other = pl.when(pl.col("messages").is_not_null()).then(pl.col("row").str.len_chars() / 10)
    return schema.with_scores(made.lazy(), {"other": other}).collect()


FRAMES = st.lists(rows(), max_size=3).map(
    lambda made: scored(schema.with_content_hash(frame([row | {"row": f"s/f#{i}"} for i, row in enumerate(made)])))
)


def after(step: Any, before: pl.DataFrame) -> pl.DataFrame:
    out: pl.DataFrame = step(before.lazy()).collect()
    return out


@each_step
@settings(max_examples=20, deadline=None)
@given(FRAMES, FRAMES)
def test_a_step_looks_at_one_row_at_a_time(name: str, a: pl.DataFrame, b: pl.DataFrame) -> None:
    """f(a ++ b) == f(a) ++ f(b), also where one of them is empty."""
    step = STEPS[name]
    assert after(step, pl.concat([a, b])).equals(pl.concat([after(step, a), after(step, b)]))


@each_step
@settings(max_examples=20, deadline=None)
@given(FRAMES)
def test_what_a_step_may_do(name: str, before: pl.DataFrame) -> None:
    """Rows stay, in order and in the schema; `drop` is never overwritten; only a step that says so edits or scores."""
    step = STEPS[name]
    out = after(step, before)
    writes = getattr(step, "scores", ())
    assert dict(out.schema) | {"score": schema.SCORE} == schema.CONVERSATION
    assert list(out.columns) == list(schema.CONVERSATION)
    same = ["row", "source", "content_hash", "tools", "label", "extra", *([] if step.edits else ["text"])]
    assert out.select(same).equals(before.select(same))
    if writes:
        assert out.drop("score").equals(before.drop("score")), "a scorer neither edits nor drops"
        was, now = (one["score"].struct.unnest() for one in (before, out))
        assert now.columns == [*was.columns, *writes] and {"given", "other"}.isdisjoint(writes)
        assert now.select(was.columns).equals(was), "what came with the data and other scorers' fields stay"
        assert now.select(writes).schema == {field: schema.score_type(field) for field in writes}
        numbers = [value for row in now.select(writes).rows() for value in row if not isinstance(value, str)]
        assert all(value is None or math.isfinite(value) for value in numbers)
        assert after(step, out).equals(out.select(out.columns)), "scored twice is scored once"
        return
    assert out["score"].equals(before["score"])
    taken = before["drop"].is_not_null()
    assert out["drop"].filter(taken).equals(before["drop"].filter(taken))
    fresh = out["drop"].filter(~taken).drop_nulls().to_list()
    assert all(re.fullmatch(name.split("/")[0] + r"\.[a-z_]+", reason) for reason in fresh)
    if step.edits:
        assert not fresh, "a step either edits or drops"
        assert after(step, out).equals(out), "an edit done twice is an edit done once"
        lengths = pl.col("messages", "chosen", "rejected").list.len()
        was, now = before.select(lengths), out.select(lengths)
        assert now.equals(was) or name not in SAME_SHAPE
        assert now.drop("messages").equals(was.drop("messages")), "answers to choose from stay as many"
        assert now["messages"].is_null().equals(was["messages"].is_null())
        assert (now["messages"] <= was["messages"] + (name.split("/")[0] in ADD_A_SYSTEM)).all()
    else:
        assert out.drop("drop").equals(before.drop("drop"))


@each_step
def test_a_step_travels_to_a_worker(name: str) -> None:
    """It is frozen and picklable, and does there what it does here."""
    step, example = STEPS[name], frame([conversation([turn("user", " {{name}} "), turn("assistant", " ")])])
    there = pickle.loads(pickle.dumps(step))
    assert there == step
    assert after(there, example).equals(after(step, example))
    with pytest.raises(AttributeError):
        step.something = 1


def filled(text: str, values: Any = None) -> Any:
    """What becomes of one message."""
    step = Placeholders(PERSONA if values is None else values)
    return after(step, frame([conversation([turn("assistant", text)])]))["messages"][0][0]["content"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("I am {{name}}.", "I am Muxue."),
        ("I am {{ name }}.", "I am Muxue."),
        ("I am {{NAME}}, {{ Name }}, {{name}}.", "I am Muxue, Muxue, Muxue."),
        ("I am <NAME>.", "I am Muxue."),
        ("我是{{name}}。", "我是沐雪。"),
        ("我是 <NAME>, {{ NAME }}", "我是 沐雪, 沐雪"),
        ("{{name}}", "Muxue"),
        ("by <AUTHOR>", "by Moemu $1 \\1"),
        ("由{{author}}开发", "由Moemu $1 \\1开发"),
        ("<name> {name} { {name} } {{names}} {{na me}} <Name> name NAME", None),
        ("{{ user }} {{x}} <BR>", None),
        ("", ""),
    ],
)
def test_placeholders_are_filled(text: str, wanted: str | None) -> None:
    """All spellings of a placeholder, the language by the script of the message; every other brace is left alone."""
    assert filled(text) == (text if wanted is None else wanted)


@pytest.mark.parametrize("value", ["$1", "$0", "$$", "${name}", "\\1", "\\", "{{name}}", "{{x}}", "a\nb", "", "<NAME"])
def test_a_value_is_put_in_as_it_stands(value: str) -> None:
    """Nothing in a value means anything: no group, no escape."""
    assert filled("a {{name}} b", {"name": value}) == f"a {value} b"


@pytest.mark.parametrize(("name", "text"), [("a.b", "{{axb}}"), ("na(me", "{{na(me}}"), ("a*", "{{aaa}}")])
def test_a_name_is_text_and_no_pattern(name: str, text: str) -> None:
    """A placeholder is replaced where its very name stands, whatever characters are in it."""
    assert filled(text, {name: "v"}) == ("v" if text == f"{{{{{name}}}}}" else text)


def test_the_order_of_values_does_not_matter() -> None:
    """Two placeholders are filled independently, whichever comes first in the recipe."""
    both = {"name": "N", "author": "A"}
    text = "{{author}}{{name}}{{author}}"
    assert filled(text, both) == filled(text, dict(reversed(both.items()))) == "ANA"


def test_a_language_that_is_not_given_falls_back() -> None:
    """With one language only, it is used for all messages."""
    assert filled("我是{{name}}", {"name": {"en": "Muxue"}}) == "我是Muxue"
    assert filled("I am {{name}}", {"name": {"zh": "沐雪"}}) == "I am 沐雪"


def test_every_list_of_messages_is_filled_by_message() -> None:
    """messages, chosen and rejected; each message by its own script; nulls stay null."""
    mixed = [turn("user", "你是{{name}}吗？"), turn("assistant", "I am {{name}}.")]
    row = conversation(mixed, chosen=[turn("assistant", "{{name}}")], rejected=[turn("assistant", "是{{name}}")])
    (out,) = after(Placeholders(PERSONA), frame([row])).to_dicts()
    assert [t["content"] for t in out["messages"]] == ["你是沐雪吗？", "I am Muxue."]
    assert [out[c][0]["content"] for c in ("chosen", "rejected")] == ["Muxue", "是沐雪"]
    (empty,) = after(Placeholders(PERSONA), frame([conversation(None)])).to_dicts()
    assert [empty[c] for c in ("messages", "chosen", "rejected")] == [None, None, None]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"name": "N", "author": "A"}, "N N N, A A A"),
        ({"ai_nickname": "N", "master_nickname": "A"}, "N N N, A A A"),
        ({"name": "N", "author": "A", "ai_nickname": "I", "Model_Author": "M"}, "N I N, A A M"),
        ({"name": {"zh": "沐雪", "en": "Muxue"}}, "Muxue Muxue Muxue, {{author}} {{ master_nickname }} <MODEL_AUTHOR>"),
    ],
)
def test_names_of_other_sets_mean_the_same(values: Any, wanted: str) -> None:
    """{{ ai_nickname }} is {{name}}, and {{ master_nickname }} is {{author}}, unless they have values of their own."""
    text = "{{name}} {{ ai_nickname }} {{MODEL_NAME}}, {{author}} {{ master_nickname }} <MODEL_AUTHOR>"
    assert filled(text, values) == wanted


def test_reasoning_is_filled_and_found_too() -> None:
    """By its own script: who thinks about its name in English may answer in Chinese."""
    row = conversation([turn("assistant", "我是{{name}}", reasoning="I am {{name}}.")])
    assert [f["found"] for f in unfilled(frame([row]).lazy()).collect().to_dicts()] == [["{{name}}", "{{name}}"]]
    out = after(Placeholders(PERSONA), frame([row]))
    assert out["messages"][0][0] == turn("assistant", "我是沐雪", reasoning="I am Muxue.")


def test_a_real_persona_prompt_is_filled(real_data: Path) -> None:
    """Its variables get the values of name and author; its jinja, which is of another program, stays."""
    text = (real_data / "muice" / "persona_prompt.jinja2").read_text(encoding="utf-8")
    out = filled(text, {"name": {"zh": "沐雪", "en": "Muxue"}, "author": "Moemu"})
    assert "现在你是一个名为沐雪的AI女孩子，创造你的开发者是Moemu。" in out
    assert "{% if private %}" in out and "{{ user_info }}" in out
    assert found(text)[0]["found"] == ["{{ ai_nickname }}", "{{ master_nickname }}"] and found(out) == []


def test_the_real_identity_set_is_filled(real_data: Path) -> None:
    """All 91 rows, zh and en, each by its language; nothing is left open."""
    rows = json.loads((real_data / "llamafactory" / "identity.json").read_text(encoding="utf-8"))
    texts = [filled(row["output"], {"name": {"zh": "沐雪", "en": "Muxue"}, "author": "Moemu"}) for row in rows]
    assert found(*texts) == [] and not any("{{" in text for text in texts)
    chinese = [bool(re.search("[\u4e00-\u9fff]", row["output"])) for row in rows]
    assert all(("Muxue" in text) <= (not zh) for text, zh in zip(texts, chinese, strict=True))
    assert {zh for text, zh in zip(texts, chinese, strict=True) if "沐雪" in text} == {True}


def found(*texts: str | None, **more: Any) -> list[Any]:
    made = frame([conversation([turn("assistant", text) for text in texts], **more)])
    return unfilled(made.lazy()).collect().to_dicts()


@pytest.mark.parametrize("name", PLACEHOLDER_NAMES)
def test_the_finder_knows_every_spelling(name: str) -> None:
    """{{x}}, {{ X }} of each known placeholder, and <NAME>, <AUTHOR>; with the row and in order."""
    assert found(f"a {{{{{name}}}}} b", f"{{{{ {name.upper()} }}}}") == [
        {"row": "s/f#1", "found": [f"{{{{{name}}}}}", f"{{{{ {name.upper()} }}}}"]}
    ]


def test_the_finder_finds_what_the_filler_left() -> None:
    """In all three lists of messages; nothing in a row that is filled, has other braces, or no text."""
    assert found("{{x}} <BR> {name} <name>", None) == []
    assert found("<NAME> <AUTHOR>")[0]["found"] == ["<NAME>", "<AUTHOR>"]
    assert found("a", chosen=[turn("assistant", "{{name}}")])[0]["found"] == ["{{name}}"]
    assert found("a", rejected=[turn("assistant", "{{author}}")])[0]["found"] == ["{{author}}"]
    assert unfilled(frame([conversation(None)]).lazy()).collect().height == 0


@settings(max_examples=60, deadline=None)
@given(WORDY)
def test_after_filling_nothing_known_is_left(text: str) -> None:
    """With a value for every placeholder the finder knows, it finds nothing."""
    values = dict.fromkeys(PLACEHOLDER_NAMES, "v")
    assert found(filled(text, values)) == []


def reasons(*conversations: Sequence[dict[str, Any]] | None, **more: Any) -> list[str | None]:
    made = after(Complete(), frame([conversation(c and list(c), **more) for c in conversations]))
    return made["drop"].to_list()


def test_complete_drops_what_has_no_answer() -> None:
    """No assistant turn, or one that is blank and calls nothing; each with its reason."""
    question, answer = turn("user", "q"), turn("assistant", "a")
    assert reasons([question, answer]) == [None]
    assert reasons([question], [turn("system", "s")]) == ["complete.no_answer"] * 2
    blanks = ["", " ", "\n\t", "\u3000", "\u00a0", "\u2003"]
    assert reasons(*[[question, turn("assistant", b)] for b in blanks]) == ["complete.empty_answer"] * len(blanks)
    assert reasons([question, turn("assistant", ""), question, answer]) == ["complete.empty_answer"]
    assert reasons([question, turn("assistant", None)]) == ["complete.empty_answer"]
    assert reasons([question, turn("assistant", None, tool_calls='[{"name":"f"}]')]) == [None]
    assert reasons([turn("user", ""), answer]) == [None], "an empty question is no missing answer"


def test_an_empty_list_of_calls_is_no_answer() -> None:
    """`"tool_calls": []`, which many exports write on every turn, calls nothing."""
    question = turn("user", "q")
    assert reasons([question, turn("assistant", "", tool_calls="[]")]) == ["complete.empty_answer"]
    assert reasons([question, turn("assistant", "a", tool_calls="[]")]) == [None]


def test_complete_lets_other_shapes_pass() -> None:
    """Preference pairs and pretraining text have no answer in `messages`."""
    assert reasons([turn("user", "q")], chosen=[turn("assistant", "a")], rejected=[turn("assistant", "b")]) == [None]
    assert reasons([turn("user", "q")], chosen=[turn("assistant", "a")], rejected=[turn("assistant", "")]) == [None]
    assert reasons(None, text="t") == [None]
    assert reasons(None, drop="read.bad") == ["read.bad"]


@pytest.mark.parametrize("blank", ["", " ", "\n\t", "\u3000"])
def test_complete_drops_blank_documents_and_chosen_answers(blank: str) -> None:
    """There is nothing to learn from them but silence."""
    question, chosen, rejected = turn("user", "q"), turn("assistant", blank), turn("assistant", "b")
    assert reasons([question], chosen=[chosen], rejected=[rejected]) == ["complete.empty_answer"]
    assert reasons(None, text=blank) == ["complete.empty_text"]


@pytest.mark.parametrize("blank", [" ", "\n", "\t", "\r\n", "\u3000", "\u00a0", "\u2028", " \n "])
def test_strip_takes_white_space_off_both_ends(blank: str) -> None:
    """Of content and reasoning; what lies between words stays; null stays null."""
    made = after(Strip(), frame([conversation([turn("assistant", f"{blank}a{blank}b{blank}", reasoning=f"{blank}r")])]))
    assert made["messages"][0].to_list() == [turn("assistant", f"a{blank}b", reasoning="r")]
    none = after(Strip(), frame([conversation([turn("assistant", None, tool_calls=" [] ", name=" n ")])]))
    assert none["messages"][0].to_list() == [turn("assistant", None, tool_calls=" [] ", name=" n ")]
