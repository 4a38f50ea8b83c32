"""Texts of conversations laid end to end: what steps that edit or judge texts share.

A step says what becomes of a flat column of texts, or what it thinks of each; here it meets the messages. polars and
NumPy see all texts of a part at once, and code that takes one text at a time (`by_text`) sees each distinct one once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from qdata.schema import MESSAGES, lists

LISTS = ("messages", "chosen", "rejected")
TEXTS = ("content", "reasoning")
_ROUNDS = 10


def edited(
    frame: pl.LazyFrame,
    edit: Callable[[pl.Series], pl.Series],
    *,
    roles: Sequence[str] | None = None,
    fields: Sequence[str] = TEXTS,
    text: bool = True,
) -> pl.LazyFrame:
    """`frame` with its texts as `edit` leaves them: it takes a column of texts (no nulls) and returns as many.

    `roles`: only the messages of these; `fields`: of these only; `text`: also the column of that name (pretraining).
    """

    def list_of(column: pl.Series) -> pl.Series:
        flat = column.explode(empty_as_null=False, keep_nulls=False)
        parts = flat.struct.unnest()
        mine = pl.lit(True) if roles is None else pl.col("role").is_in(list(roles)).fill_null(False)
        made = parts.with_columns(
            _where(parts.select(mine=mine & pl.col(name).is_not_null())["mine"], parts[name], edit) for name in fields
        )
        return _regrouped(column, made.to_struct("message"))

    columns = [pl.col(name).map_batches(list_of, return_dtype=MESSAGES) for name in LISTS]
    if text:
        columns.append(pl.col("text").map_batches(lambda s: _where(s.is_not_null(), s, edit), return_dtype=pl.String))
    return frame.with_columns(columns)


def of_messages(column: str, judge: Callable[[pl.DataFrame], pl.Series], dtype: pl.DataType) -> pl.Expr:
    """A list with a value for each message: `judge` takes a frame of all messages (fields of MESSAGE), flat."""

    def judged(messages: pl.Series) -> pl.Series:
        flat = messages.explode(empty_as_null=False, keep_nulls=False)
        return _regrouped(messages, judge(flat.struct.unnest()).cast(dtype))

    return pl.col(column).map_batches(judged, return_dtype=pl.List(dtype))


def by_text(function: Callable[[str], str], texts: pl.Series) -> pl.Series:
    """`function` of each text, called once for each distinct one."""
    distinct = texts.unique(maintain_order=True)
    made = pl.Series([function(one) for one in distinct.to_list()], dtype=pl.String)
    return texts.replace_strict(distinct, made, return_dtype=pl.String) if len(distinct) else texts


def changed_where(texts: pl.Series, pattern: str, edit: Callable[[pl.Series], pl.Series]) -> pl.Series:
    """`texts` with those edited in which the pattern (of polars' regex engine) is found: most are not even copied."""
    return _where(texts.str.contains(pattern), texts, edit)


def settled(function: Callable[[str], str], text: str) -> str:
    """`function` again and again, until it changes nothing any more: an edit done twice is an edit done once.

    Where it goes round in circles, the text stays as it was.
    """
    made = text
    for _ in range(_ROUNDS):
        before, made = made, function(made)
        if made == before:
            return made
    return text


def _where(mask: pl.Series, texts: pl.Series, edit: Callable[[pl.Series], pl.Series]) -> pl.Series:
    """`texts` with those of the mask edited."""
    if not mask.any():
        return texts
    made = edit(texts.filter(mask))
    return texts.scatter(mask.arg_true(), made) if len(made) else texts


def _regrouped(old: pl.Series, values: pl.Series) -> pl.Series:
    """New values in place of the items of lists."""
    return lists(values, old.list.len().fill_null(0).to_numpy(), old.is_null().to_numpy()).alias(old.name)


def regrouped(lengths: pl.Series, nulls: pl.Series, values: pl.Series) -> pl.Series:
    """Lists of these lengths of the values, null where `nulls` says so."""
    return lists(values, lengths.to_numpy(), nulls.to_numpy()).alias(values.name)
