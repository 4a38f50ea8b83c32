"""Keeps the rows of which a condition holds: what scores are for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import polars as pl

from qdata.rows.steps._where import parse
from qdata.schema import score_fields


@dataclass(frozen=True)
class Filter:
    """Drops rows of which `where` does not hold, or is unknown because a score is missing.

    Fields: `score.NAME`, `lang` (score.lang), `source`, `row`, `turns` (messages but the system prompt), `label`, the
    texts `system`, `user`, `answer`, `tool`, `tools`, and `.chars` of the first four. Literals: numbers, 'texts',
    true, false. Tests: = != < <= > >=, `in (…)`, `not in (…)`, `is null`, `is not null`; `and`, `or`, `not`, brackets.
    """

    where: str = field(metadata={"help": "condition, as \"score.repetition < 0.3 and lang = 'zh'\""})
    edits: ClassVar[bool] = False

    def __post_init__(self) -> None:
        parse(self.where)  # a mistake is told when the step is made

    @property
    def reads(self) -> frozenset[str]:
        """The scores it asks for."""
        return parse(self.where)[1]

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Reason: `filter.where`.

        >>> from qdata.rows.steps._turns import example, shown
        >>> shown(Filter("answer.chars > 2 or turns > 2")(example("user: a", "assistant: b")))
        ['filter.where']
        """
        condition, _ = parse(self.where, score_fields(frame))
        reason = pl.when(~condition.fill_null(False)).then(pl.lit("filter.where"))
        return frame.with_columns(drop=pl.coalesce("drop", reason))
