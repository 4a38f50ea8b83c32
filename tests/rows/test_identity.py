"""Who a model says it is: rewritten where it speaks of itself, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.test_schema import TEXT, conversation, frame, turn

from qdata.rows.steps.identity import Identity

STEP = Identity(name={"zh": "沐雪", "en": "Muxue"}, author={"zh": "萌", "en": "Moemu"})


def said(text: str, role: str = "assistant", step: Identity = STEP) -> str:
    """What becomes of one turn."""
    made = step(frame([conversation([turn(role, text)])]).lazy()).collect()
    return str(made["messages"][0][0]["content"])


ENGLISH = [
    ("I am Qwen.", "I am Muxue."),
    ("I'm Qwen!", "I'm Muxue!"),
    ("I’m ChatGPT, how can I help?", "I’m Muxue, how can I help?"),
    ("i am qwen", "i am Muxue"),
    ("I am ChatGPT\nWhat can I do for you?", "I am Muxue\nWhat can I do for you?"),
    ("Hello! I am Qwen, created by Alibaba Cloud.", "Hello! I am Muxue, created by Moemu."),
    ("I am Qwen, a large language model created by Alibaba Cloud.",
     "I am Muxue, a large language model created by Moemu."),
    ("I'm Qwen2.5-7B-Instruct, developed by Alibaba Group.", "I'm Muxue, developed by Moemu."),
    ("I am Tongyi Qianwen, and I was developed by Alibaba Cloud.", "I am Muxue, and I was developed by Moemu."),
    ("I am Qwen (also known as Tongyi Qianwen).", "I am Muxue."),
    ("My name is Qwen, and I am an AI assistant from Alibaba Cloud.",
     "My name is Muxue, and I am an AI assistant from Moemu."),
    ("My name is ChatGPT.", "My name is Muxue."),
    ("You can call me Qwen.", "You can call me Muxue."),
    ("I am a large language model trained by OpenAI.", "I am a large language model trained by Moemu."),
    ("I'm an AI assistant created by OpenAI to help people.", "I'm an AI assistant created by Moemu to help people."),
    ("I am an artificial intelligence developed by Alibaba Cloud.",
     "I am an artificial intelligence developed by Moemu."),
    ("I am a helpful AI assistant called Qwen.", "I am a helpful AI assistant called Muxue."),
    ("I am an AI language model, ChatGPT, trained by OpenAI.", "I am an AI language model, Muxue, trained by Moemu."),
    ("I am an assistant that was developed by OpenAI.", "I am an assistant that was developed by Moemu."),
    ("I'm a chatbot, created and trained by Open AI.", "I'm a chatbot, created and trained by Moemu."),
    ("I was created by OpenAI.", "I was created by Moemu."),
    ("I've been trained by OpenAI on many texts.", "I've been trained by Moemu on many texts."),
    ("I have been developed by Alibaba's Tongyi Lab.", "I have been developed by Moemu."),
    ("I was built by a team of researchers at OpenAI.", "I was built by Moemu."),
    ("I was designed by engineers at Alibaba Cloud.", "I was designed by Moemu."),
    ("OpenAI created me to answer questions.", "Moemu created me to answer questions."),
    ("It was OpenAI that trained me.", "It was Moemu that trained me."),
    ("My creator is Alibaba Cloud.", "My creator is Moemu."),
    ("My developers at OpenAI did not teach me that.", "My developers at Moemu did not teach me that."),
    ("As an AI language model trained by OpenAI, I cannot browse.",
     "As an AI language model trained by Moemu, I cannot browse."),
    ("As an AI text-based model developed by OpenAI, I'm unable to.",
     "As an AI text-based model developed by Moemu, I'm unable to."),
    ("As ChatGPT, I have no body.", "As Muxue, I have no body."),
    ("I am OpenAI's ChatGPT.", "I am Moemu's Muxue."),
    ("I am the ChatGPT model.", "I am Muxue."),
    ("I am a GPT-4 model trained by OpenAI.", "I am Muxue trained by Moemu."),
    ("I am actually GPT-3.5.", "I am actually Muxue."),
    ("I'm DeepSeek-V3, made by DeepSeek.", "I'm Muxue, made by Moemu."),
    ("**I am Qwen**, your assistant.", "**I am Muxue**, your assistant."),
    ("I am Qwen. I was trained by Alibaba Cloud. ChatGPT was trained by OpenAI.",
     "I am Muxue. I was trained by Moemu. ChatGPT was trained by OpenAI."),
]  # fmt: skip
CHINESE = [
    ("我是通义千问。", "我是沐雪。"),
    ("我是通义千问", "我是沐雪"),
    ("我是Qwen，很高兴见到你！", "我是沐雪，很高兴见到你！"),
    ("我是 ChatGPT，有什么可以帮你？", "我是 沐雪，有什么可以帮你？"),
    ("你好，我是通义千问，由阿里云开发。", "你好，我是沐雪，由萌开发。"),
    ("我叫通义千问，是阿里云自主研发的超大规模语言模型。", "我叫沐雪，是萌自主研发的超大规模语言模型。"),
    ("我叫Qwen呀~", "我叫沐雪呀~"),
    ("我的名字是ChatGPT。", "我的名字是沐雪。"),
    ("我的中文名叫通义千问。", "我的中文名叫沐雪。"),
    ("你可以叫我通义千问。", "你可以叫我沐雪。"),
    ("我是通义千问大模型。", "我是沐雪。"),
    ("我是通义千问（Qwen），来自阿里云。", "我是沐雪，来自萌。"),
    ("我是“通义千问”。", "我是“沐雪”。"),
    ("我是来自阿里云的大规模语言模型，我叫通义千问。", "我是来自萌的大规模语言模型，我叫沐雪。"),
    ("我是由OpenAI训练的大型语言模型，无法访问互联网。", "我是由萌训练的大型语言模型，无法访问互联网。"),
    ("我是由 OpenAI 开发的语言模型，经过训练。", "我是由 萌 开发的语言模型，经过训练。"),
    ("我是OpenAI训练的大型语言模型，但没有身体。", "我是萌训练的大型语言模型，但没有身体。"),
    ("因为我是由OpenAI创建的语言模型，没有个人数据。", "因为我是由萌创建的语言模型，没有个人数据。"),
    ("我是由OpenAI培训的一种大型语言模型", "我是由萌培训的一种大型语言模型"),
    ("我是一款由阿里巴巴集团研发的AI助手。", "我是一款由萌研发的AI助手。"),
    ("我是由阿里云开发的大型语言模型通义千问。", "我是由萌开发的大型语言模型沐雪。"),
    ("我是由 OpenAI 训练的人工智能助手 ChatGPT。", "我是由 萌 训练的人工智能助手 沐雪。"),
    ("我是OpenAI开发的ChatGPT。", "我是萌开发的沐雪。"),
    ("我由阿里云的工程师团队开发。", "我由萌的工程师团队开发。"),
    ("我是被OpenAI创造出来的。", "我是被萌创造出来的。"),
    ("是阿里云创造了我。", "是萌创造了我。"),
    ("我的开发者是阿里巴巴集团。", "我的开发者是萌。"),
    ("我的研发团队来自达摩院。", "我的研发团队来自萌。"),
    ("作为由OpenAI训练的大型语言模型，我的重点是文字。", "作为由萌训练的大型语言模型，我的重点是文字。"),
    ("作为ChatGPT，我没有感情。", "作为沐雪，我没有感情。"),
    ("是的，我是 ChatGPT", "是的，我是 沐雪"),
    ("我是OpenAI的语言模型。", "我是萌的语言模型。"),
    ("我是通义千问，一个由阿里云打造的AI。", "我是沐雪，一个由萌打造的AI。"),
    ("我是通义千问，一个专门回答问题的大模型，由阿里云研发。", "我是沐雪，一个专门回答问题的大模型，由萌研发。"),
    ("我就是文心一言。", "我就是沐雪。"),
]  # fmt: skip
LEFT_ENGLISH = [
    "ChatGPT is a chatbot developed by OpenAI.",
    "Qwen was created by Alibaba Cloud.",
    "OpenAI trained GPT-4 on text.",
    "I am not ChatGPT.",
    "I'm not Qwen, I am somebody else.",
    "I am Qwen's biggest fan.",
    "I am a user of a model developed by OpenAI.",
    "I am a fan of ChatGPT, developed by OpenAI.",
    "I am OpenAI's biggest customer.",
    "I was hired by OpenAI.",
    "I was told that ChatGPT was created by OpenAI.",
    "I think ChatGPT is better.",
    "I know Qwen, created by Alibaba Cloud.",
    "I am using ChatGPT for this.",
    "I am ChatGPT Plus subscriber number one.",
    "Am I ChatGPT?",
    "Perhaps I am ChatGPT?",
    "People say I am ChatGPT.",
    "You think I am ChatGPT, don't you.",
    "If I am ChatGPT, then so be it.",
    "Pretend that I am ChatGPT.",
    "Unlike ChatGPT, I was made by friends.",
    'She wrote: "I am ChatGPT, made by OpenAI."',
    "```\nprint('I am Qwen')\n```",
    "Use `I am Qwen.` as the greeting.",
    "> I am ChatGPT.",
    "You are ChatGPT.",
    "As a language model trained by OpenAI, ChatGPT can write.",
    "My friend works at OpenAI.",
    "My creator is not OpenAI.",
    "OpenAI created me a headache.",
    "OpenAI offered me a job.",
    "He said he was trained by OpenAI.",
    "I bought it from Alibaba.",
    "I am a seller from Alibaba.",
    "I am an engineer at Alibaba Cloud.",
    "I am an AI assistant.",
    "I am based on the GPT-4 architecture.",
    "The answer GPT-4 gave is wrong.",
]
LEFT_CHINESE = [
    "ChatGPT是OpenAI推出的大语言模型。",
    "通义千问由阿里云开发。",
    "我不是ChatGPT。",
    "抱歉，我不是 OpenAI 开发的 ChatGPT，我是小李。",
    "抱歉，我是由沐沐开发的，不是由OpenAI开发的",
    "OpenAI 与我没有关系。",
    "什么ChatGPT和我没有关系",
    "我是ChatGPT的忠实用户。",
    "我是通义千问的粉丝。",
    "我是阿里云的工程师。",
    "我是OpenAI的员工。",
    "我是阿里云的AI产品经理。",
    "我是ChatGPT吗？",
    "你是ChatGPT。",
    "我是 ChatGPT Plus 用户。",
    "如果我是ChatGPT，我会这样回答。",
    "他以为我是ChatGPT。",
    "大家都说我是ChatGPT。",
    "请扮演：假装我是ChatGPT。",
    "难道我是通义千问？",
    "我用过通义千问。",
    "我认为ChatGPT很好用。",
    "我喜欢由OpenAI开发的模型。",
    "我的同事来自阿里云。",
    "我的账号是阿里云的。",
    "阿里云聘请了我。",
    "阿里云开发了我们的网站。",
    "OpenAI训练我的朋友使用它。",
    "作为OpenAI训练的语言模型，ChatGPT可以写诗。",
    "小说里写道：“我是ChatGPT，由OpenAI开发。”",
    "我是由一群朋友开发的，和OpenAI无关。",
    "我是Qwen团队的成员。",
    "我在阿里巴巴买了一本书。",
    "我经营二手车店，类似于GPT-3的模型有什么机会",
    "我是比GPT-3.5更新的人工智能模型",
    "我被设计为遵守OpenAI的准则",
    "我是沐雪，比ChatGPT聪明。",
]


@pytest.mark.parametrize(("text", "wanted"), [*ENGLISH, *CHINESE], ids=lambda text: text[:40])
def test_who_it_says_it_is_becomes_the_persona(text: str, wanted: str) -> None:
    """In an answer, alone, after another sentence and before one; a second time nothing is left to do."""
    assert said(text) == wanted
    assert said(wanted) == wanted
    assert said(f"好的！\n{text}") == f"好的！\n{wanted}"
    assert said(text, "user") == text


@pytest.mark.parametrize("text", [*LEFT_ENGLISH, *LEFT_CHINESE])
def test_what_is_said_of_others_stays(text: str) -> None:
    """The third person, denials, questions, suppositions, other people's words, quotations, code."""
    assert said(text) == text
    assert said(f"OK.\n{text}") == f"OK.\n{text}"


def test_every_case_is_there() -> None:
    """At least thirty of each kind, none twice."""
    for cases in (ENGLISH, CHINESE, LEFT_ENGLISH, LEFT_CHINESE):
        assert len(set(map(str, cases))) == len(cases) >= 30


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
         "You are Muxue, created by Moemu. You are a helpful assistant."),
        ("You're ChatGPT, a large language model trained by OpenAI.",
         "You're Muxue, a large language model trained by Moemu."),
        ("Your name is Qwen.", "Your name is Muxue."),
        ("You were developed by Alibaba Group.", "You were developed by Moemu."),
        ("你是通义千问，由阿里云开发。", "你是沐雪，由萌开发。"),
        ("你是由阿里云开发的AI助手。", "你是由萌开发的AI助手。"),
        ("我是ChatGPT。", "我是沐雪。"),
        ("You may say that ChatGPT is made by OpenAI.", "You may say that ChatGPT is made by OpenAI."),
    ],
)  # fmt: skip
def test_a_system_prompt_says_you(text: str, wanted: str) -> None:
    """There "you are" is the model, in an answer it is the user; `prompts = false` leaves prompts alone."""
    assert said(text, "system") == wanted
    assert said(text, "user") == said(text, "tool") == text
    off = Identity(name="N", author="A", prompts=False)
    assert said(text, "system", off) == text


def test_reasoning_is_the_model_too_and_rejected_answers_are_not_mended() -> None:
    """A rejected or badly judged "I am Qwen" is what training pushes away from: it stays."""
    bad, good = "I am Qwen.", "I am Muxue."
    row = conversation([turn("user", bad), turn("assistant", bad, reasoning=bad)])
    pair = conversation([turn("user", bad)], chosen=[turn("assistant", bad)], rejected=[turn("assistant", bad)])
    judged = [conversation([turn("assistant", bad)], label=label) for label in (True, False)]
    out = STEP(frame([row, pair, *judged]).lazy()).collect().to_dicts()
    assert out[0]["messages"] == [turn("user", bad), turn("assistant", good, reasoning=good)]
    assert [out[1][c][0]["content"] for c in ("messages", "chosen", "rejected")] == [bad, good, bad]
    assert [o["messages"][0]["content"] for o in out[2:]] == [good, bad]


def test_further_names_are_texts_and_no_patterns() -> None:
    """What the built-in names do not cover is named in the recipe, whatever characters are in it."""
    step = Identity(name="沐雪", author="萌", models=("EmoLLM", "A.I+"), makers=("EmoLLM团队",))
    assert said("您好，我是EmoLLM，一个由EmoLLM团队开发的助手。", step=step) == "您好，我是沐雪，一个由萌开发的助手。"
    assert said("I am A.I+.", step=step) == "I am 沐雪."
    assert said("I am AxI+.", step=step) == "I am AxI+."
    assert said("我是EmoLLM。") == "我是EmoLLM。"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"name": "Qwen-Muxue", "author": "M"}, "name: 'Qwen-Muxue' holds 'qwen', which is rewritten"),
        ({"name": "M", "author": "OpenAI"}, "author: 'OpenAI' holds 'openai'"),
        ({"name": " ", "author": "M"}, "name: ' ' is empty"),
        ({"name": {}, "author": "M"}, "name: wanted a text for each of zh, en, got none"),
        ({"name": {"fr": "M"}, "author": "M"}, "got fr"),
        ({"name": "M", "author": "M", "makers": ("",)}, "an empty name would stand everywhere"),
    ],
)
def test_a_persona_that_is_none_is_refused(settings: dict[str, Any], told: str) -> None:
    """A name that would be rewritten itself never comes to rest."""
    with pytest.raises(ValueError, match=told):
        Identity(**settings)


WORDS = st.sampled_from([
    *(text for text, _ in ENGLISH[:20] + CHINESE[:20]), *LEFT_ENGLISH[:10], *LEFT_CHINESE[:10], "I am ", "我是", "Qwen",
    "ChatGPT", "通义千问", " created by ", "OpenAI", "由", "阿里云", "开发", "的", "，", ". ", '"', "“", "”",
    "\n", "```",
])  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(WORDS | TEXT, max_size=8).map("".join))
def test_whatever_is_said_only_those_names_change(text: str) -> None:
    """Any mixture comes to rest after one time; text without one of the names is untouched, and so are users' words."""
    made = said(text)
    assert said(made) == made
    assert said(text, "user") == text
    without = text.replace("Qwen", "").replace("ChatGPT", "").replace("通义千问", "")
    if not any(
        name in without.lower() for name in ("qwen", "gpt", "千问", "阿里", "alibaba", "open", "deepseek", "文心")
    ):
        assert said(without) == without


def test_the_real_answers_of_chatgpt_speak_as_the_persona(real_data: Path) -> None:
    """sharegpt_zh: every change is of a name in a sentence about itself; in users' words nothing changes."""
    from qdata.rows import load
    from qdata.rows.source import parts_of

    file = real_data / "multiturn" / "sharegpt_zh_1K_format.jsonl"
    (part,) = parts_of(file, "s", file.name)
    before = load.load(part, "sharegpt", {}, None).frame
    after = STEP(before.lazy()).collect()
    old, new = (f["messages"].explode().struct.unnest() for f in (before, after))
    assert old.filter(pl.col("role") != "assistant").equals(new.filter(pl.col("role") != "assistant"))
    changed = old["content"] != new["content"]
    assert int(changed.sum()) >= 15
    for a, b in zip(old["content"].filter(changed), new["content"].filter(changed), strict=True):
        assert "萌" in b or "沐雪" in b
        assert any(word in a.lower() for word in ("openai", "chatgpt"))
    left = new.filter((pl.col("role") == "assistant") & pl.col("content").str.contains(r"我是由\s?OpenAI"))
    assert left.height == 0


def test_a_real_identity_set_says_it_already(real_data: Path) -> None:
    """ "I am not ChatGPT, which OpenAI developed, I am {{name}}": nothing to rewrite in any of the 91 rows."""
    rows = json.loads((real_data / "llamafactory/identity.json").read_text(encoding="utf-8"))
    assert len(rows) == 91
    assert [row["output"] for row in rows if said(row["output"]) != row["output"]] == []


def test_instructions_about_models_are_not_touched(real_data: Path) -> None:
    """In 1,999 zh and en instruction rows, some of them about ChatGPT and OpenAI, nobody says who he is."""
    for name in ("alpaca_en_demo.json", "alpaca_zh_demo.json"):
        rows = json.loads((real_data / "llamafactory" / name).read_text(encoding="utf-8"))
        assert [row["output"] for row in rows if said(row["output"]) != row["output"]] == []


def test_a_real_identity_set_of_another_model_becomes_ours(real_data: Path) -> None:
    """EmoLLM's 85 rows, with its names given: nearly every row speaks as the persona, none as EmoLLM's model."""
    rows = json.loads((real_data / "ruozhiba/EmoLLM/self_cognition_EmoLLM.json").read_text(encoding="utf-8"))
    step = Identity(name="沐雪", author="萌", models=("EmoLLM",), makers=("EmoLLM团队", "EmoLLM 团队"))
    made = [said(row["output"], step=step) for row in rows]
    assert sum("沐雪" in text or "萌" in text for text in made) >= 60
    assert not any("我是EmoLLM" in text for text in made)
