"""JSON without rounding: orjson's speed, and whole numbers of any length.

orjson reads an integer beyond 64 bits as a float and refuses to write one. An id of 20 digits is data; so texts with
that many digits in a row go through the standard library, and all others never notice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from typing import Any

import orjson

_LONG = re.compile(rb"\d{19}")
_BEHIND = re.compile(rb"[-+.\deE]*(?:[\s,\]}]|\Z)")  # what may follow where a number begins: the rest of it, and an end
_DIGITS = bytes(b in b"0123456789" for b in range(256))


def long_digits(data: bytes) -> Iterator[int]:
    """Where integers beyond 64 bits may begin in a JSON text.

    19 digits in a row cover two neighbours of every ninth byte: only where there are such is looked at closely. Digits
    that stand where no number can begin (inside a text, behind a point) or end (before a quote) make no such integer.
    """
    probe = data[::9].translate(_DIGITS)
    at = probe.find(b"\1\1")
    while at >= 0:
        found = _LONG.search(data, max(0, 9 * at - 9), 9 * at + 19)  # the first two that a row covers see its beginning
        if found and _begins(data, found.start()) and _BEHIND.match(data, found.start()):
            yield found.start()
        at = probe.find(b"\1\1", at + 1)


def has_long_digits(data: bytes) -> bool:
    """Whether a JSON text may hold an integer beyond 64 bits."""
    return next(long_digits(data), None) is not None


def _begins(data: bytes, at: int) -> bool:
    """Whether a number may begin at a byte: at the start, or behind a colon, a comma, a bracket or a line end."""
    before = data[max(0, at - 64) : at].removesuffix(b"-")
    return not before.strip() or before.rstrip(b" \t\r").endswith((b":", b",", b"[", b"\n"))


def loads(data: bytes) -> Any:
    """The value of a JSON text. Raises orjson.JSONDecodeError where orjson does; it is the stricter of the two."""
    value = orjson.loads(data)
    return json.loads(data) if has_long_digits(data) else value


def dumps(value: Any) -> bytes:
    """Compact JSON text of a value made of what JSON has words for."""
    try:
        return orjson.dumps(value)
    except TypeError:  # an integer beyond 64 bits
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


DEEPEST = 254  # levels that orjson writes; it reads 1024, and the standard library gives up in between


def is_too_deep(value: Any) -> bool:
    """Whether lists and objects are nested deeper in a value than can be written again."""
    with suppress(TypeError):  # too deep, or an integer beyond 64 bits
        orjson.dumps(value)
        return False
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(DEEPEST):
        if not level:
            return False
        inner = chain.from_iterable(one.values() if type(one) is dict else one for one in level)
        level = [one for one in inner if type(one) is dict or type(one) is list]
    return bool(level)


def text(value: Any) -> str:
    """As `dumps`, as text."""
    return dumps(value).decode()
