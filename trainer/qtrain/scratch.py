"""From scratch: random weights in the shape of a known model's config.json, with changes to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qdata.errors import QdataError, did_you_mean

_OLD = (
    *("architectures", "transformers_version", "dtype", "torch_dtype", "quantization_config"),  # the old weights'
    *("bos_token_id", "eos_token_id", "pad_token_id"),  # the old tokenizer's
    "layer_types",  # follows from the number of layers again
)


def config(folder: Path, changes: Mapping[str, Any]) -> Any:
    """The configuration in `folder`'s config.json with `changes` made to it.

    Raises QdataError for a key that this kind of model does not have, and for sizes that do not fit together.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kind = raw.pop("model_type")
    for gone in _OLD:
        raw.pop(gone, None)
    try:
        known = {*raw, *AutoConfig.for_model(kind, **raw).to_dict()}
        if unknown := [key for key in changes if key not in known]:
            raise QdataError(f"[model] config.{unknown[0]}: {kind} has no such key.{did_you_mean(unknown[0], known)}")
        changed = AutoConfig.for_model(kind, **{**raw, **changes})
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise QdataError(f"[model] config: transformers does not take it for {kind}: {error}") from None
    if told := misfit(changed):
        raise QdataError(f"[model] config: {told}")
    return changed


def misfit(shape: Any) -> str | None:
    """Why no model of attention heads has this shape; None where one has.

    >>> from types import SimpleNamespace as Shape
    >>> misfit(Shape(hidden_size=96, num_attention_heads=4, num_key_value_heads=3))
    'num_attention_heads (4) must be a multiple of num_key_value_heads (3): heads share keys and values in equal groups'
    >>> misfit(Shape(hidden_size=96, num_attention_heads=4, num_key_value_heads=2, head_dim=24))
    """
    hidden, heads = shape.hidden_size, shape.num_attention_heads
    groups, width = getattr(shape, "num_key_value_heads", None) or heads, getattr(shape, "head_dim", None)
    if width is None and hidden % heads:
        return f"hidden_size ({hidden}) must be a multiple of num_attention_heads ({heads}): heads are equal"
    if heads % groups:
        return (
            f"num_attention_heads ({heads}) must be a multiple of num_key_value_heads ({groups}): "
            "heads share keys and values in equal groups"
        )
    if (width := width or hidden // heads) % 2:
        return f"head_dim ({width}) must be even: rotary positions turn pairs"
    return None


def build(shape: Any, seed: int, attn_implementation: str, dtype: Any) -> Any:
    """A causal language model of that shape with random weights; the same seed gives the same weights."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(shape, dtype=dtype, attn_implementation=attn_implementation)


def speak(model: Any, tokenizer: Any) -> None:
    """Give random weights the control tokens of the tokenizer they will learn, in both their configurations."""
    for config in (model.config, model.generation_config):
        for token in ("bos_token_id", "eos_token_id", "pad_token_id"):
            setattr(config, token, getattr(tokenizer, token))
