"""What was said before and after an edit, cut to where they differ: words of most languages, characters of Chinese."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import chain, groupby, pairwise
from typing import Any, Literal, NamedTuple

import orjson

Operation = Literal["same", "deleted", "inserted", "cut"]
# A word, or a single character of what is written without spaces, white space and signs.
_TOKEN = re.compile(r"(?:(?![\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])\w)+|.", re.DOTALL)
_AROUND = 120  # characters shown beside what differs
_LONGEST = 700  # of a text that was deleted or inserted, and of a row that was dropped
_COMPARED = 160_000  # pairs of tokens: above, lines are compared first


class Token(NamedTuple):
    """A piece of text; `turn`: it names who speaks, and is no text of the row."""

    text: str
    turn: bool = False


class Segment(NamedTuple):
    """Tokens with one fate; of what was `cut` the text is how many characters."""

    operation: Operation
    tokens: list[Token]


Run = tuple[Operation, list[Token]]


def difference(before: str, after: str) -> list[Segment]:
    """Two conversations (canonical JSON) as one text in which something was deleted and inserted."""
    old, new = (list(_tokens(orjson.loads(one))) for one in (before, after))
    runs = list(_runs(old, new))
    made: list[Segment] = []
    for number, (operation, tokens) in enumerate(runs):
        if operation == "same":
            head = _AROUND if number else 0
            made += _elided("same", tokens, head, _AROUND if number < len(runs) - 1 else 0)
        else:
            made += _elided(operation, tokens, _LONGEST // 2, _LONGEST // 2)
    return made


def said(conversation: Mapping[str, Any]) -> list[Segment]:
    """The beginning of what a conversation says; of a row that could not be read its raw text and the reason."""
    tokens = list(_tokens(conversation))
    if not tokens and conversation.get("extra"):
        extra = orjson.loads(conversation["extra"])
        tokens = list(_tokens_of({name: extra[name] for name in ("reason", "raw") if isinstance(extra.get(name), str)}))
    return _elided("same", tokens, _LONGEST, 0)


def visible(text: str) -> list[tuple[str, str]]:
    """A text in pieces: (text, "") of what can be seen, and (U+200B, its name) of each character that cannot.

    >>> visible("a\\u200bb")
    [('a', ''), ('U+200B', 'ZERO WIDTH SPACE'), ('b', '')]
    """
    pieces: list[tuple[str, str]] = []
    for shown, run in groupby(text, lambda c: c.isprintable() or c == "\n"):
        if shown:
            pieces.append(("".join(run), ""))
        else:
            pieces += [(f"U+{ord(c):04X}", unicodedata.name(c, "a character that cannot be seen")) for c in run]
    return pieces


def _tokens(conversation: Mapping[str, Any]) -> Iterator[Token]:
    for column in ("messages", "chosen", "rejected"):
        for message in conversation.get(column) or []:
            who = message["role"] if column == "messages" else f"{column} {message['role']}"
            fields = {
                f"{who} {field}": message.get(field) for field in ("reasoning", "tool_calls") if message.get(field)
            }
            content = {who: message.get("content") or ""} if message.get("content") or not fields else {}
            yield from _tokens_of(fields | content)
    yield from _tokens_of({name: conversation[name] for name in ("tools", "text") if conversation.get(name)})


def _tokens_of(texts: Mapping[str, str]) -> Iterator[Token]:
    for who, text in texts.items():
        yield Token(who, turn=True)
        yield from map(Token, _TOKEN.findall(text))


def _runs(old: Sequence[Token], new: Sequence[Token]) -> Iterator[Run]:
    start = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    most = min(len(old), len(new)) - start
    backwards = zip(reversed(old), reversed(new), strict=False)
    end = next((i for i, (a, b) in enumerate(backwards) if a != b or i == most), most)
    a, b = list(old[start : len(old) - end]), list(new[start : len(new) - end])
    runs: list[Run] = [("same", list(old[:start])), *_compared(a, b), ("same", list(old[len(old) - end :]))]
    for operation, together in groupby((run for run in runs if run[1]), lambda run: run[0]):
        yield operation, [token for _, tokens in together for token in tokens]


def _compared(a: list[Token], b: list[Token]) -> Iterator[Run]:
    """Token by token; where that are too many line by line first, and then the lines that differ."""
    if len(a) * len(b) <= _COMPARED:
        for tag, i, j, k, m in _opcodes(a, b):
            yield from _replaced(tag, a[i:j], b[k:m])
        return
    old, new = _lines(a), _lines(b)
    codes = _opcodes(old, new) if len(old) * len(new) <= _COMPARED else [("replace", 0, len(old), 0, len(new))]
    for tag, i, j, k, m in codes:
        gone, come = (list(chain.from_iterable(lines)) for lines in (old[i:j], new[k:m]))
        small = tag == "replace" and len(gone) * len(come) <= _COMPARED
        yield from _compared(gone, come) if small else _replaced(tag, gone, come)


def _opcodes(a: Sequence[Hashable], b: Sequence[Hashable]) -> Sequence[tuple[str, int, int, int, int]]:
    return difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes()


def _replaced(tag: str, gone: list[Token], come: list[Token]) -> Iterator[Run]:
    if tag == "equal":
        yield "same", gone
    else:
        yield "deleted", gone
        yield "inserted", come


def _lines(tokens: list[Token]) -> list[tuple[Token, ...]]:
    ends = [i + 1 for i, token in enumerate(tokens) if token.turn or token.text == "\n"]
    return [tuple(tokens[i:j]) for i, j in pairwise([0, *ends, len(tokens)]) if i < j]


def _elided(operation: Operation, tokens: list[Token], head: int, tail: int) -> list[Segment]:
    """The first `head` and the last `tail` characters of tokens, and how many there are between; whole if few more."""
    total = sum(len(token.text) for token in tokens if not token.turn)
    if total <= head + tail + _AROUND:
        return [Segment(operation, tokens)] if tokens else []
    first = _taken(tokens, head)
    last = _taken(tokens[len(first) :][::-1], tail)[::-1]
    between = tokens[len(first) : len(tokens) - len(last)]
    cut = sum(len(token.text) for token in between if not token.turn)
    speaker = [token for token in between if token.turn][-1:] if last and not last[0].turn else []
    made = [Segment(operation, first), Segment("cut", [Token(f"{cut:,}")]), Segment(operation, [*speaker, *last])]
    return [segment for segment in made if segment.tokens]


def _taken(tokens: list[Token], characters: int) -> list[Token]:
    taken = 0
    for number, token in enumerate(tokens):
        if taken >= characters:
            return tokens[:number]
        taken += 0 if token.turn else len(token.text)
    return tokens
