"""The facts of a model that its memory depends on, told from its configuration: nothing is loaded, nothing computed.

The model is built on torch's `meta` device, which has shapes and no storage, and tuned there as it would be.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from qtrain import model as models
from qtrain import tuning
from qtrain.recipe import ADAPTERS, Train, changes_base

DENSE = ("qwen2", "qwen3", "llama", "mistral")
_MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_KINDS = {"embed_tokens": "embeddings", "lora_": "adapters", "attn": "attention", "mlp": "feed-forward",
          "norm": "norms", "lm_head": "head"}  # fmt: skip
# Two weights lie in a byte, 64 of them share a byte of scale, 256 of those a float32 (bitsandbytes, quantised twice).
_FOUR_BITS = 1 / 2 + 1 / 64 + 4 / (64 * 256)


@dataclass(frozen=True)
class Layer:
    """What of a decoder layer is trained, and so what it must keep for its backward. Counts are of numbers."""

    reached: bool
    """Whether a gradient flows through it: it, or what is below it, is trained."""
    norms: bool
    wanting: frozenset[str]
    """The matrices that want their input again: trained ones, and those with an adapter."""
    trained: int
    adapters: int
    """Width of all adapters: the numbers per token that lie between their two matrices."""
    outputs: int
    """Width of all outputs that adapters add to."""
    magnitudes: int
    """Width of all outputs whose magnitude DoRA learns."""


@dataclass(frozen=True)
class Shape:
    """What of a model its memory depends on. Counts are of numbers, `weights` is in bytes."""

    hidden: int
    heads: int
    query: int
    """Width of all query heads together."""
    key: int
    """Width of all key heads together; that of the values too."""
    head: int
    feed_forward: int
    vocabulary: int
    tied: bool
    """Whether the head's matrix is the embeddings'."""
    query_norm: bool
    """Whether query and key are normalised per head, as in Qwen3."""
    layers: tuple[Layer, ...]
    modules: dict[str, int]
    """Parameters by kind of module."""
    parameters: int
    trained: int
    weights: int
    trained_weights: int
    """Bytes of the weights that are trained."""
    embedding_trained: int
    head_trained: bool
    matrices: int
    """Numbers in the float32 matrices of all layers: what autocast copies."""
    quantised: int
    """Numbers in the largest matrix of 4 bits; 0 where there is none."""
    size: int
    """Bytes of a number that flows between layers."""
    dense: bool
    """Whether it is built as the formulas are; a mixture of experts or a hybrid is not."""


def on_meta(config: Any, train: Train, attention: str, dtype: Any) -> Any:
    """The model of `config` as `train` tunes it, without storage; under qlora its matrices are still whole.

    Raises QdataError where `train` does not fit the model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    attention = "sdpa" if attention == "flash_attention_2" else attention  # shapes do not depend on it
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
        if train.tuning in ADAPTERS:
            from peft import get_peft_model

            # What they start from needs numbers, and changes no shape.
            lora = dataclasses.replace(train.lora, init_lora_weights=True) if changes_base(train.lora) else train.lora
            model = get_peft_model(model, tuning.peft_config(lora, model))
            tuning.masters(model)
        elif train.tuning == "freeze":
            tuning.freeze(model, train.freeze, lambda _: None)
    return model


def shape(model: Any, quantised: bool = False) -> Shape:
    """The facts of `model`, a causal language model on any device, as it is tuned; `quantised`: under qlora."""
    config = model.config.get_text_config()
    layers, head = _layers(model, config.num_hidden_layers), model.get_output_embeddings().weight
    table = model.get_input_embeddings().weight
    each = {id(p): p for p in model.parameters()}.values()
    wide = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    trained, parameters = models.parameters(model)
    told, below = [], table.requires_grad
    for layer in layers:
        below = below or any(p.requires_grad for p in layer.parameters())
        told.append(_layer(layer, below))
    four = [p for layer in layers for n, p in layer.named_parameters() if _is_matrix(n, p)] if quantised else []
    return Shape(
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        query=wide * config.num_attention_heads,
        key=wide * config.num_key_value_heads,
        head=wide,
        feed_forward=config.intermediate_size,
        vocabulary=head.shape[0],
        tied=head is table,
        query_norm=any("q_norm" in name for name, _ in layers[0].named_parameters()),
        layers=tuple(told),
        modules=_modules(model),
        parameters=parameters,
        trained=trained,
        weights=sum(p.nbytes for p in each) - sum(p.nbytes - int(p.numel() * _FOUR_BITS) for p in four),
        trained_weights=sum(p.nbytes for p in each if p.requires_grad),
        embedding_trained=table.numel() * table.requires_grad,
        head_trained=head.requires_grad,
        matrices=sum(
            p.numel() for layer in layers for n, p in layer.named_parameters()
            if p.dim() == 2 and p.itemsize == 4 and not (quantised and _is_matrix(n, p))
        ),
        quantised=max((p.numel() for p in four), default=0),
        size=table.itemsize,
        dense=config.model_type in DENSE,
    )  # fmt: skip


def _layers(model: Any, count: int) -> Any:
    import torch

    lists = (m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count)
    return max(lists, key=lambda m: sum(p.numel() for p in m.parameters()))


def _is_matrix(name: str, parameter: Any) -> bool:
    """Whether it is a matrix of the model itself, not one of an adapter."""
    return parameter.dim() == 2 and "lora_" not in name


def _layer(layer: Any, reached: bool) -> Layer:
    trained = {name: p for name, p in layer.named_parameters() if p.requires_grad}
    return Layer(
        reached=reached,
        norms=any("norm" in name for name in trained),
        wanting=frozenset(m for m in _MATRICES for name, p in trained.items() if m in name and p.dim() == 2),
        trained=sum(p.numel() for p in trained.values()),
        adapters=sum(p.shape[0] for name, p in trained.items() if "lora_A" in name),
        outputs=sum(p.shape[0] for name, p in trained.items() if "lora_B" in name),
        magnitudes=sum(p.numel() for name, p in trained.items() if "magnitude" in name),
    )


def _modules(model: Any) -> dict[str, int]:
    """Parameters by kind of module; a matrix with two names counts once, where it is first."""
    found: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        kind = next((told for part, told in _KINDS.items() if part in name), "others")
        found[kind] = found.get(kind, 0) + parameter.numel()
    return found
