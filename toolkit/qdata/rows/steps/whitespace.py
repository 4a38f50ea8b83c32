"""White space nobody meant: at the end of lines, and runs of blank lines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import polars as pl

from qdata.rows.steps._fences import outside_code
from qdata.rows.steps._texts import changed_where, edited

_BLANK = r"[ \t\x{a0}\x{3000}]"


@dataclass(frozen=True)
class Whitespace:
    """Removes white space at the end of lines and makes long runs of blank lines shorter, never inside code fences.

    Two spaces at the end of a line are a line break in Markdown; set `trailing` to false to keep them.
    """

    trailing: bool = field(default=True, metadata={"help": "remove white space at the end of lines"})
    blank_lines: int = field(default=1, metadata={"help": "at most this many blank lines in a row"})
    edits: ClassVar[bool] = True

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Edits all texts.

        >>> from qdata.rows.steps._turns import example, shown
        >>> shown(Whitespace()(example("user: a  \\n\\n\\n\\nb\\t", "assistant: ```\\na  \\n```")))
        ['user: a\\n\\nb', 'assistant: ```\\na  \\n```']
        """
        more = rf"\n(?:{_BLANK}*\n){{{self.blank_lines + 1},}}"
        found = rf"{_BLANK}(?:\n|$)|{more}" if self.trailing else more
        return edited(frame, lambda texts: changed_where(texts, found, lambda some: outside_code(some, self._edited)))

    def _edited(self, texts: pl.Series) -> pl.Series:
        if self.trailing:
            texts = texts.str.replace_all(rf"(?m){_BLANK}+$", "")
        keep = "\n" * (self.blank_lines + 1)
        return texts.str.replace_all(rf"\n(?:{_BLANK}*\n){{{self.blank_lines + 1},}}", keep)
