"""Our Qwen3 family says what the vendor's templates say, byte for byte, and refuses what they refuse."""

from __future__ import annotations

import importlib.util
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pytest

from qdata.errors import QdataError
from qdata.tokens.template import Template

pytest.importorskip("transformers")

Message = dict[str, Any]
Case = dict[str, Any]

CONVERSATIONS = 1_500
TEXTS = [
    "hello 你好",
    "",
    "\n\nbefore",
    "behind\n\n",
    " spaces ",
    "{{x}} {% y %}",
    "😀<|im_end|>",
    "<tool_response>\nx\n</tool_response>",
    "<think>\nwhy\n</think>\n\nanswer",
    "<think></think>bare",
    "</think>closed",
    "<think>open",
    "a</think>b</think>c",
    "\n<think>\n\nspaced \n\n</think>\n\n\n tail \n",
]
REASONING = ["", "because", "\nbecause\n", " because ", "a</think>b"]
ARGUMENTS = [
    {},
    {"x": 1.0, "text": "你<'\"", "list": [1, "a", None], "none": None, "yes": True, "inner": {"é": "\n"}},
    '{"x": 1, "text": "\\u4f60"}',
    "not json",
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look",
            "description": "查 <b>'\"&",
            "parameters": {"type": "object", "properties": {"x": {"type": "number", "default": 1.0}}},
        },
    },
    {"type": "function", "function": {"name": "other", "parameters": {}}},
]


def call(rng: random.Random) -> dict[str, Any]:
    """A call, in the clients' wrapping or bare."""
    inner = {
        "name": rng.choice(["look", "other"]),
        "arguments": rng.choice(ARGUMENTS[: 2 if rng.random() < 0.7 else 4]),
    }
    return {"type": "function", "function": inner} if rng.random() < 0.7 else inner


def message(role: str, rng: random.Random) -> Message:
    """A message of a role."""
    made: Message = {"role": role, "content": rng.choice(TEXTS)}
    if role == "assistant":
        if rng.random() < 0.3:
            made["reasoning_content"] = rng.choice(REASONING)
        if rng.random() < 0.3:
            made["tool_calls"] = [call(rng) for _ in range(rng.randint(1, 2))]
            made["content"] = "" if rng.random() < 0.5 else made["content"]
    return made


def case(rng: random.Random) -> Case:
    """All that a server hands to a template: messages, tools, and its switches."""
    roles = ["system"] if rng.random() < 0.4 else []
    if rng.random() < 0.5:  # as conversations go
        for _ in range(rng.randint(1, 4)):
            roles += ["user", "assistant", *(["tool", "tool", "assistant"] if rng.random() < 0.3 else [])]
    else:
        roles += rng.choices(["user", "user", "assistant", "assistant", "tool"], k=rng.randint(1, 6))
    if rng.random() < 0.05:
        roles.append("system")
    switch = rng.choice([{}, {"enable_thinking": True}, {"enable_thinking": False}])
    return {
        "messages": [message(role, rng) for role in roles],
        "tools": TOOLS[: rng.randint(1, 2)] if rng.random() < 0.4 else None,
        "add_generation_prompt": rng.random() < 0.5,
        **switch,
    }


def theirs(source: str, one: Case) -> str | None:
    """What transformers makes of the vendor's template; None where that refuses."""
    from transformers.utils.chat_template_utils import render_jinja_template

    given = {k: v for k, v in one.items() if k != "messages"}
    try:
        rendered, _ = render_jinja_template(conversations=[one["messages"]], chat_template=source, **given)
    except (jinja2.TemplateError, TypeError, ValueError):
        return None
    return str(rendered[0])


def ours(template: Template, one: Case) -> str | None:
    """What our template says; None where it refuses."""
    given = {k: v for k, v in one.items() if k not in ("messages", "tools")}
    try:
        return template.render(one["messages"], one["tools"], **given)
    except QdataError:
        return None


@pytest.fixture(scope="session")
def vendors(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """The vendors' templates, by where they lie."""

    def source(name: str) -> str:
        if name.startswith("official:"):
            folder: Path = request.getfixturevalue("real_tokenizers") / "official_templates"
        else:
            trl = importlib.util.find_spec("trl")
            if trl is None or trl.origin is None:
                pytest.skip("trl is not installed: its copies of the vendors' templates are not here")
            folder = Path(trl.origin).parent / "chat_templates"
        file = folder / f"{name.partition(':')[2]}.jinja"
        if not file.is_file():
            pytest.skip(f"{file} is not there")
        return file.read_text(encoding="utf-8")

    return source


PAIRS = [
    ("qwen3", "official:qwen3"),
    ("qwen3", "trl:qwen3"),
    ("qwen3_instruct", "trl:qwen3_instruct_2507"),
    ("qwen3_5", "trl:qwen3_5_think"),
]


@pytest.mark.parametrize(("name", "vendor"), PAIRS, ids=[vendor for _, vendor in PAIRS])
def test_ours_says_what_the_vendor_says(name: str, vendor: str, vendors: Callable[[str], str]) -> None:
    """Whatever the vendor's renders, ours renders to the same bytes; what it refuses, ours refuses."""
    template, source = Template.load(name), vendors(vendor)
    rng = random.Random(f"{vendor} 0")
    seen: Counter[str] = Counter()
    for _ in range(CONVERSATIONS):
        one = case(rng)
        wanted = theirs(source, one)
        assert ours(template, one) == wanted, one
        seen["refused" if wanted is None else "same"] += 1
        if wanted is not None:
            seen["tools"] += one["tools"] is not None
            seen["calls"] += "<tool_call>\n" in wanted and one["tools"] is None
            seen["results"] += "</tool_response>\n<tool_response>" in wanted
            seen["thought"] += "<think>\nbecause\n</think>" in wanted
            seen["off"] += one.get("enable_thinking") is False
    assert seen["same"] > CONVERSATIONS / 2  # else little was compared
    assert min(seen[kind] for kind in ("tools", "calls", "results", "off")) > 20, seen
    assert (seen["thought"] > 20) is (name != "qwen3_instruct")


@pytest.mark.parametrize(
    ("what", "messages"),
    [
        ("no question", [{"role": "assistant", "content": "a"}]),
        ("no messages", []),
        ("late system", [{"role": "user", "content": "q"}, {"role": "system", "content": "s"}]),
        ("unknown role", [{"role": "user", "content": "q"}, {"role": "critic", "content": "s"}]),
    ],
)
def test_qwen3_5_refuses_what_the_vendor_refuses(
    what: str, messages: list[Message], vendors: Callable[[str], str]
) -> None:
    """Its vendor complains of conversations that make no sense to it, and so does ours."""
    one = {"messages": messages, "tools": None, "add_generation_prompt": True}
    assert theirs(vendors("trl:qwen3_5_think"), one) is None, what
    with pytest.raises(QdataError):
        Template.load("qwen3_5").render(messages, add_generation_prompt=True)
