"""TRL's SFTTrainer, fed with finished shards: flat batches, weighted tokens, and a loss exact over the whole step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from trl import SFTTrainer

from qtrain.data import IGNORED, Arrays, Batch
from qtrain.watch import listening
from qtrain.weighted import Weighted


class ShardTrainer(Weighted, SFTTrainer):  # type: ignore[misc]  # trl is not typed
    """SFTTrainer whose loss is Σ weight · nll ÷ Σ weight over all tokens trained in one optimiser step.

    Both sums run over every row of every accumulated batch of every process, so how the rows of a step are cut into
    batches changes nothing. Without a `weights` column every trained token weighs 1, which is TRL's own loss.
    """

    def rows(self, dataset: Any) -> Any:
        """The rows with arrays for lists."""
        return Arrays(dataset)

    def weight(self, batch: Batch) -> Tensor:
        """Σ weight of the trained tokens."""
        trained = batch["labels"][:, 1:].ne(IGNORED)
        return (trained * batch["weights"][:, 1:] if "weights" in batch else trained.float()).sum()

    def compute_loss(
        self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of one batch, a scalar; TRL's where no weights are given."""
        with listening(self.watch, model, inputs):
            return self._loss(model, inputs, return_outputs, num_items_in_batch)

    def _loss(self, model: Any, inputs: Batch, return_outputs: bool, num_items_in_batch: Any) -> Any:
        total = self.weight(inputs) if num_items_in_batch is None else num_items_in_batch
        weights = inputs.pop("weights", None)
        if weights is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        outputs = model(**inputs, use_cache=False, fused_lm_head=True)
        # The head scores position t + 1 from position t: one value fewer than tokens, zero where nothing is trained.
        loss = -(outputs.log_probs * weights[:, 1:]).sum() / total.clamp(min=torch.finfo().tiny)
        loss = self.across_processes(loss, num_items_in_batch)
        return (loss, outputs) if return_outputs else loss
