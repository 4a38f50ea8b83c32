"""Rows in languages that are not wanted."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from typing import Any, ClassVar

import polars as pl

from qdata.rows.steps._extra import library, require
from qdata.rows.steps._judge import TEXT_ROLE, RoleOrText, dropped, first_reason, said_by

# Scripts of one language, or nearly: a text is in it when most of its letters are.
_SCRIPTS = {
    "ko": r"\p{Hangul}",
    "ja": r"[\p{Hiragana}\p{Katakana}]",
    "th": r"\p{Thai}",
    "el": r"\p{Greek}",
    "he": r"\p{Hebrew}",
    "hi": r"\p{Devanagari}",
}
# Every third word of English text or so; of French, Spanish, German text hardly one in thirty.
_ENGLISH = r"(?i)\b(?:the|and|of|to|is|are|was|were|in|that|for|it|with|you|this|have|has|be|from|can|your|by|which"
_ENGLISH += r"|what|how|when|not|an?)\b"
_CODE = r"(?s)```.*?(?:```|$)|`[^`\n]*`|https?://\S+"
# Of py3langid's codes, those that are no language of their own here: varieties written as Chinese, and no language.
_CODE_OF_LANGUAGE = re.compile("[a-z]{2,3}")
_READ_AS = {"wuu": "zh", "yue": "zh", "zxx": None}
_HEAD = 2000  # characters that are looked at: the language does not change behind them


@dataclass(frozen=True)
class Language:
    """Drops rows in which somebody speaks another language than those named; the reason is its code: `language.fr`.

    The script decides where it can: Chinese by its characters, Japanese by kana, Korean, Thai, Greek, Hebrew, Hindi;
    English by its small words. Only for other Latin, Cyrillic and Arabic text py3langid (Lui and Baldwin 2012) is
    asked; it knows some 130 languages and downloads nothing. Code and links are not looked at, and of texts with few
    letters nothing is said.
    """

    allowed: tuple[str, ...] = field(default=("zh", "en"), metadata={"help": "codes of ISO 639-1: zh, en, ja, fr …"})
    min_letters: int = field(
        default=40, metadata={"help": "of shorter texts nothing is said; Han counts tenfold, kana and Hangul threefold"}
    )
    confidence: float = field(default=0.9, metadata={"help": "how sure py3langid has to be, 0 to 1"})
    roles: tuple[RoleOrText, ...] = field(
        default=("user", "assistant", TEXT_ROLE), metadata={"help": "whose texts are looked at"}
    )
    edits: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Raises QdataError without py3langid, ValueError for a code that no text could be found to be in."""
        require("py3langid")
        if unknown := [code for code in self.allowed if not _CODE_OF_LANGUAGE.fullmatch(code)]:
            raise ValueError(f"allowed: {unknown[0]!r} is no code of a language; wanted zh, en, ja, fr …")
        if not self.allowed:
            raise ValueError("allowed: no language; wanted at least one, every row would be dropped")

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Reasons: `language.` and the code of the language that was found.

        >>> from qdata.rows.steps._turns import example, shown
        >>> shown(Language()(example("user: Wie ist das Wetter heute in Berlin, und wird es morgen regnen?")))
        ['language.de']
        >>> shown(Language(allowed=("en",))(example("user: 你好，今天天气怎么样？")))
        ['language.zh']
        """
        return dropped(frame, first_reason(pl.struct("role", "content").map_batches(self._judged, pl.String)))

    def _judged(self, messages: pl.Series) -> pl.Series:
        texts = messages.struct.unnest().with_row_index("at").filter(said_by(self.roles))
        some = texts.select("at", t=pl.col("content").str.head(_HEAD))
        if "en" in self.allowed:  # most texts go no further
            some = some.filter(~_is_english(pl.col("t")))
        prose = some.with_columns(t=pl.col("t").str.replace_all(_CODE, " "))
        known = prose.with_columns(lang=self._by_script(pl.col("t")))
        asked = known.filter(pl.col("lang") == "?")
        found = {text: self._asked(text) for text in asked["t"].unique().to_list()}
        words = pl.col("t").replace_strict(found, default=None, return_dtype=pl.String) if found else pl.lit(None)
        told = known.with_columns(lang=pl.when(pl.col("lang") == "?").then(words).otherwise(pl.col("lang")))
        wrong = told.filter(pl.col("lang").is_not_null() & ~pl.col("lang").is_in(list(self.allowed)))
        reasons: list[str | None] = [None] * len(messages)
        for at, code in wrong.select("at", "lang").iter_rows():
            reasons[at] = f"language.{code}"
        return pl.Series(reasons, dtype=pl.String)

    def _by_script(self, text: pl.Expr) -> pl.Expr:
        """A code, "?" where the script has several languages, null where there are too few letters to tell."""
        letters = text.str.count_matches(r"\p{L}").cast(pl.Int64)
        han = text.str.count_matches(r"\p{Han}").cast(pl.Int64)
        kana = text.str.count_matches(_SCRIPTS["ja"]).cast(pl.Int64)
        # a Chinese text may be full of English names
        rules = [
            pl.when((kana > 0.1 * han) & (kana + han > 0.3 * letters)).then(pl.lit("ja")),
            pl.when(han > 0.3 * letters).then(pl.lit("zh")),
            *(pl.when(text.str.count_matches(s) > 0.5 * letters).then(pl.lit(code)) for code, s in _SCRIPTS.items()),
            pl.when(letters >= self.min_letters).then(pl.lit("?")),
        ]
        hangul = text.str.count_matches(_SCRIPTS["ko"]).cast(pl.Int64)
        return pl.when(letters + 9 * han + 2 * (kana + hangul) >= self.min_letters).then(pl.coalesce(rules))

    def _asked(self, text: str) -> str | None:
        code, sure = _identifier().classify(text)
        return _READ_AS.get(code, str(code)) if sure >= self.confidence else None


def _is_english(text: pl.Expr) -> pl.Expr:
    """Whether a text is English by its small words: one in eight, in plain letters."""
    few = text.str.count_matches(_ENGLISH) * 8 >= text.str.count_matches(" ") + 1
    return few & ~text.str.contains(r"[\p{Han}\p{Cyrillic}\p{Arabic}]")


@functools.cache
def _identifier() -> Any:
    langid = library("py3langid.langid")
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
