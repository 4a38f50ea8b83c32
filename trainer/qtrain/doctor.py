"""What this machine can train, and how: libraries, devices, precisions, attention backends, the hub."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from qdata.errors import QdataError

_LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers")
_OPTIONAL = ("bitsandbytes", "flash-attn", "deepspeed", "liger-kernel", "kernels")
_HUB_SECONDS = 3.0


def look(recipe: Path | None = None) -> dict[str, Any]:
    """The report: JSON-able. What is missing is said, never raised; neither is a mistake of `recipe`."""
    report: dict[str, Any] = {
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in (*_LIBRARIES, *_OPTIONAL)},
        "devices": _devices(),
        "attention": _attention(),
        "sharding": _sharding(),
        "hub": _hub(),
    }
    if recipe is not None:
        try:
            report["recipe"] = _recipe(recipe)
        except QdataError as error:
            report["recipe"] = {"path": str(recipe), "error": str(error)}
    return report


def lines(report: dict[str, Any]) -> list[str]:
    """The report for a person."""
    there = {name: found for name, found in report["libraries"].items() if found}
    out = [f"python {report['python']}, " + ", ".join(f"{name} {found}" for name, found in there.items())]
    out += [
        f"not installed: {', '.join(name for name, found in report['libraries'].items() if not found) or 'nothing'}"
    ]
    for device in report["devices"]:
        types = " and ".join(name for name in ("bf16", "fp16") if device[name]) or "float32"
        free = f", {device['free_gb']} GB of {device['memory_gb']} GB free" if device["memory_gb"] else ""
        out.append(f"{device['name']}{free}; autocast: {types if device['autocast'] else 'none, trains in float32'}")
    out += [f"attention {name}: {told}" for name, told in report["attention"].items()]
    out += [f"sharding {name}: {told}" for name, told in report["sharding"].items()]
    hub = report["hub"]
    out.append(f"hub {hub['endpoint']}: {hub['told']}")
    if (recipe := report.get("recipe")) is not None:
        out += [f"{key}: {value}" for key, value in recipe.items()]
    return out


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _devices() -> list[dict[str, Any]]:
    import torch

    if not torch.cuda.is_available():
        pages = os.sysconf("SC_PAGE_SIZE")
        memory = {"memory_gb": _gb(pages * os.sysconf("SC_PHYS_PAGES")), "free_gb": None}
        if "SC_AVPHYS_PAGES" in os.sysconf_names:
            memory["free_gb"] = _gb(pages * os.sysconf("SC_AVPHYS_PAGES"))
        name = f"CPU, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
        return [{"name": name, **memory, "bf16": False, "fp16": False, "autocast": False}]
    devices = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        bf16 = torch.cuda.get_device_capability(index) >= (8, 0)  # before Ampere it is emulated, and slow
        devices.append(
            {
                "name": f"cuda:{index} {torch.cuda.get_device_name(index)}",
                "memory_gb": _gb(total),
                "free_gb": _gb(free),
                "bf16": bf16,
                "fp16": True,
                "autocast": True,
            }
        )
    return devices


def _gb(count: int) -> float:
    return round(count / 10**9, 1)


def _attention() -> dict[str, str]:
    """Which backends keep packed neighbours apart here. `tests/train/test_packed.py` guards the first three."""
    import torch

    gpu = torch.cuda.is_available()
    flash = find_spec("flash_attn") is not None
    return {
        "sdpa": "safe, the default",
        "eager": "safe, slow",
        "flex_attention": "safe" if gpu else "not here: it has no backward pass on a CPU",
        "flash_attention_2": "safe"
        if gpu and flash
        else f"not here: {'flash-attn is not installed' if gpu else 'no GPU'}",
    }


def _sharding() -> dict[str, str]:
    """By which of the files of recipes/sharding/ several processes can share a model here."""
    import torch

    from qtrain import sharding

    gpus = torch.cuda.device_count()
    if gpus > 1:
        fsdp = f"among {gpus} GPUs, {sharding.UNVERIFIED}"
    else:
        fsdp = "one GPU keeps the whole model" if gpus else "over gloo among --processes N on this CPU: to rehearse it"
    zero = fsdp if gpus else "not here: DeepSpeed wants GPUs"
    if gpus and find_spec("deepspeed") is None:
        zero = "not here: deepspeed is not installed"
    return {name: zero if name.startswith("zero") else fsdp for name in sharding.names()}


def _hub() -> dict[str, Any]:
    from huggingface_hub import constants

    endpoint = constants.ENDPOINT
    if constants.HF_HUB_OFFLINE:
        return {"endpoint": endpoint, "reachable": False, "told": "not asked, HF_HUB_OFFLINE is set"}
    from huggingface_hub import get_session
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # httpx's, re-exported

    began = time.monotonic()
    try:
        status = get_session().head(endpoint, timeout=_HUB_SECONDS).status_code
    except (HTTPError, OSError) as error:
        return {"endpoint": endpoint, "reachable": False, "told": f"out of reach ({error}); HF_ENDPOINT names a mirror"}
    return {"endpoint": endpoint, "reachable": True, "told": f"answers {status} in {time.monotonic() - began:.1f} s"}


def _recipe(path: Path) -> dict[str, Any]:
    """What training `path` would start from and use, without fetching or building anything."""
    import torch

    from qtrain import model as models
    from qtrain import recipe as recipes
    from qtrain import tuning

    recipe = recipes.load(path)
    name = recipe.model.name or recipe.model.config_from or str(recipe.model.from_run)
    if recipe.model.from_run is not None:
        found = "a run here" if Path(name).is_dir() else "no such run yet"
    elif models.is_local(name):
        found = "a folder here" if (Path(name).expanduser() / "config.json").is_file() else "not a model folder"
    else:
        here = models.cached(name, weights=recipe.model.name is not None)
        found = "in the hub's cache" if here else "not in the hub's cache, would be downloaded"
        if not here and recipe.stand_in is not None and models.may_stand_in():
            found += "; without a hub the stand-in"
    gpu = torch.cuda.is_available()
    wanted = recipe.model.attn_implementation
    used = tuning.backend(wanted)
    given = recipe.train.arguments
    bf16 = gpu and torch.cuda.is_bf16_supported() and given.get("bf16", not given.get("fp16", False))
    return {
        "path": str(path),
        "model": f"{name}: {found}",
        "tuning": recipe.train.tuning,
        "attention": used if used == wanted else f"{used}, for want of {wanted}",
        "precision": "bf16 autocast" if bf16 else "fp16 autocast" if gpu and given.get("fp16") else "float32",
        "device": "cuda" if gpu else "cpu",
    }
