"""A model shared out among the processes that train it: the files of recipes/sharding/, FSDP2 and DeepSpeed ZeRO.

A file holds keys of `[train]` in transformers' own words; `[train] sharding` names it. Where there is nobody to share a
model with, or nothing to do it by, they are left out, and that is said.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Mapping
from typing import Any

from qdata.errors import QdataError, did_you_mean
from qdata.paths import shipped
from qdata.recipe import read_toml
from qtrain import processes

FOLDER = "recipes/sharding"
KEYS = ("fsdp", "fsdp_config", "deepspeed")
"""TRL's arguments that share a model out."""
FSDP_KEYS = ("version", "auto_wrap_policy", "transformer_layer_cls_to_wrap", "min_num_params", "reshard_after_forward",
             "cpu_offload", "cpu_ram_efficient_loading", "state_dict_type", "activation_checkpointing")  # fmt: skip
"""What `fsdp_config` may hold, with or without `fsdp_` in front; transformers passes over any other key silently."""
UNVERIFIED = "unverified on GPUs: its steps were compared with those of one process over gloo, on a CPU, only"


def names() -> list[str]:
    """The files that ship with qtrain."""
    return sorted(file.stem for file in shipped(FOLDER).glob("*.toml"))


def unknown(name: str) -> str | None:
    """Why `name` is no file of ours; None where it is."""
    if name in names():
        return None
    return f"{name!r} is not one of {', '.join(names())}.{did_you_mean(name, names())}"


def share_out(name: str | None, given: dict[str, Any], say: Callable[[str], None]) -> None:
    """Put into `given`, arguments of TRL, what the file `name` holds; or leave them out where nothing can be shared.

    `say` gets what a person should know. Raises QdataError where DeepSpeed is wanted and not installed,
    and for a key of `fsdp_config` that FSDP2 has not.
    """
    if name is not None:
        given |= read_toml(shipped(FOLDER) / f"{name}.toml", what="sharding")
    if not given.get("fsdp") and not given.get("deepspeed"):
        return
    what = name or ("fsdp" if given.get("fsdp") else "deepspeed")
    why = None
    if processes.alone():
        why = "this is one process, which keeps the whole model; --gpus N shares it among N"
    elif given.get("deepspeed") and not has_gpu():
        why = "DeepSpeed wants GPUs; on a CPU each process keeps the whole model, and the steps are the same"
    if why is not None:
        for key in KEYS:
            given.pop(key, None)
        say(f"[yellow]sharding {what} is left out: {why}[/]")
        return
    if given.get("deepspeed") and importlib.util.find_spec("deepspeed") is None:
        raise QdataError(f"[train] sharding {what} wants DeepSpeed: pip install deepspeed; or take fsdp")
    if isinstance(config := given.get("fsdp_config"), dict):
        short = [key.removeprefix("fsdp_") for key in config]
        if wrong := next((key for key in short if key not in FSDP_KEYS), None):
            raise QdataError(f"[train] fsdp_config.{wrong}: no such key of FSDP2.{did_you_mean(wrong, FSDP_KEYS)}")
        if config.get("cpu_offload") and not has_gpu():
            config["cpu_offload"] = False
            say("fsdp_config.cpu_offload does nothing here: on a CPU all of the model is in main memory")
    logging.getLogger("transformers.training_args").addFilter(_no_advice)
    say(f"sharding {what}: among {processes.count()} processes" + (f" [yellow]({UNVERIFIED})[/]" if has_gpu() else ""))


def has_gpu() -> bool:
    """Whether there is a GPU to train on."""
    import torch

    return torch.cuda.is_available()


def _no_advice(record: logging.LogRecord) -> bool:
    # transformers recommends FSDP's own activation checkpointing, which `settle` refuses.
    return "activation_checkpointing" not in record.getMessage()


def settle(arguments: Any) -> None:
    """Check what the made `arguments` share out, before a model is loaded, and let accelerate do it on a CPU too.

    Raises QdataError for what FSDP or DeepSpeed refuses, or would do otherwise than said here.
    """
    if arguments.deepspeed:
        _refuse_zero(arguments.hf_deepspeed_config.config.get("zero_optimization", {}))
    if not arguments.fsdp:
        return
    from accelerate.utils import FullyShardedDataParallelPlugin

    told, wanted = None, arguments.fsdp_plugin_args
    if wanted["fsdp_version"] != 2:
        told = "version: FSDP1 is deprecated, and nothing here was tried with it; leave it out, it is 2 then"
    elif "FULL" not in wanted["state_dict_type"]:
        told = "state_dict_type: checkpoints and final/ are whole models here; leave it out, it is FULL_STATE_DICT then"
    elif wanted.get("activation_checkpointing"):
        told = "activation_checkpointing: FSDP's own saves adapters empty and draws dropout anew (seen here); leave it "
        told += "out, [train] activation_checkpointing does neither"
    if told is not None:
        raise QdataError(f"[train] fsdp_config.{told}")
    try:
        plugin = FullyShardedDataParallelPlugin(**wanted)
    except (ValueError, TypeError, AttributeError, KeyError, RuntimeError) as error:
        raise QdataError(f"[train] fsdp_config: accelerate does not take it: {error}") from None
    if not has_gpu():
        _over_gloo(arguments, plugin)


def _over_gloo(arguments: Any, plugin: Any) -> None:
    """Tell accelerate's state, which all accelerators share, to shard; by itself it does so on accelerators alone.

    torch's `fully_shard` needs no more than a process group: `AcceleratorState.__init__` is what leaves CPUs out.
    """
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType, TorchDynamoPlugin

    _ = arguments.device  # makes the process group
    state = AcceleratorState(
        mixed_precision="no", cpu=True, dynamo_plugin=TorchDynamoPlugin(), fsdp_plugin=plugin, _from_accelerator=True
    )
    state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    state.fsdp_plugin = plugin


def _refuse_zero(zero: Mapping[str, Any]) -> None:
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig  # type: ignore[import-not-found,unused-ignore]

    if zero.get("stage") == 3 and not zero.get("stage3_gather_16bit_weights_on_model_save"):
        raise QdataError(
            "[train] deepspeed: with stage 3 checkpoints and final/ would hold no weights; set "
            "zero_optimization.stage3_gather_16bit_weights_on_model_save = true"
        )
    try:
        DeepSpeedZeroConfig(**{key: value for key, value in zero.items() if value != "auto"})
    except ValueError as error:
        raise QdataError(f"[train] deepspeed: DeepSpeed does not take zero_optimization: {error}") from None
