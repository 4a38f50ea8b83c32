"""Repairs mojibake: text that was decoded as what it is not ("schÃ¶n" for "schön")."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import polars as pl

from qdata.rows.steps._extra import library, require
from qdata.rows.steps._texts import by_text, changed_where, edited, settled

# Every character that ftfy's heuristic can hold against a text: nothing else makes it change an encoding.
_SUSPECT = r"[\u0080-\u052f\u05d0-\u05ea\u2000-\u266f\ue000-\uf8ff\ufb01\ufb02\ufffd]"
# What all of it asks for beside that: a letter that only mojibake has, or two characters beyond ASCII side by side.
_SIDE_BY_SIDE = r"[\u0080-\u009fŒœÂÃ]|[^\x00-\x7f]{2}"
# All that any of ftfy's repairs can touch: ASCII that is no entity, escape, line end or control character stays.
_TOUCHED = r"[^\n\x20-%'-~\t]"
_QUOTES = {r"[\u02bc\u2018-\u201b]": "'", r"[\u201c-\u201f]": '"'}
# Texts without these are done when their quotes are straight: the letters of Western Europe, punctuation and symbols
# that no other repair knows, each alone among ASCII.
_OTHERS = r"[^\t\n\x20-~\u00a0-\u00ff\u02bc\u2010-\u2027\u2030-\u205e\u20ac\u2122]"
_MORE = rf"{_OTHERS}|{_SIDE_BY_SIDE}|&#?[0-9A-Za-z]{{1,24}};"


@dataclass(frozen=True)
class FixText:
    """Repairs encodings with ftfy (Speer 2019, arXiv-free: doi 10.5281/zenodo.2591652), and nothing else by default.

    ftfy's other habits are off unless asked for: straight quotes, ligatures, half-width forms (it would write Chinese
    punctuation in ASCII) and HTML entities. What the steps control_characters, html and normalize do is theirs.
    """

    everything: bool = field(
        default=False, metadata={"help": "all of ftfy's repairs: quotes made straight, full-width forms, entities too"}
    )
    edits: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Raises QdataError without ftfy."""
        require("ftfy")

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Edits all texts.

        >>> from qdata.rows.steps._turns import example, shown
        >>> shown(FixText()(example("user: voilÃ\\xa0 le travail", "assistant: “schön”，âœ” No problems")))
        ['user: voilà le travail', 'assistant: “schön”，✔ No problems']
        """
        return edited(frame, self._fixed)

    def _fixed(self, texts: pl.Series) -> pl.Series:
        if self.everything:
            return changed_where(texts, _TOUCHED, lambda some: changed_where(_straight(some), _MORE, self._by_ftfy))
        return changed_where(texts, _SUSPECT, lambda some: changed_where(some, _SIDE_BY_SIDE, self._by_ftfy))

    def _by_ftfy(self, texts: pl.Series) -> pl.Series:
        ftfy, config = library("ftfy"), self._config()
        is_bad = library("ftfy.badness").is_bad

        def fixed(text: str) -> str:
            if not self.everything and not is_bad(text) and not any("\x80" <= c <= "\x9f" for c in text):
                return text
            return settled(lambda t: str(ftfy.fix_text(t, config)), text)

        return by_text(fixed, texts)

    def _config(self) -> Any:
        ftfy = library("ftfy")
        if self.everything:
            return ftfy.TextFixerConfig(explain=False)
        off = dict.fromkeys(("unescape_html", "remove_terminal_escapes", "fix_latin_ligatures", "uncurl_quotes"), False)
        off |= dict.fromkeys(("fix_character_width", "fix_line_breaks", "remove_control_chars"), False)
        return ftfy.TextFixerConfig(explain=False, normalization=None, **off)


def _straight(texts: pl.Series) -> pl.Series:
    """Texts of which nothing else is to be repaired, with their quotes straight; the others as they are."""
    done = texts
    for quotes, straight in _QUOTES.items():
        done = done.str.replace_all(quotes, straight)
    return done.zip_with(~texts.str.contains(_MORE), texts)
