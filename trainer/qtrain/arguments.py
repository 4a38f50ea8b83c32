"""TRL's arguments of a run: the recipe's, what this machine can do, and what the road itself fixes."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from typing import Any

from qdata.errors import QdataError
from qtrain import processes, sharding, trackers
from qtrain.exact import keep_best, refuse_order
from qtrain.recipe import Train
from qtrain.tuning import needs_bitsandbytes

Say = Callable[[str], None]
_LARGEST = 8  # rows per device where only global_batch_size is given: TRL's own default


def make(train: Train, *, rows: int, validation: bool, say: Say = lambda text: None) -> Any:
    """`trl.SFTConfig`, or `trl.DPOConfig` for stage dpo.

    `rows` is how many there are to train on, `validation` whether there are some to evaluate on; `say` gets what a
    person should know. Raises QdataError where the arguments do not fit together or the machine.
    """
    from trl import DPOConfig, SFTConfig

    refuse(train, validation)
    given = copy.deepcopy(dict(train.arguments))  # transformers writes into its tables
    given |= precision(given, say)
    if train.global_batch_size is not None:
        given |= batch(train.global_batch_size, given, processes.count())
    processes.refuse_too_many(processes.here(), False)  # torchrun and accelerate launch do not look
    if not processes.alone() and not _gpu():
        given["use_cpu"] = True  # else accelerate trains each of them for itself
    sharding.share_out(train.sharding, given, say)
    given |= keep_best(given, train.early_stopping_patience)
    refuse_order(str(given.get("train_sampling_strategy", "random")))
    optim = str(given.get("optim", ""))
    if re.search("8bit|bnb|paged|lion|ademamix", optim) and "torch" not in optim:
        needs_bitsandbytes(f"[train] optim = {optim}")
    # transformers renamed gradient_checkpointing and warns of the old name, which is still TRL's; both are taken.
    for part in ("", "_kwargs"):
        if f"gradient_checkpointing{part}" in given:
            given.setdefault(f"activation_checkpointing{part}", given.pop(f"gradient_checkpointing{part}"))
    defaults = {"dataloader_pin_memory": _gpu(), "activation_checkpointing": True}
    fixed: dict[str, Any] = {
        "report_to": trackers.chosen(given) or "none",
        "max_length": None,
        "remove_unused_columns": False,
        "include_num_input_tokens_seen": "all",
        "disable_tqdm": True,
        "logging_nan_inf_filter": False,  # it hides a loss that is no number; we stop at it
    }
    if train.stage != "dpo":
        fixed["dataset_kwargs"] = {"skip_prepare_dataset": True}
    try:
        made = (DPOConfig if train.stage == "dpo" else SFTConfig)(**{**defaults, **given, **fixed})
    except (ValueError, TypeError, ImportError, OSError) as error:
        raise QdataError(f"[train]: TRL does not take these arguments together: {error}") from None
    sharding.settle(made)
    made._n_gpu = min(made.n_gpu, 1)  # a process has one GPU; --gpus N starts N of them
    step = made.per_device_train_batch_size * made.gradient_accumulation_steps * made.world_size
    if told := doubt(step, rows):
        say(f"[yellow]{told}[/]")
    return made


def refuse(train: Train, validation: bool) -> None:
    """Raises QdataError for what does not fit together, as far as that is plain before rows are made shards."""
    if str(train.arguments.get("eval_strategy", "no")) != "no" and not validation:
        raise QdataError("[train] eval_strategy wants validation rows: give [data] validation or val, or set it to no")
    if train.global_batch_size is not None:
        batch(train.global_batch_size, train.arguments, processes.count())


def _gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def precision(given: Mapping[str, Any], say: Say) -> dict[str, bool]:
    """`bf16` and `fp16` as this machine can do them.

    Autocast is the GPU's: on a CPU bfloat16 saves nothing, and float32 is what the tests compare with. A card that only
    emulates bfloat16 (before Ampere) computes in float16, and says so.
    """
    import torch

    bf16 = bool(given.get("bf16", not given.get("fp16", False))) and _gpu()
    fp16 = bool(given.get("fp16", False)) and _gpu()
    if bf16 and not torch.cuda.is_bf16_supported(including_emulation=False):
        say("[bold yellow]bf16 = true: this card has no bfloat16; training under fp16 autocast with loss scaling[/]")
        bf16, fp16 = False, True
    return {"bf16": bf16, "fp16": fp16}


def batch(rows: int, given: Mapping[str, Any], devices: int) -> dict[str, int]:
    """TRL's keys for `rows` per optimiser step on `devices`.

    >>> batch(32, {"per_device_train_batch_size": 2}, devices=4)
    {'per_device_train_batch_size': 2, 'gradient_accumulation_steps': 4}
    >>> batch(12, {}, devices=1)
    {'per_device_train_batch_size': 6, 'gradient_accumulation_steps': 2}
    """
    steps, share = given.get("gradient_accumulation_steps"), rows // devices
    size = given.get("per_device_train_batch_size")
    if size is None:
        divisors = (n for n in range(_LARGEST, 0, -1) if share % n == 0)
        size = share // steps if steps else next(divisors)
    if rows < 1 or size < 1 or rows % (size * devices) or (steps or rows // (size * devices)) * size * devices != rows:
        keys = [key for key in ("per_device_train_batch_size", "gradient_accumulation_steps") if key in given]
        factors = [f"{key} = {given[key]}" for key in keys] + [f"{devices} devices"] * (devices > 1)
        wanted = "that" if len(factors) == 1 else "their product"
        wanted = wanted if len(keys) == 2 else f"a multiple of {wanted}"
        raise QdataError(
            f"[train] global_batch_size = {rows}, with {' and '.join(factors)}: wanted {wanted}; change one of them"
            + (f", or leave {keys[-1]} out" if keys else "")
        )
    return {"per_device_train_batch_size": size, "gradient_accumulation_steps": rows // (size * devices)}


def doubt(step: int, rows: int) -> str | None:
    """What is odd about `step` rows per optimiser step of `rows` in all; None where nothing is.

    Larger than the data: an epoch is one step. Small for the data: under 8 rows with more than 500 steps an epoch. The
    gradient of so few conversations is mostly noise (its deviation falls with the root of their number), so the loss
    swings from step to step; and there are steps to spare.
    """
    if step > rows:
        return f"a step sees {step:,} rows, and there are {rows:,}: a smaller batch makes more steps of an epoch"
    if step < 8 and rows / step > 500:
        return f"a step sees {step} of {rows:,} rows, so its loss will swing; [train] global_batch_size = 32 is calmer"
    return None
