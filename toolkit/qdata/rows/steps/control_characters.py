"""Characters nobody sees: control characters, zero-width spaces, marks of direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import polars as pl

from qdata.rows.steps._texts import changed_where, edited

_TERMINAL = r"\x1b\[[0-9;?]*[A-Za-z]"  # colours and cursor moves, as logs have them
_CONTROL = r"\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f"
_INVISIBLE = r"\u{00ad}\u{180e}\u{200b}\u{2060}-\u{2064}\u{206a}-\u{206f}\u{feff}\u{fff9}-\u{fffb}"
_DIRECTION = r"\u{200e}\u{200f}\u{061c}\u{202a}-\u{202e}\u{2066}-\u{2069}"
_RIGHT_TO_LEFT = r"[\u{0590}-\u{08ff}\u{fb1d}-\u{fdff}\u{fe70}-\u{fefc}]"
# A joiner shapes what it stands behind: emoji (👩‍🚀), Indic conjuncts, Persian and Mongolian words.
_JOINED = (
    r"\p{Extended_Pictographic}\p{Emoji_Modifier}\u{fe0f}\u{0600}-\u{08ff}\u{0900}-\u{0dff}\u{1000}-\u{109f}"
    r"\u{1780}-\u{18af}\u{fb50}-\u{fdff}\u{fe70}-\u{fefc}"
)
# The same with the one flag emoji that are spelled with tag characters (🏴 and letters nobody sees).
_KEPT = rf"([{_JOINED}][\u{{200c}}\u{{200d}}]|\u{{1f3f4}}[\u{{e0020}}-\u{{e007e}}]+\u{{e007f}})"
_GONE = rf"{_TERMINAL}|[{_CONTROL}{_INVISIBLE}\u{{200c}}\u{{200d}}\u{{e0000}}-\u{{e007f}}]"
_NEWLINE = r"\r\n?|[\x0b\x0c\x{85}\x{2028}\x{2029}]"


@dataclass(frozen=True)
class ControlCharacters:
    """Removes control characters, zero-width ones and hidden tags; other line ends become newlines.

    Newlines and tabs stay, and so do joiners behind emoji and letters that need them, and marks of direction in texts
    with letters that are written from right to left.
    """

    edits: ClassVar[bool] = True

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Edits all texts.

        >>> from qdata.rows.steps._turns import example, shown
        >>> shown(ControlCharacters()(example("user: a\\u200bb\\x07\\tc\\r\\nd 👩‍🚀 क्‍ष")))
        ['user: ab\\tc\\nd 👩\\u200d🚀 क्\\u200dष']
        """
        return edited(frame, _cleaned)


def _cleaned(texts: pl.Series) -> pl.Series:
    found = f"{_GONE}|{_NEWLINE}|[{_DIRECTION}]"
    return changed_where(texts, found, lambda some: some.to_frame("t").select(_made(pl.col("t")))["t"])


def _made(text: pl.Expr) -> pl.Expr:
    left_to_right = text.str.replace_all(f"[{_DIRECTION}]", "")
    text = pl.when(text.str.contains(_RIGHT_TO_LEFT)).then(text).otherwise(left_to_right)
    return text.str.replace_all(f"{_KEPT}|{_GONE}", "${1}").str.replace_all(_NEWLINE, "\n")
