"""The language of a conversation, told by its script: nothing to download, and nothing to guess of short texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import polars as pl

from qdata.rows.steps._scores import answers, said, scored, share

# A unit is a character of a script without spaces, and a word of every other: "解释 transformer" is mostly Chinese.
_UNITS = {
    "han": r"\p{Han}",
    "kana": r"[\p{Hiragana}\p{Katakana}]",
    "ko": r"\p{Hangul}+",
    "latin": r"\p{Latin}+",
    "cyrillic": r"\p{Cyrillic}+",
    "greek": r"\p{Greek}+",
    "arabic": r"\p{Arabic}+",
    "hebrew": r"\p{Hebrew}+",
    "devanagari": r"\p{Devanagari}+",
    "thai": r"\p{Thai}",
}
_ENGLISH = r"(?i)\b(?:the|and|of|to|is|that|it|for|with|you|are|this|what|how|a)\b"
_NOT_ENGLISH = r"[\u00c0-\u024f]"  # Latin letters with marks
_KANA = 0.1  # Japanese has kana between its Han characters: at least this share


@dataclass(frozen=True)
class ScoreLanguage:
    """`lang`: zh, ja, ko, en, or the name of a script; `lang_share`: how much of the text is of that script (0 to 1).

    Of what user and assistant say, and of pretraining text. Latin script is `en` unless there are more letters with
    marks than common English words in it, and then `latin`; others are cyrillic, greek, arabic, hebrew, devanagari,
    thai.
    """

    edits: ClassVar[bool] = False
    scores: ClassVar[tuple[str, ...]] = ("lang", "lang_share")

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Scores: `lang`, `lang_share`; null where there are no letters of a known script.

        >>> from qdata.rows.steps._scores import example, shown
        >>> shown(ScoreLanguage()(example("用Python打印hello world", "好的")))
        {'lang': 'zh', 'lang_share': 0.625}
        """
        said_by_both = pl.concat_str([said("user"), answers()], separator="\n", ignore_nulls=True)
        text, column = pl.col("_text"), pl.col
        counts = {f"_{name}": text.str.count_matches(pattern).cast(pl.Float64) for name, pattern in _UNITS.items()}
        counts["_english"] = text.str.count_matches(_ENGLISH) >= text.str.count_matches(_NOT_ENGLISH)
        both = column("_han") + column("_kana")
        is_japanese = column("_kana") > _KANA * both
        cjk = {"_zh": pl.when(~is_japanese).then(both), "_ja": pl.when(is_japanese).then(both)}
        units = [name for name in _UNITS if name not in ("han", "kana")] + ["zh", "ja"]
        totals = {
            "_most": pl.max_horizontal(f"_{name}" for name in units),
            "_total": pl.sum_horizontal(f"_{name}" for name in units),
        }
        main = pl.coalesce(pl.when(column(f"_{name}") == column("_most")).then(pl.lit(name)) for name in units)
        lang = pl.when((main == "latin") & column("_english")).then(pl.lit("en")).otherwise(main)
        found = {
            "lang": pl.when(column("_total") > 0).then(lang),
            "lang_share": share(column("_most"), column("_total")),
        }
        return scored(frame, [{"_text": said_by_both}, counts, cjk, totals], found)
