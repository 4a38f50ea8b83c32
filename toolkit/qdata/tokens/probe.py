"""Stand-ins for message texts that find out where a template puts each text, and what it asks of it.

A probe may be written, concatenated and tested for being there. To the questions chat templates do ask (does it start
with this, hold that, lose something when stripped) it says no, and notes the question; the answer then holds for every
text of which the same is true. Any other look at the text raises ObservedError.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

import polars as pl

MARKS = frozenset("\x02\x03")


class ObservedError(Exception):
    """The template looked at a text in a way that cannot be answered for all texts alike."""


class Assumption(NamedTuple):
    """Something the plan for a shape takes to be true of a message."""

    message: int
    kind: str  # starts | ends | holds | bare_start | bare_end: none of them is so
    text: str

    def holds(self) -> pl.Expr:
        """Whether it is true of a conversation; null never occurs, empty texts are another shape."""
        content = pl.col("messages").list.get(self.message).struct.field("content").str
        if self.kind == "holds":
            return ~content.contains(self.text, literal=True)
        if self.kind == "starts":
            return ~content.starts_with(self.text)
        if self.kind == "ends":
            return ~content.ends_with(self.text)
        # White space as Python's strip() knows it is a longer list than Unicode's: letters and the like are none of it.
        return content.contains(r"^[\p{L}\p{N}\p{P}\p{S}]" if self.kind == "bare_start" else r"[\p{L}\p{N}\p{P}\p{S}]$")


class Probe(str):
    """A text nobody may look at. `about` is its message index and the list its assumptions are noted in."""

    about: tuple[int, list[Assumption]] | None

    @classmethod
    def make(cls, index: int, assumed: list[Assumption]) -> Probe:
        """The probe of one message."""
        probe = cls(mark(index))
        probe.about = (index, assumed)
        return probe

    @classmethod
    def _joined(cls, text: str) -> Probe:
        probe = cls(text)
        probe.about = None
        return probe

    def __add__(self, other: str) -> Probe:
        return Probe._joined(str.__str__(self) + str.__str__(other))

    def __radd__(self, other: str) -> Probe:
        return Probe._joined(str.__str__(other) + str.__str__(self))

    def __bool__(self) -> bool:
        return True  # whether a text is empty is part of the shape

    def __str__(self) -> str:
        return self

    def _note(self, kind: str, text: str) -> None:
        if self.about is None:
            raise ObservedError(kind)
        index, assumed = self.about
        assumed.append(Assumption(index, kind, text))

    def startswith(self, prefix: Any, *rest: Any) -> bool:
        """No, and noted."""
        if rest or not isinstance(prefix, str) or not prefix:
            raise ObservedError("startswith")
        self._note("starts", prefix)
        return False

    def endswith(self, suffix: Any, *rest: Any) -> bool:
        """No, and noted."""
        if rest or not isinstance(suffix, str) or not suffix:
            raise ObservedError("endswith")
        self._note("ends", suffix)
        return False

    def __contains__(self, part: object) -> bool:
        if not isinstance(part, str) or not part:
            raise ObservedError("in")
        self._note("holds", part)
        return False

    def lstrip(self, chars: str | None = None) -> Probe:
        """Nothing to strip, and noted."""
        for char in chars or [""]:
            self._note(*(("starts", char) if char else ("bare_start", "")))
        return self

    def rstrip(self, chars: str | None = None) -> Probe:
        """Nothing to strip, and noted."""
        for char in chars or [""]:
            self._note(*(("ends", char) if char else ("bare_end", "")))
        return self

    def strip(self, chars: str | None = None) -> Probe:
        """Nothing to strip, and noted."""
        return self.lstrip(chars).rstrip(chars)

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__") or name in _ANSWERED:
            return object.__getattribute__(self, name)
        raise ObservedError(name)


_ANSWERED = {"about", "startswith", "endswith", "strip", "lstrip", "rstrip", "_note", "make", "_joined"}


def _observed(*_: Any, **__: Any) -> NoReturn:
    raise ObservedError


_LOOKS = ("len", "iter", "repr", "getitem", "hash", "format", "mod", "rmod", "mul", "rmul")
for _name in (*_LOOKS, "eq", "ne", "lt", "le", "gt", "ge"):
    setattr(Probe, f"__{_name}__", _observed)


_BEFORE, _AFTER = ' \n\x02"<Aä你', "&\x03\\ \t"
_MARK = re.compile(re.escape(_BEFORE) + r"(\d+)" + re.escape(_AFTER))


def mark(index: int) -> str:
    """Text that any transformation would change: white space at both ends, quotes, case, markup, another script."""
    return f"{_BEFORE}{index}{_AFTER}"


def cut(text: str) -> Iterator[str | int]:
    """`text` as literals and, where a probe stands, its message index."""
    for number, part in enumerate(_MARK.split(text)):
        if number % 2:
            yield int(part)
        elif part:
            yield part
