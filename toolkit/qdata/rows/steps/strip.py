"""Removes white space at both ends of every message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import polars as pl

from qdata.schema import MESSAGE


@dataclass(frozen=True)
class Strip:
    """Strips `content` and `reasoning`. An answer that begins with a newline tokenises differently in a history."""

    edits: ClassVar[bool] = True

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Edits `messages`, `chosen` and `rejected`."""
        field = pl.element().struct.field
        texts = ("content", "reasoning")
        fields = [field(f.name).str.strip_chars() if f.name in texts else field(f.name) for f in MESSAGE.fields]
        return frame.with_columns(pl.col("messages", "chosen", "rejected").list.eval(pl.struct(fields)))
