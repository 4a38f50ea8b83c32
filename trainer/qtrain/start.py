"""What a run starts from: the recipe's model, or, said loudly, the stand-in for it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.panel import Panel

from qdata.errors import QdataError
from qdata.recipe import DataRecipe
from qtrain import model as models
from qtrain import run, stand_in
from qtrain.recipe import Train, TrainRecipe


@dataclass(frozen=True)
class Start:
    """What training starts from, and the halves of the recipe that follow from it."""

    folder: Path
    name: str
    """What an adapter will name as its base, and the manifest as the model."""
    data: DataRecipe
    train: Train
    stand_in: str | None = None
    """Why a stand-in, or what an earlier run made of one, is trained instead of the recipe's model; else None."""
    weights: bool = True
    """Whether `folder` holds weights; else its config.json is the shape of random ones."""


def decide(recipe: TrainRecipe, console: Console, *, strict: bool = False, build: bool = True) -> Start:
    """The recipe's model where it can be had; the stand-in only where its hub id is out of reach and there is no GPU.

    What stands on an earlier run that was a rehearsal, or on its export, is one too: trained as [stand_in.train] says.
    Rows are tokenized with the tokenizer of the model they are for, unless the recipe names another. Without `build` a
    stand-in is the one another process of this run has built.
    """
    wanted = recipe.model
    if wanted.from_run is not None:
        folder = run.model_in(Path(wanted.from_run))
        return _known(recipe, folder, folder.as_posix(), str(folder), console, strict)
    name = wanted.name or str(wanted.config_from)
    try:
        folder = models.find(name) if wanted.name is not None else models.find(name, weights=False)
    except models.OutOfReachError as error:
        why = str(error)
    else:
        if wanted.name is None:  # the shape says nothing of a tokenizer: [data] does, or the template
            return Start(folder, f"random weights in the shape of {name}", recipe.data, recipe.train, weights=False)
        return _known(recipe, folder, name, str(folder) if models.is_local(name) else name, console, strict)
    refusal = f"{name} is neither in the cache nor to be had: {why}"
    if strict:
        raise QdataError(f"{refusal}. --strict trains no stand-in")
    if recipe.stand_in is None:
        raise QdataError(f"{refusal}. The recipe has no [stand_in]")
    if not models.may_stand_in():
        raise QdataError(f"{refusal}. With a GPU no stand-in is trained: fetch the model, or set HF_ENDPOINT")
    console.print(
        Panel(f"{refusal}.\nTraining a small Qwen2 with random weights in its place: a rehearsal of the recipe, not "
              "its result.", title="STAND-IN", border_style="bold yellow")
    )  # fmt: skip
    built = Path("data/stand_in") / recipe.stem
    if build:
        from qdata import pipeline

        rows = pipeline.conversations(recipe.data, base=recipe.base)
        said = rows.select("text", "messages", "chosen", "rejected").iter_rows(named=True)
        stand_in.build(recipe.stand_in, stand_in.texts_of(said), built)
    data = dataclasses.replace(recipe.data, tokenizer=str(built))
    # Under the real model's name, an adapter of the stand-in would be put on the real model.
    return Start(built, "../base", data, recipe.stand_in_train, why)


def _known(recipe: TrainRecipe, folder: Path, name: str, tokenizer: str, console: Console, strict: bool) -> Start:
    """Start from the weights in `folder`, as the rehearsal that they come from, if they do."""
    why = run.stand_in_reason(folder)
    if strict and why is not None:
        raise QdataError(f"{folder} was trained from a stand-in: {why}. --strict trains no stand-in")
    if why is not None:
        console.print(f"[bold yellow]stand-in:[/] {folder} was trained from one, so this is a rehearsal as well")
    data = dataclasses.replace(recipe.data, tokenizer=recipe.data.tokenizer or tokenizer)
    return Start(folder, name, data, recipe.train if why is None else recipe.stand_in_train, why)
