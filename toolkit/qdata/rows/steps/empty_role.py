"""Turns of which nobody knows who speaks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import polars as pl

from qdata.rows.steps._turns import role


@dataclass(frozen=True)
class EmptyRole:
    """Drops conversations with a turn whose role is empty, or whose speaker has an empty name.

    Dialogues of many characters come with such names; a format that reads them keeps them in `name`.
    """

    edits: ClassVar[bool] = False

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Reasons: `empty_role.no_role`, `empty_role.no_name`.

        >>> from qdata.rows.steps._turns import example, shown
        >>> shown(EmptyRole()(example("user: a", " : b")))
        ['empty_role.no_role']
        """
        nobody = role().fill_null("").str.strip_chars() == ""
        nameless = (pl.element().struct.field("name").str.strip_chars() == "").fill_null(False)
        messages = pl.col("messages")
        reason = (
            pl.when(messages.list.eval(nobody).list.any())
            .then(pl.lit("empty_role.no_role"))
            .when(messages.list.eval(nameless).list.any())
            .then(pl.lit("empty_role.no_name"))
        )
        return frame.with_columns(drop=pl.coalesce("drop", reason))
