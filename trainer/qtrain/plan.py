"""What a recipe would cost, told before it is paid: parameters, memory, steps, tokens, time, and what is odd."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from qdata.errors import QdataError
from qtrain import arguments as args
from qtrain import memory, plan_rows, plan_shape
from qtrain import model as models
from qtrain import probe as probing
from qtrain.data import Shards, fits, open_shards
from qtrain.plan_model import STAND_IN, Subject, subjects
from qtrain.plan_rows import Rows
from qtrain.recipe import ADAPTERS, Train, TrainRecipe
from qtrain.tuning import backend

GB = 10**9
_ACCUMULATED = 2  # batches per step of the probe: with two, gradients lie beside activations, as with any more
_TIMED = 3
_SHARDED = ("fsdp", "fsdp_config", "deepspeed")


def plan(
    recipe: TrainRecipe, console: Console, *, probe: bool = True, gpus: int = 1, gpu_memory: float | None = None
) -> dict[str, Any]:
    """The plan of `recipe`: plain data, as `--json` prints it. Bytes are bytes, times are seconds.

    `gpus` is how many train side by side, each with the whole model; `gpu_memory` what one of them has, in GB, for a
    recipe that is planned elsewhere. Shards are built where missing or stale, as training would build them; nothing
    else is kept. Raises QdataError for whatever the recipe's author can mend.
    """
    models.quiet()
    probing.libraries()
    found, odd = subjects(recipe, console)
    report: dict[str, Any] = {"recipe": recipe.path.name, "stage": recipe.train.stage, "models": [], "odd": odd}
    sharded = [key for key in _SHARDED if recipe.train.arguments.get(key)]
    if sharded:
        odd.append(f"[train] {', '.join(sharded)}: sharding over GPUs is not modelled, each is planned with all of it.")
    for subject in found:
        with contextlib.ExitStack() as stack:
            try:
                shards = _shards(subject, recipe, console, stack)
                devices = 1 if subject.name == STAND_IN else gpus
                train, rows = _as_planned(subject.train, devices), plan_rows.count(shards.train)
                told = _told(subject, recipe, train, shards, rows, devices, gpu_memory)
            except QdataError as error:
                if len(found) == 1:
                    raise
                odd.append(f"{subject.name} is not planned: {error}")
                continue
            report["models"].append(told)
            report["sample"] = bool(shards.manifest.get("sample"))
            if subject.start is not None and probe:
                _probe(report, told, subject, recipe, train, shards, rows)
    if report.get("sample"):
        odd.append("The rows are the shipped sample, not the data set: steps, tokens and time are those of the sample.")
    if not probe:
        report["no_probe"] = "not asked for"
    elif "probe" not in report and "no_probe" not in report:
        report["no_probe"] = found[-1].elsewhere if found else "there is no model to train"
    return report


def _as_planned(train: Train, gpus: int) -> Train:
    """`train` for so many devices, without the keys of sharding: they want the GPUs that this machine may not have."""
    given = {key: value for key, value in train.arguments.items() if key not in _SHARDED}
    whole = train.global_batch_size
    if whole is not None and gpus > 1:
        given |= args.batch(whole, given, gpus)
        whole = None
    return dataclasses.replace(train, arguments=given, global_batch_size=whole)


def _shards(subject: Subject, recipe: TrainRecipe, console: Console, stack: contextlib.ExitStack) -> Shards:
    """The shards that the subject would be trained on: of this machine's run in their place, others in passing."""
    from qdata import pipeline

    if subject.start is None:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / recipe.stem
        pipeline.build(subject.data, path, base=recipe.base, console=console)
    else:
        path = Path("data/shards") / recipe.stem
        if not pipeline.current(subject.data, path, base=recipe.base):
            console.print(f"shards: {path} is {'stale' if path.exists() else 'missing'}, building it")
            pipeline.build(subject.data, path, base=recipe.base, replace=True, console=console)
    shards = open_shards(path)
    fits(shards, recipe.train.stage)
    return shards


def _told(
    subject: Subject, recipe: TrainRecipe, train: Train, shards: Shards, rows: Rows, gpus: int, gpu_memory: float | None
) -> dict[str, Any]:
    """What is to be known of one model of the recipe."""
    import torch

    gpu = torch.cuda.is_available() or (subject.elsewhere is not None and subject.name != STAND_IN)
    said: list[str] = []
    held_out = None if shards.validation is None else plan_rows.count(shards.validation)
    arguments = args.make(train, rows=len(rows.tokens), validation=held_out is not None, say=said.append)
    devices = max(gpus, arguments.world_size)
    half = bool(gpu and (train.arguments.get("fp16") or train.arguments.get("bf16", True)))
    attention = recipe.model.attn_implementation if gpu else backend(recipe.model.attn_implementation)
    model = plan_shape.on_meta(subject.config, train, attention, _dtype(subject, recipe, half))
    shape = plan_shape.shape(model, train.tuning == "qlora")
    work = memory.Work(
        batch=rows.largest(arguments.per_device_train_batch_size),
        evaluated=None if held_out is None else held_out.largest(arguments.per_device_eval_batch_size),
        accumulated=arguments.gradient_accumulation_steps,
        checkpointing=bool(arguments.activation_checkpointing),
        autocast=half,
        attention=attention,
        optimizer=str(getattr(arguments.optim, "value", arguments.optim)),
        gpu=gpu,
        devices=devices,
        reference=_reference(train, arguments),
    )
    moment, parts = memory.peak(shape, work, 0 if gpu else probing.libraries())
    steps = plan_rows.schedule(arguments, len(rows.tokens), devices)
    sample = bool(shards.manifest.get("sample"))
    odd: list[str] = []
    if not sample or subject.name == STAND_IN:  # the schedule is not meant for a sample's few rows
        odd += [Text.from_markup(text).plain for text in said] + plan_rows.odd(steps, arguments)
    if not shape.dense:
        odd.append(f"{subject.name} is no plain decoder; its activations are estimated as if it were.")
    if rows.trained * 20 < rows.tokens.sum():
        odd.append(f"Only {rows.trained / rows.tokens.sum():.1%} of the tokens are trained.")
    limit = recipe.data.pack or recipe.data.max_length
    full = rows.of(limit or 0).largest(arguments.per_device_train_batch_size)
    if sample and subject.name != STAND_IN and full.tokens > work.batch.tokens:
        most = memory.peak(shape, dataclasses.replace(work, batch=full), parts.process)[1].total
        odd.append(f"The sample is small: a whole batch of rows of {limit:,} tokens, which may come, takes {gb(most)}.")
    there = _room(gpu, subject, gpu_memory)
    if there is not None and parts.total > there:
        odd.append(f"It wants {gb(parts.total)} for its largest batch, and there are {gb(there)}.")
    return {
        "model": subject.name,
        "elsewhere": subject.elsewhere,
        "device": "gpu" if gpu else "cpu",
        "tuning": train.tuning,
        "parameters": {"all": shape.parameters, "trained": shape.trained, "by_module": shape.modules},
        "rows": {
            "train": len(rows.tokens), "validation": 0 if held_out is None else len(held_out.tokens),
            "tokens": int(rows.tokens.sum()), "trained": rows.trained, "longest": int(rows.lengths.max()),
        },
        "memory": {"total": parts.total, "moment": moment, **vars(parts)},
        "work": dataclasses.asdict(work),
        "steps": steps,
        "tokens_per_step": round(rows.tokens.sum() / steps["per_epoch"]),
        "trained_per_step": round(rows.trained / steps["per_epoch"]),
        "tokens": round(rows.tokens.sum() / steps["per_epoch"] * steps["total"]),
        "odd": odd,
    }  # fmt: skip


def _dtype(subject: Subject, recipe: TrainRecipe, half: bool) -> Any:
    """As `tuning.load` has it."""
    import torch

    if recipe.model.dtype is not None and subject.name != STAND_IN:
        return getattr(torch, recipe.model.dtype)
    return torch.bfloat16 if half and subject.train.tuning in ADAPTERS else torch.float32


def _reference(train: Train, arguments: Any) -> str:
    """As `PreferenceTrainer` has it."""
    if train.stage != "dpo":
        return "none"
    if arguments.precompute_ref_log_probs:
        return "beforehand"
    return "base" if train.tuning in ADAPTERS else "copy"


def _room(gpu: bool, subject: Subject, gpu_memory: float | None) -> int | None:
    """Bytes there are for it: of the GPU that is meant, else of this machine; None where nobody knows."""
    import psutil  # comes with accelerate
    import torch

    if gpu and gpu_memory is not None:
        return int(gpu_memory * GB)
    if gpu:
        return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else None
    return None if subject.elsewhere else int(psutil.virtual_memory().available)


def _probe(
    report: dict[str, Any], told: dict[str, Any], subject: Subject, recipe: TrainRecipe, train: Train, shards: Shards,
    rows: Rows,
) -> None:  # fmt: skip
    """Enter `probe` into the report, or `no_probe`, why there is none."""
    wants, there = told["memory"]["total"], _room(told["device"] == "gpu", subject, None)
    if there is not None and wants > there:
        report["no_probe"] = f"it wants {gb(wants)}, and {gb(there)} are free"
        return
    assert subject.start is not None
    arguments = args.make(train, rows=len(rows.tokens), validation=shards.validation is not None)
    accumulated = min(arguments.gradient_accumulation_steps, _ACCUMULATED)
    size = arguments.per_device_train_batch_size
    steps = plan_rows.batches(rows, size, accumulated, arguments.seed, _TIMED)
    start = dataclasses.replace(subject.start, train=train)
    job = probing.Job(start, recipe.model, shards.path, steps, range(len(steps) - _TIMED, len(steps)))
    try:
        found = probing.run(job)
    except QdataError as error:
        report["no_probe"] = str(error)
        return
    tokens = sum(int(rows.tokens[row]) for index in job.timed for batch in job.steps[index] for row in batch)
    per_step = found.seconds / tokens * told["tokens_per_step"] / told["work"]["devices"]
    report["probe"] = {
        "device": found.device,
        "peak": found.peak,
        "estimate": wants,
        "difference": round(wants / found.peak - 1, 3),
        "tokens_per_second": round(tokens / found.seconds),
        "seconds_per_step": round(per_step, 2),
        "seconds": round(per_step * told["steps"]["total"]),
    }


def gb(count: int) -> str:
    """Bytes for a person.

    >>> gb(1_550_000_000), gb(35_000_000)
    ('1.6 GB', '35 MB')
    """
    return f"{count / GB:.1f} GB" if count >= GB else f"{count / 10**6:.0f} MB"
