"""What a training step holds in memory, by part and by moment, told from a model's shape alone.

The formulas count what torch 2.13, transformers 5.23 and TRL 1.16 do. T is the tokens of a batch, padding included, h
the hidden size, q and k the summed widths of the query and of the key heads, f the feed-forward width, e the bytes of a
computed number (4, or 2 under autocast). Where each comes from:

- A decoder layer that is trained whole saves for its backward `T·e·(6h + 2q + 2k + 4f)`: two norms and the two residual
  streams, the rotated query and key, the value, the attention's output, and of the gated MLP the gate, its activation,
  the other factor and their product (`transformers.models.qwen2.modeling_qwen2`, autograd's own rules;
  `tests/train/test_plan.py` counts them with `saved_tensors_hooks`). A frozen matrix wants no input again, and a layer
  with nothing trained in or below it saves nothing. Qwen3's norms of query and key save `2q + 2k` more.
- Several conversations in one row need a block mask, and pairs padded to one length a mask too: T² bytes per row once,
  and T²·e per layer, which sdpa makes of it (`convert_boolean_attn_mask` in ATen); keys and values are then repeated
  for every query head (`transformers.integrations.sdpa_attention.use_gqa_in_sdpa`). Eager attention saves its scores.
- With activation checkpointing a layer keeps its input, `T·h`, and one layer at a time is computed again
  (`transformers.modeling_layers`).
- The head never holds the logits of all tokens: TRL scores tiles of 4,096 tokens by 32,768 ids
  (`trl.kernels.chunked_logprob`). With Triton a tile is all there is; elsewhere torch's operations on a tile hold three
  more in the forward and seven in the backward. Gradients of the head are summed in float32.
- AdamW keeps two numbers of the weight's type per trained weight (`torch.optim.AdamW`); that of 8 bits two bytes and
  their scales, but of embeddings two float32 (`transformers.Trainer.create_optimizer`).
- Autocast keeps a 16-bit copy of every float32 matrix it multiplies with, where that is trained until the forward ends
  (`at::autocast::cached_cast`), where it is not until its layer's backward.
- DPO's policy has gone forward, and keeps what that saves, when the reference does (`trl.DPOTrainer._compute_loss`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from qtrain.plan_shape import Layer, Shape

TILE_TOKENS, TILE_IDS = 4096, 32_768  # trl.kernels.chunked_logprob, trl.trainer.utils
_QUANTISING = 200 * 10**6  # bitsandbytes' own code and tables, what is left of the weights it shrank; measured
_BLOCK = 256  # numbers of a state of 8 bits that share a scale


@dataclass(frozen=True)
class Batch:
    """The largest batch one device sees at once: `rows` side by side, each of `length` tokens, padding included."""

    rows: int
    length: int
    masked: bool
    """Whether not every token may read all before it: neighbours, or padding."""

    @property
    def tokens(self) -> int:
        return self.rows * self.length


@dataclass(frozen=True)
class Work:
    """What a training step does with a model."""

    batch: Batch
    evaluated: Batch | None = None
    """The largest batch of an evaluation."""
    accumulated: int = 1
    checkpointing: bool = True
    autocast: bool = False
    attention: str = "sdpa"
    optimizer: str = "adamw_torch_fused"
    gpu: bool = False
    devices: int = 1
    reference: str = "none"
    """Of DPO: a "copy" of the model, its "base" without adapters, or either, asked "beforehand"; else "none"."""


@dataclass(frozen=True)
class Parts:
    """Bytes on one device at one moment of a step."""

    weights: int
    reference: int
    """DPO's reference model."""
    gradients: int
    optimizer: int
    activations: int
    """What layers keep for their backward, attention masks included."""
    logits: int
    """The head's tiles, and what is computed on them."""
    copies: int
    """16-bit copies of weights under autocast."""
    buffers: int
    """What a pass holds for a moment; with several devices the buckets in which gradients travel."""
    heap: int = 0
    """On a CPU what the C library's heap keeps of freed tensors."""
    process: int = 0
    """On a CPU what the process holds beside tensors: libraries, and what they keep."""

    @property
    def total(self) -> int:
        return sum(getattr(self, part.name) for part in fields(self))


def moments(shape: Shape, work: Work, process: int = 0) -> dict[str, Parts]:
    """The moments of a step that may be its peak, in their order; the first step has no states yet."""
    gradients = shape.trained_weights
    before = gradients if work.accumulated > 1 else 0
    states = _states(shape, work.optimizer)
    reference = shape.weights if work.reference == "copy" else 0
    batch = work.batch
    reached = [layer for layer in shape.layers if layer.reached]
    last, first = shape.layers[-1], reached[0] if reached else shape.layers[-1]
    top, kept = _layer(shape, work, last), _kept(shape, work)
    forward, backward = _head(shape, work, batch)
    copies = 2 * shape.matrices if work.autocast else 0
    one_copy = copies // len(shape.layers)
    # Those of trained weights lie in autocast's cache, which is emptied where the forward ends; a backward without
    # checkpointing holds them all the same.
    at_end = copies if not work.checkpointing or shape.trained > shape.parameters // 2 else one_copy
    held = one_copy if work.checkpointing else copies
    passing = _passing(shape, work, batch)
    head_gradient = 4 * shape.vocabulary * shape.hidden if shape.head_trained else 0
    again = top if work.checkpointing else 0
    # What gradients travel in between devices: torch's DistributedDataParallel copies them into buckets.
    buckets = gradients if work.devices > 1 else 0
    # Gradients that arrive where some are already are made beside them first.
    twice = head_gradient if (shape.tied and shape.embedding_trained) or before else 0

    def parts(gradients: int, activations: int, logits: int, copies: int, buffers: int) -> Parts:
        return Parts(
            shape.weights, reference, gradients, states, activations, logits, copies, buffers + buckets,
            _heap(shape, work), process,
        )  # fmt: skip

    told = {"the forward's end": parts(before, kept, forward, at_end, 0)}
    if work.reference in ("copy", "base"):
        told["the reference's forward"] = parts(
            before, kept + 4 * batch.tokens * shape.hidden, forward, at_end, _passing(shape, work, batch, alone=True)
        )
    told |= {
        "the head's backward": parts(max(before, head_gradient), kept, backward, held, head_gradient if before else 0),
        "the last layer's backward": parts(
            max(before, head_gradient + 4 * last.trained), kept + again, 0, held,
            passing + (4 * last.trained if before else 0),
        ),
        "the first layer's backward": parts(
            gradients, _layer(shape, work, first), 0, one_copy, max(passing, twice - _layer(shape, work, first))
        ),
        "the optimizer's step": parts(gradients, 0, 0, 0, _stepping(shape, work)),
    }  # fmt: skip
    if work.evaluated is not None:
        told["an evaluation"] = parts(
            0, 0, _head(shape, work, work.evaluated)[0], one_copy, _passing(shape, work, work.evaluated, alone=True)
        )
    return told


def peak(shape: Shape, work: Work, process: int = 0) -> tuple[str, Parts]:
    """The moment that holds most, and what it holds."""
    return max(moments(shape, work, process).items(), key=lambda moment: moment[1].total)


def _layer(shape: Shape, work: Work, layer: Layer) -> int:
    """Bytes one decoder layer saves for its backward."""
    # A norm works in float32, whatever is computed in; under autocast each matrix that reads its output casts it anew.
    size = 2 if work.autocast else 4
    wanting = layer.wanting
    readers: float = len(wanting & {"q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"})
    if not work.autocast:  # they share it
        readers = bool(wanting & {"q_proj", "k_proj", "v_proj"}) + bool(wanting & {"gate_proj", "up_proj"})
    norms = shape.hidden * (2 * 4 + (2 * 4 if layer.norms else 0) + readers * size)
    repeated = shape.query if work.batch.masked or work.attention == "eager" else shape.key
    attention = size * (2 * shape.query + 2 * repeated)
    if shape.query_norm:
        attention += (4 + (size if layer.norms else 0)) * (shape.query + shape.key)
    scalars = 4 * (2 + shape.heads)  # the norms' scales, the softmax's sums
    if shape.query_norm:
        scalars += 4 * (shape.query + shape.key) // shape.head
    fed = (4 if "down_proj" in wanting else 3) * size * shape.feed_forward
    adapted = size * (layer.adapters + layer.magnitudes)
    return work.batch.tokens * int(norms + attention + fed + scalars + adapted) + _mask(shape, work, work.batch, size)


def _mask(shape: Shape, work: Work, batch: Batch, size: int) -> int:
    """Bytes of T × T one layer saves."""
    square = batch.rows * batch.length**2
    if work.attention == "eager":  # the scores in float32, and as they are multiplied with the values
        return square * shape.heads * (4 + (size if size < 4 else 0))
    return square * size if batch.masked and work.attention == "sdpa" else 0


def _kept(shape: Shape, work: Work) -> int:
    """Bytes all layers keep between forward and backward, the final norm and the shared mask included."""
    batch = work.batch
    square = batch.rows * batch.length**2 if batch.masked else 0
    shared = batch.tokens * (3 * 4 * shape.hidden + 2 * 4 * shape.head) + square
    reached = [layer for layer in shape.layers if layer.reached]
    if work.checkpointing:
        return len(reached) * batch.tokens * shape.hidden * (4 if not work.autocast else shape.size) + shared
    # Below the first that is reached nobody asks for a gradient, so its input is not kept for one.
    unasked = batch.tokens * (4 * shape.hidden + 4) if reached and not shape.embedding_trained else 0
    return sum(_layer(shape, work, layer) for layer in reached) - unasked + shared


def _head(shape: Shape, work: Work, batch: Batch) -> tuple[int, int]:
    """Bytes of the head's forward and of its backward, beside the gradient of its matrix."""
    tokens, ids = min(batch.tokens, TILE_TOKENS), min(shape.vocabulary, TILE_IDS)
    hidden = 4 * batch.tokens * shape.hidden
    if work.gpu:  # a tile is allocated whole, whatever the vocabulary, and worked on in place
        size = 2 if work.autocast else 4
        tile = size * (tokens * TILE_IDS + ids * shape.hidden)
        return tile, tile + hidden
    tile = 4 * tokens * ids
    return tile * 17 // 4, tile * 33 // 4 + hidden


def _passing(shape: Shape, work: Work, batch: Batch, alone: bool = False) -> int:
    """Bytes under way in one layer: three widths of the MLP, and the residual stream; `alone`, its mask as well.

    Weights of 4 bits are spread out for a moment, one matrix at a time.
    """
    size = 2 if work.autocast else 4
    mask = (_mask(shape, work, batch, size) + batch.rows * batch.length**2 * batch.masked) if alone else 0
    return (
        batch.tokens * (size * max(3 * shape.feed_forward, 4 * shape.query) + 2 * 4 * shape.hidden)
        + mask
        + size * shape.quantised
    )


def _heap(shape: Shape, work: Work) -> int:
    """Bytes of the holes that a layer's passing tensors leave in the heap, by measurement and not by reckoning.

    glibc serves what is smaller than 32 MB from a heap it hardly shrinks, and before 2.38 an aligned block does not fit
    into the hole an equal one left (https://sourceware.org/bugzilla/show_bug.cgi?id=14581). Adapters leave most: each
    makes three outputs to add one. With every block of a MiB mapped by itself (mallopt) the holes are gone, and a step
    takes 7 to 28 % more processor time, so training leaves the heap as it is. Fitted to benchmarks/results/plan.json.
    """
    if work.gpu:
        return 0
    wide = max(2 * (shape.query + shape.key) + 2 * shape.hidden + 3 * layer.outputs for layer in shape.layers)
    # Gradients go and come back, in between lie those of the next batch or the optimizer's unpacked states.
    share = 1.0 if work.accumulated > 1 else 0.75 if "8bit" in work.optimizer else 0.0
    times = 2.0 if work.reference == "none" else 2.5  # one more forward, of the reference
    passing = int(times * 4 * work.batch.tokens * wide)
    return passing + int(share * shape.trained_weights) + (_QUANTISING if shape.quantised else 0)


def _states(shape: Shape, optimizer: str) -> int:
    """Bytes of the optimizer's states; an optimizer that is not known here counts as AdamW."""
    if "adafactor" in optimizer or optimizer in ("sgd", "lomo", "adalomo"):
        return 0
    numbers = 3 if "ademamix" in optimizer else 1 if any(n in optimizer for n in ("lion", "rmsprop", "adagrad")) else 2
    for bits in (8, 4):
        if f"{bits}bit" in optimizer:
            whole = 0 if "torch" in optimizer else shape.embedding_trained
            small = shape.trained - whole
            return numbers * (4 * whole + small * bits // 8 + 4 * small // _BLOCK)
    return numbers * shape.trained_weights


def _stepping(shape: Shape, work: Work) -> int:
    """Bytes the optimizer's step holds for itself: without fusion torch makes a whole list of denominators on a GPU."""
    if "fused" in work.optimizer or ("bit" in work.optimizer and work.gpu):
        return 0
    return shape.trained_weights if work.gpu else 4 * shape.vocabulary * shape.hidden * shape.head_trained
