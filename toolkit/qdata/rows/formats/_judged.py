"""What the layouts of judged answers (KTO) share: a conversation with a verdict on its last answer."""

from __future__ import annotations

from typing import Any

import polars as pl

from qdata.rows.formats._turns import VERDICTS, is_verdict

COLUMNS: dict[str, Any] = dict.fromkeys(VERDICTS, pl.Boolean)


def verdict() -> pl.Expr:
    """The column `label`, whichever way it is spelled."""
    return pl.coalesce(*COLUMNS).alias("label")


def two_verdicts() -> pl.Expr:
    """Two spellings of the verdict that differ: in words, or null."""
    label, tag = (pl.col(name) for name in COLUMNS)
    return pl.when(label != tag).then(pl.lit("label and kto_tag differ; wanted one of them, or both alike"))


def is_one(row: dict[str, Any]) -> bool:
    """Whether a row has a verdict, in any spelling of true or false, and no second answer."""
    return is_verdict(row, *COLUMNS) and row.keys().isdisjoint(_PAIRS)


_PAIRS = {"chosen", "rejected", "rejected_response"}
