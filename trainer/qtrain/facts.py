"""What a run is: its papers, recipe.toml and manifest.json, and what is said of it before its first step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from rich.console import Console
from rich.panel import Panel

from qdata import aside
from qtrain import model as models
from qtrain import processes, run, tuning
from qtrain.data import Shards
from qtrain.recipe import TrainRecipe
from qtrain.start import Start


def of(recipe: TrainRecipe, start: Start, shards: Shards, trainer: Any) -> dict[str, Any]:
    """What was trained on what, with which arguments, by which versions."""
    trained, total = models.parameters(trainer.model)
    return {
        "recipe": recipe.path.name,
        "stand_in": start.stand_in is not None,
        "stand_in_reason": start.stand_in,
        "sample": bool(shards.manifest.get("sample")),
        "model": recipe.model.name or start.name,
        "tuning": start.train.tuning,
        "parameters": {"trained": trained, "all": total},
        "arguments": trainer.args.to_dict(),
        "processes": processes.count(),
        "versions": run.versions(),
        "shards": shards.path.as_posix(),
        "data": dict(shards.manifest),
    }


def papers(recipe: TrainRecipe, facts: Mapping[str, Any]) -> dict[str, str]:
    """File name → text of what lies in the run's folder and beside every saved model."""
    origin = f"# {recipe.path} as it was trained, overrides included; relative paths start at {recipe.base}/"
    return {
        "recipe.toml": f"{origin}\n\n{run.as_toml(recipe.table)}",
        "manifest.json": json.dumps(facts, ensure_ascii=False, indent=2, default=str) + "\n",
    }


_MANY = 0.1  # rows that fell, of all of them


def left_out(manifest: Mapping[str, Any]) -> str | None:
    """How many rows are not trained, and why, in words; loud where it is many. None where all are."""
    rows = manifest.get("rows", {})
    dropped: dict[str, int] = rows.get("dropped", {})
    if not dropped:
        return None
    reasons = ", ".join(f"{why} {count:,}" for why, count in sorted(dropped.items(), key=lambda one: -one[1]))
    said = f"dropped, {sum(dropped.values()):,} of {rows['in']:,} rows: {reasons}"
    if "max_length.too_long" in dropped:
        said += f" (max_length {manifest['max_length']})"
    return f"[bold yellow]{said}[/]" if sum(dropped.values()) > _MANY * rows["in"] else said


def announce(facts: Mapping[str, Any], shards: Shards, trainer: Any, console: Console) -> None:
    """Tell a person what is about to be trained."""
    trained, total = facts["parameters"]["trained"], facts["parameters"]["all"]
    held_out = f", {len(shards.validation):,} for validation" if shards.validation is not None else ""
    precision = "bf16 autocast" if trainer.args.bf16 else "fp16 autocast" if trainer.args.fp16 else "float32"
    share = f"{trained:,} of {total:,} ({trained / total:.2%})"
    console.print(f"trainable parameters: {share}, {facts['tuning']}, {precision}")
    if facts["tuning"] == "freeze":
        console.print(f"trained: {tuning.trained(trainer.model)}", highlight=False)
    console.print(f"rows: {len(shards.train):,} to train on{held_out}; run: {trainer.args.output_dir}")
    if trainer.args.save_only_model:
        console.print("[yellow]checkpoints hold weights only (save_only_model): this run cannot go on after a stop[/]")
    if (processes.count() == 1) and torch.cuda.device_count() > 1:
        console.print(f"{torch.cuda.device_count()} GPUs are here, one is used; --gpus N uses N")
    if told := left_out(shards.manifest):
        console.print(told, soft_wrap=True)
    if count := aside.in_manifest(shards.manifest):
        console.print(f"[yellow]rows set aside, with their reason in {shards.path}/ledger.parquet: {count:,}[/]")
    if facts["sample"]:
        console.print(
            Panel("The rows are a shipped sample, not the data set.", title="SAMPLE", border_style="bold yellow")
        )
