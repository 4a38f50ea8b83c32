"""How long a conversation is, and who says how much of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import polars as pl

from qdata.rows.steps._scores import characters
from qdata.schema import with_scores

_ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class ScoreLength:
    """Characters: `length` of everything, `length_assistant`, `length_user`, `length_system`, `length_tool` by role.

    The chosen answer of a pair counts, the rejected one does not; pretraining text is in `length` only.
    """

    edits: ClassVar[bool] = False
    scores: ClassVar[tuple[str, ...]] = ("length", *(f"length_{role}" for role in _ROLES))

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Scores `length`, `length_system`, `length_user`, `length_assistant`, `length_tool`; 0 for who is silent.

        >>> from qdata.rows.steps._scores import example, shown
        >>> found = shown(ScoreLength()(example("你好吗？", "Fine.")))
        >>> found["length"], found["length_user"], found["length_assistant"], found["length_tool"]
        (9.0, 4.0, 5.0, 0.0)
        """
        by_role = {role: characters(role) for role in _ROLES}
        everything = pl.sum_horizontal(*by_role.values(), pl.col("text").str.len_chars().fill_null(0))
        return with_scores(frame, {"length": everything} | {f"length_{role}": n for role, n in by_role.items()})
