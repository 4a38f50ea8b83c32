"""What can be had and built before a model is loaded: the run to go on with, where to start, shards that are proven."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from qdata.errors import QdataError
from qdata.part import code_sha256
from qdata.recipe import DataRecipe
from qtrain import arguments, processes
from qtrain import resume as resumed
from qtrain.data import Shards, fits, open_shards, refuse_kind
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
    arguments.refuse(start.train, validation=bool(recipe.data.validation) or recipe.data.val is not None)
    path = Path("data/shards") / recipe.stem
    if not first:
        return None, start, open_shards(path)
    if found is not None and path.exists() and resumed.same_shards(found, open_shards(path).manifest):
        shards = open_shards(path)
        console.print(f"shards: {path} is what this run began with")
    else:
        shards = _shards(recipe, start.data, start.train.stage, console, strict=strict)
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


def _outdated(path: Path) -> str:
    """Why shards are made anew."""
    if not (path / "manifest.json").is_file():
        return "is missing"
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    if manifest.get("code_sha256") != code_sha256():
        return "was made by another version of qdata"
    return "is stale, its rows or how they are made changed"


def _shards(recipe: TrainRecipe, data: DataRecipe, stage: str, console: Console, *, strict: bool) -> Shards:
    """data/shards/<recipe>/, built where it is missing or no longer what the recipe and its inputs make."""
    from qdata import pipeline, report
    from qdata.tokens import encoder

    path = Path("data/shards") / recipe.stem
    report.left_out(console, [*data.sources, *data.validation], recipe.base)
    if pipeline.current(data, path, base=recipe.base, strict=strict):
        console.print(f"shards: {path} is up to date")
    else:
        planned = pipeline.plan(data, recipe.base)
        refuse_kind(str(recipe.path), planned.kind, stage)  # before shards that are right give way
        console.print(f"shards: {path} {_outdated(path)}, building it")
        pipeline.run(planned, path, replace=True, strict=strict, console=console)
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
