"""TRL's DPOTrainer, fed with finished preference shards: prompt, chosen and rejected answer as ids."""

from __future__ import annotations

import copy
from typing import Any

from trl import DPOTrainer

from qtrain.exact import Exact


class PreferenceTrainer(Exact, DPOTrainer):  # type: ignore[misc]  # trl is not typed
    """DPOTrainer on rows of `prompt_ids`, `chosen_ids` and `rejected_ids`, which qdata has cut where a server cuts.

    The reference is the model as training found it: under adapters the base without them, else a frozen copy, unless
    `precompute_ref_log_probs` asks it once for all rows beforehand (TRL keeps the answers in a file beside the rows).
    """

    def __init__(self, model: Any, *, args: Any, peft_config: Any = None, **more: Any) -> None:
        copied = peft_config is None and not args.precompute_ref_log_probs
        # Not TRL's way, the model's folder read again: weights may be random, or merged in memory.
        reference = copy.deepcopy(model).requires_grad_(False) if copied else None
        super().__init__(model, reference, args, peft_config=peft_config, **more)

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        """The rows as they are: already tokenized."""
        return dataset

    def _send_telemetry(self) -> None:
        """Nothing: what is trained here, and that it is, stays here."""
