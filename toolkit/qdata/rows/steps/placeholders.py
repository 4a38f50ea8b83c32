"""Fills the placeholders that identity sets come with: {{name}}, {{ author }}, {{NAME}}, <AUTHOR> …"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import polars as pl

from qdata.schema import MESSAGE, PLACEHOLDER

_CHINESE = r"\p{Han}"
_TEXTS = ("content", "reasoning")
# Names of different sets for one thing: a value for one of them fills the others, unless they have their own.
_SYNONYMS = (("name", "ai_nickname", "model_name"), ("author", "master_nickname", "model_author"))


@dataclass(frozen=True)
class Placeholders:
    """Replaces each placeholder by its value; a value given per language is chosen by the script of the message.

    `name` fills ai_nickname and model_name too, `author` master_nickname and model_author, unless these are given.
    """

    values: Mapping[str, str | Mapping[str, str]] = field(
        default_factory=dict, metadata={"help": "placeholder = text, or a table { zh = text, en = text }"}
    )
    edits: ClassVar[bool] = True

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Edits content and reasoning of `messages`, `chosen` and `rejected`."""
        fields = [
            self._filled(f.name) if f.name in _TEXTS else pl.element().struct.field(f.name) for f in MESSAGE.fields
        ]
        return frame.with_columns(pl.col("messages", "chosen", "rejected").list.eval(pl.struct(fields)))

    def _filled(self, name: str) -> pl.Expr:
        text = pl.element().struct.field(name)
        chinese = text.str.contains(_CHINESE)
        return pl.when(chinese).then(self._fill(text, "zh")).otherwise(self._fill(text, "en")).alias(name)

    def _fill(self, content: pl.Expr, language: str) -> pl.Expr:
        for name, value in _with_synonyms(self.values).items():
            text = value if isinstance(value, str) else value.get(language, next(iter(value.values())))
            pattern = r"\{\{\s*(?i:" + _literal(name) + r")\s*\}\}|<" + _literal(name.upper()) + ">"
            content = content.str.replace_all(pattern, text.replace("$", "$$"))
        return content


def _with_synonyms(values: Mapping[str, str | Mapping[str, str]]) -> dict[str, str | Mapping[str, str]]:
    given = {name.lower(): value for name, value in values.items()}
    out = dict(values)
    for group in _SYNONYMS:
        known = next((given[name] for name in group if name in given), None)
        out |= {name: known for name in group if known is not None and name not in given}
    return out


def _literal(text: str) -> str:
    """A pattern of polars' regex engine that fits this very text."""
    return re.sub(r"[\\.+*?()|\[\]{}^$#&\-~]", r"\\\g<0>", text)


def unfilled(frame: pl.LazyFrame) -> pl.LazyFrame:
    """The `row` of every conversation that still holds a known placeholder, and which (`found`)."""
    columns = ("messages", "chosen", "rejected")
    candidates = frame.filter(pl.any_horizontal(_may_hold(column) for column in columns))  # the regex is slow
    found = pl.concat_list(_found(column) for column in columns)
    return candidates.select("row", found=found).filter(pl.col("found").list.len() > 0)


def _may_hold(column: str) -> pl.Expr:
    field = pl.element().struct.field
    begins = pl.any_horizontal(field(name).str.contains_any(["{{", "<NAME>", "<AUTHOR>"]) for name in _TEXTS)
    return pl.col(column).list.eval(begins).list.any()


def _found(column: str) -> pl.Expr:
    field = pl.element().struct.field
    said = pl.concat_str((field(name).fill_null("") for name in _TEXTS), separator="\n")
    texts = pl.col(column).list.eval(said).list.join("\n", ignore_nulls=True)
    return pl.coalesce(texts.str.extract_all(PLACEHOLDER), pl.lit([], pl.List(pl.String)))
