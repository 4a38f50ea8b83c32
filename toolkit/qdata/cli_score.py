"""The commands that judge rows: score, filter, dedup. Rows stay in their own dialect."""

from __future__ import annotations

from typing import Any

import click

from qdata.cli_base import console
from qdata.cli_rows import refuse_text, row_options, write_rows
from qdata.errors import QdataError, did_you_mean

_ON = ("prompt", "first_turn", "answer", "conversation")
_NORMALIZE = ("strip", "whitespace", "casefold")


@click.command()
@row_options
@click.option("--by", required=True, metavar="NAME[,NAME…]", help="Scorers, in order; --by list shows them.")
def score(by: str, seed: int, **options: Any) -> None:
    """Give rows scores by rule: length, repetition, language … No model is asked.

    They go into the column `scores` of the rows that are written, an object beside a `score` that came with the data,
    and are read back from there: `qdata filter --where "score.repetition < 0.3"`. Nothing is dropped or edited.
    Scorers with settings of their own are steps of a recipe: docs/recipe.md has them.
    """
    from qdata import plugin
    from qdata.rows import global_steps, steps
    from qdata.stepping import step

    scorers = [name.removeprefix("score_") for name in plugin.names(steps) if name.startswith("score_")]
    over_all = [name for name in plugin.names(global_steps) if hasattr(plugin.find(global_steps, name), "scores")]
    if by == "list":
        _list(scorers, over_all)
        return
    local, last = [], []
    for name in by.split(","):
        if name in over_all:
            last.append(step(global_steps, name, {}, name))
        elif name in scorers:
            settings = {"seed": seed} if name == "random" else {}
            local.append(step(steps, f"score_{name}", settings, name))
        else:
            raise QdataError(f"--by: no scorer is called {name!r}.{did_you_mean(name, [*scorers, *over_all])}")
    write_rows(
        to=None, command="score", name="scored", seed=seed, steps=tuple(local), global_steps=tuple(last), **options
    )


def _list(scorers: list[str], over_all: list[str]) -> None:
    from rich.table import Table

    from qdata import plugin
    from qdata.rows import global_steps, steps

    table = Table("name", "scores", "about", box=None)
    found = [(name, plugin.find(steps, f"score_{name}")) for name in scorers]
    for name, cls in [*found, *((name, plugin.find(global_steps, name)) for name in over_all)]:
        table.add_row(name, ", ".join(cls.scores), " ".join((cls.__doc__ or "").split("\n\n")[0].split()))
    console.print(table)


@click.command("filter")
@row_options
@click.option("--where", required=True, metavar="EXPR", help="Condition on score.NAME, lang, source, turns, answer …")
def filter_rows(where: str, **options: Any) -> None:
    """Keep the rows of which a condition holds; the others are in the ledger, with the reason filter.where.

    \b
    qdata filter scored.jsonl --where "score.repetition < 0.3 and lang = 'zh'"
    qdata filter chats.jsonl --where "turns >= 2 and not (answer.chars < 10 or source in ('a', 'b'))"

    Fields: score.NAME, lang, source, row, turns, label, the texts system, user, answer, tool, tools, and
    answer.chars, user.chars, system.chars, tool.chars. Tests: = != < <= > >=, in (…), is null, is not null; and, or,
    not, brackets. A row without the score that is asked for is not kept, unless `is null` asks for it.
    """
    from qdata.rows import steps
    from qdata.stepping import step

    made = step(steps, "filter", {"where": where}, "--where")
    write_rows(to=None, command="filter", name="filtered", steps=(made,), **options)


@click.command()
@row_options
@click.option(
    "--on",
    type=click.Choice(_ON),
    default="conversation",
    show_default=True,
    help="All before the last answer, the first question, all answers, or everything is compared.",
)
@click.option("--system", is_flag=True, help="Rows with different system prompts are different.")
@click.option(
    "--normalize",
    default="",
    metavar="NAME[,NAME…]",
    help="Overlooked: white space at the ends (strip), how much of it (whitespace), capitals (casefold).",
)
@click.option(
    "--keep",
    default="score.given",
    show_default=True,
    metavar="score.NAME",
    help="The row with the highest stays; then that with the longest answers, then the first.",
)
def dedup(on: str, system: bool, normalize: str, keep: str, **options: Any) -> None:
    """Drop exact duplicates but for the best; the ledger names the row that stays (column `by`).

    Rows of all inputs are compared, whatever their system prompts.
    """
    from qdata.rows import global_steps
    from qdata.stepping import step

    names = tuple(name for name in normalize.split(",") if name)
    if other := [name for name in names if name not in _NORMALIZE]:
        raise QdataError(f"--normalize: no {other[0]!r} is known.{did_you_mean(other[0], _NORMALIZE)}")
    if not keep.startswith("score."):
        raise QdataError(f"--keep {keep!r}: wanted score.NAME")
    settings = {"on": on, "system": system, "normalize": names, "keep": keep}
    made = step(global_steps, "exact", settings, "dedup")
    check = None if on == "conversation" else refuse_text(f"has no {on}; --on conversation compares whole documents")
    write_rows(to=None, command="dedup", name="dedup", global_steps=(made,), check=check, **options)
