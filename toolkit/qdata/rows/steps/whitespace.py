"""White space nobody meant: at the end of lines, and runs of blank lines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import polars as pl

from qdata.rows.steps._fences import outside_code
from qdata.rows.steps._texts import changed_where, edited

_BLANK = r"[ \t\x{a0}\x{3000}]"
_OTHER_SPACE = r"[\t\p{Zs}&&[^ ]]"


@dataclass(frozen=True)
class Whitespace:
    """Removes white space at the end of lines and makes long runs of blank lines shorter, never inside code fences.

    Two spaces at the end of a line are a line break in Markdown; set `trailing` to false to keep them.
    """

    trailing: bool = field(default=True, metadata={"help": "remove white space at the end of lines"})
    blank_lines: int = field(default=1, metadata={"help": "at most this many blank lines in a row; -1: any number"})
    spaces: bool = field(default=False, metadata={"help": "make tabs and other spaces (no-break, wide) plain ones"})
    ends: bool = field(default=False, metadata={"help": "remove white space at both ends of a text"})
    edits: ClassVar[bool] = True

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Edits all texts.

        >>> from qdata.rows.steps._turns import example, shown
        >>> shown(Whitespace()(example("user: a  \\n\\n\\n\\nb\\t", "assistant: ```\\na  \\n```")))
        ['user: a\\n\\nb', 'assistant: ```\\na  \\n```']
        >>> shown(Whitespace(spaces=True, ends=True)(example("user: \\na\\tb", "assistant: ```\\n\\ta\\n```\\n")))
        ['user: a b', 'assistant: ```\\n\\ta\\n```']
        """
        rules = self._rules()
        found = "|".join(pattern for pattern, _, _ in rules)
        return edited(frame, lambda texts: self._cleaned(texts, rules, found))

    def _rules(self) -> list[tuple[str, str, str]]:
        """What is looked for in a text, what is replaced in texts that have it, and by what."""
        rules = []
        if self.spaces:
            rules.append((_OTHER_SPACE, _OTHER_SPACE, " "))
        if self.trailing:
            rules.append((rf"{_BLANK}(?:\n|$)", rf"(?m){_BLANK}+$", ""))
        if self.blank_lines >= 0:
            more = rf"\n(?:{_BLANK}*\n){{{self.blank_lines + 1},}}"
            rules.append((more, more, "\n" * (self.blank_lines + 1)))
        return rules

    def _cleaned(self, texts: pl.Series, rules: list[tuple[str, str, str]], found: str) -> pl.Series:
        def prose(some: pl.Series) -> pl.Series:
            for _, pattern, by in rules:
                some = some.str.replace_all(pattern, by)
            return some

        if self.ends:
            texts = texts.str.strip_chars()
        return changed_where(texts, found, lambda some: outside_code(some, prose)) if rules else texts
