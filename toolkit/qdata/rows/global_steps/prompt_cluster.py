"""How many rows ask the same: a score, for filters and draws to come."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import polars as pl

from qdata.rows.global_steps._keys import Normalize, On, with_key


@dataclass(frozen=True)
class PromptCluster:
    """`prompt_cluster`: the number of rows with the same prompt, 1 where no other has it.

    Nothing is dropped. Prompts are compared as in `exact`, by default without regard to white space and capitals.
    """

    on: On = field(default="prompt", metadata={"help": "what is compared"})
    system: bool = field(default=False, metadata={"help": "rows with different system prompts are different"})
    normalize: tuple[Normalize, ...] = field(
        default=("strip", "whitespace", "casefold"),
        metadata={"help": "what is no difference: white space at the ends, its runs, capitals"},
    )
    scores: ClassVar[tuple[str, ...]] = ("prompt_cluster",)

    def sketch(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """`row`, `key` (16 bytes)."""
        return with_key(frame, self.on, self.system, self.normalize).select("row", "key")

    def decide(self, sketches: pl.DataFrame) -> pl.DataFrame:
        """Score: `prompt_cluster`; null where a row has no prompt.

        >>> PromptCluster().decide(pl.DataFrame({"row": ["f#1", "f#2"], "key": [b"a", b"a"]})).rows()
        [('f#1', 2.0), ('f#2', 2.0)]
        """
        size = pl.when(pl.col("key").is_not_null()).then(pl.len().over("key")).cast(pl.Float64)
        return sketches.select("row", prompt_cluster=size).sort("row")
