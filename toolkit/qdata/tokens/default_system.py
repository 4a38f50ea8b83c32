"""The system prompt a template supplies by itself: finding it, replacing it, taking it away.

Our own templates hold it in a variable. To any other template a guard is prepended that adds the system message where
there is none, which equals sending it. Taking a vendor's away means emptying the literals it is written in. Either is
proven by rendering, with and without tools, a system message, a second question and the generation prompt, before it
is accepted; what cannot be proven is refused.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import re
from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING, Any

from qdata.errors import QdataError

if TYPE_CHECKING:
    from qdata.tokens.template import Template

NONE = "none"  # as a default system prompt: no prompt at all

_VARIABLE = re.compile(r"(\{%-?\s*set default_system = )(\"(?:[^\"\\]|\\.)*\")(\s*-?%\})")
_GUARD = (
    "{%- if not messages or messages[0].role != 'system' %}"
    "{%- set messages = [{'role': 'system', 'content': TEXT}] + messages %}{%- endif %}"
)
_LITERAL = re.compile(r"\{#.*?#\}|'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)

_MARK, _ASKED = "\x02", "probe \x03"  # of a system message that is sent, and of a question
_QUESTION: list[dict[str, Any]] = [{"role": "user", "content": _ASKED}]
_TALK = [*_QUESTION, {"role": "assistant", "content": "so"}, {"role": "user", "content": "and"}]
_TOOLS = [{"type": "function", "function": {"name": "probe", "description": "", "parameters": {}}}]
_CASES = tuple(product((_QUESTION, _TALK), (None, _TOOLS), (False, True), (None, True, False)))
"""Messages, tools, generation prompt, thinking switch: a default may depend on any of them."""


def supplied(template: Template) -> str | None:
    """The text a template puts in front of a conversation that has no system message; None where it puts none.

    Where it puts one only when tools are given, that one.
    """
    if found := _VARIABLE.search(template.source):
        text: str = json.loads(found.group(2))
        shown = (_said(template, messages, *settings) for messages, *settings in _CASES)
        if text and any(text.strip() in lone for lone in shown if lone is not None):
            return text
    return next((text for text, _, _ in _supplied(template)), None)


def edit(template: Template, text: str) -> str:
    """The source of `template` with `text` as default system prompt, or with none for `"none"`.

    A conversation without a system message then reads as one that sends `text`, or, for `"none"`, as it did, less the
    vendor's text; one with a system message reads as it did. Raises QdataError with the reason where that cannot be
    done.
    """
    wanted = "" if text == NONE else text
    if (told := _said(template, [_system(_MARK), *_QUESTION], None, False, None)) is None or _MARK not in told:
        raise QdataError(
            f"template {template.name}: it shows no system message that is sent, so that it can be given no other "
            f"default, and its own cannot be told; leave --default-system away, or take another template"
        )
    reason = "it is not known how"
    for source in _candidates(template, wanted):
        edited = dataclasses.replace(template, source=source)
        found = _not_given(template, edited, wanted) if wanted else _not_gone(template, edited)
        if found is None:
            return source
        reason = found
    if wanted:
        raise QdataError(f"template {template.name}: {wanted!r} cannot be made its default system prompt: {reason}")
    raise QdataError(
        f"template {template.name}: its default system prompt {supplied(template)!r} cannot be taken away: {reason}; "
        f"give another with --default-system TEXT, or edit the template"
    )


def _candidates(template: Template, wanted: str) -> Iterator[str]:
    """Sources that may be what is asked for, the neatest first."""
    literal = json.dumps(wanted, ensure_ascii=False)
    if _VARIABLE.search(template.source):
        yield _VARIABLE.sub(lambda m: m[1] + literal + m[3], template.source, count=1)
    yield _GUARD.replace("TEXT", literal) + template.source if wanted else _emptied(template)


def _system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def _said(
    template: Template, messages: list[dict[str, Any]], tools: Any, prompt: bool, thinking: bool | None
) -> str | None:
    """What a template makes of a conversation; None where it refuses it."""
    try:
        return template.render(messages, tools, add_generation_prompt=prompt, enable_thinking=thinking)
    except QdataError:
        return None


def _supplied(template: Template) -> list[tuple[str, str, str]]:
    """What a template supplies where no system message is sent, in each of the cases, without repetition.

    With it what stands before and behind a system message that is sent. A conversation that has none is one that has
    one, less a stretch around it: whatever else stands there was supplied.
    """
    found: dict[str, tuple[str, str, str]] = {}
    for messages, tools, *switches in _CASES:
        lone = _said(template, messages, tools, *switches)
        told = _said(template, [_system(_MARK), *messages], tools, *switches)
        if lone is None or told is None or _MARK not in told:
            continue
        head, _, tail = told.partition(_MARK)
        begin = _alike(lone, head)
        end = len(lone) - _alike(lone[begin:][::-1], tail[::-1])
        if text := lone[begin:end].strip():
            found.setdefault(text, (lone[begin:end], head, tail))
    return list(found.values())


def _alike(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _emptied(template: Template) -> str:
    """The source without the texts it supplies, where they are written in literals."""
    source = template.source
    for given, head, tail in sorted(_supplied(template), key=lambda one: -len(one[0])):

        def without(literal: re.Match[str], given: str = given, head: str = head, tail: str = tail) -> str:
            try:
                value = "" if literal[0].startswith("{#") else ast.literal_eval(literal[0].replace("\n", "\\n"))
            except (SyntaxError, ValueError):
                return literal[0]
            if given not in value:
                return literal[0]
            before, _, behind = value.partition(given)
            block = before.endswith(head) and tail.startswith(behind)  # the literal is the whole system block
            return json.dumps(before.removesuffix(head) if block else before + behind, ensure_ascii=False)

        source = _LITERAL.sub(without, source)
    return source


def _not_given(template: Template, edited: Template, text: str) -> str | None:
    """Why `edited` does not supply `text` as if it were sent; None where it does."""
    for messages, tools, *switches in _CASES:
        sent = _said(template, [_system(text), *messages], tools, *switches)
        if _said(edited, messages, tools, *switches) != sent:
            return f"{_with(tools)} the text does not read as one that is sent"
    return _changed(template, edited)


def _not_gone(template: Template, edited: Template) -> str | None:
    """Why `edited` is not the template less the text it supplies; None where it is."""
    texts = [text.strip() for text, _, _ in _supplied(template)]
    for messages, tools, *switches in _CASES:
        before, after = (_said(one, messages, tools, *switches) for one in (template, edited))
        if before is None or after is None:
            if before != after:
                return f"{_with(tools)} the template then refuses a conversation"
            continue
        if any(text in after for text in texts):
            return f"{_with(tools)} the text is still there"
        kept = _alike(before, after)
        gone = before[kept : kept + len(before) - len(after)]
        if before[:kept] + before[kept + len(gone) :] != after or before.count(_ASKED) != after.count(_ASKED):
            return f"{_with(tools)} more than the text changes"
    if left := _supplied(edited):
        return f"{left[0][0]!r} is left of it"
    return _changed(template, edited)


def _changed(template: Template, edited: Template) -> str | None:
    for messages, tools, *switches in _CASES:
        for text in (_MARK, "You are a helpful assistant.", ""):
            sent = [_system(text), *messages]
            if _said(template, sent, tools, *switches) != _said(edited, sent, tools, *switches):
                return f"{_with(tools)} a conversation with a system message changes"
    return None


def _with(tools: Any) -> str:
    return "with tools" if tools else "without tools"
