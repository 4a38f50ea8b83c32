"""Turns and texts that are too short or too long to learn from."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import ClassVar

import polars as pl

from qdata.rows.steps._judge import TEXT_ROLE, calls, chars, dropped, first_reason
from qdata.rows.steps._scores import WORD, everything_said

_NAMES = {"system": "system", "user": "question", "assistant": "answer", TEXT_ROLE: "text"}
_WORD_LENGTH = 8  # characters, with the space behind: so long a beginning has as many words as are wanted, mostly


@dataclass(frozen=True)
class Length:
    """Drops rows with a turn of too few or too many characters, by who speaks; or with too many messages or words.

    Characters are counted without white space at the ends. What is not set is not looked at. An answer that only calls
    a tool is never too short. Words are counted over all that user and assistant say, or in the text; of Chinese and
    Japanese, characters.
    """

    min_question: int = field(default=1, metadata={"help": "fewest characters of a user's turn"})
    max_question: int | None = field(default=None, metadata={"help": "most characters of a user's turn"})
    min_answer: int = field(default=1, metadata={"help": "fewest characters of an assistant's turn"})
    max_answer: int | None = field(default=None, metadata={"help": "most characters of an assistant's turn"})
    max_system: int | None = field(default=None, metadata={"help": "most characters of a system message"})
    min_text: int = field(default=1, metadata={"help": "fewest characters of a pretraining text"})
    max_text: int | None = field(default=None, metadata={"help": "most characters of a pretraining text"})
    max_messages: int | None = field(default=None, metadata={"help": "most messages of a conversation"})
    min_words: int | None = field(default=None, metadata={"help": "fewest words of a row"})
    max_words: int | None = field(default=None, metadata={"help": "most words of a row"})
    edits: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Raises ValueError for limits that no row can keep, or none can fail by mistake."""
        for one in fields(self):
            if (limit := getattr(self, one.name)) is not None and limit < 0:
                raise ValueError(f"{one.name}: wanted a whole number of at least 0, got {limit}")
        for name in ("question", "answer", "text"):
            least, most = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if most is not None and most < least:
                raise ValueError(
                    f"max_{name}: {most} is below min_{name}, which is {least}; every row would be dropped"
                )

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Reasons: `length.question_too_short`, `length.question_too_long`, the same of `answer` and `text`,
        `length.system_too_long`, `length.too_many_messages`, `length.too_few_words`, `length.too_many_words`.

        >>> from qdata.rows.steps._turns import example, shown
        >>> shown(Length(min_answer=2)(example("user: aa", "assistant: b")))
        ['length.answer_too_short']
        >>> shown(Length(min_words=3)(example("user: 12 + 1", "assistant: 13")))[0]
        'user: 12 + 1'
        """
        long = chars(pl.col("content"))
        found = []
        for role, name in _NAMES.items():
            mine = (pl.col("role") == role).fill_null(False)
            least, most = getattr(self, f"min_{name}", 0), getattr(self, f"max_{name}")
            if least:
                short = mine & (long < least) & ~calls()
                found.append(pl.when(short).then(pl.lit(f"length.{name}_too_short")))
            if most is not None:
                found.append(pl.when(mine & (long > most)).then(pl.lit(f"length.{name}_too_long")))
        reason = first_reason(pl.coalesce([*found, pl.lit(None, pl.String)]))
        if self.max_messages is not None:
            many = pl.col("messages").list.len() > self.max_messages
            reason = pl.coalesce(reason, pl.when(many).then(pl.lit("length.too_many_messages")))
        if self.min_words is not None or self.max_words is not None:
            reason = pl.coalesce(reason, everything_said().map_batches(self._of_words, pl.String))
        return dropped(frame, reason)

    def _of_words(self, texts: pl.Series) -> pl.Series:
        """What is wrong with the number of words; of most texts a look at the beginning, or at their length, tells."""
        texts = texts.fill_null("")
        reasons = pl.Series([None], dtype=pl.String).new_from_index(0, len(texts))
        if self.min_words is not None:
            few = texts.str.head(_WORD_LENGTH * self.min_words).str.count_matches(WORD) < self.min_words
            few = few.scatter(few.arg_true(), texts.filter(few).str.count_matches(WORD) < self.min_words)
            reasons = reasons.scatter(few.arg_true(), "length.too_few_words")
        if self.max_words is not None:
            many = texts.str.len_bytes() > self.max_words  # a word has a byte at least
            many = many.scatter(many.arg_true(), texts.filter(many).str.count_matches(WORD) > self.max_words)
            reasons = reasons.scatter(many.arg_true(), "length.too_many_words")
        return reasons
