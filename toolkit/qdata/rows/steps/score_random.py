"""A score by lot: the baseline that every other one has to beat."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import ClassVar

import polars as pl

from qdata.rows.steps._scores import per_text
from qdata.schema import with_scores


@dataclass(frozen=True)
class ScoreRandom:
    """`random`: a number from 0 to below 1, drawn by a hash of the seed and of what the row says.

    So a row keeps its number wherever it stands and whatever is added, and exact duplicates have the same one.
    """

    seed: int = field(default=0, metadata={"help": "another seed draws other numbers"})
    edits: ClassVar[bool] = False
    scores: ClassVar[tuple[str, ...]] = ("random",)

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Score: `random`.

        >>> from qdata.rows.steps._scores import example, shown
        >>> one, other = (shown(ScoreRandom(seed=seed)(example("a", "b")))["random"] for seed in (0, 1))
        >>> one != other and 0 <= one < 1
        True
        """
        return with_scores(frame, {"random": per_text(self._drawn, pl.col("content_hash"))})

    def _drawn(self, content_hash: str) -> float:
        digest = hashlib.blake2b(f"{self.seed}:{content_hash}".encode(), digest_size=8).digest()
        return (int.from_bytes(digest) >> 11) * 2.0**-53  # all that a float holds, and never 1
