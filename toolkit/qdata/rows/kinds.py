"""What a row is: chat, a preference pair, a judged answer, or text; and what is left out to make it another dialect's.

A preference row is never a chat by accident: its prompt alone would be trained without an answer, or an answer that
somebody rejected would be imitated. So a row goes to a dialect of another kind only where that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from qdata.rows import exact

Row = dict[str, Any]
WORDS = {
    "chat": "conversations",
    "preference": "preference pairs",
    "judged": "judged answers (KTO)",
    "text": "pretraining text",
}


def kind(form: Any) -> str:
    """What the rows of a dialect are."""
    return str(getattr(form, "kind", "chat"))


def kind_of(conversation: Row) -> str:
    """What a CONVERSATION row is, by the columns that are filled."""
    if conversation["chosen"] is not None or conversation["rejected"] is not None:
        return "preference"
    if conversation["messages"] is None:
        return "text"
    return "chat" if conversation["label"] is None else "judged"


def loses(form: Any, conversation: Row) -> str | None:
    """What the dialect cannot express of any row, in words, or None."""
    is_, wanted = kind_of(conversation), kind(form)
    if is_ != wanted:
        return f"{WORDS[is_]}{_WHY.get((is_, wanted), '')}"
    said: str | None = form.loses(conversation)
    return said


def is_of_other_kind(loss: str) -> bool:
    """Whether these words of `loses` say that the row is of another kind."""
    return loss.startswith(tuple(WORDS.values()))


def can_be_left_out(loss: str) -> bool:
    """Whether less of the row might do, by these words of `loses`."""
    return not is_of_other_kind(loss) or "would be lost" in loss


_WHY = {
    ("preference", "chat"): " (the rejected answer would be lost)",
    ("judged", "chat"): " (the verdict would be lost, and a bad answer imitated)",
    ("chat", "preference"): " (there is one answer, and no other to reject)",
    ("chat", "judged"): " (nobody judged them)",
}


class Reduced(NamedTuple):
    """A row the dialect can express, and in words what was left out of it."""

    conversation: Row
    left_out: str


def reduced(form: Any, conversation: Row) -> Reduced | None:
    """The row with as little left out as the dialect needs, or None where nothing less would do.

    An answer that was judged bad is never made a chat: it would be imitated.
    """
    ways = (_without_one(name) for name in ("tool calls", _TEXT))  # one of the two goes; better the text than the call
    return next((less for way in ways if (less := _reduced(form, conversation, way))), None)


def _without_one(name: str) -> list[str]:
    return [other for other in _LESS if other != name]


def _reduced(form: Any, conversation: Row, way: list[str]) -> Reduced | None:
    made, taken = conversation, list[str]()
    is_of_kind = kind_of(conversation) == kind(form)
    for name in way:
        if loses(form, made) is None:
            break
        if is_of_kind and name in _MAKES_CHAT:
            continue
        less = _LESS[name](made)
        if less != made:
            made = less
            taken.append(name)
    if loses(form, made) is not None or not taken:
        return None
    for name in taken[:-1]:  # what turned out not to be in the way stays
        without = [other for other in taken if other != name]
        again = conversation
        for other in without:
            again = _LESS[other](again)
        if loses(form, again) is None:
            made, taken = again, without
    return Reduced(made, ", ".join(taken))


def _chosen_only(row: Row) -> Row:
    if not row["chosen"] or row["rejected"] is None:
        return row
    return row | {"messages": [*row["messages"], *row["chosen"]], "chosen": None, "rejected": None}


def _no_verdict(row: Row) -> Row:
    return row | {"label": None} if row["label"] else row


def _no_tools(row: Row) -> Row:
    return row | {"tools": None}


def _of_each(less: Callable[[Row], Row]) -> Callable[[Row], Row]:
    """What leaves something out of every message."""

    def leave_out(row: Row) -> Row:
        lists = {name: row[name] for name in ("messages", "chosen", "rejected") if row[name] is not None}
        return row | {name: [less(m) for m in messages] for name, messages in lists.items()}

    return leave_out


def _without(*fields: str) -> Callable[[Row], Row]:
    """Fields of messages; a turn without a text keeps what it says instead."""

    def less(message: Row) -> Row:
        says = message["content"] or ("reasoning" in fields and message["tool_calls"])
        return message if _SAYS.intersection(fields) and not says else message | dict.fromkeys(fields)

    return _of_each(less)


_SAYS = {"reasoning", "tool_calls"}


def _no_text(message: Row) -> Row:
    return message | {"content": None} if message["tool_calls"] else message


def _plain_calls(message: Row) -> Row:
    """Calls as name and arguments, an object; as they are where one of them has no such arguments."""
    try:
        calls = [_plain_call(one) for one in exact.loads((message["tool_calls"] or "").encode())]
    except (ValueError, TypeError, KeyError):
        return message
    return message | {"tool_calls": f"[{','.join(calls)}]"}


def _plain_call(call: Row) -> str:
    function = call.get("function", call) if isinstance(call, dict) else {}
    given = function["arguments"]
    text = given if isinstance(given, str) else exact.text(given)  # text stays as it is, letter for letter
    if not isinstance(exact.loads(text.encode()), dict):
        raise ValueError("arguments that are no object")
    return f'{{"name":{exact.text(function["name"])},"arguments":{text}}}'


def _no_system(row: Row) -> Row:
    messages = row["messages"] or []
    return row | {"messages": messages[1:]} if messages and messages[0]["role"] == "system" else row


_TEXT = "the text beside tool calls"
_MAKES_CHAT = ("the rejected answer", "the verdict on the answer")
_LESS: dict[str, Callable[[Row], Row]] = {
    "the rejected answer": _chosen_only,
    "the verdict on the answer": _no_verdict,
    "the tools": _no_tools,
    "reasoning": _without("reasoning"),
    "names": _without("name"),
    "training flags and weights": _without("train", "weight"),
    "ids of tool calls, arguments as text": _of_each(_plain_calls),
    _TEXT: _of_each(_no_text),
    "tool calls": _without("tool_calls"),
    "the system prompt": _no_system,
}
