"""One optimiser step has one loss, an evaluation too: a weighted mean over all batches of all processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qtrain.data import Batch
from qtrain.exact import Exact
from qtrain.watch import Watch


class Weighted(Exact):
    """A base for trainers whose loss is Σ weight · loss ÷ Σ weight, however the rows are cut into batches.

    Whoever stands on it says what a batch weighs, and divides in `compute_loss` by the weight of the whole step.
    """

    loss_is_scaled_for_ga = True
    watch: Watch | None = None
    """Hears which rows each step is made of, and what they cost."""
    _evaluated: Tensor
    """Σ weight · loss and Σ weight of the evaluation under way, on this process."""

    def weight(self, batch: Batch) -> Tensor:
        """What a batch counts for, a scalar."""
        raise NotImplementedError

    def _get_num_items_in_batch(self, batch_samples: list[Batch], device: torch.device) -> Any:
        """Σ weight of one optimiser step; the Trainer hands it to every `compute_loss` of the step."""
        if not batch_samples:
            return None
        total = torch.stack([self.weight(batch) for batch in batch_samples]).sum().to(device)
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            total = self.accelerator.gather(total).sum()
        return total

    def across_processes(self, loss: Any, num_items_in_batch: Any) -> Any:
        """A share of the step's loss as the backward pass wants it: data-parallel training averages gradients."""
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            return loss * self.accelerator.num_processes
        return loss

    def prediction_step(self, model: Any, inputs: Batch, *rest: Any, **more: Any) -> Any:
        """One batch of an evaluation; its loss is counted with its weight."""
        weight = self.weight(inputs).to(self.args.device)
        loss, logits, labels = super().prediction_step(model, inputs, *rest, **more)
        # A spare row that evens out several processes may have nothing to its name: its mean is 0 / 0.
        self._evaluated = self._evaluated + torch.stack([torch.where(weight > 0, loss * weight, 0.0), weight])
        return loss, logits, labels

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **more: Any) -> Any:
        """An evaluation whose loss is the weighted mean; the Trainer's is over batches, whatever they hold."""
        self._evaluated = torch.zeros(2, device=self.args.device)
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **more)
        loss, weight = self.accelerator.reduce(self._evaluated, reduction="sum").tolist()
        output.metrics[f"{metric_key_prefix}_loss"] = loss / max(weight, torch.finfo().tiny)
        if self.watch is not None:
            output.metrics.update(self.watch.evaluation(metric_key_prefix, self.accelerator))
        return output

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """One log entry; that of training with the loss of each source since the last."""
        if self.watch is not None and "loss" in logs:
            logs.update(self.watch.losses())
        super().log(logs, start_time)

    def _send_telemetry(self) -> None:
        """Nothing: what is trained here, and that it is, stays here."""
