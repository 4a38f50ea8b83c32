"""Other inputs out of one: JSON values are changed where they stand, so that most inputs are still JSON."""

from __future__ import annotations

import json
import random
from typing import Any

from tests.fuzz.targets import SAMPLES

from qdata import plugin
from qdata.rows import formats
from qdata.rows.columns import struct_fields

_COLUMNS = sorted({column for name in plugin.names(formats) for column in plugin.find(formats, name).columns})
_FIELDS = sorted({field for name in plugin.names(formats) for dtype in plugin.find(formats, name).columns.values()
                  for field in struct_fields(dtype)})  # fmt: skip
KEYS = [*_COLUMNS, *_FIELDS, "score", "extra", "images", "image", "label", "kto_tag", "row", "ordinal", "turn_1", "x",
        "messages[]", "", "type", "text", "id", "source", "drop", "a\0b"]  # fmt: skip
VALUES: list[Any] = [None, True, False, 0, 1, -1, 0.5, -0.0, 1e308, 2**53 + 1, 2**63, 2**64, 10**40, 1e400,
    float("nan"), "", " ", "a", "1", "null", "[]", "{}", "[", '[["q","a"]]', "\n", "\r", "\r\n", "\t", "\0", "\ufeff",
    "\u2028", "\x85", "\ud800", "user", "assistant", "system", "tool", "function", "human", "gpt", "observation",
    "function_call",
    '[{"name":"f","arguments":{}}]', '{"name":"f","arguments":{}}', "<image>", "<think>\n\n</think>\n\n", "你好",
    "😀",
    [], {}, [[]], [{}], [None], ["a"], [["a", "b"]], [["a"]], [1], {"turn_1": {}}, {"role": "user", "content": "q"},
    [{"type": "text", "text": "t"}], [{"type": "image_url"}], [{"role": "assistant", "content": None}], "a" * 70,
    [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], {"name": "f", "arguments": "{}"},
    [{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]]  # fmt: skip


def mutated(content: bytes, rng: random.Random) -> bytes | None:
    """The content with one to four changes; None where it is no JSON in lines and no array."""
    lines = content.split(b"\n")
    place = rng.randrange(len(lines))
    if rng.random() < 0.15:
        return b"\n".join(_of_lines(lines, place, rng))
    for at, text in ((place, lines[place]), (None, content)):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            continue
        for _ in range(rng.choice((1, 1, 2, 4))):
            value = changed(value, rng)
        try:
            made = json.dumps(value, ensure_ascii=rng.random() < 0.3).encode()
        except (UnicodeEncodeError, RecursionError):
            made = json.dumps(value).encode()
        if at is None:
            return made
        lines[at] = made
        return b"\n".join(lines)
    return None


def _of_lines(lines: list[bytes], place: int, rng: random.Random) -> list[bytes]:
    other = json.dumps(rng.choice(SAMPLES), ensure_ascii=False).encode()
    ways = [
        lambda: [*lines[:place], *lines[place + 1 :]],
        lambda: [*lines[:place], lines[place], *lines[place:]],
        lambda: [*lines[:place], rng.choice((b"", b" ", b"\r", b"[", b"\xff", b"\xef\xbb\xbf")), *lines[place:]],
        lambda: [*lines[:place], other, *lines[place:]],
        lambda: [b"[" + b",".join(line for line in lines if line.strip()) + b"]"],
        lambda: [line + b"\r" for line in lines],
    ]
    return rng.choice(ways)()


def changed(value: Any, rng: random.Random) -> Any:
    """A JSON value with one change somewhere in it."""
    if isinstance(value, dict) and value and rng.random() < 0.75:
        key = rng.choice(list(value))
        return {k: changed(v, rng) if k == key else v for k, v in value.items()}
    if isinstance(value, list) and value and rng.random() < 0.75:
        at = rng.randrange(len(value))
        return [*value[:at], changed(value[at], rng), *value[at + 1 :]]
    return _another(value, rng)


def _another(value: Any, rng: random.Random) -> Any:
    which = rng.randrange(9)
    if isinstance(value, dict) and which < 5:
        keys = list(value)
        if which == 0 and keys:
            gone = rng.choice(keys)
            return {k: v for k, v in value.items() if k != gone}
        if which == 1 and keys:
            old, new = rng.choice(keys), rng.choice(KEYS)
            return {new if k == old else k: v for k, v in value.items()}
        if which == 2:
            return value | rng.choice(SAMPLES)
        return value | {rng.choice(KEYS): rng.choice(VALUES)}
    if isinstance(value, list) and which < 4:
        at = rng.randrange(len(value) + 1)
        longer = [*value[:at], rng.choice(VALUES), *value[at:]]
        return [value[:at], value[at:] + value[:at], [*value, *value[:1]], longer][which]
    if isinstance(value, str) and which < 4:
        at = rng.randrange(len(value) + 1)
        other = rng.choice([v for v in VALUES if isinstance(v, str)])
        return [value[:at] + other + value[at:], value[:at], other, value.swapcase()][which]
    if which == 5:
        return [value]
    if which == 6:
        return {rng.choice(KEYS): value}
    if which == 7:
        return json.dumps(value)
    if which == 8 and rng.random() < 0.1:
        return json.loads("[" * 300 + "]" * 300)
    return rng.choice(VALUES)
