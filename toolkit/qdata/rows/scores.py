"""Scores on their way through files: the column `scores` of a row, beside `score`.

`score` is the number that came with the data (`score.given` in a CONVERSATION). What scorers find stands in `scores`,
an object of numbers (`lang` is a text): `{"repetition": 0.02, "lang": "zh"}`; in tables that object is JSON text.
A column of that name that is anything else is a column nobody knows, as all others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import orjson
import polars as pl

from qdata import schema
from qdata.rows import exact

COLUMN = "scores"
QUANTILES = {"min": 0.0, "5%": 0.05, "median": 0.5, "95%": 0.95, "max": 1.0}
_COMMONEST = 5
_EXACT = 2**53  # up to here a whole number is a float


def understood(value: Any, *, as_text: bool = False) -> dict[str, float | str] | None:
    """The scores in a value of the column, or None where it is something else; `as_text`: it may be JSON text."""
    if as_text and isinstance(value, str) and value.startswith("{"):
        try:
            value = exact.loads(value.encode())
        except orjson.JSONDecodeError:
            return None
    if not isinstance(value, dict) or "given" in value:
        return None
    there = {name: one for name, one in value.items() if one is not None}
    if not there or not all(_fits(name, one) for name, one in there.items()):
        return None
    return {name: one if isinstance(one, str) else float(one) for name, one in there.items()}


def _fits(name: str, value: Any) -> bool:
    if name in schema.SCORE_TEXTS:
        return isinstance(value, str)
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) <= _EXACT
    return isinstance(value, float) and math.isfinite(value)


def taken(extra: pl.Series, *, as_text: bool) -> tuple[pl.Series, dict[str, pl.Series]]:
    """The unknown columns of rows (JSON text) without the scores among them, and these: a column for each."""
    marked = extra.str.contains(f'"{COLUMN}":', literal=True).arg_true().to_list()
    rests, found = extra.to_list() if marked else [], dict[int, dict[str, float | str]]()
    for i in marked:
        rest = exact.loads(rests[i].encode())
        if (scores := understood(rest.get(COLUMN), as_text=as_text)) is not None:
            found[i] = scores
            del rest[COLUMN]
            rests[i] = exact.text(rest) if rest else None
    if not found:
        return extra, {}
    columns = {}
    for name in sorted(set().union(*found.values())):
        values = [found[i].get(name) if i in found else None for i in range(len(extra))]
        columns[name] = pl.Series(name, values, schema.score_type(name))
    return pl.Series("extra", rests, pl.String), columns


def written(score: Mapping[str, Any] | None) -> dict[str, Any]:
    """The columns `score` and `scores` of a row, as far as there are some."""
    if not score:
        return {}
    said = {name: _number(value) for name, value in score.items() if value is not None}
    given = {"score": said.pop("given")} if "given" in said else {}
    return given | ({COLUMN: said} if said else {})


def summary(frame: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """Each score, a column of its own, in a few numbers: rows that have it, its quantiles; of texts the commonest."""
    out: dict[str, dict[str, Any]] = {}
    for column in frame:
        values = column.drop_nulls()
        out[column.name] = {"rows": len(values)}
        if column.dtype == pl.String:
            counts = values.value_counts(name="count").sort("count", column.name, descending=[True, False])
            out[column.name] |= {"commonest": dict(counts.head(_COMMONEST).iter_rows())}
        elif len(values):
            out[column.name] |= {name: values.quantile(share, "nearest") for name, share in QUANTILES.items()}
    return out


def with_more(row: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """A row of any dialect with more scores in its column. Raises ValueError where it holds something else."""
    there = {k: v for k, v in more.items() if v is not None}
    if there and COLUMN in row and understood(row[COLUMN]) is None:
        raise ValueError(
            f"a column {COLUMN!r} that holds no scores, and they are written there; rename it in the input"
        )
    return row | {COLUMN: row.get(COLUMN, {}) | {k: _number(v) for k, v in there.items()}} if there else row


def _number(value: Any) -> Any:
    """Whole numbers as such."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**63 else value
