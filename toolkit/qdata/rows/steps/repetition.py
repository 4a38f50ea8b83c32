"""Texts that say the same again and again, and answers that say what was asked: the parrot."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import ClassVar

import polars as pl

from qdata.rows.steps._judge import TEXT_ROLE, dropped, first_reason, said_by
from qdata.rows.steps._turns import role

_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
_FEW = 20  # words, or characters of scripts without spaces: below that nothing is said of n-grams
_FEW_LINES = 4
_PARROT = 10  # characters: a shorter answer may well be its question


@dataclass(frozen=True)
class Repetition:
    """Drops rows with a text in which a character, a phrase or a line is repeated too much, and parrots.

    As the filters of Gopher (Rae et al. 2021, arXiv 2112.11446, table A1), with looser limits: theirs are for pages of
    the web, and an answer may be a poem or a table. `phrases` is the share of word n-grams that occurred before in the
    text (of characters, where a script has no spaces); `lines` the share of characters in lines that occurred before.
    A parrot answers with the question, or gives the same answer twice in a row.
    """

    characters: int = field(default=30, metadata={"help": "this many times the same letter in a row; 0: any number"})
    phrases: float = field(default=0.5, metadata={"help": "largest share of repeated n-grams; 1: any"})
    lines: float = field(default=0.5, metadata={"help": "largest share of characters in repeated lines; 1: any"})
    n: int = field(default=5, metadata={"help": "words in an n-gram; twice as many characters"})
    parrot: bool = field(default=True, metadata={"help": "look for parrots"})
    roles: tuple[str, ...] = field(
        default=("assistant", TEXT_ROLE), metadata={"help": "whose texts are looked at; text is pretraining text"}
    )
    edits: ClassVar[bool] = False

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Reasons: `repetition.characters`, `repetition.phrases`, `repetition.lines`, `repetition.parrot`.

        >>> from qdata.rows.steps._turns import example, shown
        >>> shown(Repetition()(example("user: a", "assistant: " + "I do not know what to say. " * 9)))
        ['repetition.phrases']
        >>> shown(Repetition()(example("user: Say something new.", "assistant: Say something new.")))
        ['repetition.parrot']
        """
        reasons = first_reason(pl.struct("role", "content").map_batches(self._judged, pl.String))
        if self.parrot:
            reasons = pl.coalesce(reasons, pl.when(_parrots()).then(pl.lit("repetition.parrot")))
        return dropped(frame, reasons)

    def _judged(self, messages: pl.Series) -> pl.Series:
        texts = messages.struct.unnest().select(t=pl.when(said_by(self.roles)).then(pl.col("content")))["t"]
        out: list[str | None] = [None] * len(texts)
        may = texts.to_frame("t").select(may=self._may(pl.col("t")).fill_null(False))["may"]
        for at, text in zip(may.arg_true().to_list(), texts.filter(may).to_list(), strict=True):
            out[at] = self._verdict(text)
        return pl.Series(out, dtype=pl.String)

    def _may(self, text: pl.Expr) -> pl.Expr:
        """Whether a text may be over a limit: what is not, surely is not, and nobody counts its n-grams.

        An n-gram that occurred before begins with a word that did: of N words with U different ones, at most N - U
        n-grams are repeated.
        """
        words = text.str.split(" ")
        letters = text.str.extract_all(_UNSPACED)
        parts = []
        if self.phrases < 1:
            for items in (words, letters):
                total, different = items.list.len().cast(pl.Int64), items.list.n_unique().cast(pl.Int64)
                parts.append((total >= _FEW) & ((total - different) > self.phrases * (total - 2 * self.n)))
        if self.lines < 1:
            lines = text.str.split("\n")
            parts.append((lines.list.len() >= _FEW_LINES) & (lines.list.n_unique() < lines.list.len()))
        if self.characters:
            parts.append(text.str.contains(rf"[^\s\W_]{{{self.characters}}}"))
        return pl.any_horizontal(parts) if parts else pl.lit(False)

    def _verdict(self, text: str) -> str | None:
        if self.characters and re.search(rf"([^\W_0-9])\1{{{self.characters - 1}}}", text):
            return "repetition.characters"
        if self.phrases < 1 and max(self._shares(text)) > self.phrases:
            return "repetition.phrases"
        if self.lines < 1 and _of_lines(text) > self.lines:
            return "repetition.lines"
        return None

    def _shares(self, text: str) -> tuple[float, float]:
        unspaced = [c for c in text if _is_unspaced(c)]
        return _of_ngrams(text.split(), self.n), _of_ngrams(unspaced, 2 * self.n)


def _of_ngrams(items: list[str], n: int) -> float:
    """The share of n-grams that occurred before."""
    total = len(items) - n + 1
    if len(items) < _FEW or total < 1:
        return 0.0
    different = len(set(zip(*(itertools.islice(items, k, None) for k in range(n)), strict=False)))
    return 1 - different / total


def _of_lines(text: str) -> float:
    """The share of characters in lines that occurred before; lines without a letter or digit are not looked at."""
    lines = [line.strip() for line in text.split("\n")]
    lines = [line for line in lines if any(map(str.isalnum, line))]
    if len(lines) < _FEW_LINES:
        return 0.0
    counts = Counter(lines)
    return sum(len(line) * (count - 1) for line, count in counts.items()) / sum(map(len, lines))


_RANGES = ((0x0E01, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3041, 0x30FF), (0x3400, 0x9FFF), (0xF900, 0xFAFF))


def _is_unspaced(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in _RANGES)


def _parrots() -> pl.Expr:
    """Whether somebody answers with the question, or with the answer before."""
    text = pl.element().struct.field("content").str.strip_chars()
    long = text.str.len_chars() >= _PARROT
    answer = (role() == "assistant").fill_null(False)
    question = answer & (role().shift(1) == "user") & (text == text.shift(1))
    again = answer & (role().shift(2) == "assistant") & (text == text.shift(2))
    return pl.col("messages").list.eval((long & (question | again)).fill_null(False)).list.any()
