"""Pretraining text: a document and the tokenizer's end of text, all of it trained. No template has a part in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import polars as pl
import pyarrow as pa

from qdata.arrays import to_arrow
from qdata.errors import QdataError
from qdata.tokens import fit, injection
from qdata.tokens.encoder import Encoder
from qdata.tokens.kind import Kind, Made, Rendering
from qdata.tokens.samples import Samples
from qdata.tokens.table import TABLE

END = "<|endoftext|>"


class Text(Kind):
    """A sample is a document, one trained piece; a long one is split at token boundaries, which is a view too."""

    too_long: ClassVar[Literal["drop", "split"]] = "split"
    loss: ClassVar[Literal["whole"] | None] = "whole"

    def refused(self, *, loss: str, too_long: str, pack: int | None) -> str | None:
        """What is said of turns."""
        if loss == "last":
            return "--loss last: a document of pretraining text has no last answer, all of it is trained; leave it out"
        if too_long == "truncate_turns":
            return "--too-long truncate_turns: a document of pretraining text has no turns; split (default) or truncate"
        return None

    def make(self, kept: pl.DataFrame, how: Rendering, encoder: Encoder) -> Made:
        """Every control token in a text is text, whoever writes it: a document is nobody's turn."""
        end = encoder.id_of(end_of_text(encoder, how.template.variables))
        texts = kept["text"]
        held = texts.str.contains_any(list(encoder.controls.all)) if encoder.controls.all else texts.is_null()
        controls = 0 if how.specials == "keep" else int(held.sum())
        if controls and how.specials == "error":
            raise injection.refusal(kept.filter(held)["row"])
        encoder.check(texts.filter(~held))
        ids, offsets = encoder.encode_plain(texts) if how.specials == "text" else encoder.encode(texts.to_list())
        ends = offsets + np.arange(len(offsets))  # each document is one token longer
        closed = np.empty(ends[-1], np.int32)
        inside = np.ones(len(closed), np.bool_)
        inside[ends[1:] - 1] = False
        closed[inside], closed[~inside] = ids, end
        pieces = to_arrow(np.arange(len(ends), dtype=np.int32))
        of_each = {
            "piece_ends": np.diff(ends).astype(np.int32),
            "turns": np.zeros(len(texts), np.int32),
            "weights": np.ones(len(texts), np.float32),
        }
        columns = {
            "index": to_arrow(np.arange(len(texts), dtype=np.uint32)),
            "skipped": to_arrow(np.zeros(len(texts), np.int32)),
            "input_ids": pa.LargeListArray.from_arrays(to_arrow(ends), to_arrow(closed)),
            **{name: pa.ListArray.from_arrays(pieces, to_arrow(values)) for name, values in of_each.items()},
        }
        return Made(pa.table(columns, schema=TABLE), controls)

    def fit(self, samples: Samples, max_length: int | None, policy: str) -> fit.Fitted:
        """As chat, but that `split` is made here."""
        if policy == "split" and max_length is not None:
            return fit.Fitted(blocks(samples, max_length), 0, 0, 0)
        return super().fit(samples, max_length, policy)


def end_of_text(encoder: Encoder, variables: Mapping[str, str]) -> str:
    """What ends a document: `<|endoftext|>` where the vocabulary has it, else the tokenizer's eos token.

    Raises QdataError where there is neither.
    """
    for token in (END, variables.get("eos_token", "")):
        if token and encoder.id_of(token) is not None:
            return token
    raise QdataError(
        f"{encoder.directory}: has no {END} and names no eos_token; wanted one of them, to end documents of "
        f"pretraining text"
    )


def blocks(samples: Samples, limit: int) -> Samples:
    """Documents (samples of one piece) of more than `limit` tokens in blocks of that many, the last one shorter.

    Of one token, the end of text, nothing would be learnt, since nothing stands before it: it takes in one more.
    `skipped` counts the tokens of the document before a block.
    """
    counts = -(-samples.length // limit)
    which = np.repeat(np.arange(len(samples)), counts)
    number = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    start = number * limit
    length = np.minimum(limit, samples.length[which] - start)
    if limit > 2:
        alone = np.flatnonzero((length == 1) & (number > 0))
        start[alone] -= 1
        length[alone] += 1
        length[alone - 1] -= 1
    taken = samples.take(which)
    return replace(taken, start=taken.start + start, length=length, skipped=start, piece_end=length)
