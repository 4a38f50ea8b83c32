"""How samples become the columns of a shard: packed rows with labels, or a prompt and its answers side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl
import pyarrow as pa

from qdata import schema
from qdata.arrays import to_arrow
from qdata.tokens.samples import Ints, Samples
from qdata.tokens.table import gather

IGNORED = -100


class Layout(Protocol):
    """What shards.py writes; `rows` and `sources` are the same in all."""

    def schema(self, samples: Samples) -> pa.Schema:
        """The columns of a split."""

    def columns(self, part: Samples, sequences: Ints) -> dict[str, pa.Array]:
        """The columns but `rows` and `sources`, and perhaps more; row i holds the samples sequences[i : i + 1]."""


class Packed:
    """`input_ids`, `labels`, `seq_lengths`, and `weights` where some weight is not 1."""

    def schema(self, samples: Samples) -> pa.Schema:
        """With `weights` only where they are needed."""
        return schema.tokens(weighted=bool(np.any(samples.piece_weight[samples.piece_trained] != 1)))

    def columns(self, part: Samples, sequences: Ints) -> dict[str, pa.Array]:
        """The samples of a row one behind the other."""
        ids, trained, weights = part.copied()
        begins = np.concatenate([np.zeros(1, np.int64), np.cumsum(part.length)])
        offsets = to_arrow(begins[sequences].astype(np.int32))
        labels = np.where(trained, ids, np.int32(IGNORED))
        lengths = to_arrow(sequences.astype(np.int32)), to_arrow(part.length.astype(np.int32))
        return {
            "input_ids": pa.ListArray.from_arrays(offsets, to_arrow(ids)),
            "labels": pa.ListArray.from_arrays(offsets, to_arrow(labels)),
            "seq_lengths": pa.ListArray.from_arrays(*lengths),
            "weights": pa.ListArray.from_arrays(offsets, to_arrow(weights)),
        }


@dataclass(frozen=True)
class SideBySide:
    """A column for each piece of a sample, and `label` where there are verdicts; a row is one sample."""

    shape: pa.Schema
    names: tuple[str, ...]
    labels: pl.Series | None = None

    def schema(self, samples: Samples) -> pa.Schema:
        """The same for all."""
        return self.shape

    def columns(self, part: Samples, sequences: Ints) -> dict[str, pa.Array]:
        """The pieces of each sample, told apart."""
        ids, _, _ = part.copied()
        begins = np.concatenate([np.zeros(1, np.int64), np.cumsum(part.length)])[:-1]
        starts = begins[:, None] + part.piece_start.reshape(-1, len(self.names))
        lengths = lengths_of(part, len(self.names))
        out: dict[str, pa.Array] = {}
        for number, name in enumerate(self.names):
            offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths[:, number])])
            values = to_arrow(ids[gather(starts[:, number], offsets)])
            out[name] = pa.ListArray.from_arrays(to_arrow(offsets.astype(np.int32)), values)
        if self.labels is not None:
            out["label"] = self.labels.gather(part.conversation).to_arrow()
        return out


def lengths_of(samples: Samples, pieces: int) -> Ints:
    """The tokens of each piece of samples that all have so many: [samples, pieces]."""
    return (samples.piece_end - samples.piece_start).reshape(-1, pieces)
