"""Views over token tables: which samples there are, how long, and which of their pieces are trained.

Labels, loss policy, truncation, split and packing are all said of this view; token ids stay where they are until they
are copied into a shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from qdata.tokens.tokenize import gather

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Samples:
    """Samples of several token tables laid end to end. One value per sample, then one per piece.

    `chunk` is the table a sample is in and `start` the place of its first token there; `length` and `trained_length`
    count tokens. Sample i has the pieces `pieces[i] : pieces[i + 1]`, whose bounds count from the sample's start.
    """

    tokens: list[npt.NDArray[np.int32]]  # the ids of each table
    chunk: Ints
    start: Ints
    length: Ints
    conversation: Ints  # number of the conversation in the build
    pieces: Ints
    piece_start: Ints
    piece_end: Ints
    piece_trained: Bools
    piece_weight: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.length)

    @property
    def trained_length(self) -> Ints:
        """How many tokens of each sample are trained."""
        return self.trained_within(self.length)

    def trained_within(self, length: Ints) -> Ints:
        """How many of the first `length` tokens of each sample are trained."""
        limit = np.repeat(length, np.diff(self.pieces))
        inside = np.clip(limit - self.piece_start, 0, self.piece_end - self.piece_start) * self.piece_trained
        return np.add.reduceat(inside, self.pieces[:-1]) if len(self) else length

    def take(self, which: Ints) -> Samples:
        """The same view over a selection of samples."""
        counts = np.diff(self.pieces)[which]
        pieces = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        at = gather(self.pieces[:-1][which], pieces)
        return Samples(
            self.tokens,
            self.chunk[which],
            self.start[which],
            self.length[which],
            self.conversation[which],
            pieces,
            self.piece_start[at],
            self.piece_end[at],
            self.piece_trained[at],
            self.piece_weight[at],
        )

    def copied(self) -> tuple[npt.NDArray[np.int32], Bools, npt.NDArray[np.float32]]:
        """The ids of all samples one behind the other, whether each is trained, and what each weighs."""
        begins = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.length)])
        ids = np.empty(begins[-1], np.int32)
        for chunk in np.unique(self.chunk):
            mine = np.flatnonzero(self.chunk == chunk)
            runs = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.length[mine])])
            ids[gather(begins[mine], runs)] = self.tokens[chunk][gather(self.start[mine], runs)]
        limit = np.repeat(self.length, np.diff(self.pieces))
        lengths = np.clip(limit - self.piece_start, 0, self.piece_end - self.piece_start)
        return ids, np.repeat(self.piece_trained, lengths), np.repeat(self.piece_weight, lengths)


def samples_of(tables: Sequence[pa.Table], bases: Sequence[int], loss: str) -> Samples:
    """A view over token tables (TABLE) under a loss policy; `bases[t]` is the number of table t's first conversation.

    `assistant` trains every answer, `last` the last answer of each conversation, `whole` all tokens (of a sample
    that repeats an earlier one's history, the history excepted). Samples with nothing to train are left out.
    """
    tokens: list[npt.NDArray[np.int32]] = []
    columns: list[list[Any]] = []
    pieces_before = 0
    for number, (table, base) in enumerate(zip(tables, bases, strict=True)):
        index = table["index"].to_numpy().astype(np.int64)
        ids, offsets = _flat(table["input_ids"])
        ends, per_sample = _flat(table["piece_ends"])
        turns, _ = _flat(table["turns"])
        weights, _ = _flat(table["weights"])
        ends = ends.astype(np.int64)
        starts = np.concatenate([np.zeros(1, np.int64), ends])[:-1]
        starts[per_sample[:-1]] = 0
        trained = _trained(turns, index, per_sample, loss)
        samples = [np.full(len(index), number), offsets[:-1], np.diff(offsets), index + base]
        columns.append([*samples, per_sample[:-1] + pieces_before, starts, ends, trained, weights])
        tokens.append(ids)
        pieces_before += len(ends)
    joined = [np.concatenate(column) for column in zip(*columns, strict=True)]
    joined[4] = np.append(joined[4], pieces_before)
    everything = Samples(tokens, *joined)
    return everything.take(np.flatnonzero(everything.trained_length))


def _trained(turns: Ints, index: Ints, per_sample: Ints, loss: str) -> Bools:
    """Which pieces are trained."""
    conversation = np.repeat(index, np.diff(per_sample))
    if loss == "assistant":
        return np.asarray(turns >= 0)
    if loss == "last":
        last = np.full(int(index.max(initial=-1)) + 1, -1, np.int64)
        np.maximum.at(last, conversation, turns)
        return np.asarray((turns >= 0) & (turns == last[conversation]))
    whole = np.ones(len(turns), np.bool_)
    whole[per_sample[1:-1][index[1:] == index[:-1]]] = False
    return whole


def _flat(column: pa.ChunkedArray) -> tuple[npt.NDArray[Any], Ints]:
    """The values of a list column in one array, and its offsets."""
    if column.num_chunks == 1:
        array = column.chunk(0)
        offsets = array.offsets.to_numpy().astype(np.int64)
        return array.values.to_numpy()[offsets[0] : offsets[-1]], offsets - offsets[0]
    lengths = [np.diff(chunk.offsets.to_numpy()) for chunk in column.chunks]
    offsets = np.concatenate([np.zeros(1, np.int64), *lengths]).cumsum()
    values = [chunk.flatten().to_numpy() for chunk in column.chunks]
    return np.concatenate(values) if values else np.zeros(0, np.int32), offsets
