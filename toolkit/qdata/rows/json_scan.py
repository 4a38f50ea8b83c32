"""Where strings, brackets and commas stand in JSON text, found by whole arrays of bytes and not by a parser.

For what a parser does not tell: where the items of an array begin that is too large to be parsed at once, and how many
keys were written, so that a key written twice (parsers keep the last, silently) is noticed.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

_QUOTE, _BACKSLASH, _COMMA, _COLON = (ord(c) for c in '"\\,:')
_DELTA = np.zeros(256, np.int8)
_DELTA[[ord("["), ord("{")]] = 1
_DELTA[[ord("]"), ord("}")]] = -1
_BLOCK = 1 << 19  # small enough for a processor's own memory
Bytes = npt.NDArray[np.uint8]
Marks = npt.NDArray[np.bool_]  # one for each byte
Positions = npt.NDArray[np.int64]
_NOWHERE: Positions = np.zeros(0, np.int64)


class BrokenArrayError(Exception):
    """The text is no array: at which byte, and what is wrong there."""

    def __init__(self, at: int, what: str) -> None:
        super().__init__(what)
        self.at = at


class Item(NamedTuple):
    """Where an item of an array stands: its first byte, and the byte after its last (the comma or bracket)."""

    start: int
    stop: int


def _quotes(text: Bytes, escaped: bool) -> tuple[Marks, bool]:
    """Which bytes are quotes that begin or end strings, and whether the byte after the text is an escaped one.

    `escaped`: the first byte is one, because the block before ended in a backslash.
    """
    quotes, slashes = text == _QUOTE, text == _BACKSLASH
    if not len(text):
        return quotes, escaped
    if escaped:
        quotes[0] = slashes[0] = False
    if (slashes[1:] & slashes[:-1]).any():  # of a run of them, every second one is escaped itself
        at = np.flatnonzero(slashes)
        number = np.arange(len(at))
        begins = np.diff(at, prepend=-2) != 1
        slashes[at[(number - np.maximum.accumulate(np.where(begins, number, 0))) % 2 == 1]] = False
    quotes[1:] &= ~slashes[:-1]
    return quotes, bool(slashes[-1])


def _outside(quotes: Marks, in_string: bool) -> tuple[Marks, bool]:
    """Which bytes stand outside of strings (what quotes themselves do is not said), and whether the text ends in one.

    The parity of the quotes before each byte, for 64 bytes at once: simdjson's prefix xor, of bits in words.
    """
    words = np.zeros(-(-len(quotes) // 64), "<u8")
    packed = np.packbits(quotes, bitorder="little")
    words.view(np.uint8)[: len(packed)] = packed
    for shift in (1, 2, 4, 8, 16, 32):
        words ^= words << np.uint64(shift)
    after = np.bitwise_xor.accumulate(words >> np.uint64(63)) ^ np.uint64(in_string)
    before = np.concatenate((np.array([in_string], np.uint64), after[:-1]))
    words ^= before - np.uint64(1)  # all bits, where the word begins outside
    ends = bool(after[-1]) if len(after) else in_string
    return np.unpackbits(words.view(np.uint8), count=len(quotes), bitorder="little").view(np.bool_), ends


def items(blocks: Iterable[bytes]) -> Iterator[Item]:
    """The items of the JSON array whose text comes in blocks, in order. What stands in them is not looked at.

    Raises BrokenArrayError as `borders`.
    """
    before = -1
    for some in borders(blocks):
        for at in some.tolist():
            if before >= 0:
                yield Item(before + 1, at)
            before = at


def borders(blocks: Iterable[bytes]) -> Iterator[Positions]:
    """Where the bracket that opens an array stands, the commas between its items, and the bracket that closes it.

    Raises BrokenArrayError where there is no array, where it does not end, and where something follows its end.
    """
    offset, depth, in_string, escaped, opened, ended = 0, 0, False, False, False, False
    for block in blocks:
        text = np.frombuffer(block, np.uint8)
        found: list[Any] = []
        if not opened:
            skipped = _blank(block, bom=offset == 0)
            if skipped < len(block):
                if block[skipped : skipped + 1] != b"[":
                    raise BrokenArrayError(offset + skipped, "wanted [ at the beginning of an array")
                opened, found = True, [skipped]
        quotes, escaped = _quotes(text, escaped)
        outside, in_string = _outside(quotes, in_string)
        lower = text | np.uint8(32)  # [ as {, ] as }
        marks = np.flatnonzero(((lower == ord("{")) | (lower == ord("}")) | (text == _COMMA)) & outside)
        depths = depth + np.cumsum(_DELTA[text[marks]], dtype=np.int64)
        depth = int(depths[-1]) if len(depths) else depth
        closing = np.flatnonzero(depths <= 0)
        after = 0
        if not ended:
            inside = marks[depths == 1]
            if len(closing):
                ended, end = True, int(marks[closing[0]])
                if block[end : end + 1] != b"]":
                    raise BrokenArrayError(offset + end, "wanted ] at the end of the array")
                inside, after = marks[: closing[0]][depths[: closing[0]] == 1], end + 1
            found += [inside[text[inside] == _COMMA], *([end] if after else [])]
        if ended and after + _blank(block[after:]) < len(block):
            raise BrokenArrayError(offset + after + _blank(block[after:]), "wanted nothing after the array")
        yield np.concatenate([np.atleast_1d(one) for one in found], dtype=np.int64) + offset if found else _NOWHERE
        offset += len(block)
    if not ended:
        raise BrokenArrayError(offset, "the array does not end" if opened else "wanted [ at the beginning of an array")


def _blank(data: bytes, bom: bool = False) -> int:
    """How many bytes of blank space (and the byte order mark) the data begins with."""
    rest = data.removeprefix(b"\xef\xbb\xbf") if bom else data
    return len(data) - len(rest.lstrip(b" \t\r\n"))


def keys(data: bytes) -> int:
    """How many keys are written in valid JSON texts: outside of strings, colons stand behind keys only."""
    count, in_string, escaped = 0, False, False
    for start in range(0, len(data), _BLOCK):
        text = np.frombuffer(data, np.uint8, min(_BLOCK, len(data) - start), start)
        quotes, escaped = _quotes(text, escaped)
        outside, in_string = _outside(quotes, in_string)
        count += int(np.count_nonzero((text == _COLON) & outside))
    return count


def twice(text: bytes) -> str | None:
    """A key that stands twice in one object of a valid JSON text; None where there is none."""
    found: list[str] = []
    json.loads(text, object_pairs_hook=functools.partial(_pairs, found))
    return found[0] if found else None


def _pairs(found: list[str], pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        found.append(next(name for name in names if names.count(name) > 1))
    return made
