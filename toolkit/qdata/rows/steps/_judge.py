"""What filters share: a verdict on each message becomes the reason for which its row is dropped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import polars as pl

from qdata.rows.steps._texts import LISTS
from qdata.schema import MESSAGE

_PLACE = "place"  # of a message in its row, beside the fields of MESSAGE
TEXT_ROLE: Final = "text"  # what judges of messages see as the role of a pretraining text
Role = Literal["system", "user", "assistant", "tool"]
RoleOrText = Literal["system", "user", "assistant", "tool", "text"]


def dropped(frame: pl.LazyFrame, reason: pl.Expr) -> pl.LazyFrame:
    """`frame` with a reason in `drop` where there was none."""
    return frame.with_columns(drop=pl.coalesce("drop", reason))


def first_reason(judge: pl.Expr, *, lists: Sequence[str] = LISTS, text: bool = True) -> pl.Expr:
    """Of each row, the first thing that `judge` has against one of its messages; null where there is nothing.

    `judge`: an expression over the fields of MESSAGE that gives a reason or null. All messages of a part meet it as
    one flat frame, and `before` is what stands before a message in its own row. `text`: the column of that name is
    judged too, as the content of a message whose role is "text".
    """
    found = [_of_lists(name, judge) for name in lists]
    if text:
        found.append(pl.col("text").map_batches(lambda texts: _judged(_as_messages(texts), judge), pl.String))
    return pl.coalesce(found)


def before(what: pl.Expr, count: int = 1) -> pl.Expr:
    """What holds of the message `count` places before; null where there is none. For `first_reason`."""
    return pl.when(pl.col(_PLACE) >= count).then(what.shift(count))


def said_by(roles: Sequence[str]) -> pl.Expr:
    """Whether a message, or a text, is of one of these roles and says something."""
    return pl.col("role").is_in(list(roles)).fill_null(False) & pl.col("content").is_not_null()


def calls() -> pl.Expr:
    """Whether a message calls a tool; `[]`, which many exports write, calls none."""
    return ~pl.col("tool_calls").fill_null("").str.contains(r"^\s*(?:null|\[\s*\])?\s*$")


def chars(text: pl.Expr) -> pl.Expr:
    """Characters of a text, without white space at its ends; 0 where it is null."""
    return text.fill_null("").str.strip_chars().str.len_chars().cast(pl.Int64)


def _of_lists(column: str, judge: pl.Expr) -> pl.Expr:
    def verdicts(messages: pl.Series) -> pl.Series:
        flat = messages.explode(empty_as_null=False, keep_nulls=False).struct.unnest()
        lengths = messages.list.len().fill_null(0).cast(pl.Int64).to_numpy()
        ends = np.cumsum(lengths)
        places = np.arange(len(flat)) - np.repeat(ends - lengths, lengths)
        found = _judged(flat.with_columns(pl.Series(_PLACE, places, pl.Int64)), judge)
        at = found.is_not_null().arg_true().to_numpy()
        if not len(at):
            return pl.Series(messages.name, [None], pl.String).new_from_index(0, len(messages))
        rows, first = np.unique(np.searchsorted(ends, at, side="right"), return_index=True)
        of_rows = np.full(len(messages), -1, np.int64)
        of_rows[rows] = at[first]
        gathered = pl.Series(of_rows)
        return found.gather(gathered.set(gathered < 0, None)).alias(messages.name)

    return pl.col(column).map_batches(verdicts, pl.String)


def _judged(messages: pl.DataFrame, judge: pl.Expr) -> pl.Series:
    reasons = messages.select(reason=judge)["reason"].cast(pl.String)
    # an expression that looks at no column gives one value for all
    return reasons if len(reasons) == messages.height else reasons.new_from_index(0, messages.height)


def _as_messages(texts: pl.Series) -> pl.DataFrame:
    empty = {f.name: pl.lit(None, f.dtype) for f in MESSAGE.fields}
    role = pl.lit(TEXT_ROLE)  # a text that is null has nobody who says it
    return texts.to_frame("content").select(
        **{**empty, "role": pl.when(pl.col("content").is_not_null()).then(role), "content": pl.col("content")},
        **{_PLACE: pl.lit(0, pl.Int64)},
    )
