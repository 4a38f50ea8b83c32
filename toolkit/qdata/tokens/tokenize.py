"""Pieces → token table: ids, where each piece ends, and which pieces are answers. Labels are a view over it.

Each piece is tokenised by itself, as a server does: the prompt up to the generation point in one go, the answer after
it. Where an earlier answer would have merged with its prompt in a server's history (it begins with a newline), the
sample is cut in two, so that every trained answer follows exactly the ids its server would have seen. An answer that
is never trained and would have merged becomes one piece with the end of its prompt instead.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from qdata.arrays import to_arrow
from qdata.tokens.encoder import FAST, Encoder, patched
from qdata.tokens.fast import Ids, Offsets
from qdata.tokens.injection import PRIVATE
from qdata.tokens.muted import Piece
from qdata.tokens.render import PIECES, split_at
from qdata.tokens.table import MUTED, TABLE, UNTRAINED, gather


def tokenize(
    pieces: pl.DataFrame, encoder: Encoder, weights: pl.DataFrame | None = None, *, hidden: bool = False
) -> pa.Table:
    """The token table (TABLE) of rendered pieces (PIECES): one row per sample, in order.

    `weights` (index, turn, weight) says what answers weigh that do not weigh 1; `hidden`, that control tokens were
    hidden in texts (injection.py).
    """
    pieces = _as_served(pieces, encoder)
    ids, offsets = encode(pieces["text"], encoder, hidden)
    first = (pieces["piece"] == 0).to_numpy()
    starts = np.flatnonzero(first)  # piece number at which each sample begins
    counts = np.diff(np.append(starts, pieces.height))
    token_starts = np.append(offsets[starts], offsets[-1])
    ends = offsets[1:] - np.repeat(token_starts[:-1], counts)
    piece_offsets = to_arrow(np.append(starts, pieces.height).astype(np.int32))
    return pa.table(
        [
            to_arrow(pieces["index"].to_numpy()[starts]),
            to_arrow(np.zeros(len(starts), np.int32)),
            pa.LargeListArray.from_arrays(to_arrow(token_starts), to_arrow(ids)),
            pa.ListArray.from_arrays(piece_offsets, to_arrow(ends.astype(np.int32))),
            pa.ListArray.from_arrays(piece_offsets, to_arrow(pieces["turn"].to_numpy())),
            pa.ListArray.from_arrays(piece_offsets, to_arrow(_weights(pieces, weights))),
        ],
        schema=TABLE,
    )


def _weights(pieces: pl.DataFrame, weights: pl.DataFrame | None) -> npt.NDArray[np.float32]:
    if weights is None or not weights.height:
        return np.ones(pieces.height, np.float32)
    joined = pieces.select("index", "turn").join(weights, on=["index", "turn"], how="left", maintain_order="left")
    return joined["weight"].fill_null(1.0).cast(pl.Float32).to_numpy()


def weights_of(frame: pl.DataFrame) -> pl.DataFrame:
    """The weights that messages of a CONVERSATION frame carry: index, turn, weight."""
    weight = pl.col("messages").list.eval(pl.element().struct.field("weight"))
    one = frame.select(pl.int_range(pl.len(), dtype=pl.UInt32).alias("index"), weight=weight)
    turns = one.with_columns(turn=pl.int_ranges(pl.col("weight").list.len(), dtype=pl.Int32))
    return turns.explode("weight", "turn").filter(pl.col("weight").is_not_null()).select("index", "turn", "weight")


def encode(texts: pl.Series, encoder: Encoder, hidden: bool) -> tuple[Ids, Offsets]:
    """`encoder.encode`, some of it checked; `hidden`, that control tokens were hidden in texts (injection.py)."""
    encoder.check(texts)
    encoded = encoder.encode(texts.to_list()) if encoder.engine == FAST else _distinct(texts, encoder)
    if not hidden:
        return encoded
    return patched(encoded, texts.str.contains(PRIVATE), lambda at: encoder.encode_hidden(texts[at]))


def _distinct(texts: pl.Series, encoder: Encoder) -> tuple[Ids, Offsets]:
    """A text that occurs often (the newline after every stop token) is encoded once: for a slow engine."""
    distinct = texts.unique(maintain_order=True)
    where = texts.to_frame("t").join(
        distinct.to_frame("t").with_row_index("n"), on="t", how="left", maintain_order="left"
    )
    which = where["n"].to_numpy().astype(np.int64)
    ids, offsets = encoder.encode(distinct.to_list())
    lengths = np.diff(offsets)[which]
    out = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return ids[gather(offsets[which], out)], out


class _Joint(NamedTuple):
    """An earlier or muted answer whose first characters might merge with the prompt before it."""

    at: int  # row in the pieces frame
    prompt: str
    answer: str


def _as_served(pieces: pl.DataFrame, encoder: Encoder) -> pl.DataFrame:
    """Cuts samples in two, or joins pieces, where a server's history would have other ids than the pieces alone."""
    joints = _doubtful_joints(pieces, encoder.cuts_after_newline)
    if not joints:
        return pieces
    whole, whole_at = encoder.encode([j.prompt + j.answer for j in joints])
    prompts, prompts_at = encoder.encode([j.prompt for j in joints])
    answers, answers_at = encoder.encode([j.answer for j in joints])
    merged = [
        joint.at
        for n, joint in enumerate(joints)
        if not np.array_equal(
            whole[whole_at[n] : whole_at[n + 1]],
            np.concatenate([prompts[prompts_at[n] : prompts_at[n + 1]], answers[answers_at[n] : answers_at[n + 1]]]),
        )
    ]
    return _mended(pieces, merged, encoder) if merged else pieces


def _doubtful_joints(pieces: pl.DataFrame, cuts_after_newline: bool) -> list[_Joint]:
    """Answers that stand in a history and might merge with their prompt there.

    All that do not begin with a letter or digit after a newline; simply all, where the tokenizer is not known to cut
    there.
    """
    answer = pl.col("turn") >= 0
    later = answer.reverse().cum_sum().reverse().over("index", "sample") > 1
    history = (answer & later) | (pl.col("turn") == MUTED)
    safe = pl.lit(cuts_after_newline) & pl.col("text").str.contains(r"^[\p{L}\p{N}]")
    safe &= pl.col("text").shift(1).str.ends_with("\n")
    # An answer without a prompt piece before it in its sample stands directly behind another answer's stop token.
    behind = pl.col("turn").shift(1) < 0
    found = (
        pieces.with_row_index("at")
        .with_columns(prompt=pl.col("text").shift(1))
        .filter(history & behind & (pl.col("piece") > 0) & ~safe)
    )
    return [_Joint(*row) for row in found.select("at", "prompt", "text").iter_rows()]


def _mended(pieces: pl.DataFrame, answers: list[int], encoder: Encoder) -> pl.DataFrame:
    """The pieces with samples cut after these answers; muted ones among them take in the last line of their prompt."""
    affected = pieces[answers].select("index").unique()
    marked = pieces.with_row_index("at")
    rows: list[tuple[int, int, int, int, str]] = []
    merged = set(answers)
    for (index,), group in marked.join(affected, on="index", how="semi", maintain_order="left").group_by(
        "index", maintain_order=True
    ):
        number = 0
        for _, one in group.group_by("sample", maintain_order=True):
            todo: list[Piece] = []
            cuts = []
            for at, text, turn in one.select("at", "text", "turn").iter_rows():
                if at in merged and turn == MUTED:
                    prompt = todo.pop().text
                    line = _last_line(prompt, text, encoder)
                    todo += [Piece(prompt[:line], UNTRAINED)] if line else []
                    text = prompt[line:] + text
                elif at in merged:
                    cuts.append(len(todo))
                todo.append(Piece(text, turn))
            for sample in _split_all(todo, cuts):
                rows += [(int(str(index)), number, p, piece.turn, piece.text) for p, piece in enumerate(sample)]
                number += 1
    rest = pieces.join(affected, on="index", how="anti", maintain_order="left")
    new = pl.DataFrame(rows, schema=PIECES, orient="row")
    return pl.concat([rest, new]).sort("index", "sample", "piece")


def _last_line(prompt: str, answer: str, encoder: Encoder) -> int:
    """Where the last line of a prompt begins, or 0 where cutting there would change ids too."""
    line = prompt.rstrip("\n").rfind("\n") + 1
    cut, _ = encoder.encode([prompt[:line], prompt[line:] + answer])
    whole, _ = encoder.encode([prompt + answer])
    return line if np.array_equal(cut, whole) else 0


def _split_all(sample: list[Piece], cuts: list[int]) -> list[list[Piece]]:
    done, gone = [], 0
    for cut in cuts:
        head, rest = split_at(sample, cut - gone)
        gone += len(sample) - len(rest)
        done.append(head)
        sample = rest
    return [*done, sample]
