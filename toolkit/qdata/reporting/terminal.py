"""The report in a terminal: the funnel, the reasons, the lengths and the scores."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qdata.reporting.difference import visible
from qdata.reporting.facts import Facts
from qdata.reporting.measures import number
from qdata.rows.scores import QUANTILES


def told(console: Console, facts: Facts) -> None:
    """Prints the facts."""
    rows = facts.rows
    console.print(
        f"[bold]{_shown(facts.name)}[/]: {rows.entered:,} rows in: {rows.kept:,} kept ({rows.edited:,} edited), "
        f"{rows.dropped:,} dropped",
        highlight=False,
    )
    _funnel(console, facts)
    if rows.dropped:
        _reasons(console, facts)
    _distributions(console, facts)
    for name, about in facts.scores.items():
        if "commonest" in about:
            counts = ", ".join(f"{_shown(value)} {count:,}" for value, count in about["commonest"].items())
            console.print(f"{_shown(name)}: {counts}", highlight=False)
    if not facts.told:
        console.print("[yellow]the file is gone or was edited since: only its dropped rows are told[/]")


def _funnel(console: Console, facts: Facts) -> None:
    table = _table("step", "edited", "dropped", "left")
    for stage in facts.stages:
        table.add_row(f"[bold]{stage.command}[/] {_shown(stage.name)}", "", "", f"{stage.rows.entered:,}")
        for step in stage.steps:
            style = None if step.edited or step.dropped else "dim"
            numbers = (f"{n:,}" for n in (step.edited, step.dropped, step.left))
            table.add_row(f"  {_shown(step.name)}", *numbers, style=style)
    console.print(table)


def _reasons(console: Console, facts: Facts) -> None:
    table = _table("dropped because", "rows", "")
    most = max(one.rows for stage in facts.stages for one in stage.reasons)
    for one in (reason for stage in facts.stages for reason in stage.reasons):
        table.add_row(
            _shown(f"{one.step}.{one.reason}"), f"{one.rows:,}", f"[red]{'█' * round(24 * one.rows / most)}[/]"
        )
    table.columns[-1].justify = "left"
    console.print(table)


def _distributions(console: Console, facts: Facts) -> None:
    table = _table("of the kept rows", "rows", *QUANTILES)
    for one in facts.distributions:
        if quantiles := one.quantiles["kept"]:
            table.add_row(_shown(one.title), f"{sum(one.kept):,}", *(number(quantiles[name]) for name in QUANTILES))
    if table.row_count:
        console.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if table.columns else "left")
    return table


def _shown(text: str) -> str:
    return escape("".join(f"<{piece}>" if name else piece for piece, name in visible(text)))
