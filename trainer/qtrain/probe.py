"""A few real steps on real rows in a process of its own, measured and thrown away: peak memory and time per step.

A fresh process, because memory is only told from a known start: the high-water mark of this one does not go down.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from qdata.errors import QdataError
from qtrain.recipe import Model
from qtrain.start import Start

_NOT_PROBED = ("eval_", "save_", "logging_", "load_", "metric_", "greater_", "max_steps")
_FIRST_STEP = 100 * 2**20  # code and tables of kernels, oneDNN, threads: there from their first use on; measured


@dataclass(frozen=True)
class Job:
    """What is probed. Picklable: it crosses into the process that measures."""

    start: Start
    model: Model
    shards: Path
    steps: Sequence[Sequence[Sequence[int]]]
    """Row numbers per batch per optimiser step. The first step warms up; its time does not count."""
    timed: Sequence[int] = ()
    """The steps whose time counts."""


@dataclass(frozen=True)
class Measured:
    """What a probe found."""

    device: str
    peak: int
    """Bytes at most: of the whole process on a CPU, of torch's allocations on a GPU."""
    grown: int
    """Bytes at most above what the process held before it loaded the model; on a GPU the same as `peak`."""
    trained: int
    parameters: int
    seconds: float
    """Of the timed steps, together."""


def run(job: Job) -> Measured:
    """Measure `job` in a fresh process. Raises QdataError where the process dies, which is nearly always its memory."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(_measure, job).result()
        except BrokenProcessPool:
            raise QdataError("the probe was killed, as the system does where memory runs out") from None


def _measure(job: Job) -> Measured:
    import torch
    from transformers import TrainerCallback

    from qtrain import arguments as args
    from qtrain import model as models
    from qtrain import train as road
    from qtrain import tuning
    from qtrain.data import open_shards

    class Clock(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
        seconds = 0.0

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.began = _now()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step - 1 in job.timed:
                self.seconds += _now() - self.began

    models.quiet()
    libraries()
    shards = open_shards(job.shards)
    rows = shards.train.select([row for step in job.steps for batch in step for row in batch])
    shards = dataclasses.replace(shards, train=rows, validation=None)
    train = dataclasses.replace(
        job.start.train, arguments=_shortened(job), early_stopping_patience=None, global_batch_size=None
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = args.make(train, rows=len(rows), validation=False)
        arguments.output_dir = folder
        before = _status("VmRSS")
        model = tuning.load(dataclasses.replace(job.start, train=train), job.model, arguments, lambda _: None)
        tokenizer = road.tokenizer_of(shards, model, job.start)
        clock = Clock()
        trainer = road.trainer_of(model, train, arguments, shards, tokenizer, lambda _: None)
        trainer.add_callback(clock)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        trainer.train()
        peak, device = _status("VmHWM"), "cpu"
        if arguments.device.type == "cuda":
            peak, before, device = torch.cuda.max_memory_allocated(), 0, torch.cuda.get_device_name()
        trained, total = models.parameters(trainer.model)
    return Measured(device, peak, peak - before, trained, total, clock.seconds)


def _shortened(job: Job) -> dict[str, Any]:
    """TRL's arguments for the probe's steps: nothing is saved, logged or evaluated."""
    given = {key: value for key, value in job.start.train.arguments.items() if not key.startswith(_NOT_PROBED)}
    return given | {
        "per_device_train_batch_size": len(job.steps[0][0]),
        "max_steps": len(job.steps),
        "gradient_accumulation_steps": len(job.steps[0]),
        "train_sampling_strategy": "sequential",
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
    }


@cache
def libraries() -> int:
    """Bytes a process holds with everything imported that training imports, and what its first step brings in.

    Asked early, before this process has held anything else.
    """
    import accelerate  # noqa: F401
    import peft  # noqa: F401
    import transformers

    from qtrain import train  # noqa: F401

    _ = transformers.AutoModelForCausalLM, transformers.Qwen2ForCausalLM
    return _status("VmRSS") + _FIRST_STEP


def _now() -> float:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _status(field: str) -> int:
    """Bytes of this process in memory: now (VmRSS), or at most since it began (VmHWM)."""
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii")
    except FileNotFoundError:  # no Linux: the peak is all there is
        import resource
        import sys

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    return int(text.split(f"{field}:")[1].split()[0]) * 1024
