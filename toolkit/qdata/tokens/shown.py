"""What a template would leave out or rewrite in silence: texts, reasoning, calls, tools. Refused, with the reason."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from qdata.errors import QdataError
from qdata.tokens.probe import Probe
from qdata.tokens.template import Template


def refuse_lost(template: Template, message: Mapping[str, Any], turn: int, answer: str, think: str) -> None:
    """Raises QdataError where an answer as the template writes it lacks what its message says."""
    given = str(message.get("reasoning_content") or "").strip()
    if think == "keep" and given and given not in answer:
        raise QdataError(
            f"template {template.name} writes no reasoning, and message {turn} has some, which would be lost. "
            f"Take a template that shows it, or remove it with --think strip"
        )
    said = _plainly(message["content"], after="</think>")
    if said not in str.__str__(answer):
        raise QdataError(
            f"template {template.name} rewrites message {turn}, which says {said[:60]!r}, and would be trained to say "
            f"{answer[:60]!r}"
        )
    if lost := _absent(message.get("tool_calls") or (), answer):
        raise QdataError(
            f"template {template.name} writes no tool calls, and message {turn} calls {lost}, which would be lost. "
            f"Take a template that shows them, such as qwen2_5 or qwen3"
        )


def refuse_unshown(
    template: Template, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None, text: str
) -> None:
    """Raises QdataError where a conversation's tools, or what others than the model say in it, is not in its text.

    White space at the ends of a text does not count: many templates trim it.
    """
    for number, message in enumerate(messages):
        said = _plainly(message["content"])
        if message["role"] != "assistant" and said not in str.__str__(text):
            raise QdataError(
                f"template {template.name} does not show message {number} ({message['role']}) as it is; it says "
                f"{said[:60]!r}. Take a template that shows it, or take the message out"
            )
    if lost := _absent(tools or (), text):
        raise QdataError(
            f"template {template.name} shows no tools, and the conversation has {lost}: the model would be trained on "
            f"what it was never told of. Take a template that shows them, such as qwen2_5 or qwen3"
        )


def _plainly(text: str, after: str = "") -> str:
    """A text without the white space at its ends, and without what stands before `after`; a probe (probe.py) whole."""
    if isinstance(text, Probe):
        return str.__str__(text)
    return (text.rpartition(after)[2] if after else text).strip()


def _absent(functions: Iterable[Any], text: str) -> str | None:
    """The first function whose name is not in the text, as it is or as JSON writes it."""
    for one in functions:
        inner = one.get("function", one) if isinstance(one, Mapping) else None
        name = inner.get("name") if isinstance(inner, Mapping) else None
        if isinstance(name, str) and name not in text and json.dumps(name, ensure_ascii=False)[1:-1] not in text:
            return name
    return None
