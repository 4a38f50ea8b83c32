"""TRL's SFTTrainer, fed with finished shards: flat batches, weighted tokens, and a loss exact over the whole step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from trl import SFTTrainer

from qtrain.data import IGNORED, Batch
from qtrain.exact import Exact
from qtrain.watch import Watch, listening


class ShardTrainer(Exact, SFTTrainer):  # type: ignore[misc]  # trl is not typed
    """SFTTrainer whose loss is Σ weight · nll ÷ Σ weight over all tokens trained in one optimiser step.

    Both sums run over every row of every accumulated batch of every process, so how the rows of a step are cut into
    batches changes nothing. Without a `weights` column every trained token weighs 1, which is TRL's own loss.
    """

    loss_is_scaled_for_ga = True
    watch: Watch | None = None
    """Hears which rows each step is made of, and what they cost."""
    _evaluated: Tensor
    """Σ weight · nll and Σ weight of the evaluation under way, on this process."""

    def _get_num_items_in_batch(self, batch_samples: list[Batch], device: torch.device) -> Any:
        """Σ weight of one optimiser step; the Trainer hands it to every `compute_loss` of the step."""
        if not batch_samples:
            return None
        total = torch.stack([_weights(batch).sum() for batch in batch_samples]).sum().to(device)
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            total = self.accelerator.gather(total).sum()
        return total

    def compute_loss(
        self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of one batch, a scalar; TRL's where no weights are given."""
        with listening(self.watch, model, inputs):
            return self._loss(model, inputs, return_outputs, num_items_in_batch)

    def _loss(self, model: Any, inputs: Batch, return_outputs: bool, num_items_in_batch: Any) -> Any:
        total = _weights(inputs).sum() if num_items_in_batch is None else num_items_in_batch
        weights = inputs.pop("weights", None)
        if weights is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        outputs = model(**inputs, use_cache=False, fused_lm_head=True)
        # The head scores position t + 1 from position t: one value fewer than tokens, zero where nothing is trained.
        loss = -(outputs.log_probs * weights[:, 1:]).sum() / total.clamp(min=torch.finfo().tiny)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # data-parallel training averages gradients
        return (loss, outputs) if return_outputs else loss

    def prediction_step(self, model: Any, inputs: Batch, *rest: Any, **more: Any) -> Any:
        """One batch of an evaluation; its loss is counted with the weight of its tokens."""
        weight = _weights(inputs).sum().to(self.args.device)
        loss, logits, labels = super().prediction_step(model, inputs, *rest, **more)
        # Nothing is trained in the spare row that evens out several processes: its mean is 0 / 0.
        self._evaluated = self._evaluated + torch.stack([torch.where(weight > 0, loss * weight, 0.0), weight])
        return loss, logits, labels

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **more: Any) -> Any:
        """An evaluation whose loss is the mean over tokens; the Trainer's is over batches, whatever they hold."""
        self._evaluated = torch.zeros(2, device=self.args.device)
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **more)
        nll, weight = self.accelerator.reduce(self._evaluated, reduction="sum").tolist()
        output.metrics[f"{metric_key_prefix}_loss"] = nll / max(weight, torch.finfo().tiny)
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


def _weights(batch: Batch) -> Tensor:
    trained = batch["labels"][:, 1:].ne(IGNORED)
    return trained * batch["weights"][:, 1:] if "weights" in batch else trained.float()
