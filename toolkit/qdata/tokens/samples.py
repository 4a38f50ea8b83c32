"""Views over token tables: which samples there are, how long, and which of their pieces are trained.

Labels, loss policy, truncation, split and packing are all said of this view; token ids stay where they are until they
are copied into a shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from qdata.arrays import to_numpy
from qdata.tokens.table import MUTED, gather

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
    skipped: Ints  # messages that were cut off in front (`too_long = split`)
    pieces: Ints
    piece_start: Ints
    piece_end: Ints
    piece_turn: Ints  # which message it answers with, UNTRAINED or MUTED (table.py)
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

    @property
    def piece_answers(self) -> Bools:
        """Which pieces are answers that are trained."""
        return self.piece_trained & (self.piece_turn >= 0)

    def answers_within(self, length: Ints) -> Ints:
        """How many trained answers begin within the first `length` tokens of each sample."""
        begun = self.piece_answers & (self.piece_start < np.repeat(length, np.diff(self.pieces)))
        return np.add.reduceat(begun.astype(np.int64), self.pieces[:-1]) if len(self) else length

    @property
    def groups(self) -> Ints:
        """The numbers of the samples at which the samples of another conversation, or of another part of it, begin."""
        return np.flatnonzero(np.diff(self.conversation, prepend=-1) | np.diff(self.skipped, prepend=0))

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
            self.skipped[which],
            pieces,
            self.piece_start[at],
            self.piece_end[at],
            self.piece_turn[at],
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


def samples_of(tables: Sequence[pa.Table], bases: Sequence[int], loss: str, expand: bool = True) -> Samples:
    """A view over token tables (TABLE) under a loss policy; `bases[t]` is the number of table t's first conversation.

    `assistant` trains every answer, `last` the last answer of each conversation, `whole` all tokens (of a sample
    that repeats an earlier one's history, the history excepted); muted answers are trained under none. Without
    `expand` a conversation keeps one sample, the one in which the most answers are trained, of several the last.
    Samples with nothing to train are left out.
    """
    tokens: list[npt.NDArray[np.int32]] = []
    columns: list[list[Any]] = []
    pieces_before = 0
    for number, (table, base) in enumerate(zip(tables, bases, strict=True)):
        index, skipped = (_joined(table[name].chunks).astype(np.int64) for name in ("index", "skipped"))
        ids, offsets = _flat(table["input_ids"])
        ends, per_sample = _flat(table["piece_ends"])
        turns, _ = _flat(table["turns"])
        weights, _ = _flat(table["weights"])
        ends = ends.astype(np.int64)
        starts = np.concatenate([np.zeros(1, np.int64), ends])[:-1]
        starts[per_sample[:-1]] = 0
        samples = [np.full(len(index), number), offsets[:-1], np.diff(offsets), index + base, skipped]
        columns.append([*samples, per_sample[:-1] + pieces_before, starts, ends, turns, turns >= 0, weights])
        tokens.append(ids)
        pieces_before += len(ends)
    joined = [np.concatenate(column) for column in zip(*columns, strict=True)]
    joined[5] = np.append(joined[5], pieces_before)
    everything = Samples(tokens, *joined)
    if loss == "last":
        everything = replace(everything, piece_trained=_last(everything))
    if not expand and len(everything):
        everything = everything.take(_fullest(everything))
    if loss == "whole":
        everything = replace(everything, piece_trained=_whole(everything))
    return everything.take(np.flatnonzero(everything.trained_length))


def _last(samples: Samples) -> Bools:
    """Which pieces are the last answer of their conversation."""
    conversation = np.repeat(samples.conversation, np.diff(samples.pieces))
    last = np.zeros(int(conversation.max(initial=-1)) + 1, np.int64)
    np.maximum.at(last, conversation, samples.piece_turn)
    return np.asarray((samples.piece_turn >= 0) & (samples.piece_turn == last[conversation]))


def _fullest(samples: Samples) -> Ints:
    """Of each conversation the sample in which the most answers are trained; of several the last, with most history."""
    group = np.zeros(len(samples), np.int64)
    group[samples.groups] = 1
    group = np.cumsum(group)
    order = np.lexsort((samples.answers_within(samples.length), group))  # stable: later ones stay behind
    return np.sort(order[np.flatnonzero(np.diff(group[order], append=-1))])


def _whole(samples: Samples) -> Bools:
    """All pieces but muted ones, and but what stands before the first answer where an earlier sample trained it."""
    pieces = samples.pieces
    answered = np.cumsum(samples.piece_turn >= 0)
    before = np.concatenate([np.zeros(1, np.int64), answered])[pieces[:-1]]
    repeats = np.diff(samples.conversation, prepend=-1) == 0
    history = np.repeat(repeats, np.diff(pieces)) & (answered == np.repeat(before, np.diff(pieces)))
    return np.asarray((samples.piece_turn != MUTED) & ~history)


def _flat(column: pa.ChunkedArray) -> tuple[npt.NDArray[Any], Ints]:
    """The values of a list column in one array, and its offsets."""
    if column.num_chunks == 1:
        array = column.chunk(0)
        offsets = to_numpy(array.offsets).astype(np.int64)
        return to_numpy(array.values)[offsets[0] : offsets[-1]], offsets - offsets[0]
    lengths = [np.diff(to_numpy(chunk.offsets)) for chunk in column.chunks]
    offsets = np.concatenate([np.zeros(1, np.int64), *lengths]).cumsum()
    return _joined([chunk.flatten() for chunk in column.chunks]), offsets


def _joined(chunks: Sequence[pa.Array]) -> npt.NDArray[Any]:
    return np.concatenate([to_numpy(chunk) for chunk in chunks]) if chunks else np.zeros(0, np.int32)
