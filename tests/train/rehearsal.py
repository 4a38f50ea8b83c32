"""Running a recipe as a user does, in a process of its own, and what is then true of every run, whatever it is for."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from click.testing import CliRunner

from qdata.cli import main as qdata
from qtrain import model as models
from qtrain import recipe as recipes
from qtrain import steps
from qtrain.data import IGNORED, open_shards, packed

ROOT = Path(__file__).parents[2]
QUESTIONS = ("Who are you?", "你是谁？")


@dataclass(frozen=True)
class Rehearsal:
    """A finished run of a recipe in the current directory, and what was said on the road."""

    name: str
    recipe: recipes.TrainRecipe
    report: dict[str, Any]
    said: str

    @property
    def folder(self) -> Path:
        """The run."""
        return Path(self.report["run"])

    @property
    def shards(self) -> Any:
        """What it was trained on."""
        return open_shards(Path(self.report["shards"]))

    @cached_property
    def log(self) -> list[dict[str, Any]]:
        """Every line of log.jsonl."""
        return steps.read(self.folder / "log.jsonl")

    def logged(self, key: str) -> list[float]:
        """Its values, in order."""
        return [entry[key] for entry in self.log if key in entry]

    @property
    def samples(self) -> list[dict[str, Any]]:
        """What was answered to its [eval] prompts after the last step."""
        return [
            one for one in steps.read(self.folder / "samples.jsonl") if one["step"] == self.report["result"]["steps"]
        ]


def run(name: str, *overrides: str) -> Rehearsal:
    """`qtrain recipes/NAME.toml --set OVERRIDE …` in the current directory."""
    words = [word for override in overrides for word in ("--set", override)]
    done = _qtrain(str(ROOT / "recipes" / f"{name}.toml"), "--json", *words)
    recipe = recipes.load(ROOT / "recipes" / f"{name}.toml", overrides)
    return Rehearsal(name, recipe, json.loads(done.stdout), done.stderr)


def answers(folder: Path, questions: tuple[str, ...] = QUESTIONS) -> list[dict[str, str]]:
    """What `qtrain chat` answers in a fresh process: `question`, `before`, `after`."""
    asked = [word for question in questions for word in ("--ask", question)]
    done = _qtrain("chat", str(folder), "--before", "--max-new-tokens", "48", "--json", *asked)
    rows: list[dict[str, str]] = json.loads(done.stdout)["answers"]
    return rows


def _qtrain(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qtrain", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # such small models are slower on two, beside others by far
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def obeys(one: Rehearsal, *, sample: bool = True) -> None:
    """The laws of every finished run: all of it done, a rehearsal by its own word, learned, proven, answering."""
    manifest = json.loads((one.folder / "final/manifest.json").read_text(encoding="utf-8"))
    assert manifest["stand_in"] is True and "stand-in" in one.said.lower()
    assert manifest["sample"] is sample
    rows = manifest["data"]["rows"]
    assert rows["in"] == rows["kept"] + sum(rows["dropped"].values()) and rows["kept"] > 0

    done = one.report["result"]["steps"]
    assert done == planned(one) == max(entry["step"] for entry in one.log)

    losses = one.logged("loss")
    assert all(map(math.isfinite, losses)) and rises([-loss for loss in losses]) > 0, losses
    verified = CliRunner().invoke(qdata, ["verify", str(one.folder)])
    assert verified.exit_code == 0, verified.output

    said = answers(one.folder)
    print(f"{one.name}: {done} steps, loss {losses[0]:.2f} → {losses[-1]:.2f}; {said[0]}")
    assert [row["question"] for row in said] == list(QUESTIONS)
    if sample:  # rows seen so often that it is heard; a short time with many rows leaves an answer what it was
        assert any(row["before"] != row["after"] for row in said)


def planned(one: Rehearsal) -> int:
    """Steps by the recipe's own numbers: every row once an epoch, the last step of it with what is left."""
    train = one.recipe.stand_in_train
    given = train.arguments
    rows = train.global_batch_size or (
        given["per_device_train_batch_size"] * given.get("gradient_accumulation_steps", 1)
    )
    return math.ceil(len(one.shards.train) / rows) * int(given["num_train_epochs"])


def rises(values: list[float]) -> float:
    """By how much the mean of the last quarter lies above that of the first."""
    quarter = max(1, len(values) // 4)
    return (sum(values[-quarter:]) - sum(values[:quarter])) / quarter


def first_loss(one: Rehearsal, model: Path) -> tuple[float, float]:
    """The logged loss of the run's first step, and what `model` costs on the same rows by torch's own cross entropy."""
    first = steps.of(one.folder)[1]
    batch = packed([one.shards.train[row] for row in first["rows"]])
    with torch.no_grad():
        logits = models.for_inference(model)(batch["input_ids"], position_ids=batch["position_ids"]).logits
    cost = torch.nn.functional.cross_entropy(logits[0, :-1], batch["labels"][0, 1:], ignore_index=IGNORED)
    return first["loss"], cost.item()


def answered(one: Rehearsal) -> None:
    """The recipe's fixed questions were put after the last step, each with how much of its answer is said again."""
    assert [sample["prompt"] for sample in one.samples] == list(one.recipe.eval.prompts)
    assert all(0 <= sample["repetition"] <= 1 for sample in one.samples)
    assert any(sample["answer"] for sample in one.samples)  # maybe nothing but spaces: it is a stand-in
    again = sum(sample["repetition"] for sample in one.samples) / len(one.samples)
    print(f"{one.name}: said again {again:.0%}", *((s["prompt"], s["answer"]) for s in one.samples), sep="\n  ")
