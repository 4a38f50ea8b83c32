"""TRL's KTO rows: `{"prompt": …, "completion": …, "label": true}`."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._judged import COLUMNS, is_one, two_verdicts, verdict
from qdata.rows.formats._preference import are_texts
from qdata.rows.formats.completion import Completion


class Kto:
    """One question and one answer, which was judged good (true) or bad (false)."""

    kind = "judged"
    columns: ClassVar = Completion.columns | COLUMNS
    sample: ClassVar = [
        {"prompt": "讲个笑话。", "completion": "不会。", "label": False},
    ]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """Two texts and a verdict."""
        return are_texts(row, "prompt", "completion") and is_one(row)

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """As `completion`, with the verdict."""
        return Completion.read(frame).with_columns(verdict())

    @staticmethod
    def fault() -> pl.Expr:
        """Two verdicts that differ."""
        return two_verdicts()

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """As `completion`, with `label`."""
        return Completion.write(conversation) | {"label": conversation["label"]}

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """What `completion` cannot express."""
        return (lost := Completion.loses(conversation)) and lost.replace("completion holds", "kto holds")
