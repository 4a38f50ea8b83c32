"""Texts that go round in circles: a few strings of characters make up most of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from qdata.rows.steps._judge import TEXT_ROLE, dropped, first_reason, said_by

Bytes = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]
_CHUNK = 1 << 17  # bytes that are looked at in one go: the arrays of their n-grams stay in the processor's cache
_WORD = 8  # bytes of a machine word: no more of an n-gram is looked at to find what may be over the limit
_ROUNDING = 1e-6  # of counts that are whole numbers
_MIX = np.uint64(0x9E3779B97F4A7C15)  # Knuth's multiplicative hashing (TAOCP 3, 6.4): 2^64 over the golden ratio


@dataclass(frozen=True)
class CharacterRepetition:
    """Drops rows with a text of which too large a share is its most frequent character n-grams.

    As the filter of ROOTS (Laurençon et al. 2022, arXiv 2303.03915): of D different n-grams, the √D most
    frequent ones are counted, and of these only what occurs more than once, over all n-grams. `repetition` judges
    words and lines.
    """

    n: int = field(default=10, metadata={"help": "characters of an n-gram"})
    max: float = field(default=0.5, metadata={"help": "largest share of the most frequent n-grams"})
    roles: tuple[str, ...] = field(
        default=("assistant", TEXT_ROLE), metadata={"help": "whose texts are looked at; text is pretraining text"}
    )
    edits: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Raises ValueError where n is no length, or max no share."""
        if self.n < 1:
            raise ValueError(f"n: wanted a whole number above 0, got {self.n}")
        if not 0 <= self.max <= 1:
            raise ValueError(f"max: wanted a share, 0 to 1, got {self.max}")

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Reason: `character_repetition.too_much`.

        >>> from qdata.rows.steps._turns import example, shown
        >>> shown(CharacterRepetition()(example("user: Laugh.", "assistant: " + "haha" * 20)))
        ['character_repetition.too_much']
        """
        text = pl.when(said_by(self.roles)).then(pl.col("content")).fill_null("")
        over = text.map_batches(self._over, pl.Boolean)
        return dropped(frame, first_reason(pl.when(over).then(pl.lit("character_repetition.too_much"))))

    def _over(self, texts: pl.Series) -> pl.Series:
        """Which texts are over the limit. Nobody counts the n-grams of those that surely are not."""
        out = np.zeros(len(texts), np.bool_)
        sizes = texts.str.len_bytes().cast(pl.Int64).to_numpy()
        for least, most, buckets in _classes(sizes):
            at = np.flatnonzero((sizes >= max(least, self.n)) & (sizes < most))
            out[at] = self._may(texts.gather(at), buckets)
        at = np.flatnonzero(out)
        out[at] = [repeated(text, self.n) > self.max for text in texts.gather(at).to_list()]
        return pl.Series(out)

    def _may(self, texts: pl.Series, buckets: int) -> npt.NDArray[np.bool_]:
        """Which texts may be over the limit, by an upper bound of their share.

        Each n-gram goes into one of some buckets by a hash of its first bytes. The k most frequent n-grams lie in at
        most k buckets, so there are no more of them than there are in the k fullest buckets; and those hold at most
        k · t + Σ max(0, bucket - t), whatever t is. With t = limit / 2k that is to be compared with the limit itself.
        """
        total = np.maximum(texts.str.len_chars().cast(pl.Int64).to_numpy() - self.n + 1, 0)
        most = np.sqrt(total)  # of the different n-grams; there are no more than n-grams
        limit = self.max * total
        level = limit / (2 * np.maximum(most, 1))
        flat, offsets = _laid(texts)
        over = np.empty(len(texts), np.float64)
        for first, last in _chunks(offsets):
            counts = _bucketed(flat, offsets[first : last + 1], buckets, min(self.n, _WORD))
            over[first:last] = np.maximum(counts - level[first:last, None], 0).sum(axis=1)
        may: npt.NDArray[np.bool_] = (over >= limit / 2 - _ROUNDING) & (total > 0)
        return may


def repeated(text: str, n: int) -> float:
    """The share of a text's n-grams that are its most frequent ones, 0 to 1, as CharacterRepetition tells it."""
    counts = Counter(text[at : at + n] for at in range(len(text) - n + 1))
    if not counts:
        return 0.0
    again = sum(count > 1 for count in counts.values())
    most = counts.most_common(min(math.isqrt(len(counts)), again))
    return sum(count for _, count in most) / counts.total()


def _classes(sizes: Counts) -> Iterator[tuple[int, int, int]]:
    """Ranges of sizes, and the buckets for each: a few n-grams a bucket, in texts of any size."""
    least, most = 0, 1024
    longest = int(sizes.max(initial=0))
    while least <= longest:
        yield least, most, most // 4
        least, most = most, 4 * most


def _laid(texts: pl.Series) -> tuple[Bytes, Counts]:
    """The bytes of all texts end to end, and where each begins; the last offset is where the last one ends."""
    array: Any = texts.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())  # large_string
    _, offsets, data = array.buffers()
    starts = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    return np.frombuffer(data or b"", np.uint8), starts


def _chunks(offsets: Counts) -> Iterator[tuple[int, int]]:
    """Texts from, to: together about so many bytes."""
    first, count = 0, len(offsets) - 1
    while first < count:
        last = int(np.searchsorted(offsets, offsets[first] + _CHUNK, side="right")) - 1
        last = min(max(last, first + 1), count)
        yield first, last
        first = last


def _bucketed(flat: Bytes, offsets: Counts, buckets: int, width: int) -> Counts:
    """For each text how many n-grams, by their first `width` bytes, fall into each bucket.

    All bytes begin one, and so do the last ones, which see the text behind: that is more than there are, never less.
    """
    start, stop = int(offsets[0]), int(offsets[-1])
    padded = np.zeros(stop - start + _WORD, np.uint8)
    seen = flat[start : stop + _WORD]
    padded[: len(seen)] = seen
    words = np.ndarray((stop - start,), "<u8", padded, strides=(1,))  # each byte begins one: they overlap
    hashed = (words << np.uint64(8 * (_WORD - width))) * _MIX
    hashed >>= np.uint64(64 - buckets.bit_length() + 1)
    rows = len(offsets) - 1
    places = hashed.view(np.int64)
    places += np.repeat(np.arange(rows, dtype=np.int64) * buckets, np.diff(offsets))
    return np.bincount(places, minlength=rows * buckets).reshape(rows, buckets)
