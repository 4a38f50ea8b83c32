"""Intel Orca's `{"system": …, "question": …, "chosen": …, "rejected": …}`."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._preference import are_texts
from qdata.rows.formats.preference import Preference


class OrcaPreference:
    """`preference` with the question under another name; `system: ""` means none."""

    kind = "preference"
    columns: ClassVar = {"system": pl.String, "question": pl.String, "chosen": pl.String, "rejected": pl.String}
    sample: ClassVar = [
        {
            "system": "你是一位小学老师。",
            "question": "三加四等于几？",
            "chosen": "等于七。你可以用手指数一数：三根再加四根。",
            "rejected": "七。",
        }
    ]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """A question and two answers, all texts."""
        return are_texts(row, "question", "chosen", "rejected")

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """As `preference`."""
        return Preference.read(frame.rename({"question": "prompt"}))

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """All four columns in every row."""
        row = Preference.write(conversation)
        return {"system": row.get("system", ""), "question": row.pop("prompt")} | row

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """Earlier turns, and all that is not text."""
        lost = Preference.loses(conversation)
        return lost and lost.replace("preference holds", "orca_preference holds")
