"""Words nobody wants to see in their data, from a file of one's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import polars as pl

from qdata.errors import QdataError
from qdata.rows.steps._judge import TEXT_ROLE, RoleOrText, dropped, first_reason, said_by


@dataclass(frozen=True)
class WordList:
    """Drops rows that hold a listed word or phrase: one a line in the file; lines that begin with # are comments.

    A word of letters and digits must stand alone ("ass" is not in "class"); Chinese words are found anywhere. The words
    are part of the step, and so of the manifest: a changed file is another step.
    """

    file: str = field(default="", metadata={"help": "the list, UTF-8; relative to the recipe"})
    words: tuple[str, ...] = field(default=(), metadata={"help": "more words, or words without a file"})
    ignore_case: bool = field(default=True, metadata={"help": "find Word and WORD too"})
    roles: tuple[RoleOrText, ...] = field(
        default=("user", "assistant", TEXT_ROLE), metadata={"help": "whose texts are looked at"}
    )
    edits: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Reads the file. Raises QdataError where it cannot be read, ValueError where there is no word at all."""
        if not self.file:
            if not self.words:
                raise ValueError("no words; wanted file = a list of them, or words")
            return
        try:
            lines = Path(self.file).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise QdataError(f"{self.file}: cannot be read ({error}); wanted UTF-8 text, a word a line") from None
        listed = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not (self.words or listed):
            raise ValueError(f"{self.file}: no words in it; wanted a word a line")
        object.__setattr__(self, "words", tuple(dict.fromkeys([*self.words, *listed])))

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Reason: `word_list.listed_word`.

        >>> from qdata.rows.steps._turns import example, shown
        >>> shown(WordList(words=("ass", "违禁"))(example("user: a class", "assistant: 这是违禁词")))
        ['word_list.listed_word']
        """
        alone = [word for word in self.words if word.isascii() and (word[0].isalnum() or word[-1].isalnum())]
        anywhere = [word for word in self.words if word not in alone]
        found = said_by(self.roles) & (self._anywhere(anywhere) | self._alone(alone))
        return dropped(frame, first_reason(pl.when(found).then(pl.lit("word_list.listed_word"))))

    def _anywhere(self, words: list[str]) -> pl.Expr:
        if not words:
            return pl.lit(False)
        if self.ignore_case and not all(word.isascii() for word in words):  # polars folds ASCII only
            folded = pl.col("content").str.to_lowercase()
            return folded.str.contains_any([word.lower() for word in words])
        return pl.col("content").str.contains_any(words, ascii_case_insensitive=self.ignore_case)

    def _alone(self, words: list[str]) -> pl.Expr:
        if not words:
            return pl.lit(False)
        text = pl.col("content")
        may = text.str.contains_any(words, ascii_case_insensitive=self.ignore_case)
        any_of = "|".join(_literal(word) for word in sorted(words, key=len, reverse=True))
        # no \b: Chinese has no spaces, and its letters are word characters to the engine
        pattern = rf"(?:^|[^0-9A-Za-z_])(?:{any_of})(?:[^0-9A-Za-z_]|$)"
        return may & text.str.contains(f"(?i){pattern}" if self.ignore_case else pattern)


def _literal(word: str) -> str:
    return "".join(f"\\{c}" if c in _META else c for c in word)


_META = set("\\.+*?()|[]{}^$#&-~")
