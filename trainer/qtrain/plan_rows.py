"""The rows of shards in numbers: the largest batch, steps and tokens of a run, and the batches a probe takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qtrain.data import IGNORED
from qtrain.memory import Batch

_MANY = 1024
Numbers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Rows:
    """What a split holds. Of packed rows `pairs` is None; of preference pairs it is the length of the longer side."""

    tokens: Numbers
    """Of each row; of a pair prompt and answer of both sides."""
    trained: int
    conversations: Numbers
    """In each row; of a pair 1."""
    pairs: Numbers | None = None

    @property
    def lengths(self) -> Numbers:
        """What a row adds to a batch, or is padded to at least."""
        return self.tokens if self.pairs is None else self.pairs

    def of(self, length: int) -> Rows:
        """Rows of the same kind that are all as long as that, as many as a batch may want."""
        many = np.full(max(len(self.tokens), _MANY), length)
        if self.pairs is not None:
            return Rows(2 * many, self.trained, self.conversations, many)
        return Rows(many, self.trained, self.conversations)

    def largest(self, size: int) -> Batch:
        """The largest batch that `size` rows of it may make."""
        size = min(size, len(self.tokens))
        longest = np.sort(self.lengths)[-size:]
        if self.pairs is not None:  # TRL pads chosen and rejected answers to the longest, and sends them side by side
            return Batch(2 * size, int(longest[-1]), bool(2 * longest[-1] * size > self.tokens.sum() or size > 1))
        return Batch(1, int(longest.sum()), bool(size > 1 or self.conversations.max() > 1))


def count(part: Any) -> Rows:
    """The lengths of the rows of a split, read by columns."""
    table = part.data.table if part._indices is None else part.flatten_indices().data.table
    if "chosen_ids" in table.column_names:
        prompt, chosen, rejected = (_lengths(table, f"{name}_ids") for name in ("prompt", "chosen", "rejected"))
        return Rows(
            2 * prompt + chosen + rejected,
            int(chosen.sum() + rejected.sum()),
            np.ones_like(prompt),
            prompt + np.maximum(chosen, rejected),
        )
    labels = table.column("labels").combine_chunks() if part.num_rows else pa.array([], pa.list_(pa.int32()))
    trained = pc.sum(pc.not_equal(pc.list_flatten(labels), IGNORED)).as_py() or 0
    return Rows(_lengths(table, "input_ids"), trained, _lengths(table, "seq_lengths"))


def _lengths(table: Any, column: str) -> Numbers:
    lengths: Numbers = pc.list_value_length(table.column(column)).to_numpy().astype(np.int64)
    return lengths


def schedule(arguments: Any, rows: int, devices: int = 1) -> dict[str, int | float]:
    """Steps as the Trainer counts them (`transformers.Trainer.set_initial_training_values`)."""
    batch, accumulated = arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps
    whole = rows // batch if arguments.dataloader_drop_last else math.ceil(rows / batch)
    batches = whole // devices if arguments.dataloader_drop_last else math.ceil(whole / devices)
    per_epoch = max(math.ceil(batches / accumulated), 1)
    total = arguments.max_steps if arguments.max_steps > 0 else math.ceil(arguments.num_train_epochs * per_epoch)
    return {
        "epochs": round(total / per_epoch, 2),
        "per_epoch": per_epoch,
        "total": total,
        "warmup": arguments.get_warmup_steps(total),
        "global_batch": batch * accumulated * devices,
    }


def batches(rows: Rows, batch: int, accumulated: int, seed: int, timed: int) -> list[list[list[int]]]:
    """Row numbers of the probe's steps: one to warm up, one of the longest rows, which is the peak, and `timed` more.

    Where there are fewer rows than that, they come again.
    """
    dice = np.random.default_rng(seed)
    size = batch * accumulated
    longest = np.resize(np.argsort(-rows.lengths, kind="stable")[:batch], size)
    drawn = [np.resize(dice.permutation(len(rows.tokens)), size) for _ in range(1 + timed)]
    return [step.reshape(accumulated, batch).tolist() for step in (drawn[0], longest, *drawn[1:])]


def odd(steps: dict[str, int | float], arguments: Any) -> list[str]:
    """What is unusual about a schedule, in one sentence each."""
    total, told = steps["total"], []
    if steps["warmup"] >= total:
        told.append(f"warmup_steps makes {steps['warmup']:,}, and the run has {total:,}: the learning rate only rises.")
    for what, each, lost in (
        ("eval", arguments.eval_steps or arguments.logging_steps, "nothing is evaluated while it trains"),
        ("save", arguments.save_steps, "there is no checkpoint before the end"),
        ("logging", arguments.logging_steps, "no loss is ever shown"),
    ):
        strategy = getattr(arguments, f"{what}_strategy")
        if str(getattr(strategy, "value", strategy)) == "steps" and each > total:
            told.append(f"{what}_steps is {each:g}, and the run has {total:,}: {lost}.")
    if total < 10:
        told.append(f"The run has {total:,} step{'s' * (total > 1)}, few for anything to be learned.")
    return told
