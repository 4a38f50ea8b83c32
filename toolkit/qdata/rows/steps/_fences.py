"""Texts without their code: what stands between fences is none of a cleaner's business."""

from __future__ import annotations

import re
from collections.abc import Callable

import polars as pl

# A fence of CommonMark (spec 0.31, 4.5) from its first line to the one that closes it, or to the end of the text.
# Fences in lists and quotes are indented further than CommonMark's three spaces.
FENCE = re.compile(
    r"^[ \t>]*(?P<mark>`{3,}|~{3,})[^\n]*(?:\n(?:.*?\n)??[ \t>]*(?P=mark)[`~]*[ \t]*(?=\n|\Z)|.*\Z)", re.M | re.S
)
_INLINE = re.compile(r"`[^`\n]+`")


def outside_code(texts: pl.Series, edit: Callable[[pl.Series], pl.Series], *, inline: bool = False) -> pl.Series:
    """`edit` of a column of texts, with code between fences left as it is; `inline`: and code between backticks.

    `edit` takes a column of texts and returns as many. Of a text with code it sees the pieces around it.
    """
    marks = ["```", "~~~", "`"] if inline else ["```", "~~~"]
    with_code = texts.str.contains_any(marks)
    if not with_code.any():
        return edit(texts)
    edited = edit(texts.filter(~with_code))
    pieces = [_cut(text, inline) for text in texts.filter(with_code)]
    prose = edit(pl.Series([piece for cut in pieces for piece in cut[::2]], dtype=pl.String)).to_list()
    made, at = [], 0
    for cut in pieces:
        count = len(cut[::2])
        cut[::2] = prose[at : at + count]
        at += count
        made.append("".join(cut))
    return texts.scatter((~with_code).arg_true(), edited).scatter(
        with_code.arg_true(), pl.Series(made, dtype=pl.String)
    )


def _cut(text: str, inline: bool) -> list[str]:
    """Prose, code, prose, … code, prose."""
    out, at = [], 0
    for found in FENCE.finditer(text):
        out += [text[at : found.start()], found.group()]
        at = found.end()
    out.append(text[at:])
    if not inline:
        return out
    cut: list[str] = []
    for number, piece in enumerate(out):
        if number % 2:
            cut.append(piece)
            continue
        at = 0
        for found in _INLINE.finditer(piece):
            cut += [piece[at : found.start()], found.group()]
            at = found.end()
        cut.append(piece[at:])
    return cut
