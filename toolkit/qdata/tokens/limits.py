"""What a chat template may use up: templates come from strangers, and each ends in bounded time and memory.

A render has a number of steps. Each turn of a loop and each macro spends them (sandbox.py puts that into the parsed
template), and so does each operation on a long value, in proportion to its length. What an operation that multiplies
(`'a' * n`, `center`, `replace`, `%`, …) can grow to is bounded from its operands before anything is allocated. Counts,
not clocks: the same template and conversation end the same way on every machine, in threads and worker processes alike.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from typing import Any, TypeVar

import jinja2

STEPS = 5_000_000  # of a render; 10,000 messages take 20,000 to 700,000 in the templates we ship
CHARACTERS = 16 << 20  # of a text: four million tokens and more
ITEMS = 1_000_000  # of a list
BITS = 1 << 16  # of a whole number
SOURCE = 1 << 18  # characters of a template; the largest known have 20 thousand
NODES = 15_000  # parts of its syntax tree; the largest known have 1,400

LONG_TEXT, LONG_LIST = 512, 64  # what is shorter costs nothing of its own

T = TypeVar("T")


class LimitError(jinja2.TemplateError):
    """A template wants more than a template may; says of what."""


class _Left(threading.local):
    steps = STEPS


_left = _Left()


def begin() -> None:
    """A new render in this thread, with all its steps before it."""
    _left.steps = STEPS


def spend(steps: int) -> bool:
    """Counts steps; true, so that it can stand in a condition. Raises LimitError where none are left."""
    _left.steps -= steps
    if _left.steps < 0:
        raise LimitError(f"more than {STEPS:,} steps: it loops for ever, or nearly so; wanted a template that ends")
    return True


def sized(value: T) -> T:
    """The value, after its length is paid for. Raises LimitError for what is too long; lists are not looked into."""
    if isinstance(value, (str, bytes)):
        length = str.__len__(value) if isinstance(value, str) else len(value)  # a probe (probe.py) is not asked
        if length > LONG_TEXT:
            _refuse_over(length)
            spend(length >> 8)
    elif isinstance(value, int):
        if value.bit_length() > BITS:
            raise LimitError(f"a whole number of more than {BITS:,} bits")
    elif isinstance(value, (list, tuple, dict)) and len(value) > LONG_LIST:
        if len(value) > ITEMS:
            raise LimitError(f"a list of more than {ITEMS:,} items")
        spend(len(value) >> 7)
    return value


def searched(value: T) -> T:
    """The value, after a look at each of its items is paid for."""
    if isinstance(value, (list, tuple)):
        spend(len(value) >> 4)
    return sized(value)


def weighed(value: T) -> T:
    """The value, after all that is in it is paid for: what compares it or makes a text of it looks at all of it."""
    if isinstance(value, (str, int)):
        return sized(value)
    weight(value)
    return value


def weight(value: object) -> int:
    """About how many characters a value is as text, items within items counted as often as they stand there.

    Raises LimitError where that is too many.
    """
    total = 0
    waiting: list[Any] = [value]
    while waiting:
        one = waiting.pop()
        total += 1
        if type(one) in _SCALARS:
            continue
        if isinstance(one, str):
            total += str.__len__(sized(one))
        elif type(one) in (list, tuple):
            spend(2 * len(one) + 2)
            waiting += one
        elif isinstance(one, Mapping):
            spend(4 * len(one) + 2)
            waiting += one.keys()
            waiting += one.values()
        elif isinstance(one, (AbstractSet, ValuesView)):
            spend(2 * len(one) + 2)
            waiting += one
        else:
            sized(one)
        if total > CHARACTERS:
            break
    _refuse_over(total)
    return total


_SCALARS = (bool, float, type(None))


def joined(parts: Iterable[str]) -> str:
    """`''.join(parts)` as far as it is not too long."""
    total, kept = 0, []
    for part in parts:
        total += str.__len__(part) + 1
        if total > CHARACTERS:
            _refuse_over(total)
        kept.append(part)
    if total > LONG_TEXT:
        spend(total >> 8)
    return "".join(kept)


def _refuse_over(characters: int) -> None:
    if characters > CHARACTERS:
        raise LimitError(f"a text of more than {CHARACTERS:,} characters")


def operands(operator: str, left: Any, right: Any) -> None:
    """Raises LimitError for an operation that would make something too long."""
    if isinstance(left, int) and isinstance(right, int):
        if operator == "**" and right > 0 and left.bit_length() * right > BITS:
            raise LimitError(f"a whole number of more than {BITS:,} bits")
    elif operator == "*":
        for repeated, times in ((left, right), (right, left)):
            if isinstance(repeated, (str, bytes, list, tuple)) and isinstance(times, int):
                _refuse_over(_length(repeated) * max(times, 0))
    elif operator == "%" and isinstance(left, (str, bytes)):
        growth("format", left, (right,), {})


def growth(name: str, receiver: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raises LimitError for a filter or method that could make a text or list too long of what it is given."""
    if name in _GROWTH:
        _refuse_over(_GROWTH[name](receiver, [*args, *kwargs.values()]))


def _length(value: Any) -> int:
    if isinstance(value, str):
        return str.__len__(value)
    return len(value) if isinstance(value, (bytes, list, tuple, dict)) else 1


def _times(receiver: Any, args: list[Any]) -> int:
    """Each character or item may become as long as the longest argument, or as often as the greatest says."""
    return max(_length(receiver), 1) * max((abs(a) if isinstance(a, int) else weight(a) for a in args), default=1)


def _replaced(receiver: Any, args: list[Any]) -> int:
    texts = [a for a in args if isinstance(a, str)]
    if not isinstance(receiver, str) or len(texts) < 2:
        return _times(receiver, args)
    return max(str.count(receiver, a) * str.__len__(b) for a, b in (texts[:2], texts[1::-1]))


def _formatted(receiver: Any, args: list[Any]) -> int:
    """Each field may be as long as all arguments, or as wide as a number in the format (or an argument) says."""
    text = str(receiver, "latin-1") if isinstance(receiver, bytes) else str.__str__(receiver)
    widest = max((int(n[:18]) for n in re.findall(r"\d+", text)), default=0)
    if "*" in text or re.search(r"\{[^{}]*\{", text):  # a width may be an argument
        widest += sum(abs(a) for a in _numbers(args))
    return (str.count(text, "%") + str.count(text, "{")) * (widest + weight(args))


def _numbers(values: Iterable[Any]) -> Iterable[int]:
    for value in values:
        if isinstance(value, int):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _numbers(value)
        elif isinstance(value, Mapping):
            yield from _numbers(value.values())


def _joined(receiver: Any, args: list[Any]) -> int:
    texts = [a for a in (receiver, *args) if isinstance(a, str)]
    lists = [a for a in (receiver, *args) if not isinstance(a, str)]
    return sum(map(weight, lists)) + max(map(_length, texts), default=0) * max(map(_length, lists), default=1)


def _summed(receiver: Any, args: list[Any]) -> int:
    return _length(receiver) * (weight(receiver) if any(isinstance(a, (list, tuple)) for a in args) else 1)


_GROWTH: dict[str, Callable[[Any, list[Any]], int]] = {
    "replace": _replaced,
    "format": _formatted,
    "format_map": _formatted,
    "join": _joined,
    "sum": _summed,
    "round": lambda _, args: 10_000 * _times("", args),  # it raises ten to that power
    **dict.fromkeys(("center", "ljust", "rjust", "zfill", "expandtabs", "indent", "translate"), _times),
    **dict.fromkeys(("batch", "slice", "to_bytes", "tojson"), _times),
}
