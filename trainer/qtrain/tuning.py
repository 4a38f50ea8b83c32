"""What of a model is trained: every weight, adapters on a frozen base, adapters on a base of 4 bits, some modules."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qdata.errors import QdataError, did_you_mean
from qtrain import model as models
from qtrain import scratch
from qtrain.recipe import ADAPTERS, Freeze, Lora, Model, changes_base
from qtrain.start import Start

BITSANDBYTES = 'wants bitsandbytes: pip install "qdata[train,quantized]"'


def needs_bitsandbytes(what: str) -> None:
    """Raises QdataError where `what` cannot be done for want of the library."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise QdataError(f"{what} {BITSANDBYTES}")


def load(start: Start, wanted: Model, arguments: Any, say: Callable[[str], None]) -> Any:
    """The model that training starts from, as `start.train.tuning` wants it, on the CPU (4 bits: on the GPU).

    Weights that are trained are float32. A base that is not is in the 16 bits of the autocast, where there is one. What
    this machine does otherwise than the recipe wants is said. Raises QdataError where the start does not fit.
    """
    import torch

    tuning, attention = start.train.tuning, backend(wanted.attn_implementation)
    if attention != wanted.attn_implementation:
        say(f"[bold yellow]attn_implementation: {attention}, this machine has no {wanted.attn_implementation}[/]")
    half = torch.bfloat16 if arguments.bf16 else torch.float16 if arguments.fp16 else torch.float32
    dtype = half if tuning in ADAPTERS else torch.float32
    if wanted.dtype is not None and start.stand_in is None:
        dtype = getattr(torch, wanted.dtype)
    if not start.weights:
        return scratch.build(scratch.config(start.folder, wanted.config), arguments.seed, attention, dtype)
    if tuning != "qlora":
        return models.load(start.folder, attention, dtype=dtype)
    if not (start.folder / "config.json").is_file():
        raise QdataError(f"{start.name}: an adapter; qlora wants whole weights to quantise: `qtrain export` it first")
    needs_bitsandbytes("[train] tuning = qlora")
    from transformers import BitsAndBytesConfig

    # The QLoRA paper's: 4-bit NormalFloat, its constants quantised again (https://huggingface.co/papers/2305.14314).
    four = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        # Only floats are shared out, and only those of the type they are gathered in keep their packed bits.
        bnb_4bit_quant_storage=half if arguments.fsdp or arguments.deepspeed else None,
    )
    device = torch.cuda.current_device() if torch.cuda.is_available() else "cpu"
    model = models.load(start.folder, attention, dtype=dtype, quantization_config=four, device_map={"": device})
    for layer in model.modules():
        # On some CPUs bitsandbytes repacks weights at the first evaluation, for good, into a layout without a backward:
        # layers below would get no gradient any more, silently.
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
    return model


def backend(wanted: str) -> str:
    """The attention backend this machine has: flash attention wants its package and a card of compute capability 8."""
    import torch
    from transformers.utils import is_flash_attn_2_available

    if wanted != "flash_attention_2":
        return wanted
    able = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
    return wanted if able and is_flash_attn_2_available() else "sdpa"


def peft_config(lora: Lora, model: Any) -> Any:
    """peft's own configuration for `[train.lora]`. Raises QdataError where its patterns do not fit the model."""
    import torch
    from peft import LoraConfig

    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    every = [name for name, module in model.named_modules() if next(module.parameters(recurse=False), None) is not None]
    head = model.get_output_embeddings()
    targets, whole = lora.target_modules, list(lora.modules_to_save)
    if isinstance(targets, tuple):
        adapted = [name for wanted in targets for name in _ending(wanted, linear, "target_modules")]
    elif targets == "all-linear":
        adapted = []  # peft leaves the output layer out
    elif not (adapted := [name for name in linear if _regex(targets, "lora.target_modules").fullmatch(name)]):
        last = targets.rpartition(".")[2].strip("*^$()")
        raise QdataError(
            f"[train.lora] target_modules: {targets!r} matches no layer. A text is a regular expression over a whole "
            f"name, such as {linear[0]}.{did_you_mean(last, _parts(linear))}"
        )
    saved = [name for wanted in whole for name in _ending(wanted, every, "modules_to_save")]
    if any(model.get_submodule(name) is head for name in adapted):
        raise QdataError("[train.lora] target_modules: TRL's loss reads the output layer's weight past its adapter; "
                         "train it whole: modules_to_save")  # fmt: skip
    tied = model.config.get_text_config().tie_word_embeddings
    if tied and any(model.get_submodule(name) in (head, model.get_input_embeddings()) for name in saved):
        raise QdataError("[train.lora] modules_to_save: this model's output layer and embeddings are one weight "
                         "(tie_word_embeddings), which no adapter can save; use tuning = freeze or full")  # fmt: skip
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        modules_to_save=whole or None,
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        init_lora_weights=lora.init_lora_weights,
        task_type="CAUSAL_LM",
    )


def _ending(wanted: str, names: Sequence[str], key: str) -> list[str]:
    found = [name for name in names if name == wanted or name.endswith(f".{wanted}")]
    if not found:
        raise QdataError(f"[train.lora] {key}: no module is called {wanted!r}.{did_you_mean(wanted, _parts(names))}")
    return found


def _parts(names: Iterable[str]) -> set[str]:
    return {part for name in names for part in name.split(".") if not part.isdigit()}


def _regex(pattern: str, key: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise QdataError(f"[train] {key}: {pattern!r} is no regular expression: {error}") from None


def freeze(model: Any, spec: Freeze, say: Callable[[str], None]) -> None:
    """Leave `requires_grad` only to what `spec` trains; `say` gets what a person should know of tied weights.

    A weight with two names (tied embeddings) is trained, or frozen, where either of them matches. Raises QdataError for
    a pattern that matches nothing, and where nothing or everything would be trained.
    """
    patterns = spec.train or spec.freeze
    names: dict[Any, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    owners = [name for group in names.values() for name in group]
    hits: dict[str, set[Any]] = {}
    for pattern in patterns:
        matches = _regex(rf"(?:^|.*\.)(?:{pattern})(?:\..*|$)", "freeze").match
        hits[pattern] = {p for p, group in names.items() if any(map(matches, group))}
        if not hits[pattern]:
            raise QdataError(f"[train.freeze] {pattern!r} matches no module.{did_you_mean(pattern, _parts(owners))}")
    matched = set().union(*hits.values())
    for parameter in names:
        parameter.requires_grad_((parameter in matched) == bool(spec.train))
    if len(matched) == len(names):
        raise QdataError(f"[train.freeze] {', '.join(patterns)} is every weight: use tuning = full, or say less")
    for parameter, group in names.items():
        if len(group) > 1 and parameter in matched:
            say(f"one weight under two names, {' and '.join(group)}: trained, or frozen, together")


def trained(model: Any, shown: int = 4) -> str:
    """What is trained, for a person: how many tensors, and the first names."""
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    more = f" … {names[-1]}" if len(names) > shown else ""
    return f"{len(names)} tensors: {', '.join(names[:shown])}{more}"


def masters(model: Any) -> None:
    """Adapters in float32, whatever the base is in: TRL casts those on a base of 4 bits to bfloat16.

    There, steps at small learning rates would be lost.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


class Sealer:
    """Makes a saved adapter of `model` stand on the original base; to be built before the first step.

    PiSSA and OLoRA move a part of the base, s·B₀A₀, into the adapter they start from. In what is saved it is taken out
    again: s·(BA − B₀A₀), a plain adapter [A; A₀], [B, −B₀] of twice the rank. peft has the same conversion, but it
    forgets modules_to_save. Other adapters are left as they are.
    """

    def __init__(self, model: Any, lora: Lora) -> None:
        from peft import get_peft_model_state_dict

        self.model, self.lora = model, lora
        state = get_peft_model_state_dict(model) if changes_base(lora) else {}
        self.first: Mapping[str, Any] = {k: v.cpu().clone() for k, v in state.items() if "lora_" in k}

    def __call__(self, saved: Path) -> None:
        """Seal the adapter in the folder `saved`."""
        import torch
        from safetensors.torch import load_file, save_file

        if not self.first:
            return
        tensors = load_file(saved / "adapter_model.safetensors")
        for name, start in self.first.items():
            down = "lora_A" in name
            tensors[name] = torch.cat([tensors[name], start if down else -start], dim=0 if down else 1).contiguous()
        save_file(tensors, saved / "adapter_model.safetensors", metadata={"format": "pt"})
        file = saved / "adapter_config.json"
        config = json.loads(file.read_text(encoding="utf-8"))
        config |= {"r": 2 * self.lora.r, "init_lora_weights": True}
        config["lora_alpha"] = self.lora.lora_alpha * (2**0.5 if self.lora.use_rslora else 2)  # the scale stays
        file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    def restore(self, saved: Path) -> None:
        """Load the adapter that was sealed in `saved` into the model: its first half, A and B, is what was trained.

        Raises QdataError where this model did not start from the same A₀ and B₀, whose part its base lacks.
        """
        import torch
        from peft import set_peft_model_state_dict
        from safetensors.torch import load_file

        tensors = load_file(saved / "adapter_model.safetensors")
        for name, start in self.first.items():
            down = "lora_A" in name
            tensors[name], before = tensors[name].chunk(2, dim=0 if down else 1)
            if not torch.equal(before, start if down else -start):
                raise QdataError(
                    f"{saved}: {self.lora.init_lora_weights} splits the base otherwise on this machine than where the "
                    "run began, so it cannot go on exactly here; start a new run with --fresh"
                )
        set_peft_model_state_dict(self.model, tensors)
