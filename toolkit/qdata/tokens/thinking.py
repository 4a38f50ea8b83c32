"""Thinking policies: what stands between the prompt and the answer, each told by what it means when serving.

keep
    A turn with reasoning is its reasoning and its answer, behind the prompt of thinking on; a turn without is the
    answer behind an empty block that the prompt supplies. Served either way, the model does what the data shows.
strip
    The answer alone, directly behind the prompt of thinking on; reasoning is removed. Served with thinking on, the
    model answers at once.
empty_masked
    The answer behind an empty block that the prompt supplies; reasoning is removed. To be served with thinking off.
empty_trained
    An empty block and the answer, behind the prompt of thinking on; reasoning is removed. Served with thinking on, the
    model writes the empty block itself.
none
    Whatever the template writes of the turn; reasoning is left to it.

All are found by construction: the template is rendered as the prompt, and with the turn, and the difference is what
is trained. What a template cannot express (a prompt that opens a think block cannot be followed by a bare answer) is
refused with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from qdata.errors import QdataError
from qdata.tokens.shown import refuse_lost
from qdata.tokens.template import Template

POLICIES = ("keep", "strip", "empty_masked", "empty_trained", "none")
REMOVES = ("strip", "empty_masked", "empty_trained")

# In front of the answer: a block of its own, or, where a prompt opens the block, what ends with a line `</think>`.
_INLINE = re.compile(r"\A(?:\s*<think>.*?</think>|.*?</think>[ \t]*(?=\n|\Z))\n*", re.DOTALL)


def without(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """An assistant message without its reasoning, whether beside its content or in front of it.

    One that was nothing else is not trained: there is nothing left but its stop token. Raises QdataError where it
    cannot be told what is reasoning: tags inside the answer, a block that is not closed.
    """
    if message["role"] != "assistant":
        return message
    bare = {k: v for k, v in message.items() if k != "reasoning_content"}
    if "</think>" in bare["content"] and not message.get("reasoning_content"):
        bare["content"] = _INLINE.sub("", bare["content"], count=1)
    for tag in ("<think>", "</think>"):
        if tag in bare["content"]:
            raise QdataError(
                f"an answer has {tag} other than around reasoning in front of it: {bare['content'][-60:]!r}; "
                f"what is to be removed cannot be told"
            )
    return bare | {"train": False} if emptied(message, bare) else bare


def emptied(message: Mapping[str, Any], bare: Mapping[str, Any]) -> bool:
    """Whether nothing is left of a message that said something."""
    left = bare["content"].strip() or bare.get("tool_calls")
    return bool((message["content"].strip() or message.get("reasoning_content")) and not left)


def thinks(message: Mapping[str, Any]) -> bool:
    """Whether a message has reasoning that is more than white space."""
    if message.get("reasoning_content"):
        return bool(message["reasoning_content"].strip())
    content = message["content"]
    return "</think>" in content and bool(content.split("</think>")[0].replace("<think>", "").strip())


def as_history(template: Template, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None) -> str:
    """The text of messages that one more question follows, up to its text."""
    asked = template.render([*messages, {"role": "user", "content": "?"}], tools)
    return asked.rpartition("?")[0]


def served(
    template: Template,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Any] | None,
    turn: int,
    think: str,
    on: bool | None = None,
) -> tuple[str, str]:
    """The prompt a server builds for a turn under a policy, and the answer it is to be trained to give.

    `on`: under `keep`, whether thinking is on when served; default: where the turn has reasoning.
    Raises QdataError when the template writes the turn differently from how that prompt ends.
    """
    mode: bool | None = None
    if think == "keep":
        mode = thinks(messages[turn]) if on is None else on
    elif think != "none":
        mode = think != "empty_masked"
    prompt = template.render(messages[:turn], tools, add_generation_prompt=True, enable_thinking=mode)
    if think == "strip":
        said = as_history(template, messages[: turn + 1], tools)  # where a turn without reasoning is written bare
    else:
        said = template.render(messages[: turn + 1], tools)
    if not said.startswith(prompt):
        raise QdataError(
            f"template {template.name}, think = {think}: message {turn} is written differently from how its serving "
            f"prompt ends; the prompt ends {prompt[-40:]!r}, the turn reads {said[: len(prompt) + 20][-60:]!r}. "
            f"It cannot be trained as served."
        )
    answer, stop, _ = said[len(prompt) :].rpartition(template.stop)
    if not stop:
        raise QdataError(f"template {template.name}: no stop token {template.stop!r} after message {turn}")
    refuse_lost(template, messages[turn], turn, answer, think)
    return prompt, answer + stop
