"""What a row is: chat, a preference pair, a judged answer, or text; and what is left out to make it another dialect's.

A preference row is never a chat by accident: its prompt alone would be trained without an answer, or an answer that
somebody rejected would be imitated. So a row goes to a dialect of another kind only where that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

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
    made, taken = conversation, list[str]()
    is_of_kind = kind_of(conversation) == kind(form)
    for name, leave_out in _LESS.items():
        if loses(form, made) is None:
            break
        if is_of_kind and name in _MAKES_CHAT:
            continue
        less = leave_out(made)
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


def _without(*fields: str) -> Callable[[Row], Row]:
    """Fields of messages; a turn that says nothing else keeps them."""

    def leave_out(row: Row) -> Row:
        lists = {name: row[name] for name in ("messages", "chosen", "rejected") if row[name] is not None}
        return row | {name: [_less(m, fields) for m in messages] for name, messages in lists.items()}

    return leave_out


def _less(message: Row, fields: tuple[str, ...]) -> Row:
    return message if message["content"] is None else message | dict.fromkeys(fields)


def _no_system(row: Row) -> Row:
    messages = row["messages"] or []
    return row | {"messages": messages[1:]} if messages and messages[0]["role"] == "system" else row


_MAKES_CHAT = ("the rejected answer", "the verdict on the answer")
_LESS: dict[str, Callable[[Row], Row]] = {
    "the rejected answer": _chosen_only,
    "the verdict on the answer": _no_verdict,
    "the tools": _no_tools,
    "reasoning": _without("reasoning"),
    "names": _without("name"),
    "training flags and weights": _without("train", "weight"),
    "tool calls": _without("tool_calls"),
    "the system prompt": _no_system,
}
