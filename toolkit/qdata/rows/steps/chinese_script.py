"""Chinese in one script: simplified or traditional."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import polars as pl

from qdata.rows.steps._extra import library, require
from qdata.rows.steps._texts import by_text, changed_where, edited, settled

_CONFIGS = {"simplified": "t2s", "traditional": "s2t", "taiwan": "s2tw", "hong_kong": "s2hk"}


@dataclass(frozen=True)
class ChineseScript:
    """Writes Chinese in simplified or in traditional characters, with OpenCC's dictionaries of words.

    Texts with kana are Japanese and stay as they are.
    """

    to: Literal["simplified", "traditional", "taiwan", "hong_kong"] = field(
        default="simplified",
        metadata={"help": "the script; taiwan and hong_kong are traditional with local characters"},
    )
    edits: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Raises QdataError without OpenCC."""
        require("opencc")

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Edits all texts.

        >>> from qdata.rows.steps._turns import example, shown
        >>> shown(ChineseScript()(example("user: 漢字轉換", "assistant: 漢字を変換する")))
        ['user: 汉字转换', 'assistant: 漢字を変換する']
        """
        return edited(frame, self._converted)

    def _converted(self, texts: pl.Series) -> pl.Series:
        return changed_where(texts, r"\p{Han}", lambda some: by_text(self._text, some))

    def _text(self, text: str) -> str:
        if any("\u3041" <= c <= "\u30ff" for c in text):
            return text
        return settled(_converter(_CONFIGS[self.to]).convert, text)


@functools.cache
def _converter(config: str) -> Any:
    return library("opencc").OpenCC(config)
