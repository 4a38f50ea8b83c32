"""`max_samples`: which rows of a source are drawn, by seed and place, never the first ones.

A row's number is a hash of the seed, its file's relative path and its ordinal; the rows with the smallest numbers
are drawn. So the draw knows neither where parts are cut nor who works on them, and N + 1 rows hold the N.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from qdata.rows import source
from qdata.rows.parts import Part


@dataclass(frozen=True)
class Draw:
    """The rows of a part that are drawn: those whose number is at most `limit`."""

    seed: int
    limit: int

    def __call__(self, frame: pl.DataFrame, part: Part) -> pl.DataFrame:
        """`frame` (the rows of `part`, with their first ids) with `max_samples.not_drawn` where a row is not."""
        ordinals = frame["row"].str.extract(r"#(\d+)$").cast(pl.UInt64).to_numpy()
        drawn = pl.Series(numbers(self.seed, part.relative, ordinals) <= np.uint64(self.limit))
        reason = pl.when(~drawn).then(pl.lit("max_samples.not_drawn"))
        return frame.with_columns(drop=pl.coalesce("drop", reason))


def of_parts(parts: Sequence[Part], count: int, seed: int) -> Draw:
    """The draw of `count` rows from all rows of `parts` that can be read; of all, where there are no more."""
    every = [numbers(seed, part.relative, np.array(source.read(part).ordinals, np.uint64)) for part in parts]
    numbered = np.concatenate(every)
    limit = np.iinfo(np.uint64).max if count >= len(numbered) else np.partition(numbered, count - 1)[count - 1]
    return Draw(seed, int(limit))


def numbers(seed: int, relative: str, ordinals: Any) -> Any:
    """A uint64 for each ordinal (uint64, from 1), as good as random: SplitMix64 from a start that seed and file give.

    SplitMix64 never gives two ordinals of one file the same number.
    """
    digest = hashlib.blake2b(f"{seed}:{relative}".encode(), digest_size=8).digest()
    with np.errstate(over="ignore"):
        z = np.uint64(int.from_bytes(digest)) + ordinals * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
