"""Preference pairs: a prompt and two answers, of which the first is preferred. Columns as TRL's DPO reads them."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import polars as pl

from qdata import schema
from qdata.tokens import answers
from qdata.tokens.encoder import Encoder
from qdata.tokens.fast import Ids
from qdata.tokens.kind import Made, Rendering
from qdata.tokens.layout import Layout, SideBySide, lengths_of
from qdata.tokens.samples import Bools, Ints, Samples
from qdata.tokens.table import gather

ANSWERS = ("chosen", "rejected")


class Preference(answers.Answers):
    """A sample has three pieces: prompt, chosen, rejected. Pairs whose answers are the same ids have none."""

    what, trainer = "preference pairs", "DPO"
    untrained: ClassVar[str] = "preference.same_answers"

    def make(self, kept: pl.DataFrame, how: Rendering, encoder: Encoder) -> Made:
        """The conversations with the chosen answers, then those with the rejected ones, in one go."""
        on = answers.thinking_on(kept, ANSWERS) if how.think == "keep" else pl.lit(None, pl.Boolean)
        first = pl.col("messages").list.len().cast(pl.Int64)
        both = pl.concat(
            kept.with_columns(messages=pl.concat_list("messages", name), first=first, on=on) for name in ANSWERS
        )
        made = answers.answered(both, how, encoder)
        chosen, rejected = made.bounds[: kept.height], made.bounds[kept.height :]
        starts = np.stack([chosen[:, 0], chosen[:, 1], rejected[:, 1]], axis=1)
        stops = np.stack([chosen[:, 1], chosen[:, 2], rejected[:, 2]], axis=1)
        differ = np.flatnonzero(_differ(made.ids, starts[:, 1:], stops[:, 1:]))
        table = answers.table(differ, made.ids, starts[differ], stops[differ])
        return Made(table, made.controls, made.by_shape, made.by_row)

    def lengths(self, samples: Samples) -> Ints:
        """Prompt and the longer answer."""
        prompt, chosen, rejected = lengths_of(samples, 3).T
        return np.asarray(prompt + np.maximum(chosen, rejected))

    def layout(self, labels: pl.Series) -> Layout:
        """TRL's columns."""
        return SideBySide(schema.PREFERENCE, ("prompt_ids", "chosen_ids", "rejected_ids"))

    def counts(self, samples: Samples) -> dict[str, int]:
        """The tokens of prompts and of either answer."""
        totals = lengths_of(samples, 3).sum(axis=0).tolist()
        return dict(zip(("prompt_tokens", "chosen_tokens", "rejected_tokens"), totals, strict=True))


def _differ(ids: Ids, starts: Ints, stops: Ints) -> Bools:
    """Whether the two runs of each line ([N, 2]) hold other ids."""
    lengths = stops - starts
    out: Bools = lengths[:, 0] != lengths[:, 1]
    alike = np.flatnonzero(~out)
    if len(alike):
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths[alike, 0])])
        one, other = (ids[gather(starts[alike, side], offsets)] for side in (0, 1))
        out[alike] = np.logical_or.reduceat(one != other, offsets[:-1])
    return out
