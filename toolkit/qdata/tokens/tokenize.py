"""Pieces → token table: ids, where each piece ends, and which pieces are answers. Labels are a view over it.

Each piece is tokenised by itself, as a server does: the prompt up to the generation point in one go, the answer after
it. Where an earlier answer would have merged with its prompt in a server's history (it begins with a newline), the
sample is cut in two, so that every trained answer follows exactly the ids its server would have seen. An answer that
is never trained and would have merged becomes one piece with the end of its prompt instead.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from qdata.errors import QdataError
from qdata.tokens.injection import PRIVATE, Controls
from qdata.tokens.muted import Piece
from qdata.tokens.render import PIECES, split_at
from qdata.tokens.table import MUTED, TABLE, UNTRAINED, gather
from qdata.tokens.vocabulary import WORDS

Ids = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int64]

BATCH = 16_384  # texts handed to the encoder at once; bounds the objects it holds


class Encoder:
    """Text → ids with the Hugging Face `tokenizers` library, from a folder that holds `tokenizer.json`."""

    def __init__(self, directory: Path) -> None:
        from tokenizers import Tokenizer

        self.directory = directory
        file = directory / "tokenizer.json"
        if not file.is_file():
            raise QdataError(f"{directory}: no tokenizer.json in it; wanted a folder saved by save_pretrained")
        self._bytes = file.read_bytes()
        try:
            self._tokenizer = Tokenizer.from_buffer(self._bytes)
        except Exception as error:  # tokenizers raises plain Exception
            raise QdataError(f"{file}: not a tokenizer ({error})") from None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.controls = Controls.of(self._bytes)
        # Qwen's pre-tokeniser never joins a newline with a letter, a digit or an ideograph that follows it, and nothing
        # composes with a newline under NFC. Of another one we know nothing, and look at every joint.
        self.cuts_after_newline = json.dumps(WORDS)[1:-1].encode() in self._bytes or WORDS.encode() in self._bytes

    @cached_property
    def sha256(self) -> str:
        """Of tokenizer.json."""
        return hashlib.sha256(self._bytes).hexdigest()

    def id_of(self, token: str) -> int | None:
        """The id of a token, or None when the vocabulary has no such token."""
        return self._tokenizer.token_to_id(token)

    @cached_property
    def _plain(self) -> Any:
        """The same tokenizer without its added tokens: to it `<|im_end|>` is six tokens of text."""
        from tokenizers import Tokenizer

        return Tokenizer.from_str(json.dumps(json.loads(self._bytes) | {"added_tokens": [], "post_processor": None}))

    def encode_hidden(self, text: str) -> Ids:
        """The ids of one text in which control tokens were hidden (injection.py)."""
        plain = lambda part: list(self._plain.encode(part, add_special_tokens=False).ids)  # noqa: E731
        return np.array(self.controls.encode(text, plain, self.id_of), np.int32)

    def encode(self, texts: list[str], *, plain: bool = False) -> tuple[Ids, Offsets]:
        """The ids of all texts in one int32 array, and the len(texts) + 1 offsets of each text in it.

        `plain`: control tokens in the texts are text like any other.
        """
        tokenizer = self._plain if plain else self._tokenizer
        flat: list[Ids] = []
        lengths = np.zeros(len(texts) + 1, np.int64)
        for start in range(0, len(texts), BATCH):
            batch = tokenizer.encode_batch_fast(texts[start : start + BATCH], add_special_tokens=False)
            ids = [np.array(encoding.ids, np.int32) for encoding in batch]
            lengths[start + 1 : start + 1 + len(ids)] = [len(i) for i in ids]
            flat += ids
        return (np.concatenate(flat) if flat else np.zeros(0, np.int32)), np.cumsum(lengths)


def load_encoder(directory: Path) -> Encoder:
    """The encoder of a folder; loaded once, as long as its tokenizer.json stays the same."""
    file = directory / "tokenizer.json"
    return _loaded(directory, file.stat().st_mtime_ns if file.is_file() else 0)


@lru_cache(maxsize=2)
def _loaded(directory: Path, stamp: int) -> Encoder:
    return Encoder(directory)


def tokenize(
    pieces: pl.DataFrame, encoder: Encoder, weights: pl.DataFrame | None = None, *, hidden: bool = False
) -> pa.Table:
    """The token table (TABLE) of rendered pieces (PIECES): one row per sample, in order.

    `weights` (index, turn, weight) says what answers weigh that do not weigh 1; `hidden`, that control tokens were
    hidden in texts (injection.py).
    """
    pieces = _as_served(pieces, encoder)
    ids, offsets = encode_distinct(pieces["text"], encoder, hidden)
    first = (pieces["piece"] == 0).to_numpy()
    starts = np.flatnonzero(first)  # piece number at which each sample begins
    counts = np.diff(np.append(starts, pieces.height))
    token_starts = np.append(offsets[starts], offsets[-1])
    ends = offsets[1:] - np.repeat(token_starts[:-1], counts)
    piece_offsets = pa.array(np.append(starts, pieces.height).astype(np.int32))
    return pa.table(
        [
            pa.array(pieces["index"].to_numpy()[starts], pa.uint32()),
            pa.array(np.zeros(len(starts), np.int32)),
            pa.LargeListArray.from_arrays(pa.array(token_starts), pa.array(ids)),
            pa.ListArray.from_arrays(piece_offsets, pa.array(ends.astype(np.int32))),
            pa.ListArray.from_arrays(piece_offsets, pa.array(pieces["turn"].to_numpy())),
            pa.ListArray.from_arrays(piece_offsets, pa.array(_weights(pieces, weights))),
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


def encode_distinct(texts: pl.Series, encoder: Encoder, hidden: bool) -> tuple[Ids, Offsets]:
    """Like `encoder.encode`, but a text that occurs often (the newline after every stop token) is encoded once."""
    distinct = texts.unique(maintain_order=True)
    where = texts.to_frame("t").join(
        distinct.to_frame("t").with_row_index("n"), on="t", how="left", maintain_order="left"
    )
    which = where["n"].to_numpy().astype(np.int64)
    ids, offsets = encoder.encode(distinct.to_list())
    if hidden:
        runs = np.split(ids, offsets[1:-1])
        for place in np.flatnonzero(distinct.str.contains(PRIVATE).to_numpy()):
            runs[place] = encoder.encode_hidden(distinct[int(place)])
        ids, offsets = np.concatenate(runs), np.concatenate([[0], np.cumsum([len(run) for run in runs])])
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
