"""LLaMA-Factory's KTO rows in Alpaca's layout: `instruction, input, output` with a `kto_tag` of true or false."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._judged import COLUMNS, is_one, two_verdicts, verdict
from qdata.rows.formats._preference import are_texts
from qdata.rows.formats.alpaca import Alpaca


class KtoAlpaca:
    """A conversation whose last answer was judged good (true) or bad (false); `label` is read too."""

    kind = "judged"
    columns: ClassVar = Alpaca.columns | COLUMNS
    sample: ClassVar = [
        {"instruction": "写一句祝福。", "input": "", "output": "愿你万事顺意。", "kto_tag": True},
    ]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """An instruction, its output and a verdict."""
        return are_texts(row, "instruction", "output") and is_one(row)

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """As `alpaca`, with the verdict."""
        return Alpaca.read(frame).with_columns(verdict())

    @staticmethod
    def fault() -> pl.Expr:
        """Two verdicts that differ, or an entry of `history` with more than two texts."""
        return pl.coalesce(two_verdicts(), Alpaca.fault())

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """As `alpaca`, with `kto_tag`."""
        return Alpaca.write(conversation) | {"kto_tag": conversation["label"]}

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """What `alpaca` cannot express."""
        return (lost := Alpaca.loses(conversation)) and lost.replace("alpaca holds", "kto_alpaca holds")
