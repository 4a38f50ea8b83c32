"""System prompts drawn from a pool with weights: half of the rows one unified text, half the text of their category."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import ClassVar

import polars as pl

from qdata.rows.steps._system import Where, by_language, check, language, with_system, without
from qdata.schema import messages_json


@dataclass(frozen=True)
class _Choice:
    """A text for every row (`text`, or one per language), or one for each category (`of`); empty is no prompt."""

    text: str | dict[str, str] | None = None
    of: dict[str, str] = field(default_factory=dict)
    weight: float = 1.0


@dataclass(frozen=True)
class SystemPool:
    """Draws the system prompt of each conversation from `texts`, by weight; `text = ""` is a draw without one.

    What a row draws is told by the seed and what its turns say, so it draws the same in any file, order or run, and
    rows that differ in the system prompt only draw alike. A choice that has no text for a row's category is not drawn
    for it; a row with no choice at all stays as it is.
    """

    texts: tuple[_Choice, ...] = field(
        default=(),
        metadata={"help": "the pool, each `{ text = TEXT, weight = 1 }` or `{ of = { CATEGORY = TEXT }, weight = 1 }`"},
    )
    by: str = field(
        default="source", metadata={"help": "what a row's category is: source, language (zh, en), or extra.COLUMN"}
    )
    do: Where = field(default="replace", metadata={"help": "replace every prompt, or only fill in missing ones"})
    seed: int = field(default=0, metadata={"help": "another seed, another draw"})
    edits: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Raises ValueError for an empty pool, a choice that is none, and a category nobody knows."""
        if not self.texts:
            raise ValueError("texts: the pool is empty; wanted at least one { text = TEXT }")
        if not re.fullmatch(r"source|language|extra\.[^'\"\\]+", self.by):
            raise ValueError(f"by: {self.by!r} is no category; wanted source, language, or extra.COLUMN")
        for number, one in enumerate(self.texts):
            what = f"texts[{number}]"
            if (one.text is None) == (not one.of):
                raise ValueError(f"{what}: wanted either text or of (a text for each category)")
            if not 0 < one.weight < float("inf"):
                raise ValueError(f"{what}.weight: wanted a number above 0, got {one.weight}")
            for name, text in {"text": one.text, **{f"of.{k}": v for k, v in one.of.items()}}.items():
                if text is not None and text != "":
                    check(text, f"{what}.{name}")

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Edits `messages`.

        >>> from qdata.rows.steps._turns import example, shown
        >>> pool = SystemPool(texts=(_Choice(text="Be kind."), _Choice(of={"zh": "好"})), by="language")
        >>> shown(pool(example("user: a", "assistant: b")))
        ['system: Be kind.', 'user: a', 'assistant: b']
        """
        texts = [self._text(one) for one in self.texts]
        weights = [pl.when(t.is_not_null()).then(pl.lit(c.weight)).otherwise(0.0)
                   for t, c in zip(texts, self.texts, strict=True)]  # fmt: skip
        sums = [pl.sum_horizontal(weights[: i + 1]) for i in range(len(weights))]
        place = pl.col("_drawn") * sums[-1]
        drawn = [pl.when(place < upto).then(text) for text, upto in zip(texts, sums, strict=True)]
        last = pl.coalesce(reversed(texts))  # where a sum of weights is rounded down
        numbered = frame.with_columns(_drawn=without()).with_columns(
            _drawn=messages_json("_drawn").map_batches(self._draw, return_dtype=pl.Float64)
        )
        return with_system(numbered, pl.coalesce(*drawn, last), self.do).drop("_drawn")

    def _text(self, choice: _Choice) -> pl.Expr:
        if choice.text is not None:
            return by_language(choice.text)
        return self._category().replace_strict(choice.of, default=None, return_dtype=pl.String)

    def _category(self) -> pl.Expr:
        if self.by == "language":
            return language()
        if self.by == "source":
            return pl.col("source")
        return pl.col("extra").str.json_path_match(f"$['{self.by.removeprefix('extra.')}']")

    def _draw(self, said: pl.Series) -> pl.Series:
        """A number in [0, 1) for each text, as good as random."""
        digests = (hashlib.blake2b(f"{self.seed}:{text}".encode(), digest_size=8).digest() for text in said.to_list())
        return pl.Series([(int.from_bytes(digest) >> 11) / 2**53 for digest in digests], dtype=pl.Float64)
