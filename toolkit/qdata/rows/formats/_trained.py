"""Whether and how much a turn is trained, in the spellings of the tools that write such files."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import polars as pl

# Of one meaning each; the first is the field of MESSAGE and the one we write.
_TRAIN = ("train", "training", "loss")  # axolotl's two, ms-swift's
_WEIGHT = ("weight", "loss_weight", "loss_scale")  # OpenAI's, LLaMA-Factory v1's, ms-swift's
FIELDS: dict[str, Any] = dict.fromkeys(_TRAIN, pl.Boolean) | dict.fromkeys(_WEIGHT, pl.Float64)


def trained() -> list[pl.Expr]:
    """Inside `list.eval` over turns with FIELDS: `train` and `weight`, whichever way they are spelled."""
    field = pl.element().struct.field
    return [pl.coalesce(field(name) for name in names).alias(names[0]) for names in (_TRAIN, _WEIGHT)]


def disagreement(turns: str) -> pl.Expr:
    """The first turn of the column `turns` that says one thing in two spellings, and differently: in words, or null."""
    return first_fault(pl.col(turns), turns, two_spellings())


def two_spellings() -> pl.Expr:
    """Inside `list.eval` over turns with FIELDS: what a turn says in two spellings, and differently, or null."""
    field = pl.element().struct.field
    pairs = [pair for names in (_TRAIN, _WEIGHT) for pair in combinations(names, 2)]
    told = "{} is {{}} and {} is {{}}, two spellings of one thing; wanted one of them, or both alike"
    return pl.coalesce(
        pl.when(field(a) != field(b)).then(pl.format(told.format(a, b), field(a), field(b))) for a, b in pairs
    )


def first_fault(turns: pl.Expr, name: str, wrong: pl.Expr) -> pl.Expr:
    """What `wrong`, inside `list.eval`, says of the first turn of which it says something, with its place; or null."""
    said = turns.list.eval(wrong)
    at = said.list.eval(pl.element().is_not_null()).list.arg_max()
    first = said.list.drop_nulls().list.first()
    return pl.when(first.is_not_null()).then(pl.format(f"{name}[{{}}]: {{}}", at, first))
