"""The road from a recipe to a model that answers: where to start, which shards, train, save what belongs together."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import AutoTokenizer, EarlyStoppingCallback, PrinterCallback

from qdata.errors import QdataError
from qtrain import arguments as args
from qtrain import facts, faults, plot, processes, run, scratch, trackers, tuning
from qtrain import model as models
from qtrain import resume as resumed
from qtrain.callbacks import Dashboard, Journal
from qtrain.data import Shards, longest, packed, row_ids
from qtrain.dpo import PreferenceTrainer
from qtrain.faults import InterruptedRunError, NotFiniteError, Stop
from qtrain.prepare import prepare, prove
from qtrain.recipe import ADAPTERS, Train, TrainRecipe
from qtrain.resume import Unfinished
from qtrain.samples import Samples
from qtrain.sft import ShardTrainer
from qtrain.start import Start
from qtrain.watch import Watch


def train(
    recipe: TrainRecipe,
    output: Path,
    console: Console,
    *,
    strict: bool = False,
    resume: str | None = None,
    fresh: bool = False,
) -> dict[str, Any]:
    """Train `recipe` in a folder under `output`/<recipe>/; returns the run's report.

    A run that broke off goes on by itself, in its own folder, unless `fresh`; `resume` names one ("" is the newest) and
    refuses to begin another. Raises QdataError for whatever the recipe's author can mend, and InterruptedRunError after
    a signal, when a checkpoint is saved. With `strict`, a stand-in model, sample rows and rows that cannot be read or
    rendered are refused.
    """
    models.quiet()
    began = time.monotonic()
    if processes.rank() > 0:
        console = Console(quiet=True)
    run.refuse_place(output / recipe.stem)
    with processes.Turn():
        found, start, shards = prepare(recipe, output, console, strict=strict, resume=resume, fresh=fresh)
    held_out = shards.validation is not None
    arguments = args.make(start.train, rows=len(shards.train), validation=held_out, say=console.print)
    with faults.fitting(start.name, start.train.tuning):
        model = tuning.load(start, recipe.model, arguments, console.print)
    tokenizer = tokenizer_of(shards, model, start)
    # From here on nothing is wrong with the recipe, so a run's folder is made.
    found = processes.from_first(found)
    folder = processes.from_first(found.folder if found else _created(output / recipe.stem))
    arguments.output_dir = str(folder)
    with faults.fitting(start.name, start.train.tuning):
        trainer = trainer_of(model, start.train, arguments, shards, tokenizer, console.print)
    told = facts.of(recipe, start, shards, trainer)
    if found is not None and processes.rank() == 0:
        resumed.refuse_other(found, told)
        told["resumed_at"] = [*found.facts.get("resumed_at", ()), found.step]
    facts.announce(told, shards, trainer, console)
    with resumed.locked(folder) if processes.rank() == 0 else nullcontext():
        papers = facts.papers(recipe, told)
        trainer.complete = _completing(trainer, start, shards, papers)
        if processes.rank() == 0:
            _begin(folder, start, shards, papers, found)
        _be_seen(trainer, recipe, shards, console)
        result = _fit(trainer, start, folder, recipe.stem, shards, console, found)
        told["result"] = {**result, "seconds": round(time.monotonic() - began, 1)}
        papers |= facts.papers(recipe, told)  # in place: what is saved from here on gets them
        if processes.rank() == 0:
            run.write(folder, papers)
        with trainer.saving(folder / "final") as staged:
            trainer.save_model(str(staged))
    processes.part()
    if processes.rank() == 0:
        prove(shards, console, folder / "final")
    keys = ("recipe", "stand_in", "sample", "parameters", "result")
    places = {"run": str(folder), "model": str(folder / "final"), "shards": str(shards.path)}
    return {**places, **{key: told[key] for key in keys}}


def _created(parent: Path) -> Path | None:
    return run.create(parent) if processes.rank() == 0 else None


def _begin(folder: Path, start: Start, shards: Shards, papers: Mapping[str, str], found: Unfinished | None) -> None:
    """What lies in a run before its first step, or is put right before its next one."""
    run.write(folder, papers)
    if found is not None:
        resumed.rewind(found)
    elif start.name == "../base":
        shutil.copytree(start.folder, folder / "base")
        run.complete(folder / "base", shards.tokenizer, papers)


def _completing(trainer: Any, start: Start, shards: Shards, papers: Mapping[str, str]) -> Callable[[Path], None]:
    seal = tuning.Sealer(trainer.model, start.train.lora) if start.train.tuning in ADAPTERS else None
    if seal is not None and seal.first:
        trainer.restore = seal.restore

    def complete(saved: Path) -> None:
        run.complete(saved, shards.tokenizer, papers)
        if seal is not None:
            seal(saved)
            models.name_base(saved, start.name)

    return complete


def tokenizer_of(shards: Shards, model: Any, start: Start) -> Any:
    """The shards' tokenizer. Raises QdataError where its ids are not those of the model training starts from."""
    tokenizer = AutoTokenizer.from_pretrained(shards.tokenizer)
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        mend = "not its tokenizer" if start.weights else "give [model] config.vocab_size, or another [data] tokenizer"
        raise QdataError(f"the shards' tokenizer has {len(tokenizer)} ids, the model only {rows}: {mend}")
    if not start.weights:
        scratch.speak(model, tokenizer)
        return tokenizer
    own = start.folder / "tokenizer.json"
    if own.is_file() and own.read_bytes() != (shards.tokenizer / own.name).read_bytes():
        theirs = {i: token for token, i in AutoTokenizer.from_pretrained(start.folder).get_vocab().items()}
        for token, i in tokenizer.get_vocab().items():
            if theirs.get(i, token) != token:
                raise QdataError(
                    f"{shards.path}: made with another tokenizer than the model's: id {i} is {token!r} in the shards "
                    f"and {theirs[i]!r} in {start.folder}. Leave [data] tokenizer out, it is the model's then"
                )
    return tokenizer


def trainer_of(model: Any, train: Train, arguments: Any, shards: Shards, tokenizer: Any, say: args.Say) -> Any:
    """Our trainer of the stage, with adapters, frozen modules and stops as the recipe wants them."""
    peft = tuning.peft_config(train.lora, model) if train.tuning in ADAPTERS else None
    if train.tuning == "freeze":
        tuning.freeze(model, train.freeze, say)
    kind, collator = (PreferenceTrainer, None) if train.stage == "dpo" else (ShardTrainer, packed)
    trainer = kind(
        model=model,
        args=arguments,
        data_collator=collator,
        train_dataset=shards.train,
        eval_dataset=shards.validation,
        processing_class=tokenizer,
        peft_config=peft,
    )
    if peft is not None:
        tuning.masters(trainer.model)
    if train.early_stopping_patience is not None:
        trainer.add_callback(EarlyStoppingCallback(train.early_stopping_patience))
    trainer.remove_callback(PrinterCallback)
    # After the trainer has aligned the model with the tokenizer, whose end may be that of a text, not of a turn.
    models.stop_at(model, models.stops(tokenizer, shards.manifest["template"]["stop"]))
    return trainer


def _be_seen(trainer: Any, recipe: TrainRecipe, shards: Shards, console: Console) -> None:
    """What a person sees of the run beside its log: trackers, steps.jsonl with spikes, answers to [eval] prompts."""
    folder = Path(trainer.args.output_dir)
    trackers.settle(trainer, folder, recipe.stem)
    trainer.watch = Watch(folder, shards, console)
    trainer.add_callback(trainer.watch)
    raw = shards.manifest.get("kind") == "text"
    trainer.add_callback(Samples(folder, recipe.eval, trainer.processing_class, console, raw=raw))


def _fit(
    trainer: Any, start: Start, folder: Path, title: str, shards: Shards, console: Console, found: Unfinished | None
) -> dict[str, Any]:
    """Run the training loop; returns steps, seconds of training, and the last losses."""
    trainer.add_callback(Journal(folder, title))
    if found is not None:
        trainer.args.eval_on_start = False  # that was logged when it started
    with Dashboard(console) as dashboard, Stop(console) as trainer.stop:
        if processes.rank() == 0:
            trainer.add_callback(dashboard)
        try:
            output = trainer.train(str(found.checkpoint) if found else None)
        except InterruptedRunError:
            raise InterruptedRunError(_how_to_go_on(trainer, folder)) from None
        except NotFiniteError as error:
            raise faults.not_finite(error, row_ids(shards, error.indices)) from None
        except torch.OutOfMemoryError:
            raise _no_memory(trainer, shards, start.train.tuning) from None
        except OSError as error:  # log.jsonl and loss.png are written as well
            full = faults.full_disk(error, folder, 0, shutil.disk_usage(folder).free)
            if full is None:
                raise
            raise full from None
    result = {"steps": output.global_step, "train_seconds": round(output.metrics["train_runtime"], 1)}
    if trainer.eval_dataset is not None:
        result |= {key: value for key, value in trainer.evaluate().items() if key.startswith("eval_loss")}
    if trainer.args.load_best_model_at_end and trainer.state.best_global_step:
        result["best_step"] = trainer.state.best_global_step
        console.print(f"final/ is the model of step {result['best_step']}, which had the lowest eval_loss")
    history = trainer.state.log_history
    if losses := plot.curve(history, "loss")[1]:
        result["loss"] = losses[-1]
    if processes.rank() == 0:
        plot.save(history, folder / "loss.png", title)
    return result


def _how_to_go_on(trainer: Any, folder: Path) -> str:
    step = f"stopped at step {trainer.state.global_step} of {trainer.state.max_steps}, {folder}"
    if trainer.args.save_only_model:
        return f"{step}: its checkpoints hold weights only ([train] save_only_model), it cannot go on"
    return f"{step}: the same command goes on from there (--resume {folder.name} insists on it)"


def _no_memory(trainer: Any, shards: Shards, tuning: str) -> QdataError:
    return faults.no_memory(
        faults.Batch(trainer.state.global_step + 1, trainer.tokens, trainer.args.per_device_train_batch_size),
        longest=longest(shards.train),
        tuning=tuning,
        checkpointing=bool(trainer.args.activation_checkpointing),
    )
