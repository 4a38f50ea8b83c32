"""A packed batch is the padded batch, loss for loss, and neighbours in it do not know of each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tests.train.shards import padded, row, write
from transformers import AutoModelForCausalLM

from qdata.errors import QdataError
from qtrain.data import IGNORED, Arrays, longest, open_shards, packed
from qtrain.order import with_spare

ROWS = [row([5, 17, 9]), row([30]), row([3, 12])]
FLEX = pytest.param(
    "flex_attention",
    marks=[
        pytest.mark.slow,  # compiles a kernel
        # torch's own, from compiling inside transformers' mask code
        pytest.mark.filterwarnings("ignore:_compile flag on create_block_mask:DeprecationWarning"),
        pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
        pytest.mark.filterwarnings(
            "ignore:<class 'torch.autograd.function.Function'> should not be:DeprecationWarning"
        ),
    ],
)


def of_each_token(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The nats of every trained token, sequence after sequence."""
    labels = batch["labels"][:, 1:]
    logits = model(**batch, use_cache=False).logits[:, :-1]
    nats = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none", ignore_index=IGNORED)
    return nats[labels != IGNORED]


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("backend", ["eager", "sdpa", FLEX])
@torch.no_grad()  # flex attention has no backward on a CPU
def test_packed_loss_is_padded_loss(tiny: Path, backend: str, left: bool) -> None:
    """Token for token, and their mean; on whichever side the rectangle is padded, and with whatever."""
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32, attn_implementation=backend).eval()
    flat, loss = of_each_token(model, packed(ROWS)), model(**packed(ROWS), use_cache=False).loss
    assert flat.numel() == sum(label != IGNORED for r in ROWS for label in r["labels"])
    for pad in (0, 7):
        batch = padded(ROWS, pad=pad, left=left)
        if left:  # as a server counts them; without, transformers counts from the padding on
            batch["position_ids"] = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
        torch.testing.assert_close(flat, of_each_token(model, batch), rtol=1e-5, atol=0)
        assert loss.item() == pytest.approx(model(**batch, use_cache=False).loss.item(), rel=1e-5)


@pytest.mark.parametrize("backend", ["eager", "sdpa", FLEX])
@torch.no_grad()
def test_neighbours_do_not_leak(tiny: Path, backend: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32, attn_implementation=backend).eval()
    batch = packed(ROWS)
    del batch["labels"]
    together = model(**batch, use_cache=False).logits[0]
    start = 0
    for length in (5, 17, 9, 30, 3, 12):
        alone = model(input_ids=batch["input_ids"][:, start : start + length], use_cache=False).logits[0]
        torch.testing.assert_close(together[start : start + length], alone, atol=1e-5, rtol=1e-5)
        start += length


@torch.no_grad()
def test_with_a_cache_neighbours_would_leak(tiny: Path) -> None:
    """Why the trainer insists on use_cache=False; when this fails, transformers has mended it."""
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
    batch = packed(ROWS)
    del batch["labels"]
    leaking = model(**batch, use_cache=True).logits
    assert (leaking - model(**batch, use_cache=False).logits).abs().max() > 1e-3


def test_gradients_are_equal_too(tiny: Path) -> None:
    gradients = []
    for batch in (packed(ROWS), padded(ROWS, pad=0)):
        model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
        model(**batch, use_cache=False).loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)


def test_nothing_is_trained_across_a_border() -> None:
    whole = {**row([4, 6]), "labels": row([4, 6])["input_ids"]}
    batch = packed([whole, whole])
    assert batch["position_ids"].tolist() == [[*range(4), *range(6)] * 2]
    assert (batch["labels"] == IGNORED).nonzero()[:, 1].tolist() == [0, 4, 10, 14]
    assert batch["labels"][0, 1:4].tolist() == whole["input_ids"][1:4]


def test_weights_are_carried() -> None:
    one = row([3, 2])
    batch = packed([{**one, "weights": [0.5] * 5}])
    assert batch["weights"].tolist() == [[0.5] * 5]


@pytest.mark.parametrize("weighted", [False, True])
def test_a_batch_of_arrays_is_the_batch_of_lists(tmp_path: Path, weighted: bool) -> None:
    """In any order, again and again, the spare row among them; and a batch can be written to."""
    rows = [{**r, **({"weights": [0.5] * len(r["labels"])} if weighted else {})} for r in [*ROWS, row([1]), row([4])]]
    dataset = with_spare(open_shards(write(tmp_path / "shards", rows)).train)
    arrays = Arrays(dataset)
    assert len(arrays) == len(dataset) == 6
    for indices in ([0], [2, 0, 4], [5, 3], [1, 1], list(range(6))):
        for _ in range(2):
            one, other = packed(arrays.__getitems__(indices)), packed([dataset[i] for i in indices])
            assert one.keys() == other.keys() and ("weights" in one) == weighted
            for name, tensor in one.items():
                assert tensor.dtype == other[name].dtype and torch.equal(tensor, other[name]), name
                tensor.zero_()
    assert longest(dataset) == 31 and longest(Dataset.from_list([{"a_ids": [1, 2], "b_ids": [1], "c": [1] * 9}])) == 3


def test_lengths_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(QdataError, match="add up to 4, its tokens to 5"):
        packed([{**row([5]), "seq_lengths": [4]}])
