"""What a kind of rows (kinds/) says of itself on the road from rows to shards; the road is the same for all.

Rows of a part become a token table; of all tables a view is taken (samples.py), shortened, split and packed; and its
samples become the columns of a shard. Only what differs between kinds stands in them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import polars as pl
import pyarrow as pa

from qdata.tokens import fit
from qdata.tokens.encoder import TOKENIZERS, Encoder
from qdata.tokens.layout import Layout, Packed
from qdata.tokens.samples import Ints, Samples
from qdata.tokens.template import Template


@dataclass(frozen=True)
class Rendering:
    """How rows become tokens: everything between text and token table that changes the outcome."""

    template: Template
    tokenizer: Path
    tokenizer_sha256: str
    think: str = "keep"
    specials: str = "text"
    split_over: int | None = None  # conversations longer than this many tokens are cut into several
    engine: str = TOKENIZERS  # what encodes; the ids are those of `tokenizers` either way

    @property
    def facts(self) -> list[Any]:
        """For the cache key."""
        rest = [self.tokenizer_sha256, self.think, self.specials, self.split_over, self.engine]
        return [self.template.sha256, self.template.stop, dict(self.template.variables), *rest]


class Made(NamedTuple):
    """The token table (TABLE) of a part, and what its making had to do."""

    table: pa.Table
    controls: int = 0  # rows that held control tokens as text
    by_shape: int = 0  # conversations that were rendered by columns
    by_row: int = 0
    emptied: int = 0  # answers that were reasoning only, which the thinking policy removed

    @property
    def counts(self) -> dict[str, int]:
        """All but the table."""
        return {name: value for name, value in self._asdict().items() if name != "table"}


class Kind(ABC):
    """One kind of rows. Every sample of its token tables trains something; see the methods for what may differ."""

    too_long: ClassVar[Literal["drop", "split"]] = "drop"  # what becomes of longer samples where nobody says
    loss: ClassVar[Literal["whole"] | None] = None  # what is trained, where there is nothing to choose
    untrained: ClassVar[str] = "loss.nothing_trained"  # why a row has no sample

    def refused(self, *, loss: str, too_long: str, pack: int | None) -> str | None:
        """Why these settings mean nothing for such rows, in words, or None."""
        return None

    @abstractmethod
    def make(self, kept: pl.DataFrame, how: Rendering, encoder: Encoder) -> Made:
        """The tokens of a part's rows (CONVERSATION).

        Raises RefusedRowsError for rows that cannot be rendered, QdataError where `specials` refuses some.
        """

    def lengths(self, samples: Samples) -> Ints:
        """What `max_length` is held against: of each sample, the tokens a trainer sees in one sequence."""
        return samples.length

    def fit(self, samples: Samples, max_length: int | None, policy: str) -> fit.Fitted:
        """The samples that fit under a `too_long` policy."""
        return fit.fit(samples, max_length, policy)

    def lost(self, samples: Samples) -> dict[int, float]:
        """For each usual `max_length`: the share that would be lost."""
        return fit.lost(samples)

    def layout(self, labels: pl.Series) -> Layout:
        """How samples become columns; `labels` are the verdicts on the conversations of the build."""
        return Packed()

    def counts(self, samples: Samples) -> dict[str, int]:
        """What is told of the samples of a split beside what is told of all kinds."""
        return {}
