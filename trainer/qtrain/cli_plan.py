"""`qtrain plan`: what a recipe would take, before it is started."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="TABLE.KEY=VALUE", help="Override one key of the recipe.")
@click.option("--no-probe", is_flag=True, help="Estimate only; run no steps to measure memory and time.")
@click.option(
    "--gpus", default=1, show_default=True, type=click.IntRange(min=1), metavar="N",
    help="How many train side by side, each with the whole model.",
)  # fmt: skip
@click.option("--gpu-memory", type=float, metavar="GB", help="What a GPU has, for a recipe that is planned elsewhere.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on stdout.")
def plan(
    recipe: Path, overrides: tuple[str, ...], no_probe: bool, gpus: int, gpu_memory: float | None, as_json: bool
) -> None:
    """Say what training RECIPE would take: parameters, memory by part, steps, tokens, time, and what is odd about it.

    Memory is estimated from the model's configuration, so no weights are needed, and none are downloaded. Where they
    are here, a few real steps are run in a process of their own, measured and thrown away; the shards are kept. Of a
    model out of reach its stand-in is measured, and both are estimated.

    \b
    qtrain plan recipes/muice.toml
    qtrain plan recipes/meissa-system.toml --no-probe --gpu-memory 48
    """
    from qtrain import recipe as recipes
    from qtrain.cli import _found

    loaded = recipes.load(_found(recipe), overrides)
    from qtrain import plan as planning
    from qtrain import plan_report

    report = planning.plan(loaded, Console(stderr=True), probe=not no_probe, gpus=gpus, gpu_memory=gpu_memory)
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False, indent=2))
    else:
        click.echo("\n".join(plan_report.lines(report)))
