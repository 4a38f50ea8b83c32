"""The system prompt a template supplies by itself: finding it, replacing it, taking it away.

Our own templates hold it in a variable. To any other template a guard is prepended that adds the system message where
there is none, which equals sending it, with and without tools. Taking a vendor's away means emptying the literals it
is written in; what was done is proven by rendering before it is accepted.
"""

from __future__ import annotations

import ast
import json
import re
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
_LITERAL = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)

_QUESTION: list[dict[str, Any]] = [{"role": "user", "content": "probe"}]
_SENT = [{"role": "system", "content": "\x02"}, *_QUESTION]
_TOOLS = [{"type": "function", "function": {"name": "probe", "description": "", "parameters": {}}}]


def supplied(template: Template) -> str | None:
    """The text a template puts in front of a conversation that has no system message; None where it puts none."""
    if found := _VARIABLE.search(template.source):
        return json.loads(found.group(2)) or None
    return _around(template)[1] or None


def _around(template: Template) -> tuple[str, str, str]:
    """What stands before a system text, what is supplied in its place without one, and what stands behind it."""
    lone, told = template.render(_QUESTION), template.render(_SENT)
    head, found, tail = told.partition("\x02")
    if not found or not (lone.startswith(head) and lone.endswith(tail)) or len(lone) < len(head) + len(tail):
        return head, "", tail
    return head, lone[len(head) : len(lone) - len(tail)], tail


def edit(template: Template, text: str) -> str:
    """The source of `template` with `text` as default system prompt, or with none for `"none"`.

    Raises QdataError where a vendor's prompt cannot be taken away.
    """
    wanted = "" if text == NONE else text
    literal = json.dumps(wanted, ensure_ascii=False)
    if _VARIABLE.search(template.source):
        return _VARIABLE.sub(lambda m: m[1] + literal + m[3], template.source, count=1)
    return _GUARD.replace("TEXT", literal) + template.source if wanted else _emptied(template)


def _emptied(template: Template) -> str:
    head, given, tail = _around(template)
    if not given:
        return template.source

    def without(literal: re.Match[str]) -> str:
        try:
            value = ast.literal_eval(literal[0].replace("\n", "\\n"))
        except (SyntaxError, ValueError):
            return literal[0]
        if given not in value:
            return literal[0]
        before, _, behind = value.partition(given)
        block = before.endswith(head) and tail.startswith(behind)  # the literal is the whole system block
        return json.dumps(before.removesuffix(head) if block else before + behind, ensure_ascii=False)

    source = _LITERAL.sub(without, template.source)
    edited = type(template)(template.name, source, template.stop, template.tokenizer)
    for tools in (None, _TOOLS):
        same = edited.render(_SENT, tools) == template.render(_SENT, tools)
        if not same or given in edited.render(_QUESTION, tools):
            raise QdataError(
                f"template {template.name}: its default system prompt {given!r} cannot be taken away; give another "
                f"with --default-system TEXT, or edit the template"
            )
    return source
