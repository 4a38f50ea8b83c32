"""The one kind of error a user is meant to see: what was seen, what was wanted, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class QdataError(Exception):
    """Bad input, said in one message. The commands print it without a traceback and exit with code 2."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`" Did you mean 'alpaca'?"` when `word` is near one of `known`, else the list of what is known."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=2, cutoff=0.6)
    if near:
        return f" Did you mean {' or '.join(map(repr, near))}?"
    return f" Known: {', '.join(names)}." if names else ""


class RefusedRowsError(QdataError):
    """Rows that cannot be rendered as they are: row id → why."""

    def __init__(self, rows: dict[str, str]) -> None:
        row, why = next(iter(rows.items()))
        more = f" ({len(rows) - 1:,} more rows of this part cannot be rendered either)" if len(rows) > 1 else ""
        super().__init__(f"{row}: {why}{more}")
        self.rows = rows
