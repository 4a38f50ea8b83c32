"""Packing: the fast best-fit-decreasing is the plain one, nothing is lost, and the order hangs on the seed only."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdata.errors import QdataError
from qdata.tokens.pack import Bins, best_fit_decreasing, fill, one_each, shuffled

LENGTHS = st.lists(st.integers(1, 60), max_size=80) | st.lists(st.sampled_from([7, 13, 20, 30, 33, 60]), max_size=120)
CAPACITIES = st.integers(60, 100) | st.just(60)


def contents(bins: Bins) -> list[list[int]]:
    """The samples of each bin."""
    return [bins.order[a:b].tolist() for a, b in zip(bins.offsets[:-1], bins.offsets[1:], strict=True)]


def naive(lengths: list[int], capacity: int) -> list[int]:
    """The free space of each bin of best-fit-decreasing, sample by sample, bin by bin."""
    free: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [space for space in free if space >= length]
        if fitting:
            free[free.index(min(fitting))] -= length
        else:
            free.append(capacity - length)
    return free


@given(LENGTHS, CAPACITIES)
@settings(max_examples=400, deadline=None)
def test_it_is_best_fit_decreasing(lengths: list[int], capacity: int) -> None:
    """As many bins, equally full, as the textbook's quadratic loop."""
    bins = best_fit_decreasing(lengths, capacity)
    free = [capacity - sum(lengths[i] for i in one) for one in contents(bins)]
    assert Counter(free) == Counter(naive(lengths, capacity))
    assert len(bins) == len(free)


@given(LENGTHS, CAPACITIES, st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_every_sample_is_in_exactly_one_bin(lengths: list[int], capacity: int, seed: int) -> None:
    """No bin is too full or empty, before and after shuffling."""
    for bins in (best_fit_decreasing(lengths, capacity), shuffled(best_fit_decreasing(lengths, capacity), seed)):
        assert sorted(bins.order.tolist()) == list(range(len(lengths)))
        assert (bins.offsets[0], bins.offsets[-1]) == (0, len(lengths))
        for one in contents(bins):
            assert 0 < sum(lengths[i] for i in one) <= capacity


@given(LENGTHS, st.integers(0, 5))
@settings(max_examples=200, deadline=None)
def test_shuffling_is_a_permutation_of_bins(lengths: list[int], seed: int) -> None:
    """The bins are the same, whole and inside in order; the same seed gives the same order."""
    bins = best_fit_decreasing(lengths, 60)
    mixed = shuffled(bins, seed)
    assert sorted(contents(mixed)) == sorted(contents(bins))
    again = shuffled(best_fit_decreasing(lengths, 60), seed)
    assert contents(again) == contents(mixed)


def test_the_order_hangs_on_the_seed() -> None:
    """Two seeds give two orders, and none is the order of packing, which is by length."""
    bins = one_each(200)
    orders = [shuffled(bins, seed).order.tolist() for seed in (0, 1)]
    assert orders[0] != orders[1]
    assert list(range(200)) not in orders


def test_one_each_packs_nothing() -> None:
    """Every sample alone, in its order."""
    assert contents(one_each(3)) == [[0], [1], [2]]
    assert len(one_each(0)) == 0


@pytest.mark.parametrize("lengths", [[], [60], [60, 60], [1] * 120, [30, 30, 30], [60, 1, 59, 59, 1]])
def test_the_edges(lengths: list[int]) -> None:
    """No samples, samples as long as a bin, equal samples."""
    bins = best_fit_decreasing(lengths, 60)
    assert len(bins) == len(naive(lengths, 60))
    assert sorted(bins.order.tolist()) == list(range(len(lengths)))
    assert fill(lengths, bins, 60) == (sum(lengths) / (60 * len(bins)) if lengths else 0.0)


def test_a_sample_that_fits_no_bin_is_refused() -> None:
    """With its length, and what to do."""
    with pytest.raises(QdataError, match=r"a sample of 61 tokens does not fit into rows of 60.*--max-length"):
        best_fit_decreasing([3, 61], 60)


WANTED = {2048: 0.996, 4096: 0.997}


def _alpaca(real_data: Path) -> list[str]:
    rows = json.loads((real_data / "alpaca/alpaca_data.json").read_text(encoding="utf-8"))
    return [row["instruction"] + "\n" + row["input"] + "\n" + row["output"] for row in rows if row["output"].strip()]


@pytest.mark.parametrize("capacity", WANTED)
def test_real_rows_fill_the_bins(real_data: Path, capacity: int) -> None:
    """The 52,002 alpaca rows, with lengths guessed from their characters."""
    lengths = [25 + len(text) // 5 for text in _alpaca(real_data)]
    assert fill(lengths, best_fit_decreasing(lengths, capacity), capacity) >= WANTED[capacity]


@pytest.mark.slow
def test_real_tokens_fill_the_bins(real_data: Path, real_tokenizers: Path) -> None:
    """The 52,002 alpaca rows, with the lengths they have as Qwen2.5 conversations."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(real_tokenizers / "qwen2_5/tokenizer.json"))
    frame = len(tokenizer.encode("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n").ids) + 12
    lengths = np.array([frame + len(e.ids) for e in tokenizer.encode_batch_fast(_alpaca(real_data))])
    for capacity, wanted in WANTED.items():
        assert fill(lengths, best_fit_decreasing(lengths, capacity), capacity) >= wanted
