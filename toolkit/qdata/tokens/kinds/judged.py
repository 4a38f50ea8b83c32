"""Judged answers: a prompt, one answer, and whether it was good. Columns as TRL's KTO reads them."""

from __future__ import annotations

import numpy as np
import polars as pl

from qdata import schema
from qdata.errors import RefusedRowsError
from qdata.tokens import answers
from qdata.tokens.encoder import Encoder
from qdata.tokens.kind import Made, Rendering
from qdata.tokens.layout import Layout, SideBySide, lengths_of
from qdata.tokens.samples import Samples


class Judged(answers.Answers):
    """A sample has two pieces: the prompt, and the last turn, which is the answer that was judged."""

    what, trainer = "judged answers", "KTO"

    def make(self, kept: pl.DataFrame, how: Rendering, encoder: Encoder) -> Made:
        """Earlier answers are part of the prompt."""
        roles = pl.col("messages").list.last().struct.field("role")
        wrong = kept.filter(roles != "assistant")["row"]
        if len(wrong):
            raise RefusedRowsError(dict.fromkeys(wrong, "the last turn is not the assistant's; a label judges that"))
        last = pl.col("messages").list.len().cast(pl.Int64) - 1
        made = answers.answered(kept.with_columns(first=last, on=pl.lit(None, pl.Boolean)), how, encoder)
        table = answers.table(np.arange(kept.height), made.ids, made.bounds[:, :2], made.bounds[:, 1:])
        return Made(table, made.controls, made.by_shape, made.by_row)

    def layout(self, labels: pl.Series) -> Layout:
        """TRL's columns."""
        return SideBySide(schema.JUDGED, ("prompt_ids", "completion_ids"), labels)

    def counts(self, samples: Samples) -> dict[str, int]:
        """The tokens of prompts and of answers."""
        prompt, completion = lengths_of(samples, 2).sum(axis=0).tolist()
        return {"prompt_tokens": prompt, "completion_tokens": completion}
