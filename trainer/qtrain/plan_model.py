"""Which models a recipe means: the one it names, and the one this machine would train; no weights are downloaded."""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from qdata.errors import QdataError
from qdata.recipe import DataRecipe
from qtrain import model as models
from qtrain import recipe as recipes
from qtrain import run, scratch, shapes
from qtrain.recipe import StandIn, Train, TrainRecipe
from qtrain.start import Start, decide

STAND_IN = "stand-in"


@dataclass(frozen=True)
class Subject:
    """A model to be planned, and what it would be trained with."""

    name: str
    config: Any
    """transformers' configuration."""
    train: Train
    data: DataRecipe
    start: Start | None = None
    """What training here would start from; None where that cannot be, for want of weights."""
    elsewhere: str | None = None
    """Why it would not be trained on this machine; None where it would be."""


def subjects(recipe: TrainRecipe, console: Console) -> tuple[list[Subject], list[str]]:
    """The recipe's model where its shape can be had, its stand-in where this machine would train that; what is odd.

    Raises QdataError where neither can be told.
    """
    wanted = recipe.model
    if wanted.from_run is not None and not _there(Path(wanted.from_run)):
        return _of_a_run_to_come(recipe)
    if wanted.name is not None and not models.is_local(wanted.name) and not models.cached(wanted.name):
        try:
            folder = models.find(wanted.name, weights=False)
        except models.OutOfReachError:
            pass
        else:
            data = dataclasses.replace(recipe.data, tokenizer=recipe.data.tokenizer or wanted.name)
            why = "the weights are not on this machine"
            return [Subject(wanted.name, _read(folder), recipe.train, data, elsewhere=why)], []
    named = wanted.name or wanted.config_from
    try:
        start = decide(recipe, console)
    except QdataError:
        if named is None or (shape := shapes.config(named)) is None:
            raise
        why = "neither the model is within reach, nor a stand-in for it"
        return [_full(named, _changed(shape, wanted.config), recipe, wanted.name, why)], []
    if start.stand_in is None:
        own = scratch.config(start.folder, wanted.config) if not start.weights else _read(start.folder)
        return [Subject(start.name, own, start.train, start.data, start)], []
    stand_in = Subject(STAND_IN, _read(start.folder), start.train, start.data, start)
    if named is None:  # on top of a rehearsal: the recipe of that run says what it rehearsed
        found, odd = _of_a_run_to_come(recipe)
        return [*(one for one in found if one.name != STAND_IN), stand_in], odd
    why = "it is out of reach, its stand-in would be trained"
    if (shape := shapes.config(named)) is None:
        return [stand_in], [f"{named} is not planned: its config.json is out of reach and its shape not known."]
    name = named if wanted.name is not None else f"random weights in the shape of {named}, changed by [model] config"
    return [_full(name, _changed(shape, wanted.config), recipe, wanted.name, why), stand_in], []


def _full(name: str, config: Any, recipe: TrainRecipe, tokenizer: str | None, elsewhere: str) -> Subject:
    # The tokenizer of a hub id out of reach is the embedded vocabulary; without a name the template has one.
    data = dataclasses.replace(recipe.data, tokenizer=recipe.data.tokenizer or tokenizer)
    return Subject(name, config, recipe.train, data, elsewhere=elsewhere)


def _read(folder: Path) -> Any:
    from transformers import AutoConfig

    if (folder / "adapter_config.json").is_file():
        return _read(models.base_of(folder))
    return AutoConfig.from_pretrained(folder)


def _changed(shape: Any, changes: dict[str, Any]) -> Any:
    if not changes:
        return shape
    with tempfile.TemporaryDirectory() as folder:
        shape.save_pretrained(folder)
        return scratch.config(Path(folder), changes)


def _there(path: Path) -> bool:
    try:
        run.model_in(path)
    except QdataError:
        return False
    return True


def _of_a_run_to_come(recipe: TrainRecipe) -> tuple[list[Subject], list[str]]:
    """The models on top of a run that is not there yet, or was a rehearsal: as the recipe of its name says."""
    at = Path(str(recipe.model.from_run))
    stages, seen = [recipe], {recipe.stem}
    while (earlier := stages[-1].model.from_run) is not None:
        file = stages[-1].path.with_name(f"{Path(earlier).name}.toml")
        if not file.is_file() or file.stem in seen:
            run.model_in(at)  # says what is missing
            return [], [f"What {at} rehearsed is not planned: no {file.name} lies beside the recipe."]
        seen.add(file.stem)
        stages.append(recipes.load(file))
    first = stages[-1]
    named = str(first.model.name or first.model.config_from)
    missing = not _there(at)
    why = f"{at} is not there yet" if missing else f"{at} was a rehearsal"
    found, odd = [], [f"{at} is not there yet: its model is planned as {first.path.name} describes it."] * missing
    if (shape := _shape(named)) is not None:
        name = f"the model of {first.path.name}"
        found.append(_full(name, _changed(shape, first.model.config), recipe, first.model.name, why))
    else:
        odd.append(f"{named} is not planned: its config.json is out of reach and its shape not known.")
    if missing and first.stand_in is not None:
        data = dataclasses.replace(recipe.data, tokenizer=None)
        found.append(Subject(STAND_IN, _of_stand_in(first.stand_in), recipe.stand_in_train, data, elsewhere=why))
    return found, odd


def _shape(name: str) -> Any | None:
    try:
        return _read(models.find(name, weights=False))
    except models.OutOfReachError:
        return shapes.config(name)


def _of_stand_in(stand_in: StandIn) -> Any:
    from transformers import Qwen2Config

    keys = {f.name: getattr(stand_in, f.name) for f in dataclasses.fields(StandIn) if f.name not in ("seed", "train")}
    return Qwen2Config(**keys, tie_word_embeddings=True)
