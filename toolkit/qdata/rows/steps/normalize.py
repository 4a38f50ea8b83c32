"""One spelling for what looks alike: Unicode normal forms."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import polars as pl

from qdata.rows.steps._texts import changed_where, edited


@dataclass(frozen=True)
class Normalize:
    """Puts texts into a normal form of Unicode (UAX 15).

    NFC composes letters and their marks, and is what Qwen's tokenizers do themselves. NFKC also gives up what it calls
    compatibility: full-width punctuation becomes ASCII, x² becomes x2; for pretraining text, not for Chinese chat.
    """

    form: Literal["NFC", "NFKC"] = field(default="NFC", metadata={"help": "the normal form"})
    edits: ClassVar[bool] = True

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Edits all texts.

        >>> from qdata.rows.steps._turns import example, shown
        >>> shown(Normalize()(example("user: cafe\\u0301，x²")))
        ['user: café，x²']
        >>> shown(Normalize(form="NFKC")(example("user: cafe\\u0301，x²")))
        ['user: café,x2']
        """
        form = self.form
        return edited(frame, lambda texts: changed_where(texts, r"[^\x00-\x7f]", lambda s: s.str.normalize(form)))
