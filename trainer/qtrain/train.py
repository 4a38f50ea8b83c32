"""The road from a recipe to a model that answers: where to start, which shards, train, save what belongs together."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from transformers import AutoTokenizer, PrinterCallback

from qdata import aside
from qdata.errors import QdataError
from qdata.recipe import DataRecipe
from qtrain import model as models
from qtrain import plot, run, trackers
from qtrain.callbacks import Dashboard, Journal
from qtrain.data import Shards, open_shards, packed
from qtrain.recipe import Train, TrainRecipe
from qtrain.samples import Samples
from qtrain.sft import ShardTrainer, sft_arguments
from qtrain.start import Start, decide
from qtrain.watch import Watch

PROVEN_ROWS = 16  # of each split, drawn by seed; all of them take `qdata verify` minutes on a large set


def train(recipe: TrainRecipe, output: Path, console: Console, *, strict: bool = False) -> dict[str, Any]:
    """Train `recipe` into a new folder under `output`/<recipe>/; returns the run's report.

    Raises QdataError for whatever the recipe's author can mend. With `strict`, a stand-in model, sample rows and rows
    that cannot be read or rendered are among that.
    """
    models.quiet()
    began = time.monotonic()
    start = decide(recipe, console, strict=strict)
    shards = _shards(recipe, start.data, console, strict=strict)
    prove(shards, console)
    arguments = sft_arguments(start.train, validation=shards.validation is not None)
    model = models.load(start.folder, recipe.model.attn_implementation)
    tokenizer = _tokenizer(shards, model)
    # From here on nothing is wrong with the recipe, so a run's folder is made.
    folder = run.create(output / recipe.stem)
    arguments.output_dir = str(folder)
    trainer = _trainer(model, start.train, arguments, shards, tokenizer)
    _be_seen(trainer, recipe, shards, console)
    facts = _facts(recipe, start, shards, trainer)
    _announce(facts, shards, trainer, console)

    papers = {"recipe.toml": _recipe(recipe), "manifest.json": _json(facts)}

    def complete(saved: Path) -> None:
        run.complete(saved, shards.tokenizer, papers)
        if start.train.tuning == "lora":
            models.name_base(saved, start.name)

    run.write(folder, papers)
    if start.stand_in is not None:
        shutil.copytree(start.folder, folder / "base")
        run.complete(folder / "base", shards.tokenizer, papers)
    result = _fit(trainer, folder, recipe.stem, complete, console)
    facts["result"] = {**result, "seconds": round(time.monotonic() - began, 1)}
    papers["manifest.json"] = _json(facts)
    trainer.save_model(str(folder / "final"))
    complete(folder / "final")
    run.write(folder, papers)
    prove(shards, console, folder / "final")
    keys = ("recipe", "stand_in", "sample", "parameters", "result")
    places = {"run": str(folder), "model": str(folder / "final"), "shards": str(shards.path)}
    return {**places, **{key: facts[key] for key in keys}}


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


def _shards(recipe: TrainRecipe, data: DataRecipe, console: Console, *, strict: bool) -> Shards:
    """data/shards/<recipe>/, built where it is missing or no longer what the recipe and its inputs make."""
    from qdata import pipeline

    path = Path("data/shards") / recipe.stem
    if pipeline.current(data, path, base=recipe.base, strict=strict):
        console.print(f"shards: {path} is up to date")
    else:
        console.print(f"shards: {path} is {'stale' if path.exists() else 'missing'}, building it")
        pipeline.build(data, path, base=recipe.base, replace=True, strict=strict, console=console)
    return open_shards(path)


def _tokenizer(shards: Shards, model: Any) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(shards.tokenizer)
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise QdataError(f"the shards' tokenizer has {len(tokenizer)} ids, the model only {rows}: not its tokenizer")
    return tokenizer


def _trainer(model: Any, train: Train, arguments: Any, shards: Shards, tokenizer: Any) -> Any:
    trainer = ShardTrainer(
        model=model,
        args=arguments,
        data_collator=packed,
        train_dataset=shards.train,
        eval_dataset=shards.validation,
        processing_class=tokenizer,
        peft_config=models.peft_config(train.lora) if train.tuning == "lora" else None,
    )
    trainer.remove_callback(PrinterCallback)
    # After the trainer has aligned the model with the tokenizer, whose end may be that of a text, not of a turn.
    models.stop_at(model, models.stops(tokenizer, shards.manifest["template"]["stop"]))
    return trainer


def _be_seen(trainer: Any, recipe: TrainRecipe, shards: Shards, console: Console) -> None:
    """What a person sees of the run beside its log: trackers, steps.jsonl with spikes, answers to [eval] prompts."""
    folder = Path(trainer.args.output_dir)
    trackers.settle(trainer, folder, recipe.stem)
    if shards.sources:  # rows of packed conversations; pairs of answers have no loss of their own
        trainer.watch = Watch(folder, shards, console)
        trainer.add_callback(trainer.watch)
    raw = shards.manifest.get("kind") == "text"
    trainer.add_callback(Samples(folder, recipe.eval, trainer.processing_class, console, raw=raw))


def _fit(trainer: Any, folder: Path, title: str, complete: Callable[[Path], None], console: Console) -> dict[str, Any]:
    """Run the training loop; returns steps, seconds of training, and the last losses."""
    trainer.add_callback(Journal(folder, title, complete))
    with Dashboard(console) as dashboard:
        trainer.add_callback(dashboard)
        output = trainer.train()
    result = {"steps": output.global_step, "train_seconds": round(output.metrics["train_runtime"], 1)}
    if trainer.eval_dataset is not None:
        result |= {key: value for key, value in trainer.evaluate().items() if key.startswith("eval_loss")}
    history = trainer.state.log_history
    if losses := plot.curve(history, "loss")[1]:
        result["loss"] = losses[-1]
    plot.save(history, folder / "loss.png", title)
    return result


def _facts(recipe: TrainRecipe, start: Start, shards: Shards, trainer: Any) -> dict[str, Any]:
    trained, total = models.parameters(trainer.model)
    return {
        "recipe": recipe.path.name,
        "stand_in": start.stand_in is not None,
        "stand_in_reason": start.stand_in,
        "sample": bool(shards.manifest.get("sample")),
        "model": recipe.model.name,
        "tuning": start.train.tuning,
        "parameters": {"trained": trained, "all": total},
        "arguments": trainer.args.to_dict(),
        "versions": run.versions(),
        "shards": shards.path.as_posix(),
        "data": dict(shards.manifest),
    }


def _announce(facts: Mapping[str, Any], shards: Shards, trainer: Any, console: Console) -> None:
    trained, total = facts["parameters"]["trained"], facts["parameters"]["all"]
    held_out = f", {len(shards.validation):,} for validation" if shards.validation is not None else ""
    precision = "bf16 autocast" if trainer.args.bf16 else "fp16 autocast" if trainer.args.fp16 else "float32"
    share = f"{trained:,} of {total:,} ({trained / total:.2%})"
    console.print(f"trainable parameters: {share}, {facts['tuning']}, {precision}")
    console.print(f"rows: {len(shards.train):,} to train on{held_out}; run: {trainer.args.output_dir}")
    if count := aside.in_manifest(shards.manifest):
        console.print(f"[yellow]rows set aside, with their reason in {shards.path}/ledger.parquet: {count:,}[/]")
    if facts["sample"]:
        console.print(
            Panel("The rows are a shipped sample, not the data set.", title="SAMPLE", border_style="bold yellow")
        )


def _recipe(recipe: TrainRecipe) -> str:
    origin = f"# {recipe.path} as it was trained, overrides included; relative paths start at {recipe.base}/"
    return f"{origin}\n\n{run.as_toml(recipe.table)}"


def _json(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts, ensure_ascii=False, indent=2, default=str) + "\n"
