"""Texts that say the same again and again, and answers that say what was asked: the parrot."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import ClassVar

import polars as pl

from qdata.rows.steps._judge import TEXT_ROLE, RoleOrText, before, dropped, first_reason, said_by

_UNSPACED = r"[\x{e01}-\x{eff}\x{1000}-\x{109f}\x{1780}-\x{17ff}\x{3041}-\x{30ff}\x{3400}-\x{9fff}\x{f900}-\x{faff}]"
_LETTER = re.compile("[\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff]")
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
    roles: tuple[RoleOrText, ...] = field(
        default=("assistant", TEXT_ROLE), metadata={"help": "whose texts are looked at; text is pretraining text"}
    )
    edits: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Raises ValueError for shares that are none, and n-grams of nothing."""
        for name in ("phrases", "lines"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: wanted a share from 0 to 1, got {getattr(self, name):g}")
        if self.n < 1:
            raise ValueError(f"n: wanted a whole number above 0, got {self.n}")

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
            parrot = first_reason(
                pl.when(_is_parrot()).then(pl.lit("repetition.parrot")), lists=("messages",), text=False
            )
            reasons = pl.coalesce(reasons, parrot)
        return dropped(frame, reasons)

    def _judged(self, messages: pl.Series) -> pl.Series:
        texts = messages.struct.unnest().select(t=pl.when(said_by(self.roles)).then(pl.col("content")))["t"]
        out: list[str | None] = [None] * len(texts)
        some = texts.to_frame("t").with_row_index("at").drop_nulls("t")
        at = pl.concat([some.filter(may)["at"] for may in self._may(some["t"])]).unique().sort()
        for place, text in zip(at.to_list(), texts.gather(at).to_list(), strict=True):
            out[place] = self._verdict(text)
        return pl.Series(out, dtype=pl.String)

    def _may(self, texts: pl.Series) -> list[pl.Series]:
        """Which texts may be over a limit: what is not, surely is not, and nobody counts its n-grams.

        An n-gram that occurred before begins with a word that did: of N words with U different ones, at most N - U
        n-grams are repeated.
        """
        out = [pl.repeat(False, len(texts), eager=True)]
        if self.phrases < 1:
            unspaced = texts.str.contains(_UNSPACED)
            letters = texts.filter(unspaced).str.extract_all(_UNSPACED)
            out.append(self._repeats(texts.str.split(" ")))
            out.append(unspaced.scatter(unspaced.arg_true(), self._repeats(letters)) if unspaced.any() else unspaced)
        if self.lines < 1:
            several = texts.str.count_matches("\n", literal=True) >= _FEW_LINES - 1
            lines = texts.filter(several).str.split("\n").list
            again = lines.n_unique() < lines.len()
            out.append(several.scatter(several.arg_true(), again) if several.any() else several)
        if self.characters:
            out.append(texts.str.contains(rf"[^ \n]{{{self.characters}}}"))
        return out

    def _repeats(self, items: pl.Series) -> pl.Series:
        total, different = items.list.len().cast(pl.Int64), items.list.n_unique().cast(pl.Int64)
        return (total >= _FEW) & ((total - different) > self.phrases * (total - 2 * self.n))

    def _verdict(self, text: str) -> str | None:
        if self.characters and re.search(rf"([^\W_0-9])\1{{{self.characters - 1}}}", text):
            return "repetition.characters"
        if self.phrases < 1 and max(self._shares(text)) > self.phrases:
            return "repetition.phrases"
        if self.lines < 1 and _of_lines(text) > self.lines:
            return "repetition.lines"
        return None

    def _shares(self, text: str) -> tuple[float, float]:
        return _of_ngrams(text.split(), self.n), _of_ngrams(_LETTER.findall(text), 2 * self.n)


def _of_ngrams(items: list[str], n: int) -> float:
    """The share of n-grams that occurred before; those without a letter (matrices, rules of tables) repeat by right."""
    total = len(items) - n + 1
    if len(items) < _FEW or total < 1:
        return 0.0
    counts = Counter(zip(*(itertools.islice(items, k, None) for k in range(n)), strict=False))
    again = sum(count - 1 for ngram, count in counts.items() if count > 1 and any(map(str.isalpha, "".join(ngram))))
    return again / total


def _of_lines(text: str) -> float:
    """The share of characters in lines that occurred before; tags, code and lines without a letter do not count."""
    lines = [line.strip() for line in text.split("\n")]
    lines = [line for line in lines if any(map(str.isalpha, line)) and line[0] != "<" and line[-1] not in "{};,"]
    if len(lines) < _FEW_LINES:
        return 0.0
    counts = Counter(lines)
    return sum(len(line) * (count - 1) for line, count in counts.items()) / sum(map(len, lines))


def _is_parrot() -> pl.Expr:
    """Whether somebody answers with the question, or with the answer before."""
    text, role = pl.col("content"), pl.col("role")
    mine = (role == "assistant").fill_null(False) & (text.str.len_chars() >= _PARROT)
    question = (before(role) == "user") & (text.str.strip_chars() == before(text).str.strip_chars())
    again = (before(role, 2) == "assistant") & (text == before(text, 2))
    return mine & (question | again).fill_null(False)
