"""Fills the placeholders that identity sets come with: {{name}}, {{ author }}, {{NAME}}, <AUTHOR> …"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import polars as pl

from qdata.schema import MESSAGE, PLACEHOLDER

_CHINESE = r"\p{Han}"


@dataclass(frozen=True)
class Placeholders:
    """Replaces each placeholder by its value; a value given per language is chosen by the script of the message."""

    values: Mapping[str, str | Mapping[str, str]] = field(
        default_factory=dict, metadata={"help": "placeholder = text, or a table { zh = text, en = text }"}
    )
    edits: ClassVar[bool] = True

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Edits the content of `messages`, `chosen` and `rejected`."""
        content = pl.element().struct.field("content")
        filled = (
            pl.when(content.str.contains(_CHINESE))
            .then(self._fill(content, "zh"))
            .otherwise(self._fill(content, "en"))
            .alias("content")
        )
        fields = [filled if f.name == "content" else pl.element().struct.field(f.name) for f in MESSAGE.fields]
        return frame.with_columns(pl.col("messages", "chosen", "rejected").list.eval(pl.struct(fields)))

    def _fill(self, content: pl.Expr, language: str) -> pl.Expr:
        for name, value in self.values.items():
            text = value if isinstance(value, str) else value.get(language, next(iter(value.values())))
            pattern = r"\{\{\s*(?i:" + _literal(name) + r")\s*\}\}|<" + _literal(name.upper()) + ">"
            content = content.str.replace_all(pattern, text.replace("$", "$$"))
        return content


def _literal(text: str) -> str:
    """A pattern of polars' regex engine that fits this very text."""
    return re.sub(r"[\\.+*?()|\[\]{}^$#&\-~]", r"\\\g<0>", text)


def unfilled(frame: pl.LazyFrame) -> pl.LazyFrame:
    """The `row` of every conversation that still holds a known placeholder, and which (`found`)."""
    found = pl.concat_list(_found(column) for column in ("messages", "chosen", "rejected"))
    return frame.select("row", found=found).filter(pl.col("found").list.len() > 0)


def _found(column: str) -> pl.Expr:
    texts = pl.col(column).list.eval(pl.element().struct.field("content")).list.join("\n", ignore_nulls=True)
    return pl.coalesce(texts.str.extract_all(PLACEHOLDER), pl.lit([], pl.List(pl.String)))
