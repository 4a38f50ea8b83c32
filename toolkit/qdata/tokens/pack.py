"""Lengths → bins: pure functions over integers."""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from qdata.errors import QdataError

Ints = npt.NDArray[np.int64]


class Bins(NamedTuple):
    """Bin b holds the samples `order[offsets[b] : offsets[b + 1]]`."""

    order: Ints
    offsets: Ints

    def __len__(self) -> int:
        return len(self.offsets) - 1


def one_each(count: int) -> Bins:
    """No packing: every sample is a bin of its own, in order."""
    return Bins(np.arange(count), np.arange(count + 1))


def best_fit_decreasing(lengths: npt.ArrayLike, capacity: int) -> Bins:
    """Packs samples into bins of at most `capacity` tokens: longest first, each into the fullest bin it fits.

    The classic heuristic (Johnson 1973), run over classes of equal length instead of single samples: a bin with
    space s takes s // x samples of length x before any emptier bin gets one, so whole groups of bins move at once
    and the time depends on the number of distinct lengths and not on the number of samples.
    Raises QdataError when a sample is longer than a bin.
    """
    sizes = np.asarray(lengths, np.int64)
    if len(sizes) and sizes.max() > capacity:
        raise QdataError(f"a sample of {sizes.max()} tokens does not fit into rows of {capacity}: pass a --max-length")
    by_size = np.argsort(-sizes, kind="stable")
    assigned = np.empty(len(sizes), np.int64)
    open_bins: dict[int, list[Ints]] = {}  # space left → groups of bins
    spaces: list[int] = []  # its keys, ascending
    bins = 0
    at = 0
    for size, count in zip(*_runs(sizes[by_size]), strict=True):
        left = int(count)
        while left:
            place = bisect_left(spaces, size)
            if size and place < len(spaces):
                space = spaces[place]
                group = open_bins[space].pop()
                if not open_bins[space]:
                    del open_bins[space], spaces[place]
            else:
                space = capacity
                each = space // size if size else left
                fresh = -(-left // each)
                group = np.arange(bins, bins + fresh)
                bins += fresh
            each = space // size if size else left
            full, rest = divmod(min(left, each * len(group)), each)
            used = np.concatenate([np.repeat(group[:full], each), np.repeat(group[full : full + 1], rest)])
            assigned[by_size[at : at + len(used)]] = used
            at += len(used)
            left -= len(used)
            _put(open_bins, spaces, space - each * size, group[:full])
            if rest:
                _put(open_bins, spaces, space - rest * size, group[full : full + 1])
            _put(open_bins, spaces, space, group[full + bool(rest) :])
    order = np.argsort(assigned, kind="stable")
    return Bins(order, np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(assigned, minlength=bins))]))


def _runs(descending: Ints) -> tuple[list[int], list[int]]:
    values, counts = np.unique(descending, return_counts=True)
    return values[::-1].tolist(), counts[::-1].tolist()


def _put(open_bins: dict[int, list[Ints]], spaces: list[int], space: int, group: Ints) -> None:
    if space <= 0 or not len(group):
        return
    if space not in open_bins:
        insort(spaces, space)
        open_bins[space] = []
    open_bins[space].append(group)


def shuffled(bins: Bins, seed: int) -> Bins:
    """The same bins in an order that depends on the seed only; packing had sorted them by length."""
    permutation = np.random.default_rng(seed).permutation(len(bins))
    counts = np.diff(bins.offsets)[permutation]
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    index = np.repeat(bins.offsets[:-1][permutation] - offsets[:-1], counts) + np.arange(offsets[-1])
    return Bins(bins.order[index], offsets)


def fill(lengths: npt.ArrayLike, bins: Bins, capacity: int) -> float:
    """The share of the bins' places that hold a token."""
    return float(np.asarray(lengths).sum()) / (len(bins) * capacity) if len(bins) else 0.0
