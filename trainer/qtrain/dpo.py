"""TRL's DPOTrainer, fed with finished preference shards: prompt, chosen and rejected answer as ids."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from trl import DPOTrainer

from qtrain.data import ORIGIN, Batch, Row
from qtrain.watch import Heard
from qtrain.weighted import Weighted


class PreferenceTrainer(Weighted, DPOTrainer):  # type: ignore[misc]  # trl is not typed
    """DPOTrainer on rows of `prompt_ids`, `chosen_ids` and `rejected_ids`, which qdata has cut where a server cuts.

    The reference is the model as training found it: under adapters the base without them, else a frozen copy, unless
    `precompute_ref_log_probs` asks it once for all rows beforehand (TRL keeps the answers in a file beside the rows).
    The loss is the mean over the pairs of one optimiser step; TRL's is the mean of the means of its batches.
    """

    def __init__(self, model: Any, *, args: Any, peft_config: Any = None, **more: Any) -> None:
        copied = peft_config is None and not args.precompute_ref_log_probs
        # Not TRL's way, the model's folder read again: weights may be random, or merged in memory.
        reference = copy.deepcopy(model).requires_grad_(False) if copied else None
        super().__init__(model, reference, args, peft_config=peft_config, **more)
        self.data_collator: Any = _Numbered(self.data_collator)

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        """The rows as they are: already tokenized."""
        return dataset

    def weight(self, batch: Batch) -> Tensor:
        """The number of pairs; a spare one that evens out several processes is none."""
        if "rows" in batch:
            return batch["rows"].ge(0).sum().float()
        return torch.tensor(len(batch["input_ids"]) / 2)

    def compute_loss(
        self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's loss of one batch, as its share of the step."""
        weight = self.weight(inputs)
        rows, sources = (inputs.pop(name, None) for name in ORIGIN)
        with _overheard(self.model, self.ref_model) as said:
            result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if self.watch is not None and rows is not None and sources is not None:
            counted = rows[0].ge(0)[:, None]  # the spare pair is nobody's
            self.watch.hear(model, Heard(rows[0], sources[0], costs(said, inputs, self.beta) * counted))
        if num_items_in_batch is None:
            return result
        loss, *outputs = result if return_outputs else (result,)
        loss = self.across_processes(loss * (weight / num_items_in_batch), num_items_in_batch)
        return (loss, *outputs) if return_outputs else loss

    def compute_ref_log_probs(self, model: Any, inputs: Batch) -> Any:
        """The reference's log-probabilities of both answers."""
        return super().compute_ref_log_probs(model, {k: v for k, v in inputs.items() if k not in ORIGIN})


def costs(said: Sequence[Tensor], batch: Batch, beta: float) -> Tensor:
    """DPO's own loss of each pair, 1, trained tokens, tokens, and its margin: [pairs, 5] float32.

    `said` are the log-probabilities [2 · pairs, T] of the model and, where `batch` does not bring the reference's sums,
    of the reference; chosen answers first. The margin is β · (chosen − rejected) of what the model says more than the
    reference, positive where the pair is in order; the loss −log σ(margin), TRL's with loss_type = "sigmoid".
    """
    chosen, rejected = said[0].float().sum(1).chunk(2)
    if "ref_chosen_logps" in batch:
        first, second = batch["ref_chosen_logps"], batch["ref_rejected_logps"]
    else:
        first, second = said[1].float().sum(1).chunk(2)
    margins = beta * ((chosen - first) - (rejected - second))
    trained, tokens = (
        torch.stack(batch[mask].sum(1).chunk(2)).sum(0).float() for mask in ("completion_mask", "attention_mask")
    )
    return torch.stack([-logsigmoid(margins), torch.ones_like(margins), trained, tokens, margins], dim=1)


@contextmanager
def _overheard(model: Any, reference: Any | None) -> Iterator[list[Tensor]]:
    """The log-probabilities of each forward pass inside: the model's, then the reference's, which may be one model."""
    said: list[Tensor] = []

    def hear(_: Any, __: Any, output: Any) -> None:
        said.append(output.log_probs.detach())

    hooks = [one.register_forward_hook(hear) for one in (model, reference) if one is not None]
    try:
        yield said
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True)
class _Numbered:
    """TRL's collator; of numbered rows the batch says `rows` and `sources` as well, each [1, pairs] int64."""

    collate: Callable[[Sequence[Row]], Batch]

    def __call__(self, rows: Sequence[Row]) -> Batch:
        batch = dict(self.collate(rows))
        if "row" in rows[0]:
            batch["rows"] = torch.tensor([[row["row"] for row in rows]])
            batch["sources"] = torch.tensor([[row["source"][0] for row in rows]])
        return batch
