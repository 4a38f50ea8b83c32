"""Code blocks that are opened and never closed: the answer was cut off, or the rest of the page is code."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import polars as pl

from qdata.rows.steps._judge import TEXT_ROLE, RoleOrText, dropped, first_reason, said_by


@dataclass(frozen=True)
class CodeFence:
    """Drops rows in which a fence (``` or ~~~) opens a code block that no fence closes.

    As CommonMark has it (spec 0.31, 4.5): what closes a block is a line of the same marks, at least as many, and
    nothing behind them.
    """

    roles: tuple[RoleOrText, ...] = field(
        default=("assistant", TEXT_ROLE), metadata={"help": "whose texts are looked at; text is pretraining text"}
    )
    edits: ClassVar[bool] = False

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Reason: `code_fence.not_closed`.

        >>> from qdata.rows.steps._turns import example, shown
        >>> shown(CodeFence()(example("user: a", "assistant: ```python\\nprint(1)")))
        ['code_fence.not_closed']
        """
        may = said_by(self.roles) & pl.col("content").str.contains_any(["```", "~~~"])
        texts = pl.when(may).then(pl.col("content"))
        bad = texts.map_batches(lambda some: _open(some), pl.Boolean)
        return dropped(frame, first_reason(pl.when(bad).then(pl.lit("code_fence.not_closed"))))


def _open(texts: pl.Series) -> pl.Series:
    """Whether a block is open at the end; null where there is no text."""
    return pl.Series([None if text is None else _ends_open(text) for text in texts.to_list()], dtype=pl.Boolean)


def _ends_open(text: str) -> bool:
    mark = ""
    for line in text.split("\n"):
        line = line.lstrip(" \t>")
        if not line.startswith(("```", "~~~")):
            continue
        run = line[: len(line) - len(line.lstrip(line[0]))]
        if not mark:
            if "`" in run and "`" in line[len(run) :]:
                continue  # ```code``` in one line is no block
            mark = run
        elif run[0] == mark[0] and len(run) >= len(mark) and not line[len(run) :].strip():
            mark = ""
    return bool(mark)
