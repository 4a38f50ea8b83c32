"""What every trainer of ours does beside TRL's: a run that stops and goes on is the run that never stopped.

transformers restores weights, optimizer, schedule, random numbers and the place in the data. Left to itself it still
loses what was summed up since the last log, events at the end of an epoch that come after its last checkpoint, the
order of an epoch resumed by several processes, and that a run was already over; and it writes checkpoints in place.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import rotate_checkpoints

from qdata.errors import QdataError
from qdata.paths import remove
from qtrain import checkpoint, faults
from qtrain.order import Order, with_spare

_CARRIED = "carried.json"


class Exact(Trainer):  # type: ignore[misc]  # transformers is not typed
    """A base for our trainers, in front of TRL's: `class X(Exact, SFTTrainer)`."""

    complete: Callable[[Path], None] | None = None
    """Lays the papers beside weights that were saved into a folder."""
    restore: Callable[[Path], None] | None = None
    """Loads the weights of a checkpoint, where `complete` changed what was saved."""
    stop: faults.Stop | None = None
    tokens = 0
    """Tokens in the batch this process works on."""
    control: Any
    _staging: Path | None = None
    _order: Order
    _epoch_over = False
    _stopped = False
    _saved = -1
    _batches = 0
    """Batches this process has taken of the epoch."""

    # Saving

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging or self.args.output_dir)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save checkpoint-N whole: aside first, then by rename, and only then let older ones go."""
        run, name = Path(self.args.output_dir), f"checkpoint-{self.state.global_step}"
        carried = self._carry()
        best = self.state.best_global_step
        with self.saving(run / name) as staged:
            self._staging = staged.parent
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self._staging = None
            if best and (best == self.state.global_step or (run / f"checkpoint-{best}").is_dir()):
                self.state.best_model_checkpoint = str(run / f"checkpoint-{best}")
            if self.is_world_process_zero():
                self.state.save_to_json(str(staged / "trainer_state.json"))  # again: it named the folder aside
                (staged / _CARRIED).write_text(json.dumps(carried) + "\n", encoding="utf-8")
        self._saved = self.state.global_step
        if self.is_world_process_zero():
            rotate_checkpoints(str(run), self.args.save_total_limit, self.state.best_model_checkpoint)

    @contextmanager
    def saving(self, target: Path) -> Iterator[Path]:
        """A folder to save into, aside; it becomes `target` with its papers when all processes have left the block.

        Raises QdataError where the disk is full: nothing half-written stays then.
        """
        staging = target.parent / checkpoint.STAGING
        if self.is_world_process_zero():
            remove(staging)
            (staging / target.name).mkdir(parents=True)
        free = shutil.disk_usage(target.parent).free
        self.accelerator.wait_for_everyone()
        try:
            yield staging / target.name
            self.accelerator.wait_for_everyone()
            if self.is_world_process_zero():
                if self.complete is not None:
                    self.complete(staging / target.name)
                checkpoint.publish(staging / target.name, target)
        except Exception as error:
            remove(staging)
            full = faults.full_disk(error, target, self._bytes(target), free)
            if full is None:
                raise
            raise full from None
        if self.is_world_process_zero():
            remove(staging)
        self.accelerator.wait_for_everyone()

    def _bytes(self, target: Path) -> int:
        """How much was to be written: as much as a checkpoint took before, or weights and, with them, moments."""
        is_checkpoint = checkpoint.step_of(target) >= 0
        for other in checkpoint.all_of(target.parent) if is_checkpoint else ():
            return sum(file.stat().st_size for file in other.rglob("*") if file.is_file())
        adapter = hasattr(self.model, "peft_config")
        saved = [p for p in self.model.parameters() if p.requires_grad or not adapter]
        if is_checkpoint and self.optimizer is not None:
            saved += [t for state in self.optimizer.state.values() for t in state.values()]
        return sum(t.numel() * t.element_size() for t in saved if isinstance(t, torch.Tensor))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.restore is None:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            self.restore(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        if self.restore is None:
            super()._load_best_model()
        else:
            self.restore(Path(self.state.best_model_checkpoint))

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Save the weights; those that FSDP or DeepSpeed gathered come as `state_dict`."""
        for name in (getattr(self.model, "all_tied_weights_keys", None) or {}) if state_dict else ():
            state_dict.pop(name, None)  # gathered twice, it would be written twice
        super()._save(output_dir, state_dict=state_dict)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None: TRL's names no base, data or licence; what a run was is in its papers."""

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """As the Trainer's, but for weights with two names: a checkpoint holds them under one."""
        tied = getattr(self.model, "all_tied_weights_keys", None) or {}
        missing = [name for name in load_result.missing_keys if name not in tied]
        super()._issue_warnings_after_load(type(load_result)(missing, load_result.unexpected_keys))

    # What transformers forgets

    def _carry(self) -> dict[str, Any]:
        """What was summed up since the last log, of every process."""
        losses = self.accelerator.gather(self._tr_loss.detach().reshape(1)).tolist()
        return {
            "losses": losses,
            "total_loss": self._total_loss_scalar,
            "last_logged": self._globalstep_last_logged,
            "metrics": dict(getattr(self, "_metrics", {"train": {}})["train"]),
            "train_tokens": getattr(self, "_total_train_tokens", 0),
            "stopped": self.control.should_training_stop,
            "training": self.model.training,
        }

    def _take_up(self, folder: Path) -> None:
        carried = json.loads((folder / _CARRIED).read_text(encoding="utf-8"))
        self._tr_loss.fill_(carried["losses"][self.args.process_index])
        self._total_loss_scalar = carried["total_loss"]
        self._globalstep_last_logged = carried["last_logged"]
        if hasattr(self, "_metrics"):
            self._metrics["train"].update(carried["metrics"])
            self._total_train_tokens = carried["train_tokens"]
        self._stopped = carried["stopped"]
        self.model.train(carried["training"])

    def train(self, resume_from_checkpoint: Any = None, **more: Any) -> Any:
        """The training loop, from its start or from the checkpoint folder `resume_from_checkpoint`."""
        folder = Path(resume_from_checkpoint) if resume_from_checkpoint else None
        self._stopped = self._epoch_over = False
        self.args.restore_callback_states_from_checkpoint = folder is not None  # early stopping counts its patience
        self.add_callback(_Moments(self, folder))
        return super().train(resume_from_checkpoint=str(folder) if folder else None, **more)

    def _run_epoch(self, **how: Any) -> None:
        self._epoch_over = False
        if self._stopped:  # killed after its last step: transformers would take one more
            self.control.should_training_stop = True
            return
        resumed = how["resume_from_checkpoint"] is not None and how["epoch"] == how["epochs_trained"]
        self._batches = how["steps_trained_in_current_epoch"] if resumed else 0
        self._order.set_epoch(
            how["epoch"]
        )  # transformers does not reach it through skipped batches of several processes
        super()._run_epoch(**how)

    def _maybe_log_save_evaluate(self, *args: Any, **more: Any) -> None:
        """As the Trainer's; but what is saved at an epoch's last step is saved after the events of its end.

        And here, where a checkpoint holds all that happened, a run ends that was asked to.
        """
        last = self.control.should_training_stop or float(self.state.epoch).is_integer()
        if last and not self._epoch_over:
            due, self.control.should_save = self.control.should_save, False
            super()._maybe_log_save_evaluate(*args, **more)
            self.control.should_save |= due
            return
        super()._maybe_log_save_evaluate(*args, **more)
        if self._asked_to_stop():
            if self._saved != self.state.global_step:
                self._save_checkpoint(args[2], None)
                self.control = self.callback_handler.on_save(self.args, self.state, self.control)
            raise faults.InterruptedRunError

    def _asked_to_stop(self) -> bool:
        """Whether any process was asked to: all of them must stop at the same step."""
        parent = int(os.environ.get("QTRAIN_PARENT", 0))  # who started several processes; they do not outlive it
        asked = self.stop is not None and (self.stop.signal is not None or (parent > 0 and os.getppid() != parent))
        if self.args.world_size > 1:
            asked = bool(self.accelerator.reduce(torch.tensor(int(asked), device=self.args.device)).item())
        return asked

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """One log entry; the mean loss at the end is that of all steps, also of those before an interruption."""
        if "train_loss" in logs:
            logs["train_loss"] = self._total_loss_scalar / max(self.state.global_step, 1)
        super().log(logs, start_time)

    # The order of the rows

    def _get_dataloader(
        self, dataset: Any, description: str, batch_size: int, sampler_fn: Any = None, is_training: bool = False,
        dataloader_key: Any = None,
    ) -> Any:  # fmt: skip
        multiple = self.args.world_size * batch_size if self.args.world_size > 1 else 1
        shuffled = is_training and self.args.train_sampling_strategy == "random"
        seed = self.args.data_seed if self.args.data_seed is not None else self.args.seed
        order = Order(len(dataset), seed=seed if shuffled else None, multiple=multiple)
        if is_training:
            self._order = order
        if len(order) > order.rows:
            dataset = with_spare(dataset)
        rows = self.rows(dataset)
        return super()._get_dataloader(rows, description, batch_size, lambda _: order, is_training, dataloader_key)

    def rows(self, dataset: Any) -> Any:
        """The `datasets.Dataset` as the collator wants its rows."""
        return dataset

    def _indices(self) -> list[int]:
        """The rows of the batch under way on this process."""
        size = self.args.per_device_train_batch_size
        start = ((self._batches - 1) * self.args.world_size + self.args.process_index) * size
        batch = self._order.indices()[start : start + size]
        return [int(index) for index in batch if index < self._order.rows]

    # Numbers that are none

    def training_step(self, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
        """One batch forward and back. Raises NotFiniteError where its loss is no number, before any weight moves."""
        self._batches += 1
        self.tokens = max((t.numel() for t in inputs.values() if isinstance(t, torch.Tensor)), default=0)
        loss = super().training_step(model, inputs, *rest, **more)
        if not torch.isfinite(loss):
            self._refuse(f"loss is {loss.item()}")
        return loss

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)
        # fp16's scaler meets infinite gradients as a matter of course and skips the step.
        if norm is not None and not self.args.fp16 and not math.isfinite(float(norm)):
            self._refuse(f"gradient's norm is {float(norm)}")
        return norm

    def _refuse(self, what: str) -> None:
        raise faults.NotFiniteError(what, self.state.global_step + 1, self._get_learning_rate(), self._indices())


class _Moments(TrainerCallback):  # type: ignore[misc]
    """Tells the trainer of moments it has no method for."""

    def __init__(self, trainer: Exact, folder: Path | None) -> None:
        self.trainer, self.folder = trainer, folder

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        if self.folder is not None:
            self.trainer._take_up(self.folder)

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        self.trainer._epoch_over = True


def keep_best(given: Mapping[str, Any], patience: int | None) -> dict[str, Any]:
    """The arguments beside `given` with which the best checkpoint by eval_loss is kept, and is what final/ holds.

    Early stopping asks for that, load_best_model_at_end too. Raises QdataError where there is nothing to evaluate by,
    or an evaluation could find a best model that is not saved.
    """
    if patience is None and not given.get("load_best_model_at_end"):
        return {}
    strategy = str(given.get("eval_strategy", "no"))
    if strategy == "no":
        key = "early_stopping_patience" if patience is not None else "load_best_model_at_end"
        raise QdataError(f'[train] {key} wants evaluations: give eval_strategy = "steps" or "epoch"')
    steps = {"save_steps": given["eval_steps"]} if "eval_steps" in given else {}
    best = {"metric_for_best_model": "eval_loss", "save_strategy": strategy, **steps, **given}
    if str(best["save_strategy"]) != "best" and [best.get("save_steps"), strategy] != [
        best.get("eval_steps"), str(best["save_strategy"])
    ]:  # fmt: skip
        raise QdataError(
            "[train] the best model is kept where each evaluation is saved: leave save_strategy and save_steps out "
            '(they follow eval_strategy and eval_steps), or save_strategy = "best", which saves only what is better'
        )
    return {**best, "load_best_model_at_end": True}


def refuse_order(strategy: str) -> None:
    """Raises QdataError for an order of rows that could not be taken up again in the middle of an epoch."""
    if strategy not in ("random", "sequential"):
        raise QdataError(
            f"[train] train_sampling_strategy = {strategy!r}: wanted random or sequential; a batch is one row without "
            "padding, so there is nothing to gain from grouping rows by length"
        )
