"""Which rows a step is made of: a matter of seed, epoch and step, and not of how many processes share the work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Sampler

from qtrain.data import IGNORED

_AT_ONCE = 4096


class Order(Sampler[int]):
    """The indices 0 … rows − 1 in an order drawn by `seed` and epoch, or as they are where `seed` is None.

    Several processes take batches in turn, so the last ones must come out even: `multiple` is the rows they take
    together, and the index `rows` stands in for those that are missing (see `with_spare`). With one process there is
    nothing to even out, and both read the same rows at every step.

    >>> list(Order(5, seed=None, multiple=4))
    [0, 1, 2, 3, 4, 5, 5, 5]
    """

    def __init__(self, rows: int, *, seed: int | None, multiple: int = 1) -> None:
        self.rows, self.seed, self.multiple, self.epoch = rows, seed, multiple, 0

    def set_epoch(self, epoch: int) -> None:
        """The order of this epoch from now on."""
        self.epoch = epoch

    def indices(self) -> npt.NDArray[np.int64]:
        """The epoch's indices, in order."""
        if self.seed is None:
            order = np.arange(self.rows)
        else:
            order = torch.randperm(self.rows, generator=torch.Generator().manual_seed(self.seed + self.epoch)).numpy()
        return np.append(order, np.full(len(self) - self.rows, self.rows))

    def __len__(self) -> int:
        return -(-self.rows // self.multiple) * self.multiple

    def __iter__(self) -> Iterator[int]:
        order = self.indices()
        for start in range(0, len(order), _AT_ONCE):  # ten million rows are 80 MB, as Python's numbers five times that
            yield from order[start : start + _AT_ONCE].tolist()


def with_spare(dataset: Any) -> Any:
    """`dataset` with one more row at its end: a single token that is not trained, and so weighs nothing in a loss.

    Rows without `input_ids` and `labels` (preference pairs) get a copy of their first row, which weighs nothing where a
    batch holds no other pair.
    """
    from datasets import Dataset, concatenate_datasets

    spare = dict(dataset[0])
    if "input_ids" in spare and "labels" in spare:
        spare |= {"input_ids": [0], "labels": [IGNORED], "seq_lengths": [1]}
        spare |= {"weights": [0.0]} if "weights" in spare else {}
    spare |= {"row": -1, "source": [-1]} if "row" in spare else {}  # nobody's
    return concatenate_datasets([dataset, Dataset.from_list([spare], features=dataset.features)])
