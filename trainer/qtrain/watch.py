"""Listens to a trainer's batches, without a hand in them: the rows of each step, the loss of each source, spikes."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor
from transformers import TrainerCallback

from qtrain import steps
from qtrain.data import IGNORED, ORIGIN, Batch, Shards, row_ids

_QUIET = 10  # steps after a spike in which no other is told: where a run diverges, every step is one
_TOLD = 3  # rows of a spike
_DIGITS = 4


@dataclass(frozen=True)
class Heard:
    """One batch: the numbers of its rows, those of the sources of what lies in them, and what that cost.

    `costs` is [conversations, 4]: Σ weight · nll, Σ weight, trained tokens, tokens. Of preference pairs it is [pairs,
    5]: loss, 1, trained tokens, tokens, margin.
    """

    rows: Tensor
    sources: Tensor
    costs: Tensor


class Watch(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Writes steps.jsonl, sums the losses of each source for the log, and tells spikes on the console.

    What it knows of earlier steps it reads from the file when training begins, so a run that goes on is none the wiser.
    """

    def __init__(self, run: Path, shards: Shards, console: Console) -> None:
        self.run, self.shards, self.console = run, shards, console
        self.step: list[Heard] = []
        self.evaluated = self._nothing()
        self.since_log: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self.before: deque[float] = deque(maxlen=steps.WINDOW)
        self.quiet_until = 0

    def hear(self, model: Any, heard: Heard) -> None:
        """A batch of the step under way, or of an evaluation."""
        if model.training:
            self.step.append(heard)
        else:
            self.evaluated = self.evaluated.to(heard.costs.device)
            self.evaluated.index_add_(0, heard.sources.clamp(min=0), heard.costs[:, :2])

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        file, self.step = self.run / steps.FILE, []
        done = steps.rewind(file, state.global_step) if state.is_world_process_zero else steps.read(file)
        logged = max((entry["step"] for entry in state.log_history if "loss" in entry), default=0)
        for entry in done:
            if entry["step"] <= state.global_step:
                self._count(entry, logged)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        entry = _entry(state.global_step, _everywhere(self.step, args.world_size), self.shards.sources)
        self.step = []
        if state.is_world_process_zero:
            steps.append(self.run / steps.FILE, entry)
            loss = math.nan if entry["loss"] is None else entry["loss"]
            if state.global_step >= self.quiet_until and steps.is_spike(loss, list(self.before)):
                self.quiet_until = state.global_step + _QUIET
                self._tell(entry)
        self._count(entry, 0)

    def losses(self) -> dict[str, float]:
        """`loss/<source>` over the steps since it was last asked for."""
        out = {f"loss/{name}": round(nll / weight, 6) for name, (nll, weight) in self.since_log.items() if weight}
        self.since_log.clear()
        return dict(sorted(out.items()))

    def evaluation(self, prefix: str, accelerator: Any) -> dict[str, float]:
        """`<prefix>_loss/<source>` over the evaluation that is over; the next begins."""
        sums = accelerator.reduce(self.evaluated.to(accelerator.device), reduction="sum").tolist()
        self.evaluated = self._nothing()
        pairs = zip(self.shards.sources, sums, strict=True)
        return {f"{prefix}_loss/{name}": nll / weight for name, (nll, weight) in pairs if weight}

    def _nothing(self) -> Tensor:
        return torch.zeros(len(self.shards.sources), 2)

    def _count(self, entry: Mapping[str, Any], logged: int) -> None:
        if entry["loss"] is not None:
            self.before.append(entry["loss"])
        if entry["step"] > logged:
            for name, (nll, weight) in entry["sources"].items():
                self.since_log[name][0] += nll
                self.since_log[name][1] += weight

    def _tell(self, entry: Mapping[str, Any]) -> None:
        step, loss = entry["step"], entry["loss"]
        against = ""
        if self.before:
            middle, spread = steps.usual(self.before)
            against = f", the {len(self.before)} steps before it {middle:.3f} ± {spread:.3f}"
        costs = zip(row_ids(self.shards, entry["rows"]), entry["losses"], strict=True)
        worst = sorted(costs, key=lambda one: -math.inf if one[1] is None else one[1], reverse=True)[:_TOLD]
        rows = ", ".join(f"{row} ({'–' if cost is None else f'{cost:.2f}'})" for row, cost in worst)
        told = f"spike at step {step}: loss {'is no number' if loss is None else f'{loss:.3f}'}{against}"
        self.console.print(told, style="yellow", markup=False, soft_wrap=True)
        self.console.print(
            f"  its worst rows: {rows} · qtrain why {self.run} --step {step}",
            style="yellow", markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip


@contextmanager
def listening(watch: Watch | None, model: Any, inputs: Batch) -> Iterator[None]:
    """Takes what is not the model's out of `inputs`; `watch` hears what the forward pass inside says of them."""
    rows, sources = (inputs.pop(name, None) for name in ORIGIN)
    if watch is None or rows is None or sources is None:
        yield
        return
    batch, said = dict(inputs), []
    hook = model.register_forward_hook(lambda _, __, output: said.append(output.log_probs.detach()))
    try:
        yield
    finally:
        hook.remove()
    watch.hear(model, Heard(rows[0], sources[0], costs(said[-1][0], batch, sources.shape[1])))


def costs(log_probs: Tensor, batch: Batch, conversations: int) -> Tensor:
    """Σ weight · nll, Σ weight, trained tokens and tokens of each conversation of a batch: [conversations, 4] float32.

    `log_probs` [T - 1] are those of each next token.
    """
    which = batch["position_ids"][0].eq(0).cumsum(0) - 1
    trained = batch["labels"][0, 1:].ne(IGNORED).float()
    weights = trained * batch["weights"][0, 1:] if "weights" in batch else trained
    out = torch.zeros(conversations, 4, device=log_probs.device)
    nll = torch.where(trained > 0, -log_probs.float(), 0.0)
    out[:, :3].index_add_(0, which[1:], torch.stack([nll * weights, weights, trained], dim=1))
    out[:, 3].index_add_(0, which, torch.ones_like(which, dtype=torch.float32))
    return out


def _everywhere(step: list[Heard], processes: int) -> list[Any]:
    """(rows, sources, costs) of the step as plain lists, of this process and then of the others."""
    mine = tuple(torch.cat([getattr(heard, name) for heard in step]).tolist() for name in ("rows", "sources", "costs"))
    if processes == 1:
        return [mine]
    from accelerate.utils import gather_object

    return list(gather_object([mine]))


def _entry(step: int, heard: list[Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The line of steps.jsonl. Numbers below 0 are of rows that only even out several processes."""
    rows = [row for part in heard for row in part[0] if row >= 0]
    pairs = [pair for part in heard for pair in zip(part[1], part[2], strict=True) if pair[0] >= 0]
    sources, costs = zip(*pairs, strict=True)
    of_source: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for source, (nll, weight, *_) in zip(sources, costs, strict=True):
        of_source[names[source]][0] += nll
        of_source[names[source]][1] += weight
    nll, weight, trained, tokens, *_ = (math.fsum(column) for column in zip(*costs, strict=True))
    margins = [_number(one[4], 1, _DIGITS) for one in costs if len(one) > 4]
    return {
        "step": step,
        "loss": _number(nll, weight, 6),
        "tokens": int(tokens),
        "trained": int(trained),
        "rows": rows,
        "losses": [_number(one[0], one[1], _DIGITS) for one in costs],
        **({"margins": margins} if margins else {}),
        "sources": {name: sums for name, sums in sorted(of_source.items()) if math.isfinite(sums[0])},
    }


def _number(nll: float, weight: float, digits: int) -> float | None:
    """The mean; None where nothing is trained, or it is no number, which JSON does not know."""
    return round(nll / weight, digits) if weight and math.isfinite(nll) else None
