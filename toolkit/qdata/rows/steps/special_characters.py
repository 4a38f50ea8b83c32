"""Texts that are hardly made of letters: tables of numbers, rulers of punctuation, what is left of a bad page."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import polars as pl

from qdata.rows.steps._judge import TEXT_ROLE, dropped, first_reason, said_by

_SPECIAL = r"[^\p{L}\p{M}]"


@dataclass(frozen=True)
class SpecialCharacters:
    """Drops rows with a text in which too many characters are no letters: digits, white space, punctuation, symbols.

    As the filter of ROOTS (Laurençon et al. 2022, arXiv 2303.03915), whose list of special characters is
    written out; here it is all that Unicode does not call a letter or a mark. Prose in English has about 0.2, code and
    mathematics more.
    """

    max: float = field(default=0.4, metadata={"help": "largest share of characters that are no letters"})
    roles: tuple[str, ...] = field(
        default=("assistant", TEXT_ROLE), metadata={"help": "whose texts are looked at; text is pretraining text"}
    )
    edits: ClassVar[bool] = False

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Reason: `special_characters.too_many`.

        >>> from qdata.rows.steps._turns import example, shown
        >>> shown(SpecialCharacters()(example("user: Which?", "assistant: 3.14159 + 2.71828 = ?")))
        ['special_characters.too_many']
        """
        text = pl.when(said_by(self.roles)).then(pl.col("content")).fill_null("")
        over = text.str.count_matches(_SPECIAL) > self.max * text.str.len_chars()
        return dropped(frame, first_reason(pl.when(over).then(pl.lit("special_characters.too_many"))))
