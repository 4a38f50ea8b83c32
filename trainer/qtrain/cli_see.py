"""`qtrain plot` and `qtrain why`: what a run says of itself."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console

_JSON = click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on stdout.")


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The picture, a PNG.")
@click.option("--name", "names", multiple=True, metavar="TEXT", help="What a run is called, in the order of the runs.")
@click.option(
    "--x", type=click.Choice(["steps", "tokens"]), default="steps", show_default=True,
    help="Optimiser steps, or trained tokens, over which runs of different batch sizes can be compared.",
)  # fmt: skip
@_JSON
def plot(runs: tuple[Path, ...], output: Path, names: tuple[str, ...], x: str, as_json: bool) -> None:
    """Draw the losses of one or several runs into one picture: train (raw and smoothed) and evaluation.

    A RUN may be a recipe's folder too, its newest run is meant then. What a resumed run did twice is drawn once.

    \b
    qtrain plot runs/muice -o loss.png
    qtrain plot runs/a runs/b -o both.png --name "batch 4" --name "batch 32" --x tokens
    """
    from qtrain import plot as plots

    report = plots.compare(runs, names, output, tokens=x == "tokens")
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False, indent=2))
        return
    for one in report["runs"]:
        losses = ", ".join(f"{key} {one[key]:.3f}" for key in ("loss", "eval_loss") if key in one)
        click.echo(f"{one['name']}: {losses}")
    click.echo(f"picture: {output}")


@click.command()
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--step", required=True, type=click.IntRange(min=1), help="The optimiser step.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=1), help="Conversations to list.")
@click.option("--shards", type=click.Path(path_type=Path), metavar="DIR", help="Where the run's shards lie now.")
@_JSON
def why(run: Path, step: int, limit: int, shards: Path | None, as_json: bool) -> None:
    """Show what a step was trained on: its conversations, the costliest first, and its loss beside its neighbours'.

    A loss counts as a spike above the median of the 50 before it by more than 5 median absolute deviations.

    \b
    qtrain why runs/muice --step 120
    """
    from qtrain import why as reasons

    report = reasons.why(run, step, shards)
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False, indent=2))
    else:
        Console().print(reasons.table(report, limit))
