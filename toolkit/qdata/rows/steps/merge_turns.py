"""Consecutive turns of one role: two questions in a row, an answer in two pieces."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import polars as pl

from qdata.rows.steps._judge import Role
from qdata.rows.steps._turns import role
from qdata.schema import MESSAGE

_SAME = ("role", "name", "train", "weight")  # turns that differ in one of these stay two


@dataclass(frozen=True)
class MergeTurns:
    """Makes consecutive turns of one role one turn, or drops conversations that have them.

    Turns with tool calls or reasoning stay as they are, and so do turns that are trained differently; several results
    of tools in a row are meant. Without this step such turns are kept, and rendered one after the other.
    """

    do: Literal["merge", "drop"] = field(default="merge", metadata={"help": "what becomes of them"})
    separator: str = field(default="\n", metadata={"help": "stands between the texts of merged turns"})
    roles: tuple[Role, ...] = field(default=("user", "assistant"), metadata={"help": "the roles that are looked at"})

    @property
    def edits(self) -> bool:
        """Merging does."""
        return self.do == "merge"

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Edits `messages`. Reason: `merge_turns.repeated_role`.

        >>> from qdata.rows.steps._turns import example, shown
        >>> shown(MergeTurns()(example("user: a", "user: b", "assistant: c")))
        ['user: a\\nb', 'assistant: c']
        >>> shown(MergeTurns(do="drop")(example("user: a", "user: b", "assistant: c")))
        ['merge_turns.repeated_role']
        """
        again = pl.col("messages").list.eval(self._again())
        if self.do == "drop":
            reason = pl.when(again.list.any()).then(pl.lit("merge_turns.repeated_role"))
            return frame.with_columns(drop=pl.coalesce("drop", reason))
        numbered = frame.with_row_index("_at")
        turn = pl.col("messages").struct
        fields = [f.name for f in MESSAGE.fields]
        merged = (
            numbered.select("_at", "messages", _again=again)
            .filter(pl.col("_again").list.any())
            .explode("messages", "_again")
            .with_columns(_run=(~pl.col("_again")).cum_sum())
            .group_by("_at", "_run", maintain_order=True)
            .agg(*(turn.field(f).str.join(self.separator) if f == "content" else turn.field(f).first() for f in fields))
            .group_by("_at", maintain_order=True)
            .agg(_merged=pl.struct(fields))
        )
        joined = numbered.join(merged, on="_at", how="left", maintain_order="left")
        return joined.with_columns(messages=pl.coalesce("_merged", "messages")).drop("_at", "_merged")

    def _again(self) -> pl.Expr:
        """Inside `list.eval`: whether a turn goes on where the one before it stopped."""
        this = pl.element().struct.field
        plain = this("content").is_not_null() & this("tool_calls").is_null() & this("reasoning").is_null()
        plain &= role().is_in(list(self.roles)).fill_null(False)
        before = plain.shift(1).fill_null(False)
        for name in _SAME:
            before &= this(name).eq_missing(this(name).shift(1))
        return plain & before
