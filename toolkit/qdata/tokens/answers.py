"""Prompts and the answers behind them, told apart: what preference pairs and judged answers have in common.

The prompt is all that a server would send, tokenised in one go; an answer is what the model would then have generated,
tokenised from the generation point. Their ids are joined, never merged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from qdata.arrays import to_arrow
from qdata.errors import QdataError, RefusedRowsError
from qdata.tokens import fit, injection, thinking
from qdata.tokens.encoder import Encoder
from qdata.tokens.fast import Ids
from qdata.tokens.kind import Kind, Rendering
from qdata.tokens.muted import Piece, Sample
from qdata.tokens.render import plain, render
from qdata.tokens.samples import Ints, Samples
from qdata.tokens.shown import refuse_unshown
from qdata.tokens.table import TABLE, UNTRAINED, gather
from qdata.tokens.template import Template
from qdata.tokens.tokenize import encode


class Answers(Kind):
    """What pairs and judged answers say of themselves: they stay whole, and no trainer packs them."""

    what: ClassVar[str]  # in words
    trainer: ClassVar[str]  # TRL's

    def refused(self, *, loss: str, too_long: str, pack: int | None) -> str | None:
        """What would cut, join or divide them."""
        what = self.what
        if pack:
            return f"--pack: {what} are not packed, TRL's {self.trainer} pads the rows of a batch; leave --pack out"
        if loss != "assistant":
            return f"--loss {loss}: of {what} the answers are looked at, and never the prompt; leave --loss out"
        if too_long not in ("drop", "error"):
            return f"--too-long {too_long}: {what} stay whole, half an answer is not what was judged; drop or error"
        return None

    def fit(self, samples: Samples, max_length: int | None, policy: str) -> fit.Fitted:
        """Whole rows, or nothing of them."""
        if max_length is None:
            return fit.Fitted(samples, 0, 0, 0)
        fits = self.lengths(samples) <= max_length
        gone = samples.take(np.flatnonzero(~fits))
        return fit.Fitted(samples.take(np.flatnonzero(fits)), 0, int(gone.piece_answers.sum()), len(gone))

    def lost(self, samples: Samples) -> dict[int, float]:
        """The share of rows that are longer."""
        lengths = self.lengths(samples)
        longest = int(lengths.max(initial=0))
        usual = [n for n in fit.LENGTHS if n < longest] + [n for n in fit.LENGTHS if n >= longest][:1]
        return {n: round(float((lengths > n).mean()), 6) if len(lengths) else 0.0 for n in usual}


class Answered(NamedTuple):
    """Conversations of which the last turns are an answer: the ids of all, and where prompt and answer begin and end.

    Conversation i has the prompt `ids[bounds[i, 0] : bounds[i, 1]]` and the answer up to `bounds[i, 2]`.
    """

    ids: Ids
    bounds: Ints  # [conversations, 3]
    controls: int
    by_shape: int
    by_row: int


def answered(frame: pl.DataFrame, how: Rendering, encoder: Encoder) -> Answered:
    """Renders and tokenises a CONVERSATION frame with two more columns.

    `first` is the message at which the answer begins; `on`, whether thinking is on when it is served (null: as the
    policy or the answer itself says). A row may come more than once. Raises RefusedRowsError, naming the rows.
    """
    _refuse_flags(frame)
    hidden, controls = injection.guarded(frame, encoder.controls, how.specials)
    rendered = render(how.template, hidden, how.think, of=prompt_and_answer, by=("first", "on"))
    pieces = rendered.pieces
    _, offsets = encoded = encode(pieces["text"], encoder, controls > 0)
    begins = np.flatnonzero((pieces["piece"] == 0).to_numpy())
    bounds = np.stack([offsets[begins], offsets[begins + 1], offsets[np.append(begins[1:], pieces.height)]], axis=1)
    return Answered(encoded[0], bounds, controls, rendered.by_shape, rendered.by_row)


def prompt_and_answer(
    template: Template,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Any] | None,
    think: str,
    *,
    first: int,
    on: bool | None,
) -> list[Sample]:
    """One sample: the prompt of message `first`, the answer, and where it goes on, what a server puts in between.

    Raises QdataError where the template makes that impossible.
    """
    messages = [thinking.without(m) if think in thinking.REMOVES else m for m in messages]
    refuse_unshown(template, messages, tools, template.render(messages, tools))
    sample: Sample = []
    so_far = ""
    for turn in range(first, len(messages)):
        if messages[turn].get("train") is False:
            raise QdataError(f"message {turn} is reasoning only, which think = {think} removes; nothing is left of it")
        prompt, said = thinking.served(template, messages, tools, turn, think, on)
        if not prompt.startswith(so_far):
            raise QdataError(
                f"template {template.name}: the prompt of message {turn} does not begin with the turns before it, so "
                f"that an answer of several turns cannot be one stretch; make it one turn"
            )
        sample += [Piece(prompt[len(so_far) :], UNTRAINED), Piece(said, turn)]
        so_far = prompt + said
    return [sample]


def thinking_on(frame: pl.DataFrame, answers: Sequence[str]) -> pl.Series:
    """Whether some message of these columns has reasoning that is more than white space.

    Answers to one prompt are served alike: where one of them thinks, the others are answers of a server that thinks.
    """
    field = pl.element().struct.field
    may = field("reasoning").is_not_null() | field("content").str.contains("</think>", literal=True).fill_null(False)
    candidates = pl.any_horizontal(pl.col(name).list.eval(may).list.any() for name in answers)
    some = frame.select(candidates.fill_null(False).alias("on"))["on"]
    for at in some.arg_true():  # few: what is reasoning is said in one place only
        said = (m for name in answers for m in plain(_without_calls(frame[name][int(at)])))
        some[int(at)] = any(map(thinking.thinks, said))
    return some


def _without_calls(messages: pl.Series) -> list[dict[str, Any]]:
    return [message | {"tool_calls": None} for message in messages]


def _refuse_flags(frame: pl.DataFrame) -> None:
    """All of an answer is trained, and each as much as the others."""
    field = pl.element().struct.field
    other = (~field("train")).fill_null(False) | (field("weight") != 1).fill_null(False)
    turns = frame.select(
        "row", "first", flag=pl.col("messages").list.eval(other), turn=pl.int_ranges(pl.col("messages").list.len())
    )
    flagged = turns.filter(pl.col("flag").list.any()).explode("flag", "turn")
    flagged = flagged.filter(pl.col("flag") & (pl.col("turn") >= pl.col("first")))
    if flagged.height:
        why = "an answer with train = false or a weight, and all of an answer is compared; take the flag out of it"
        raise RefusedRowsError(dict.fromkeys(flagged["row"], why))


def table(index: Ints, ids: Ids, starts: Ints, stops: Ints) -> pa.Table:
    """The token table of samples with a prompt and some answers; `starts` and `stops` are places in `ids`.

    index: [N] number of the row in its part; starts, stops: [N, pieces].
    """
    lengths = stops - starts
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    count, pieces = starts.shape
    per_sample = to_arrow(np.arange(count + 1, dtype=np.int32) * np.int32(pieces))
    turns = np.tile(np.array([UNTRAINED, *range(pieces - 1)], np.int32), count)
    of_each = {
        "piece_ends": np.cumsum(lengths, axis=1).astype(np.int32).ravel(),
        "turns": turns,
        "weights": np.ones(count * pieces, np.float32),
    }
    ids = ids[gather(starts.ravel(), offsets)]
    columns = {
        "index": to_arrow(index.astype(np.uint32)),
        "skipped": to_arrow(np.zeros(count, np.int32)),
        "input_ids": pa.LargeListArray.from_arrays(to_arrow(offsets[::pieces]), to_arrow(ids)),
        **{name: pa.ListArray.from_arrays(per_sample, to_arrow(values)) for name, values in of_each.items()},
    }
    return pa.table(columns, schema=TABLE)
