"""System prompts set, filled in, dropped, drawn from a pool, made of a character card; whatever else is said stays."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from tests.rows.test_steps import FRAMES, after
from tests.test_schema import TEXT, conversation, frame, turn

from qdata.recipe import structure
from qdata.rows.steps.system_card import SystemCard
from qdata.rows.steps.system_pool import SystemPool
from qdata.rows.steps.system_set import SystemSet

PROMPTS = TEXT.filter(lambda text: bool(text.strip()) and "{%" not in text and "{#" not in text)
CARD = {
    "spec": "chara_card_v2",
    "spec_version": "2.0",
    "data": {
        "name": "Mia",
        "description": "{{char}} mends clocks for {{user}}.",
        "personality": "quiet",
        "scenario": "",
        "first_mes": "Hello {{user}}.",
        "mes_example": "<START>\n{{user}}: Is it broken?\n{{char}}: Only tired.",
        "system_prompt": "{{original}}Write {{char}}'s lines only.",
        "creator_notes": "not for the prompt",
        "tags": ["calm"],
        "character_book": {"entries": []},
        "extensions": {},
    },
}
MADE = (
    "Write Mia's lines only.\n\nMia mends clocks for Ann.\n\nMia's personality: quiet\n\n"
    "How Mia talks:\nAnn: Is it broken?\nMia: Only tired."
)


def talk(system: str | None, user: str = "q", answer: str = "a", **more: Any) -> dict[str, Any]:
    opening = [] if system is None else [turn("system", system)]
    return conversation([*opening, turn("user", user), turn("assistant", answer)], **more)


def systems(step: Any, *rows: dict[str, Any]) -> list[str | None]:
    """The system prompt of each row after the step."""
    return [prompt_of(row) for row in after(step, frame(rows)).to_dicts()]


def prompt_of(row: dict[str, Any]) -> str | None:
    opening: list[str] = [m["content"] for m in row["messages"][:1] if m["role"] == "system"]
    return opening[0] if opening else None


@settings(max_examples=60, deadline=None)
@given(FRAMES, PROMPTS)
def test_after_replacing_every_conversation_has_that_prompt(before: pl.DataFrame, text: str) -> None:
    """Whatever text, whatever was there: one system message opens it, and all other turns are as they were."""
    for row, was in zip(after(SystemSet(text=text), before).to_dicts(), before.to_dicts(), strict=True):
        if not was["messages"]:
            assert row == was
            continue
        assert (row["messages"][0]["role"], row["messages"][0]["content"]) == ("system", text)
        assert row["messages"][1:] == without_opening(was["messages"])
        assert {k: v for k, v in row.items() if k != "messages"} == {k: v for k, v in was.items() if k != "messages"}


@settings(max_examples=60, deadline=None)
@given(FRAMES, PROMPTS)
def test_filling_and_dropping(before: pl.DataFrame, text: str) -> None:
    """Filling touches no conversation that has a prompt with something in it; dropping leaves none."""
    filled, dropped = (
        after(step, before).to_dicts() for step in (SystemSet(do="fill", text=text), SystemSet(do="drop"))
    )
    for was, full, bare in zip(before.to_dicts(), filled, dropped, strict=True):
        messages = was["messages"]
        if not messages:
            assert full == was
            continue
        rest = without_opening(messages)
        has = any((m["content"] or "").strip() for m in messages[: len(messages) - len(rest)])
        assert full["messages"] == messages if has else prompt_of(full) == text
        assert bare["messages"] == rest


def without_opening(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The turns from the first that is no system's, one at a time."""
    at = 0
    while at < len(messages) and messages[at]["role"] == "system":
        at += 1
    return messages[at:]


def test_what_a_system_prompt_is() -> None:
    """All that it opens with is one prompt; a later remark stays; flags of the first stay; blank is missing."""
    opening = [turn("system", "a", weight=0.5, train=True), turn("system", "b")]
    rest = [turn("user", "q"), turn("system", "later"), turn("assistant", "a")]
    (row,) = after(SystemSet(text="new"), frame([conversation(opening + rest)])).to_dicts()
    assert row["messages"] == [turn("system", "new", weight=0.5, train=True), *rest]
    blank = SystemSet(do="fill", text="new")
    assert systems(blank, talk(" \n\u3000"), talk(""), talk(None), talk("s")) == ["new", "new", "new", "s"]
    answers = {"chosen": [turn("assistant", "a")], "rejected": [turn("assistant", "b")]}
    (pair,) = after(SystemSet(text="new"), frame([conversation([turn("user", "q")], **answers)])).to_dicts()
    assert prompt_of(pair) == "new" and pair["chosen"] == [turn("assistant", "a")]
    (text,) = after(SystemSet(text="new"), frame([conversation(None, text="t")])).to_dicts()
    assert text["messages"] is None


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("你好吗", "zh"),
        ("How are you?", "en"),
        ("Translate into Chinese, please: 你好", "en"),
        ("翻译成英文：今天天气很好 weather", "zh"),
        ("def f(x): return x  # 你", "en"),
        ("123 ?!", "en"),
        ("", "en"),
        ("Привет, как дела", "en"),
    ],
)
def test_the_language_is_that_of_the_turns(said: str, wanted: str) -> None:
    """The old prompt has no say, so a second time the same is chosen."""
    step = SystemSet(text={"zh": "zh", "en": "en"})
    assert (
        systems(step, talk("一二三四五六七八九十", said, ""), talk("some words of english", said, "")) == [wanted] * 2
    )


def test_a_source_may_have_its_own() -> None:
    """Rows of a source that is named; the others have `text`, or stay as they are."""
    rows = [talk("s", source="a"), talk("s", source="b"), talk("s", "你好", "好", source="b"), talk("s", source="c")]
    sources = {"a": "A", "b": {"zh": "好", "en": "B"}}
    assert systems(SystemSet(sources=sources), *rows) == ["A", "B", "好", "s"]
    assert systems(SystemSet(text="T", sources=sources), *rows) == ["A", "B", "好", "T"]


NUMBERED = [talk(None, f"question {n}", source="ab"[n % 2], row=f"s/f#{n}", extra=json.dumps({"topic": "xyz"[n % 3]}))
            for n in range(600)]  # fmt: skip


def pool(*texts: dict[str, Any], **more: Any) -> SystemPool:
    mistakes: list[str] = []
    made = structure(SystemPool, {"texts": list(texts), **more}, "step", mistakes)
    assert made is not None, mistakes
    return made


def test_half_one_text_and_half_by_category() -> None:
    """As mini_qwen's author wished: the shares are those of the weights, within four standard deviations."""
    step = pool({"text": "U"}, {"of": {"a": "A", "b": "B"}})
    drawn = systems(step, *NUMBERED)
    assert abs(drawn.count("U") - 300) < 50
    assert {one for one, row in zip(drawn, NUMBERED, strict=True) if row["source"] == "a"} == {"U", "A"}
    thirds = Counter(systems(pool({"text": "1"}, {"text": "2", "weight": 2}, {"text": "", "weight": 3}), *NUMBERED))
    assert abs(thirds["1"] - 100) < 37 and abs(thirds["2"] - 200) < 47 and abs(thirds[None] - 300) < 50


def test_a_draw_depends_on_the_turns_and_the_seed_alone() -> None:
    """Not on the order, the old prompt or the row's name; another seed draws otherwise."""
    step = pool({"text": "1"}, {"text": "2"}, {"text": "3"})
    drawn = systems(step, *NUMBERED)
    assert systems(step, *reversed(NUMBERED)) == drawn[::-1]
    other = [
        row | {"row": "x", "source": "z", "messages": [turn("system", "old"), *row["messages"]]} for row in NUMBERED
    ]
    assert systems(step, *other) == drawn
    assert systems(pool({"text": "1"}, {"text": "2"}, {"text": "3"}, seed=1), *NUMBERED) != drawn


def test_what_a_category_is() -> None:
    """Source, language, or a column that came with the rows; without a text for it a row stays as it is."""
    rows = [talk("s", "你好", "好"), talk("s")]
    assert systems(pool({"of": {"zh": "Z"}}, by="language"), *rows) == ["Z", "s"]
    drawn = systems(pool({"of": {"x": "X", "y": "Y"}}, by="extra.topic"), *NUMBERED[:3])
    assert drawn == ["X", "Y", None]
    assert systems(pool({"of": {"1": "one"}}, by="extra.a b"), talk("s", extra='{"a b": 1}'), talk("s")) == ["one", "s"]
    assert systems(pool({"text": "T"}, do="fill"), talk("s"), talk(None)) == ["s", "T"]


@pytest.mark.parametrize(
    ("cls", "settings", "told"),
    [
        (SystemSet, {}, 'do = "replace" wants a text'),
        (SystemSet, {"do": "fill"}, 'do = "fill" wants a text'),
        (SystemSet, {"do": "drop", "text": "a"}, "text has no place"),
        (SystemSet, {"text": " "}, "text: an empty text; .* do = \"drop\""),
        (SystemSet, {"text": {"zh": "a"}}, "text: wanted a text for each of zh, en, got zh"),
        (SystemSet, {"sources": {"a": {"en": "b", "fr": "c"}}}, "sources.a: wanted a text for each"),
        (SystemSet, {"text": "{% if x %}a{% endif %}"}, "jinja statements"),
        (SystemSet, {"do": "keep", "text": "a"}, "'keep' is not one of"),
        (SystemPool, {}, "the pool is empty"),
        (SystemPool, {"texts": [{"weight": 2}]}, r"texts\[0\]: wanted either text or of"),
        (SystemPool, {"texts": [{"text": "a", "of": {"b": "c"}}]}, "wanted either text or of"),
        (SystemPool, {"texts": [{"text": "a", "weight": 0}]}, "weight: wanted a number above 0, got 0"),
        (SystemPool, {"texts": [{"text": "a"}], "by": "extra.it's"}, "is no category"),
        (SystemPool, {"texts": [{"text": "a"}], "by": "topic"}, "wanted source, language, or extra.COLUMN"),
        (SystemPool, {"texts": [{"of": {"a": "{# x #}"}}]}, r"texts\[0\].of.a: holds jinja"),
        (SystemCard, {}, "wanted either file"),
        (SystemCard, {"card": {"name": "x"}, "file": "y"}, "wanted either file"),
        (SystemCard, {"card": {"description": "x"}}, "no character card; wanted a name"),
        (SystemCard, {"card": {"name": 3}}, "name: wanted text, got 3"),
        (SystemCard, {"card": {"name": " ", "description": "x"}}, "is no name"),
        (SystemCard, {"card": {"name": "Mia"}}, "the card: an empty text"),
        (SystemCard, {"card": {"name": "Mia", "description": "x"}, "user": "{{char}}"}, "user: .* is no name"),
        (SystemCard, {"file": "nowhere.json"}, "nowhere.json: No such file or directory; wanted a character card"),
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(cls: type[Any], settings: dict[str, Any], told: str) -> None:
    """As one mistake of the recipe, at the step's address."""
    mistakes: list[str] = []
    assert structure(cls, settings, "data.steps[0]", mistakes) is None
    with pytest.raises(AssertionError, match=told):
        raise AssertionError("; ".join(mistakes))
    assert all(mistake.startswith("data.steps[0]") for mistake in mistakes)


@pytest.mark.parametrize("name", ["mia.json", "mia.toml", "flat.json"])
def test_a_card_file_becomes_the_prompt(tmp_path: Path, name: str) -> None:
    """V2, the flat V1, JSON or TOML; what is no part of a prompt stays out, and {{char}}, {{user}} are filled."""
    file = tmp_path / name
    data: dict[str, Any] = CARD["data"]  # type: ignore[assignment]
    if name == "mia.toml":
        texts = {key: value for key, value in data.items() if isinstance(value, str)}
        file.write_text("[data]\n" + "\n".join(f"{k} = {json.dumps(v)}" for k, v in texts.items()), encoding="utf-8")
    else:
        file.write_text(json.dumps(data if name == "flat.json" else CARD), encoding="utf-8")
    step = SystemCard(file=str(file), user="Ann")
    assert step.prompt == MADE
    file.unlink()
    row = talk("old", "Hello {{char}}, I am <USER>.", "Hello {{User}}. \\1 $1 {{x}}")
    (out,) = after(step, frame([row])).to_dicts()
    assert [m["content"] for m in out["messages"]] == [MADE, "Hello Mia, I am Ann.", "Hello Ann. \\1 $1 {{x}}"]


def test_a_card_speaks_its_language_and_may_have_a_layout() -> None:
    """The words around the fields are those of the card's language; paragraphs without a value are left out."""
    zh = SystemCard(card={"name": "小满", "description": "{{char}}会修伞。", "personality": "嘴快"}, user="客人")
    assert zh.prompt == "小满会修伞。\n\n小满的性格：嘴快"
    own = SystemCard(
        card={"name": "Mia", "description": "x"}, layout="Be {{name}}.\n\n{{scenario}}\n\nIt is {{description}} {{y}}"
    )
    assert own.prompt == "Be Mia.\n\nIt is x {{y}}"


@pytest.mark.parametrize(
    ("content", "told"), [(b"{", "not valid JSON"), (b"\x89PNG\xff", "not text"), (b"[1]", "no character card")]
)
def test_a_file_that_is_no_card_is_told(tmp_path: Path, content: bytes, told: str) -> None:
    """Broken, an image, another thing."""
    file = tmp_path / "card.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=told):
        SystemCard(file=str(file))


@settings(max_examples=40, deadline=None)
@given(PROMPTS, TEXT.filter(lambda t: bool(t.strip())))
def test_any_text_of_a_card_is_only_text(description: str, user: str) -> None:
    """No group, no escape, no pattern; a second time nothing is left to do."""
    card = {"name": "M", "description": description}
    try:
        step = SystemCard(card=card, user=user)
    except ValueError:
        assert "{{" in user or "<" in user
        return
    assert step.prompt == description.strip() or "{{" in description or "<" in description or "\n" in description
    once = after(step, frame([talk(None, "{{user}}")]))
    assert once["messages"][0][1]["content"] == user
    assert after(step, once).equals(once)


@pytest.mark.parametrize("name", ["roleplay/aiwei.json", "roleplay/tiangou.json"])
def test_real_role_plays_under_one_prompt(real_data: Path, name: str) -> None:
    """All rows of a character, under one sentence; the talk itself is untouched."""
    from qdata.rows import load
    from qdata.rows.source import parts_of

    file = real_data / name
    for part in parts_of(file, "s", file.name):
        before = load.load(part, "xtuner", {}, None).frame
        out = after(SystemSet(text="You are kind."), before)
        first = out["messages"].list.first().struct.unnest()
        assert first["content"].unique().to_list() == ["You are kind."]
        assert after(SystemSet(do="drop"), out).equals(after(SystemSet(do="drop"), before))
