"""The steps of a recipe, made from its tables; and whether what they look at is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from qdata import plugin
from qdata.decide import GlobalStep
from qdata.errors import QdataError, did_you_mean
from qdata.part import Read, Step, step_facts
from qdata.recipe import DataRecipe, structure
from qdata.rows import global_steps as global_package
from qdata.rows import steps as local_package
from qdata.rows.steps.complete import Complete
from qdata.rows.steps.placeholders import Placeholders

_ELSEWHERE = {
    (package, name): f"{name} is a {kind} step; it stands in {where}"
    for package, others, kind, where in (
        (local_package, global_package, "global", "[[data.global_steps]] of a recipe (`qdata dedup`, `qdata score`)"),
        (global_package, local_package, "local", "[[data.steps]] of a recipe, or `qdata clean --step`"),
    )
    for name in plugin.names(others)
}


def local_steps(recipe: DataRecipe, base: Path = Path()) -> tuple[Step, ...]:
    """The recipe's steps, then the placeholders, then `complete`. Raises QdataError with all mistakes at once."""
    made = steps_of(recipe.steps, "data.steps", base)
    if recipe.placeholders:
        made.append(Placeholders(recipe.placeholders))
    return (*made, Complete())


def steps_of(tables: Sequence[Mapping[str, Any]], where: str, base: Path = Path()) -> list[Step]:
    """The steps of `[[steps]]` tables; a setting called `file` is a path that starts from `base`.

    Raises QdataError with all mistakes at once; `where` begins their addresses.
    """
    placed = [{k: str(base / v) if k == "file" else v for k, v in table.items()} for table in tables]
    return _made(local_package, placed, where)


def global_steps(recipe: DataRecipe) -> tuple[GlobalStep, ...]:
    """The recipe's global steps. Raises QdataError with all mistakes at once."""
    return tuple(_made(global_package, recipe.global_steps, "data.global_steps"))


def step(package: ModuleType, name: str, settings: Mapping[str, Any], address: str) -> Any:
    """One step, as the command line names it. Raises QdataError for settings that it does not take."""
    mistakes: list[str] = []
    made = structure(plugin.find(package, name), settings, address, mistakes)
    if mistakes:
        raise QdataError("\n".join(mistakes))
    return made


def _made(package: ModuleType, tables: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    made: list[Any] = []
    mistakes: list[str] = []
    for number, table in enumerate(tables):
        address = f"{name}[{number}]"
        if "step" not in table:
            mistakes.append(f"{address}.step: missing; wanted one of {', '.join(plugin.names(package))}")
            continue
        try:
            cls = plugin.find(package, str(table["step"]))
        except QdataError as error:
            mistakes.append(f"{address}.step: {_ELSEWHERE.get((package, str(table['step'])), error)}")
            continue
        settings = {k: v for k, v in table.items() if k != "step"}
        if (one := structure(cls, settings, address, mistakes)) is not None:
            made.append(one)
    if mistakes:
        raise QdataError("\n  ".join(["the steps cannot be made:", *mistakes]))
    return made


def refuse_unknown_scores(steps: Iterable[Any], done: Sequence[Read]) -> None:
    """Raises QdataError where a step looks at a score that no row has: it would judge all rows by nothing."""
    there = {"given"}.union(*(one.scores for one in done))
    for one in steps:
        for name in sorted(set(getattr(one, "reads", ())) - there):
            raise QdataError(
                f"{step_facts(one)[0]}: no row has a score.{name}.{did_you_mean(name, there)} "
                f"Score the rows first: qdata score FILE --by NAME"
            )
