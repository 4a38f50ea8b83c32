"""Conversations: every answer trained behind the prompt its server builds."""

from __future__ import annotations

import polars as pl
import pyarrow as pa

from qdata.tokens import injection, split
from qdata.tokens.encoder import Encoder
from qdata.tokens.kind import Kind, Made, Rendering
from qdata.tokens.render import Rendered, render
from qdata.tokens.tokenize import tokenize, weights_of


class Chat(Kind):
    """A sample for each set of turns whose serving prompts agree."""

    def make(self, kept: pl.DataFrame, how: Rendering, encoder: Encoder) -> Made:
        """Rendered, tokenised, and where it is to be, split between exchanges."""
        hidden, controls = injection.guarded(kept, encoder.controls, how.specials)

        def table_of(frame: pl.DataFrame) -> tuple[Rendered, pa.Table]:
            rendered = render(how.template, frame, how.think)
            return rendered, tokenize(rendered.pieces, encoder, weights_of(frame), hidden=controls > 0)

        rendered, table = table_of(hidden)
        if how.split_over:
            table = split.split_long(table, hidden, how.split_over, lambda frame: table_of(frame)[1])
        return Made(table, controls, rendered.by_shape, rendered.by_row, rendered.emptied)
