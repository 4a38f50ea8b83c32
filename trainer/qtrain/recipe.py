"""The whole recipe: `[data]` for qdata, and the tables that say what is trained, and how.

`[train]` speaks TRL's own vocabulary: every key that is not ours is a field of the installed `trl.SFTConfig`, checked
by name and type. What would silently break the road from shards to gradient is refused with the sentence that says
where the same thing is said here.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from qdata.errors import did_you_mean
from qdata.recipe import DataRecipe, option, read_toml, refuse, structure
from qtrain import sharding

_PACKED = "shards are packed once, by [data] pack"
_READY = "rows reach the trainer as finished shards"
_TEMPLATE = "the tokenizer and its template come with the shards: [data] template, default_system, tokenizer"
_BATCH = "our collator flattens a batch into one row without padding"
_RUN = "a run has its own dated folder; choose its parent with --output"

Stage = Literal["sft", "pt", "dpo"]
Tuning = Literal["full", "lora", "qlora", "freeze"]
Dtype = Literal["float32", "bfloat16", "float16"]
Attention = Literal["eager", "sdpa", "flex_attention", "flash_attention_2"]
"""Backends that keep packed rows apart: tests/train/test_packed.py."""
ADAPTERS = ("lora", "qlora")
"""The ways of tuning that train adapters on a frozen base."""

REFUSED: Mapping[str, str] = {
    **dict.fromkeys(("packing", "packing_strategy", "eval_packing"), _PACKED),
    **dict.fromkeys(("max_length", "truncation_mode"), "answers are never cut; [data] max_length drops longer rows"),
    **dict.fromkeys(("dataset_kwargs", "dataset_text_field", "dataset_num_proc", "shuffle_dataset"), _READY),
    **dict.fromkeys(("chat_template_path", "eos_token", "pad_token"), _TEMPLATE),
    **dict.fromkeys(("padding_free", "pad_to_multiple_of", "group_by_length", "remove_unused_columns"), _BATCH),
    **dict.fromkeys(("completion_only_loss", "assistant_only_loss"), "what is trained stands in [data] loss"),
    **dict.fromkeys(("label_names", "prediction_loss_only", "disable_tqdm"), "not ours to change"),
    **dict.fromkeys(("do_train", "do_eval", "do_predict"), "a recipe trains; it evaluates where [data] has validation"),
    **dict.fromkeys(("output_dir", "run_name", "logging_dir"), _RUN),
    "model_init_kwargs": "the model is described in [model]",
    "trust_remote_code": "models are those transformers itself knows",
    "resume_from_checkpoint": "qtrain goes on by itself, or with --resume [RUN]",
    "restore_callback_states_from_checkpoint": "a run that goes on always restores them",
    "ignore_data_skip": "a run that goes on reads every row once per epoch",
    "auto_find_batch_size": "it would change what a step is; choose per_device_train_batch_size",
    "logging_nan_inf_filter": "a loss that is no number stops the run",
    "warmup_ratio": "this TRL has one key for both: warmup_steps, where a value below 1 is a ratio of all steps",
}
"""Keys of `[train]` that are known but not taken, and why."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """`[model]`: which weights training starts from: exactly one of `name`, `config_from` and `from_run`."""

    name: str | None = option(None, "pretrained weights: a folder, or an id on the Hugging Face hub")
    config_from: str | None = option(
        None,
        "random weights by [train] seed in the shape of this folder's or hub id's config.json, for full or freeze",
    )
    config: dict[str, Any] = option({}, "with config_from: keys of its config.json to change, `{ hidden_size = 1024 }`")
    from_run: str | None = option(
        None, "what a run trained: a run, a checkpoint, a recipe's folder (its newest run) or an export; an adapter is "
        "merged onto its base in memory first, so the next stage trains on top of it"
    )  # fmt: skip
    dtype: Dtype | None = option(
        None, "of the weights; default: float32 for what is trained, the autocast's 16 bits for a frozen base on a GPU"
    )
    attn_implementation: Attention = option(
        "sdpa", "attention backend, in transformers' words; flash_attention_2 becomes sdpa on a machine that lacks it"
    )


@dataclass(frozen=True, kw_only=True)
class Lora:
    """`[train.lora]`: fields of peft's `LoraConfig`, in its own words."""

    r: int = option(8, "rank")
    lora_alpha: int = option(16, "the update is scaled by lora_alpha / r")
    lora_dropout: float = option(0.0, "dropout in front of the adapter")
    target_modules: str | tuple[str, ...] = option(
        "all-linear", '"all-linear", a list of the adapted layers\' names, or another text: a regular expression, as '
        "peft reads it, over a module's whole dotted name"
    )  # fmt: skip
    modules_to_save: tuple[str, ...] = option((), "modules trained whole and saved with the adapter")
    use_rslora: bool = option(False, "scale by lora_alpha / √r instead")
    use_dora: bool = option(False, "DoRA: magnitude and direction apart")
    init_lora_weights: bool | str = option(
        True, 'true, "gaussian", "orthogonal", "olora", "pissa" or "pissa_niter_N"; what the last three take out of '
        "the base is put back when an adapter is saved: it loads on the original base, with twice the rank"
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Freeze:
    """`[train.freeze]`: which weights are trained, with tuning = "freeze". Exactly one of the two.

    Patterns are regular expressions over whole parts of a module's dotted name: "layers.2" is layer 2 and not 20,
    "layers.2[0-3]" is layers 20 to 23, "q_proj" every one of them.
    """

    train: tuple[str, ...] = option((), "train the modules that match, freeze all others")
    freeze: tuple[str, ...] = option((), "freeze the modules that match, train all others")


@dataclass(frozen=True, kw_only=True)
class Train:
    """`[train]`: how weights are tuned (ours), and TRL's training arguments (theirs)."""

    stage: Stage = option("sft", "what the rows are: conversations, plain text (pt) or preference pairs (dpo)")
    tuning: Tuning = option(
        "full", "train every weight, low-rank adapters, adapters on a base of 4 bits (qlora), or some modules (freeze)"
    )
    global_batch_size: int | None = option(
        None, "rows per optimiser step over all devices; gradient_accumulation_steps follows from it, and "
        "per_device_train_batch_size too where it is not given (at most 8)"
    )  # fmt: skip
    sharding: str | None = option(
        None, "how several processes share the model: a file of recipes/sharding/ (fsdp, fsdp-offload, zero2, zero3), "
        "in place of TRL's keys fsdp, fsdp_config and deepspeed; one process keeps the whole model, and says so"
    )  # fmt: skip
    lora: Lora = field(default_factory=Lora, metadata={"help": "the adapters, where tuning is lora or qlora"})
    freeze: Freeze = field(default_factory=Freeze, metadata={"help": "the modules, where tuning is freeze"})
    early_stopping_patience: int | None = option(
        None, "stop after so many evaluations in a row without a lower eval_loss; final/ is then the best checkpoint"
    )
    arguments: Mapping[str, Any] = field(
        default_factory=dict, metadata={"help": "fields of trl.SFTConfig (stage dpo: trl.DPOConfig), as given"}
    )


@dataclass(frozen=True, kw_only=True)
class Eval:
    """`[eval]`: what the model is asked at every evaluation and after the last step; answers are greedy.

    They are shown, and kept with how much in them is said again in the run's samples.jsonl. Training is not disturbed.
    """

    prompts: tuple[str, ...] = option(
        (), "questions, each in a conversation of its own; of stage pt texts to go on with"
    )
    system: str | None = option(None, "a system message to send; default: none, the template has its own")
    max_new_tokens: int = option(64, "length of an answer, in tokens")


@dataclass(frozen=True, kw_only=True)
class StandIn:
    """`[stand_in]`: a small Qwen2 from random weights, for a machine that cannot reach the model of the recipe."""

    hidden_size: int = option(192, "width")
    num_hidden_layers: int = option(4, "layers")
    num_attention_heads: int = option(4, "attention heads; divides hidden_size")
    num_key_value_heads: int = option(2, "key and value heads; divides num_attention_heads")
    intermediate_size: int = option(512, "width of the feed-forward layers")
    vocab_size: int = option(4000, "entries of its byte-level BPE, control tokens included; at most 8000")
    seed: int = option(0, "seed of its random weights")
    train: Mapping[str, Any] = option(
        {}, "replaces keys of [train], also on top of a run (from_run) that trained a stand-in; no other table may"
    )


@dataclass(frozen=True, kw_only=True)
class TrainRecipe:
    """A recipe file, checked. `path` is where it was read, `table` what stood in it, overrides included."""

    data: DataRecipe
    model: Model
    train: Train
    stand_in: StandIn | None
    stand_in_train: Train
    """`[train]` as `[stand_in.train]` leaves it."""
    path: Path
    table: Mapping[str, Any]
    eval: Eval = field(default_factory=Eval)

    @property
    def stem(self) -> str:
        """The recipe's short name: runs/<stem>/, data/shards/<stem>/."""
        return self.path.stem

    @property
    def base(self) -> Path:
        """The folder that relative paths of the recipe start from."""
        return self.path.parent


def load(path: Path, overrides: Sequence[str] = ()) -> TrainRecipe:
    """The recipe at `path` with `table.key=value` overrides applied.

    Raises QdataError that names every mistake of every table at once.
    """
    table = read_toml(path, overrides)
    mistakes: list[str] = []
    tables = ("data", "model", "train", "eval", "stand_in")
    mistakes += [f"{key}: no such table.{did_you_mean(key, tables)}" for key in table if key not in tables]
    data = structure(DataRecipe, table.get("data", {}), "data", mistakes)
    model = _model(table.get("model", {}), mistakes)
    given = table.get("train", {})
    train = _train(given, "train", mistakes)
    if model is not None and train is not None:
        mistakes += _clashes(model, train)
    asked = structure(Eval, table.get("eval", {}), "eval", mistakes)
    if asked is not None and asked.max_new_tokens < 1:
        mistakes.append(f"eval.max_new_tokens: wanted 1 or more, got {asked.max_new_tokens}")
    stand_in = structure(StandIn, table["stand_in"], "stand_in", mistakes) if "stand_in" in table else None
    if stand_in is not None:
        mistakes += [f"stand_in.{told}" for told in _misfits(stand_in)]
    # Checked on its own first: a mistake of [train] is told once, not again through the table that inherits it.
    over = dict(stand_in.train) if stand_in is not None else {}
    _train(over, "stand_in.train", mistakes)
    refuse(path, mistakes)
    merged = _train({**given, **over}, "stand_in.train", mistakes)
    refuse(path, mistakes)
    assert data is not None and model is not None and train is not None and merged is not None
    assert asked is not None
    return TrainRecipe(
        data=data, model=model, train=train, stand_in=stand_in, stand_in_train=merged, path=path, table=table,
        eval=asked,
    )  # fmt: skip


def _misfits(stand_in: StandIn) -> list[str]:
    told = []
    if stand_in.hidden_size % (2 * stand_in.num_attention_heads):
        told.append("hidden_size: must be a multiple of 2 × num_attention_heads, rotary positions turn pairs")
    if stand_in.num_attention_heads % stand_in.num_key_value_heads:
        told.append("num_key_value_heads: must divide num_attention_heads")
    if not 300 <= stand_in.vocab_size <= 8000:
        told.append("vocab_size: wanted 300 to 8000; below it bytes are missing, above it a small model is all head")
    return told


def _train(table: Any, address: str, mistakes: list[str]) -> Train | None:
    if not isinstance(table, dict):
        mistakes.append(f"{address}: wanted a table, got {table!r}")
        return None
    before = len(mistakes)
    mistakes += [f"{address}.{key}: not taken here: {REFUSED[key]}" for key in table if key in REFUSED]
    ours = {f.name: table[f.name] for f in dataclasses.fields(Train) if f.name != "arguments" and f.name in table}
    train = structure(Train, ours, address, mistakes)
    theirs = {key: value for key, value in table.items() if key not in ours and key not in REFUSED}
    structure(_arguments(table.get("stage") == "dpo"), theirs, address, mistakes)
    if train is None or len(mistakes) > before:
        return None
    train = dataclasses.replace(train, arguments=theirs)
    mistakes += [f"{address}.{told}" for told in (*_senseless(table), *_untrainable(train))]
    return train


_ABOVE_0 = (
    "learning_rate", "num_train_epochs", "global_batch_size", "per_device_train_batch_size",
    "per_device_eval_batch_size", "gradient_accumulation_steps", "logging_steps", "eval_steps", "save_steps",
)  # fmt: skip
_NOT_BELOW_0 = ("warmup_steps", "weight_decay", "max_grad_norm")


def _senseless(table: Mapping[str, Any]) -> list[str]:
    """Values that TRL takes and nobody means; found here, they are told before rows are rendered, and without a GPU."""
    told = [f"{key}: wanted a number above 0, got {table[key]}" for key in _ABOVE_0 if table.get(key, 1) <= 0]
    told += [f"{key}: wanted 0 or more, got {table[key]}" for key in _NOT_BELOW_0 if table.get(key, 0) < 0]
    steps = table.get("max_steps", -1)
    if steps == 0 or steps < -1:
        told.append(f"max_steps: wanted the number of optimiser steps, or -1 for num_train_epochs, got {steps}")
    if table.get("fp16") and table.get("bf16"):
        told.append("fp16: bf16 = true is given as well: give one of them")
    return told


def _untrainable(train: Train) -> list[str]:
    told = []
    start, freeze = train.lora.init_lora_weights, train.freeze
    if not re.fullmatch(r"True|gaussian|orthogonal|olora|pissa(_niter_\d+)?", str(start)):
        known = ("gaussian", "orthogonal", "olora", "pissa", "pissa_niter_16")
        told.append(f"lora.init_lora_weights: {start!r} is not taken.{did_you_mean(str(start), known)}")
    elif changes_base(train.lora) and (train.tuning == "qlora" or train.lora.use_dora):
        other = "qlora, whose base of 4 bits has no parts to take out" if train.tuning == "qlora" else "use_dora"
        told.append(f"lora.init_lora_weights: {start!r} does not go with {other}")
    if train.tuning == "freeze" and bool(freeze.train) == bool(freeze.freeze):
        told.append("freeze: tuning = freeze wants exactly one of train = [ … ] and freeze = [ … ]")
    own = [key for key in sharding.KEYS if train.arguments.get(key)]
    if train.sharding is not None and (wrong := sharding.unknown(train.sharding)):
        told.append(f"sharding: {wrong}")
    elif train.sharding is not None and own:
        told.append(f"sharding: it is a file of such keys, and {own[0]} is given as well: give one of them")
    elif "fsdp" in own and "deepspeed" in own:
        told.append("fsdp: deepspeed is given as well: give one of them")
    return told


def changes_base(lora: Lora) -> bool:
    """Whether the adapters start with a part of the base, which is taken out of it (PiSSA, OLoRA)."""
    return str(lora.init_lora_weights).startswith(("pissa", "olora"))


def _model(table: Any, mistakes: list[str]) -> Model | None:
    plain = dict(table) if isinstance(table, dict) else {}
    attention = plain.get("attn_implementation", "sdpa")
    if isinstance(attention, str) and attention not in get_args(Attention):
        del plain["attn_implementation"]
        mistakes.append(f"model.attn_implementation: {attention!r} is not known to keep the neighbours of a packed row "
                        f"apart by their positions, as {', '.join(get_args(Attention))} are")  # fmt: skip
    model = structure(Model, plain if isinstance(table, dict) else table, "model", mistakes)
    origins = ("name", "config_from", "from_run")
    given = [key for key in origins if key in plain]
    if len(given) != 1:
        mistakes.append(f"model: wanted exactly one of {', '.join(origins)}, got {' and '.join(given) or 'none'}")
    if model is not None and model.config and model.config_from is None:
        mistakes.append("model.config: changes the config of random weights; it goes with config_from only")
    return model


_SMALL = 5e-5
_MASTERS = "float32 weights are trained under bf16 autocast"
_MOVED = "of a bfloat16 weight's AdamW steps 88 % change it at a rate of 1e-4, 16 % at 1e-5 and 1 % at 5e-7 (measured)"


def _clashes(model: Model, train: Train) -> list[str]:
    """What [model] and [train] say against each other or themselves; [stand_in.train] may, it inherits [train]."""
    if train.tuning != "freeze" and (train.freeze.train or train.freeze.freeze):
        return [f'train.freeze: does nothing with tuning = {train.tuning}; set tuning = "freeze"']
    if train.tuning in ADAPTERS:
        if model.config_from is not None:
            return [f"train.tuning: {train.tuning} adapts a pretrained model; random weights want full or freeze"]
        return []
    rate = train.arguments.get("learning_rate", _arguments(train.stage == "dpo").learning_rate)
    if model.dtype == "float16":
        return [f"model.dtype: float16 weights cannot be trained ({train.tuning}); leave it out, fp16 = true is enough"]
    if model.dtype == "bfloat16" and rate < _SMALL:
        wanted = f"wants a learning rate of {_SMALL:g} or more, and it is {rate:g}"
        return [f"model.dtype: {train.tuning} tuning of pure bfloat16 {wanted}: {_MOVED}. Leave dtype out: {_MASTERS}"]
    return []


@cache
def _arguments(dpo: bool = False) -> type[Any]:
    """TRL's fields as a dataclass of their names, types and defaults, so that they are checked like our own tables."""
    from trl import DPOConfig, SFTConfig

    config = DPOConfig if dpo else SFTConfig
    hints = get_type_hints(config) | {"fsdp": bool | None}  # annotated as text for its command line's sake
    known = [f for f in dataclasses.fields(config) if f.init and f.name not in REFUSED]
    fields = [(f.name, hints[f.name], field(default=None if f.default is MISSING else f.default)) for f in known]
    return dataclasses.make_dataclass("Arguments", fields)
