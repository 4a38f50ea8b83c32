"""The whole recipe: `[data]` for qdata, and the tables that say what is trained, and how.

`[train]` speaks TRL's own vocabulary: every key that is not ours is a field of the installed `trl.SFTConfig`, checked
by name and type. What would silently break the road from shards to gradient is refused with the sentence that says
where the same thing is said here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_type_hints

from qdata.errors import did_you_mean
from qdata.recipe import DataRecipe, option, read_toml, refuse, structure

_PACKED = "shards are packed once, by [data] pack"
_READY = "rows reach the trainer as finished shards"
_TEMPLATE = "the tokenizer and its template come with the shards: [data] template, default_system, tokenizer"
_BATCH = "our collator flattens a batch into one row without padding"
_RUN = "a run has its own dated folder; choose its parent with --output"

REFUSED: Mapping[str, str] = {
    **dict.fromkeys(("packing", "packing_strategy", "eval_packing"), _PACKED),
    **dict.fromkeys(("max_length", "truncation_mode"), "answers are never cut; [data] max_length drops longer rows"),
    **dict.fromkeys(("dataset_kwargs", "dataset_text_field", "dataset_num_proc", "shuffle_dataset"), _READY),
    **dict.fromkeys(("chat_template_path", "eos_token", "pad_token"), _TEMPLATE),
    **dict.fromkeys(("padding_free", "pad_to_multiple_of", "group_by_length", "remove_unused_columns"), _BATCH),
    **dict.fromkeys(("completion_only_loss", "assistant_only_loss"), "what is trained stands in [data] loss"),
    **dict.fromkeys(("label_names", "prediction_loss_only", "disable_tqdm", "save_only_model"), "not ours to change"),
    **dict.fromkeys(("do_train", "do_eval", "do_predict"), "a recipe trains; it evaluates where [data] has validation"),
    **dict.fromkeys(("output_dir", "run_name", "logging_dir"), _RUN),
    "model_init_kwargs": "the model is described in [model]",
    "resume_from_checkpoint": "not on this road yet",
    "warmup_ratio": "this TRL has one key for both: warmup_steps, where a value below 1 is a ratio of all steps",
}
"""Keys of `[train]` that are known but not taken, and why."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """`[model]`: which weights training starts from."""

    name: str = field(metadata={"help": "folder, or id on the Hugging Face hub"})
    attn_implementation: Literal["eager", "sdpa", "flex_attention", "flash_attention_2"] = option(
        "sdpa", "attention backend, in transformers' words"
    )


@dataclass(frozen=True, kw_only=True)
class Lora:
    """`[train.lora]`: peft's `LoraConfig`, in its own words."""

    r: int = option(8, "rank")
    lora_alpha: int = option(16, "the update is scaled by lora_alpha / r")
    lora_dropout: float = option(0.0, "dropout in front of the adapter")
    target_modules: str | tuple[str, ...] = option("all-linear", '"all-linear", or the names of the adapted layers')


@dataclass(frozen=True, kw_only=True)
class Train:
    """`[train]`: how weights are tuned (ours), and TRL's training arguments (theirs)."""

    tuning: Literal["full", "lora"] = option("full", "train every weight, or low-rank adapters")
    lora: Lora = field(default_factory=Lora, metadata={"help": "the adapters, where tuning is lora"})
    arguments: Mapping[str, Any] = field(default_factory=dict, metadata={"help": "fields of trl.SFTConfig, as given"})


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
    train: Mapping[str, Any] = option({}, "replaces keys of [train]; no other table may")


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
    model = structure(Model, table.get("model", {}), "model", mistakes)
    given = table.get("train", {})
    train = _train(given, "train", mistakes)
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
    ours = {key: table[key] for key in ("tuning", "lora") if key in table}
    train = structure(Train, ours, address, mistakes)
    theirs = {key: value for key, value in table.items() if key not in ours and key not in REFUSED}
    structure(_arguments(), theirs, address, mistakes)
    if train is None or len(mistakes) > before:
        return None
    return dataclasses.replace(train, arguments=theirs)


@cache
def _arguments() -> type[Any]:
    """TRL's fields as a dataclass of their names and types, so that they are checked like our own tables."""
    from trl import SFTConfig

    hints = get_type_hints(SFTConfig)
    known = [f.name for f in dataclasses.fields(SFTConfig) if f.init and f.name not in REFUSED]
    return dataclasses.make_dataclass("Arguments", [(name, hints[name], field(default=None)) for name in known])
