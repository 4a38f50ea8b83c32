"""LLaMA-Factory's KTO rows in ShareGPT's layout: `conversations` with a `kto_tag` of true or false."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._judged import COLUMNS, is_one, two_verdicts, verdict
from qdata.rows.formats.sharegpt import Sharegpt, are_turns


class KtoSharegpt:
    """A conversation whose last answer was judged good (true) or bad (false); `label` is read too."""

    kind = "judged"
    columns: ClassVar = Sharegpt.columns | COLUMNS
    sample: ClassVar = [
        {
            "conversations": [{"from": "human", "value": "二加二？"}, {"from": "gpt", "value": "五。"}],
            "kto_tag": False,
        }
    ]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """Turns and a verdict."""
        return are_turns(row.get("conversations")) and is_one(row)

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """As `sharegpt`, with the verdict."""
        return Sharegpt.read(frame).with_columns(verdict())

    @staticmethod
    def fault() -> pl.Expr:
        """Two verdicts that differ, or a turn that says two things of its training."""
        return pl.coalesce(two_verdicts(), Sharegpt.fault())

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """As `sharegpt`, with `kto_tag`."""
        return Sharegpt.write(conversation) | {"kto_tag": conversation["label"]}

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """What `sharegpt` cannot express."""
        return Sharegpt.loses(conversation)
