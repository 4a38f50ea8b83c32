"""Where the weights come from: a local folder, the hub's cache, the hub, and only then the stand-in."""

from __future__ import annotations

import json
import os
import re
import warnings
from pathlib import Path
from typing import Any

from qdata.errors import QdataError

_FILES = ["*.json", "*.safetensors", "*.txt", "*.jinja"]
_HUB_SECONDS = 8.0  # how long a hub may take to say hello before it counts as out of reach


class OutOfReachError(Exception):
    """The hub id is neither in the cache nor to be had: the one case in which a stand-in may be trained instead."""


def is_local(name: str) -> bool:
    """Whether `[model] name` means a folder: it exists, or cannot be a hub id.

    >>> is_local("Qwen/Qwen2-1.5B-Instruct"), is_local("./my-model"), is_local("models/qwen/mine")
    (False, True, True)
    """
    return Path(name).expanduser().is_dir() or not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name)


def find(name: str, *, weights: bool = True) -> Path:
    """The folder that holds the model `name`, downloaded where needed; without `weights` its config.json is enough.

    Raises OutOfReachError where neither cache nor hub has that hub id, and QdataError where something else is in the
    way: a folder that is not there, a model one may not read, a hub that answers with an error.
    """
    if is_local(name):
        folder = Path(name).expanduser()
        if not any((folder / file).is_file() for file in ("config.json", "adapter_config.json")[: 1 + weights]):
            raise QdataError(f"{name}: not a model folder, it has no config.json")
        return folder
    return _cached(name, weights) or _download(name, weights)


def _cached(name: str, weights: bool) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, local_files_only=True, allow_patterns=_FILES))
    except LocalEntryNotFoundError:
        return None
    return folder if _complete(folder, weights) else None


def _complete(folder: Path, weights: bool) -> bool:
    """Whether config and every weight file are there: a cache may hold a tokenizer only, or half a download."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    else:
        names = {"model.safetensors"}
    return all((folder / name).is_file() for name in {"config.json", *(names if weights else ())})


def _download(name: str, weights: bool) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]  # httpx's, re-exported

    try:
        HfApi().model_info(name, timeout=_HUB_SECONDS)
    except HfHubHTTPError as error:
        status = error.response.status_code
        # The hub says 401 for "private" and for "no such model" alike; only a plain 404 is proof of absence.
        if status == 404:
            raise OutOfReachError(f"the hub has no {name}") from None
        hint = "log in with `hf auth login`, or ask for access" if status in (401, 403) else "try again later"
        raise QdataError(f"{name}: the hub answered {status}; {hint}") from None
    except (HTTPError, ConnectionError, TimeoutError) as error:
        raise OutOfReachError(f"no hub within reach ({error})") from None
    try:
        return Path(snapshot_download(name, allow_patterns=_FILES if weights else ["config.json"]))
    except (HTTPError, OSError) as error:
        raise QdataError(f"{name}: the download broke off ({error}); start again, what is there is kept") from None


def cached(name: str, weights: bool = True) -> bool:
    """Whether the hub's cache holds the model, with its weights unless only its shape is wanted."""
    return _cached(name, weights) is not None


def may_stand_in() -> bool:
    """Whether this machine may train a stand-in at all: one with a GPU was meant for the real model."""
    import torch

    return not torch.cuda.is_available()


def load(folder: Path, attn_implementation: str = "sdpa", **how: Any) -> Any:
    """The causal language model in `folder`, in float32 on the CPU unless `how`, transformers' arguments, says else.

    An adapter is merged onto its base, which may be an adapter too. float32, because AdamW's steps at fine-tuning
    learning rates are smaller than bfloat16 can add to a weight: trained in pure bfloat16, most weights would never
    move; and merging rounds once, at the end. Raises QdataError where an adapter's base cannot be found.
    """
    import torch
    from transformers import AutoModelForCausalLM

    how = {"dtype": torch.float32, "attn_implementation": attn_implementation, **how}
    if not (folder / "adapter_config.json").is_file():
        return AutoModelForCausalLM.from_pretrained(folder, **how)
    from peft import PeftModel

    base = load(base_of(folder), attn_implementation)
    return PeftModel.from_pretrained(base, str(folder)).merge_and_unload().to(how["dtype"])


def stops(tokenizer: Any, stop: str) -> list[int]:
    """The ids that end an answer: `stop`, which ends a turn, and what ends a text.

    By name, because a base model's tokenizer calls <|endoftext|> its end.
    """
    ids = [tokenizer.convert_tokens_to_ids(stop), tokenizer.eos_token_id, tokenizer.pad_token_id]
    return list(dict.fromkeys(i for i in ids if i is not None and i != tokenizer.unk_token_id))


def stop_at(model: Any, ids: list[int]) -> None:
    """Saved with the model: servers end an answer at these ids, the first of which ends a turn."""
    model.generation_config.eos_token_id = ids
    model.config.get_text_config().eos_token_id = ids[0]  # for servers that read only config.json


def parameters(model: Any) -> tuple[int, int]:
    """How many parameters are trained, and how many there are."""
    # Weights of 4 bits lie two and two in a byte; what ZeRO-3 has shared out is elsewhere.
    packed = [2 * p.element_size() if hasattr(p, "quant_state") else 1 for p in model.parameters()]
    sizes = [getattr(p, "ds_numel", p.numel()) * n for p, n in zip(model.parameters(), packed, strict=True)]
    trained = sum(size for size, p in zip(sizes, model.parameters(), strict=True) if p.requires_grad)
    return trained, sum(sizes)


def for_inference(folder: Path) -> Any:
    """The model in `folder`, ready to answer: adapters on their base, on the GPU where there is one.

    Raises QdataError where an adapter's base cannot be found.
    """
    import torch

    gpu = torch.cuda.is_available()
    dtype = torch.bfloat16 if gpu and torch.cuda.is_bf16_supported() else torch.float32
    adapter = (folder / "adapter_config.json").is_file()
    model = load(base_of(folder) if adapter else folder, dtype=dtype)
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(folder))
    return model.to("cuda" if gpu else "cpu").eval()


def name_base(adapter: Path, name: str) -> None:
    """Write into a saved adapter what it stands on: while training that is a folder of this machine's cache.

    peft's model card, an empty form around the same folder, goes.
    """
    file = adapter / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**config, "base_model_name_or_path": name}, indent=2) + "\n", encoding="utf-8")
    (adapter / "README.md").unlink(missing_ok=True)


def base_of(adapter: Path) -> Path:
    """The folder of the model an adapter stands on: beside it in its run, or wherever its name leads."""
    name = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    beside = adapter.parent / "base"
    if beside.is_dir():
        return beside
    try:
        return find(name)
    except OutOfReachError as error:
        raise QdataError(f"{adapter}: an adapter for {name}, which is out of reach: {error}") from None


def quiet() -> None:
    """Progress is ours to show: no bars of the libraries underneath. Their warnings stay."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else tokenizers warns of every fork
    import datasets
    from transformers.utils import logging

    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    # peft 0.21 and TRL 1.16 speak to transformers 5.23 in old names; there is nothing in it for a user to mend.
    warnings.filterwarnings("ignore", r"`(is_)?gradient_checkpointing\w*` is deprecated", FutureWarning)
