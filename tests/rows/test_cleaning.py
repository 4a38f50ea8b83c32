"""What cleaning steps do to a text, one line each: what must change, and what looks alike and must not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import ftfy
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.rows.test_steps import after
from tests.test_schema import conversation, frame, turn

from qdata import plugin
from qdata.errors import QdataError
from qdata.recipe import structure
from qdata.rows import steps
from qdata.rows.steps._texts import settled
from qdata.rows.steps.character_repetition import CharacterRepetition, repeated
from qdata.rows.steps.fix_text import FixText
from qdata.rows.steps.length import Length


def step(name: str, **settings: Any) -> Any:
    return plugin.find(steps, name)(**settings)


def edited(name: str, text: str, **settings: Any) -> Any:
    """What becomes of an answer; the pretraining text beside it fares the same."""
    out = after(step(name, **settings), frame([conversation([turn("assistant", text)], text=text)]))
    said = out["messages"][0][0]["content"]
    assert out["text"][0] == said
    return said


def reason(name: str, *turns: tuple[str, str | None], text: str | None = None, **settings: Any) -> Any:
    """Why a conversation is dropped, without the step's name; or None."""
    messages = [turn(*one) for one in turns] or None
    (drop,) = after(step(name, **settings), frame([conversation(messages, text=text)]))["drop"]
    return drop and drop.removeprefix(f"{name}.")


ZWJ, SHY = "\u200d", "\u00ad"
EDITS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("fix_text", "Ã©tÃ© âœ” dâ€™accord", "été ✔ d’accord", {}),
    ("fix_text", "“好”，全角！ ﬁ &amp;", "“好”，全角！ ﬁ &amp;", {}),
    ("fix_text", "“a” ﬁ &amp;", '"a" fi &', {"everything": True}),
    ("normalize", "e\u0301 ½，", "é ½，", {}),
    ("normalize", "ｅ，²", "e,2", {"form": "NFKC"}),
    ("control_characters", f"a\x00b\x07c\u200bd\ufeffe{SHY}f\x1b[31mg\x1b[0m\x7f", "abcdefg", {}),
    ("control_characters", "a\r\nb\rc\x0bd\u2028e\x85f\tg\n", "a\nb\nc\nd\ne\nf\tg\n", {}),
    ("control_characters", f"👩{ZWJ}🚀 👩🏽{ZWJ}🚀 ❤️{ZWJ}🔥 क्{ZWJ}ष می\u200cخواهم", None, {}),
    ("control_characters", f"a{ZWJ}b {ZWJ}c \u200c", "ab c ", {}),
    ("control_characters", "שלום\u200f!", None, {}),
    ("control_characters", "left\u202eright\u200e", "leftright", {}),
    ("control_characters", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", None, {}),
    ("control_characters", "hidden\U000e0068\U000e0069", "hidden", {}),
    ("whitespace", "a \t\n\n\n\nb\u3000\n c ", "a\n\nb\n c", {}),
    ("whitespace", "a  \nb", None, {"trailing": False}),
    ("whitespace", "x  \n```py\na  \n\n\n\nb\n```\n\n\n\ny", "x\n```py\na  \n\n\n\nb\n```\n\ny", {}),
    ("whitespace", "x\n~~~\na  \n\n\n\n never closed  ", None, {}),
    ("whitespace", "\ta\u00a0b\u3000\u2009c\n\n\n\n", "a b  c", {"spaces": True, "ends": True}),
    ("whitespace", "a \n\n\n\n\tb ", "a \n\n\n\n b ", {"spaces": True, "trailing": False, "blank_lines": -1}),
    ("whitespace", " x\n```\n\ta\u00a0b\n```\n", "x\n```\n\ta\u00a0b\n```", {"spaces": True, "ends": True}),
    ("html", "a<br>b<br/>\nc", "a\nb\nc", {}),
    ("html", "Tom &amp; Jerry&nbsp;&#39;s &lt;3 &amp;amp; &bogus; AT&T", "Tom & Jerry 's <3 & &bogus; AT&T", {}),
    ("html", "<p>one</p><p class='x'>two <i>three</i></p>", "\none\n\ntwo three\n", {}),
    ("html", "a <T> b <name> Map<String, a> <b> c < d", None, {}),
    ("html", "`<b>x</b>` and\n```\n<p>x</p> &amp;\n```\n", None, {}),
    ("html", "In HTML you write <b>x</b>.", None, {}),
    ("html", "在网页里写 <b>x</b>。", None, {}),
    ("html", "<b></b>", None, {}),
    ("html", "<i>a</i> &amp;", "<i>a</i> &", {"tags": False}),
    ("html", "<i>a</i> &amp;", "a &amp;", {"entities": False}),
    ("chinese_script", "後來我們發現頭髮", "后来我们发现头发", {}),
    ("chinese_script", "日本の漢字學校", None, {}),
    ("chinese_script", "头发发现", "頭髮發現", {"to": "traditional"}),
    ("mask_pii", "写信给 zhang.san@qq.com，或打 138-1234-5678。", "写信给 [EMAIL]，或打 [PHONE]。", {}),
    ("mask_pii", "身份证11010519491231002X，", "身份证[ID_CARD]，", {}),
    ("mask_pii", "身份证110105194912310021，2024-11-22 10:00，圆周率3.1415926535，192.168.100.100", None, {}),
    ("mask_pii", "C = arccos(-0.3571428571) = 111.8°", "C = arccos(-0.3571428571) = 111.8°", {}),
    ("mask_pii", "the 2003-03-08-14 win32 build", "the 2003-03-08-14 win32 build", {}),
    ("mask_pii", "(202) 456.1111", "[PHONE]", {}),
    ("mask_pii", "call (202) 456-1111 or +44 20 7946 0958", "call [PHONE] or [PHONE]", {}),
    ("mask_pii", "me@example.com, a@b, 9508735610, 14.285714285, 255.255.255.0", None, {}),
    ("mask_pii", "key sk-" + "aB3" * 10 + ", ghp_" + "a1" * 18, "key [KEY], [KEY]", {}),
    ("mask_pii", "a@mail.cn 13812345678", "[EMAIL] 13812345678", {"kinds": ("email",)}),
    ("merged_instructions", "An answer.\n##\n6. Instruction: More\n6. Input:\n-", "An answer.", {"do": "trim"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "wanted", "settings"), EDITS)
def test_what_an_edit_does(name: str, text: str, wanted: str | None, settings: dict[str, Any]) -> None:
    """The text afterwards; None: not a letter is touched."""
    if settings.get("do") == "trim":
        out = after(step(name, **settings), frame([conversation([turn("assistant", text)])]))
        assert out["messages"][0][0]["content"] == wanted
    else:
        assert edited(name, text, **settings) == (text if wanted is None else wanted)


@pytest.mark.parametrize("field", ["content", "reasoning"])
def test_reasoning_and_answers_to_choose_from_are_edited_too(field: str) -> None:
    """All three lists of messages."""
    lists = {name: [turn("assistant", "a") | {field: "Ã©"}] for name in ("chosen", "rejected")}
    out = after(step("fix_text"), frame([conversation([turn("user", "a") | {field: "Ã©"}], **lists)]))
    assert [out[name][0][0][field] for name in ("messages", *lists)] == ["é"] * 3


@pytest.mark.parametrize("name", ["in-the-wild", "known-failures", "negative", "synthetic"])
def test_real_mojibake_is_repaired(real_data: Path, name: str) -> None:
    """Every case that ftfy is expected to pass, its encoding by default, and all else when asked for."""
    cases = json.loads((real_data / "messy" / f"{name}.json").read_text(encoding="utf-8"))
    for case in (one for one in cases if one["expect"] == "pass"):
        assert edited("fix_text", case["original"]) == case.get("fixed-encoding", case["fixed"]), case["label"]
        assert edited("fix_text", case["original"], everything=True) == case["fixed"], case["label"]


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        *((f"Name a colour.\n{p}", "Name a colour.") for p in ("<noinput>", "No input", "no input required.", "N/A"))
        , *((f"Name a colour.\n{p}", "Name a colour.") for p in ('"<noinput>"', "`<no input>`", "(None)", "无输入"))
        , ("Complete it.\nIt is a <noinput>", "Complete it.\nIt is a"),
        ("Translate.\nThere was no input from the user.", None),
        ("What does N/A mean?", None), ("Translate to English.\nna und", None), ("<noinput>", None),
        ("Which?\nSodium (Na) or none of them", None),
    ],
)  # fmt: skip
def test_placeholders_are_taken_off_questions(question: str, wanted: str | None) -> None:
    """At the end of the question, and only there; the answer may hold what it likes."""
    row = conversation([turn("user", question), turn("assistant", "<noinput>")])
    out = after(step("placeholder_input", do="trim"), frame([row]))["messages"][0]
    assert [m["content"] for m in out] == [question if wanted is None else wanted, "<noinput>"]


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ("Sum up the article.\nhttps://a.org/b", "url_input"),
        ("Describe the painting.\n![alt](https://a.org/b.jpg)", "url_input"),
        ("Summarize this article: https://a.org/b", "url_input"),
        ("总结这篇文章 https://a.org/b", "url_input"),
        ("Write a tweet.\n<noinput>", "no_input"),
        ("Find the domain of the URL.\nhttps://a.org/b", None),
        ("Shorten the URL https://a.org/b", None),
        ("Sum up: I read https://a.org yesterday, and it told me much about whales and the sea.", None),
    ],
)
def test_questions_about_what_nobody_shows_are_dropped(question: str, wanted: str | None) -> None:
    """A link that is to be read, and no link that is to be written about."""
    assert reason("placeholder_input", ("user", question), ("assistant", "a")) == wanted


ASK = ("user", "Why is the sky blue?")
# Mostly Latin letters, and yet Chinese; and code of which nobody said that it is code.
ELEMENTS = (
    "1. 氢（Hydrogen） 2. 氦（Helium） 3. 锂（Lithium） 4. 铍（Beryllium） 5. 硼（Boron） 6. 碳（Carbon）"
    " 7. 氮（Nitrogen） 8. 氧（Oxygen） 9. 氟（Fluorine） 10. 氖（Neon） 11. 钠（Sodium） 12. 镁（Magnesium）"
    " 13. 铝（Aluminium）"
)
OBFUSCATED = "var _0x17197e=['hash','99BTYcVg','?rfr=','src','10yktvDA','7eTnhwc','2106488vdizGJ','179330oCCmlo'];" * 4
FILTERS: list[tuple[str, tuple[str, str | None], str | None, dict[str, Any]]] = [
    ("boilerplate", ("assistant", "I'm sorry, but as an AI language model I cannot eat."), "as_an_ai", {}),
    ("boilerplate", ("assistant", "As a large language model, I am unable to draw."), "as_an_ai", {}),
    ("boilerplate", ("assistant", "抱歉，作为AI语言模型，我没有味觉。"), "as_an_ai", {}),
    ("boilerplate", ("assistant", "我是一个由OpenAI训练的大型语言模型，无法上网。"), "as_an_ai", {}),
    ("boilerplate", ("assistant", "My knowledge cutoff is 2021."), "knowledge_cutoff", {}),
    ("boilerplate", ("assistant", "AI is used in medicine as an aid. 人工智能是一门学科。"), None, {}),
    ("boilerplate", ("assistant", "As an aircraft engineer, I like language."), None, {}),
    ("boilerplate", ("assistant", "It is used in areas such as artificial intelligence, and AI."), None, {}),
    ("boilerplate", ("assistant", "As AI becomes common, and as the digital world evolves, jobs go."), None, {}),
    ("boilerplate", ("assistant", "Tasks such as language translation; bitcoin as a digital payment."), None, {}),
    ("boilerplate", ("assistant", "As an AI text-based model developed by OpenAI, I see nothing."), "as_an_ai", {}),
    ("boilerplate", ("assistant", "As AI language model, I cannot."), "as_an_ai", {}),
    ("boilerplate", ("assistant", "机器学习作为人工智能的一个分支，发展很快。"), None, {}),
    ("boilerplate", ("assistant", "作为一个人工智能领域的专家，她很忙。"), None, {}),
    ("boilerplate", ("assistant", "作为一名人工智能助手我没有手。"), "as_an_ai", {}),
    ("boilerplate", ("assistant", "Hope this helps!"), "own_pattern", {"patterns": ("(?i)hope this helps",)}),
    ("empty_turn", ("assistant", " \n"), "no_answer", {}),
    ("empty_turn", ("assistant", None), "no_answer", {}),
    ("empty_turn", ("assistant", "N/A"), "no_output", {}),
    ("empty_turn", ("assistant", "<No Output - this is a visual task.>"), "no_output", {}),
    ("empty_turn", ("assistant", "None."), None, {}),
    ("empty_turn", ("assistant", "No outputs differ between the two."), None, {}),
    ("empty_turn", ("user", ""), "no_question", {}),
    ("merged_instructions", ("assistant", "Blue.\n\n12. Instruction: Next\n12. Input:\nx"), "second_instruction", {}),
    ("merged_instructions", ("assistant", "Instruction: Fill the mug."), None, {}),
    ("merged_instructions", ("assistant", "1. Input: a\n2. Process: b"), None, {}),
    ("code_fence", ("assistant", "See:\n```py\nx = 1"), "not_closed", {}),
    ("code_fence", ("assistant", "````\n```\n````\n\n- a\n  ```\n  x\n  ```"), None, {}),
    ("code_fence", ("assistant", "```x``` is inline"), None, {}),
    ("code_fence", ("user", "```"), None, {}),
    ("length", ("assistant", "ab "), "answer_too_short", {"min_answer": 3}),
    ("length", ("assistant", "你好吗你"), "answer_too_long", {"max_answer": 3}),
    ("length", ("system", "abcd"), "system_too_long", {"max_system": 3}),
    ("length", ("assistant", "a"), "too_many_messages", {"max_messages": 1}),
    ("length", ("assistant", "one two"), "too_few_words", {"min_words": 8}),
    ("length", ("assistant", "one two"), None, {"min_words": 7}),
    ("length", ("assistant", "天空 blue"), "too_many_words", {"max_words": 7}),
    ("length", ("assistant", "天空 blue"), None, {"max_words": 8}),
    ("special_characters", ("assistant", "abc 12"), "too_many", {"max": 0.49}),
    ("special_characters", ("assistant", "abc 12"), None, {"max": 0.5}),
    ("special_characters", ("assistant", "天空é是█。"), None, {}),
    ("special_characters", ("user", "1 + 1 = ?"), None, {}),
    ("character_repetition", ("assistant", "哈" * 40), "too_much", {}),
    ("character_repetition", ("assistant", "天空是蓝色的。" * 20), None, {}),
    ("character_repetition", ("assistant", "天空是蓝色的。" * 20), "too_much", {"max": 0.2}),
    ("character_repetition", ("assistant", "abc" * 4), None, {}),
    ("character_repetition", ("assistant", "abc" * 4), "too_much", {"n": 3, "max": 0.3}),
    ("length_ratio", ("assistant", "x" * 100), "answer_too_long", {"max": 2.0}),
    ("length_ratio", ("assistant", "x"), "answer_too_short", {"min": 0.5}),
    ("repetition", ("assistant", "Why is the sky blue?"), "parrot", {}),
    ("repetition", ("assistant", "哈" * 40), "characters", {}),
    ("repetition", ("assistant", "0" * 40 + " " + "-" * 80), None, {}),
    ("repetition", ("assistant", "the sky is blue because it is blue, " * 6), "phrases", {}),
    ("repetition", ("assistant", "天空是蓝色的因为它是蓝色的，" * 8), "phrases", {}),
    ("repetition", ("assistant", "A line that comes again.\n" * 6), "lines", {"phrases": 1.0}),
    ("repetition", ("assistant", " ".join(f"word{n}" for n in range(200))), None, {}),
    ("repetition", ("assistant", "[" + "0, " * 60 + "1]"), None, {}),
    ("repetition", ("assistant", "<tr>\n<td>Row</td>\n" * 9), None, {"phrases": 1.0}),
    ("language", ("assistant", "Le ciel est bleu parce que la lumière du soleil est diffusée par l'air."), "fr", {}),
    ("language", ("assistant", "Небо голубое, потому что воздух рассеивает солнечный свет во все стороны."), "ru", {}),
    ("language", ("assistant", "空が青いのは、空気が光を散乱させるからです。"), "ja", {}),
    ("language", ("assistant", "天空是蓝色的，因为空气散射阳光。"), None, {}),
    ("language", ("assistant", "天空是蓝色的，因为空气散射阳光。"), "zh", {"allowed": ("en",)}),
    ("language", ("assistant", "하늘은 공기가 햇빛을 산란시키기 때문에 파랗습니다."), "ko", {}),
    ("language", ("assistant", "```\nprint('bonjour tout le monde, comment allez-vous')\n```\nx = 1"), None, {}),
    ("language", ("assistant", "Oui."), None, {}),
    ("language", ("assistant", ELEMENTS), None, {"confidence": 0.7}),
    ("language", ("assistant", ELEMENTS), "zh", {"allowed": ("en",), "confidence": 0.7}),
    ("language", ("assistant", OBFUSCATED), None, {"confidence": 0.7}),
    ("word_list", ("assistant", "A Class of its own"), None, {"words": ("ass",)}),
    ("word_list", ("assistant", "what an ASS!"), "listed_word", {"words": ("ass",)}),
    ("word_list", ("assistant", "what an ASS!"), None, {"words": ("ass",), "ignore_case": False}),
    ("word_list", ("assistant", "说违禁词的人"), "listed_word", {"words": ("x", "违禁词")}),
    ("word_list", ("assistant", "用ass这个词"), "listed_word", {"words": ("ass",)}),
    ("word_list", ("assistant", "c++ is $5"), "listed_word", {"words": ("c++",)}),
    ("mask_pii", ("assistant", "Mail a@mail.cn"), "email", {"do": "drop"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "said", "wanted", "settings"), FILTERS)
def test_what_a_filter_drops(name: str, said: tuple[str, str | None], wanted: str | None, settings: Any) -> None:
    """The reason, or None where a text only looks alike."""
    assert reason(name, ASK, said, **settings) == wanted


@pytest.mark.parametrize("name", ["length", "repetition", "language", "code_fence", "word_list"])
def test_filters_judge_pretraining_text_too(name: str) -> None:
    """The column `text`, where a row has no messages."""
    bad = {"length": "a", "repetition": "so it goes " * 30, "code_fence": "```\nx", "word_list": "bad"}
    bad |= {"language": "Der Himmel ist blau, weil die Luft das Licht der Sonne streut."}
    settings: dict[str, Any] = {"length": {"min_text": 5}, "word_list": {"words": ("bad",)}}.get(name, {})
    assert reason(name, text=bad[name], **settings)
    assert reason(name, text="A plain English text about the sky and the sun.", **settings) is None


@pytest.mark.parametrize(
    ("turns", "wanted"),
    [
        ("user user assistant", "repeated_user"), ("user assistant assistant", "repeated_assistant"),
        ("assistant user assistant", "starts_with_answer"), ("system assistant", "starts_with_answer"),
        ("tool user", "starts_with_tool"), ("user tool assistant", "result_without_call"),
        ("user human assistant", "unknown_role"), ("user assistant system user", "late_system"),
        ("system user assistant user assistant", None), ("system system user assistant", None),
        ("user assistant user", "unanswered"), ("user", "unanswered"),
    ],
)  # fmt: skip
def test_role_order_names_what_is_wrong(turns: str, wanted: str | None) -> None:
    """The first thing in the conversation."""
    assert reason("role_order", *((who, "a") for who in turns.split())) == wanted


def calls(arguments: Any, name: str = "f") -> str:
    return json.dumps([{"type": "function", "function": {"name": name, "arguments": arguments}}])


@pytest.mark.parametrize(
    ("given", "why", "repaired"),
    [
        ('{"a": 1}', None, '{"a": 1}'), ('{ "a":1 }', None, '{ "a":1 }'), ({"a": 1}, None, {"a": 1}), ("", None, ""),
        ('{"a": 1', "no_json", '{"a": 1}'), ("{'a': True}", "no_json", '{"a": true}'),
        ("[1, 2]", "no_object", "[1, 2]"), ("what?", "no_json", "what?"),
    ],
)  # fmt: skip
def test_call_arguments_are_repaired_or_dropped(given: Any, why: str | None, repaired: Any) -> None:
    """What is right keeps every letter; what cannot be repaired stays for `drop`."""
    row = conversation([turn("user", "a"), turn("assistant", None, tool_calls=calls(given))])
    (drop,) = after(step("tool_json", do="drop"), frame([row]))["drop"]
    assert drop == (why and f"tool_json.{why}")
    made = after(step("tool_json"), frame([row]))["messages"][0][1]["tool_calls"]
    assert json.loads(made)[0]["function"]["arguments"] == repaired
    assert why is not None or made == calls(given)


@pytest.mark.parametrize(
    ("name", "settings", "wanted"),
    [
        ("length", {"min_answer": -3}, "min_answer: wanted a whole number of at least 0, got -3"),
        ("length", {"min_answer": 5, "max_answer": 2}, "max_answer: 2 is below min_answer, which is 5"),
        ("repetition", {"phrases": 3.0}, "phrases: wanted a share from 0 to 1, got 3"),
        ("repetition", {"n": 0}, "n: wanted a whole number above 0, got 0"),
        ("boilerplate", {"patterns": ("ok", "((")}, r"patterns: '\(\(' is no regular expression \(unclosed group\)"),
        ("language", {"allowed": ("chinese",)}, "allowed: 'chinese' is no code of a language; wanted zh"),
        ("language", {"allowed": ()}, "allowed: no language"),
        ("mask_pii", {"regions": ("US", "XX")}, "regions: 'XX' is no code of a country; wanted CN"),
        ("word_list", {}, "no words; wanted file"),
    ],
)
def test_settings_that_would_do_nothing_or_drop_everything_are_refused(
    name: str, settings: dict[str, Any], wanted: str
) -> None:
    """When the step is made."""
    with pytest.raises(ValueError, match=wanted):
        step(name, **settings)


@pytest.mark.parametrize("name", ["boilerplate", "code_fence", "empty_turn", "language", "merge_turns", "repetition"])
def test_a_role_that_nobody_has_is_told(name: str) -> None:
    """A misspelt role would make a step that looks at nothing."""
    mistakes: list[str] = []
    assert structure(plugin.find(steps, name), {"roles": ["asistant"]}, "here", mistakes) is None
    assert len(mistakes) == 1 and mistakes[0].startswith("here.roles[0]: 'asistant' is not one of 'system', 'user'")


def test_a_word_list_is_a_file(tmp_path: Path) -> None:
    """A word a line, comments and blank lines apart; its words are in the step, and so in manifest and cache key."""
    file = tmp_path / "words.txt"
    file.write_text("\ufeff# mine\nbad\n\n 坏话 \n", encoding="utf-8")
    made = step("word_list", file=str(file))
    assert made.words == ("bad", "坏话")
    file.write_text("good\n", encoding="utf-8")
    assert step("word_list", file=str(file)) != made
    with pytest.raises(QdataError, match=r"none\.txt: cannot be read"):
        step("word_list", file=str(tmp_path / "none.txt"))
    file.write_text("# nothing yet\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"words\.txt: no words in it"):
        step("word_list", file=str(file))


def test_a_library_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the step is made, with what to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in ("fix_text", "chinese_script", "mask_pii", "tool_json", "language"):
        with pytest.raises(QdataError, match=r"not installed: pip install 'qdata\[clean\]'"):
            step(name)
    step("mask_pii", kinds=("email",))
    step("tool_json", do="drop")


def test_repetition_never_overlooks_what_it_counts() -> None:
    """The quick look drops no text that the slow count would: all of them counted, against what the step says."""
    made = step("repetition", phrases=0.2, lines=0.2, n=2)
    words = ["so", "it", "goes", "on", "天", "空\n"]
    texts = [" ".join(words[(n * k + k // 3) % (2 + n % 5)] for k in range(10 + n % 50)) for n in range(300)]
    slow = [made._verdict(text) for text in texts]
    out = after(made, frame([conversation(None, text=text) for text in texts]))["drop"]
    assert out.to_list() == slow
    assert 20 < out.null_count() < 280
    assert isinstance(out, pl.Series)


# Pieces that ftfy knows something about, some that it does not, and what stands between them.
PIECES = ["a", " ", "\n", "é", "É", "Â", "Ã", "Ã©", "Œ", "“", "’", "–", "…", "€", "™", "°", "&amp;", "&", "<", "ﬁ", "Å"]
PIECES += [
    "\u0301",
    "\u00a0",
    "\u00ad",
    "\x80",
    "\r",
    "\x1b[0m",
    "\x0c",
    "\x7f",
    "\u2028",
    "ａ",
    "你",
    "，",
    "½",
    "\ufeff",
]
LATIN = st.characters(max_codepoint=0x2FF) | st.characters(min_codepoint=0x2000, max_codepoint=0x22FF)


def plain_ftfy(text: str, everything: bool) -> str:
    """What ftfy makes of a text, until it makes no more of it."""
    return settled(lambda one: str(ftfy.fix_text(one, FixText(everything)._config())), text)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from(PIECES) | LATIN, max_size=8).map("".join), min_size=1, max_size=8))
def test_what_ftfy_never_sees_it_would_not_change(texts: list[str]) -> None:
    """With all of its repairs and with encodings only, the step is ftfy itself."""
    for everything in (True, False):
        made = FixText(everything)._fixed(pl.Series(texts)).to_list()
        assert made == [plain_ftfy(text, everything) for text in texts]


def test_each_character_fares_as_under_ftfy() -> None:
    """Of the scripts and symbols that ftfy knows something about: in a word, and alone behind a quote."""
    codes = [*range(0x600), *range(0x1E00, 0x2700), *range(0x3000, 0x3100), *range(0xFB00, 0x10000)]
    texts = [f"a{chr(code)}b ”{chr(code)} 1" for code in codes]
    assert FixText(everything=True)._fixed(pl.Series(texts)).to_list() == [plain_ftfy(one, True) for one in texts]


def test_real_texts_fare_as_under_ftfy(real_data: Path) -> None:
    """Those of alpaca that are not plain ASCII, or have an entity."""
    rows = json.loads((real_data / "alpaca" / "alpaca_data.json").read_text(encoding="utf-8"))
    texts = [text for row in rows for text in row.values() if not text.isascii() or "&" in text][:1000]
    assert FixText(everything=True)._fixed(pl.Series(texts)).to_list() == [plain_ftfy(one, True) for one in texts]


RINGS = st.tuples(st.text("ab 你", min_size=1, max_size=5), st.integers(0, 400), st.text("abc你\n", max_size=300))


@settings(max_examples=200, deadline=None)
@given(st.lists(RINGS, max_size=4), st.integers(1, 12), st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.9, 1.0]))
def test_what_goes_round_in_circles_is_never_missed(rings: list[tuple[str, int, str]], n: int, most: float) -> None:
    """Counting the n-grams only of texts that may be over the limit tells what counting those of all tells."""
    texts = [word * times + rest for word, times, rest in rings]
    over = CharacterRepetition(n=n, max=most)._over(pl.Series(texts, dtype=pl.String))
    assert over.to_list() == [repeated(text, n) > most for text in texts]


def test_the_share_of_repeated_ngrams() -> None:
    """By hand: "abcabcabd" has abc 2, bca 2, cab 2 and abd 1; of 4 different ones the 2 most frequent count."""
    assert repeated("abcabcabd", 3) == 4 / 7
    assert repeated("abcdefgh", 3) == 0 and repeated("ab", 3) == 0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("a 你1-\n", max_size=60), max_size=5), st.integers(0, 12), st.integers(0, 12))
def test_words_are_counted_where_a_look_does_not_tell(texts: list[str], least: int, most: int) -> None:
    """The number of words of the whole text decides, however it begins."""
    counts = [len(re.findall("你|[a1]+", text)) for text in texts]
    wanted = ["many" if count > most else "few" if count < least else None for count in counts]
    found = Length(min_words=least, max_words=most)._of_words(pl.Series(texts, dtype=pl.String)).to_list()
    assert found == [word and f"length.too_{word}_words" for word in wanted]
