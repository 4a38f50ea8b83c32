"""What can be had and built before a model is loaded: the run to go on with, where to start, shards that are proven."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from qdata.errors import QdataError
from qdata.recipe import DataRecipe
from qtrain import processes
from qtrain import resume as resumed
from qtrain.data import Shards, fits, open_shards
from qtrain.recipe import TrainRecipe
from qtrain.resume import Unfinished
from qtrain.start import Start, decide

PROVEN_ROWS = 16  # of each split, drawn by seed; all of them take `qdata verify` minutes on a large set


def prepare(
    recipe: TrainRecipe,
    output: Path,
    console: Console,
    *,
    strict: bool = False,
    resume: str | None = None,
    fresh: bool = False,
) -> tuple[Unfinished | None, Start, Shards]:
    """What can be had and built before any process group: the run to go on with, the model's folder, proven shards.

    Of several processes only the first builds.
    """
    first = processes.rank() == 0
    found = None
    if first and resume is not None:
        found = resumed.asked(recipe, output / recipe.stem, resume, console)
    elif first and not fresh:
        found = resumed.by_itself(recipe, output / recipe.stem, console)
    start = decide(recipe, console, strict=strict, build=first)
    path = Path("data/shards") / recipe.stem
    if not first:
        return None, start, open_shards(path)
    if found is not None and path.exists() and resumed.same_shards(found, open_shards(path).manifest):
        shards = open_shards(path)
        console.print(f"shards: {path} is what this run began with")
    else:
        shards = _shards(recipe, start.data, console, strict=strict)
    why = None
    if found is not None and not resumed.same_shards(found, shards.manifest):
        why = f"{found.folder}: {path} is not what this run began with, its rows or how they are made changed since"
    if found is not None and why is not None:
        if resume is not None:
            raise QdataError(f"{why}; it cannot go on exactly. Start a new run without --resume")
        console.print(f"[bold yellow]a new run is started:[/] {why}", soft_wrap=True)
        found = None
    if found is not None and (versions := resumed.other_versions(found)):
        console.print(f"[bold yellow]other libraries than when this run began, it may not go on exactly:[/] {versions}")
    fits(shards, start.train.stage)
    prove(shards, console)
    return found, start, shards


def _shards(recipe: TrainRecipe, data: DataRecipe, console: Console, *, strict: bool) -> Shards:
    """data/shards/<recipe>/, built where it is missing or no longer what the recipe and its inputs make."""
    from qdata import pipeline, report
    from qdata.tokens import encoder

    path = Path("data/shards") / recipe.stem
    report.left_out(console, [*data.sources, *data.validation], recipe.base)
    if pipeline.current(data, path, base=recipe.base, strict=strict):
        console.print(f"shards: {path} is up to date")
    else:
        console.print(f"shards: {path} is {'stale' if path.exists() else 'missing'}, building it")
        pipeline.build(data, path, base=recipe.base, replace=True, strict=strict, console=console)
    encoder.forget()
    return open_shards(path)


def prove(shards: Shards, console: Console, saved: Path | None = None) -> None:
    """Some rows are checked against what a server will see: before the first step, and with the `saved` model after it.

    Raises QdataError where they differ.
    """
    from qdata.tokens.verify import verify

    result = verify(saved or shards.path, sample=PROVEN_ROWS, shard_folder=shards.path if saved else None)
    if result.failures:
        raise QdataError(
            f"{saved or shards.path}: what is trained is not what will be served: {result.cases[0]}\n"
            f"All of it: qdata verify {saved or shards.path}"
        )
    console.print(
        f"verified{' as saved' if saved else ''}: {result.answers:,} answers of {PROVEN_ROWS} rows a split stand "
        f"behind their serving prompts"
    )
