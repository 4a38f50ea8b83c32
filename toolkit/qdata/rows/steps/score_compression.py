"""How far answers can be compressed: what repeats itself in any way can be further."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import ClassVar

import polars as pl

from qdata.rows.steps._scores import answers, per_text
from qdata.schema import with_scores


@dataclass(frozen=True)
class ScoreCompression:
    """`compression`: bytes of the answers (UTF-8) compressed by zlib, over bytes before.

    Prose has about 0.5, a text that repeats itself 0.1 or less, a short one above 1 for the compressor's own bytes.
    """

    edits: ClassVar[bool] = False
    scores: ClassVar[tuple[str, ...]] = ("compression",)

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Score: `compression`, above 0; null where there is no answer.

        >>> from qdata.rows.steps._scores import example, shown
        >>> shown(ScoreCompression()(example("?", "ha " * 1000)))["compression"] < 0.02
        True
        """
        return with_scores(frame, {"compression": per_text(_ratio, answers())})


def _ratio(text: str) -> float:
    data = text.encode()
    return len(zlib.compress(data)) / len(data)
