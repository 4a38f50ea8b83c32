"""What can go wrong while a model trains, in one sentence each: a full disk, a loss that is no number, no memory."""

from __future__ import annotations

import errno
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from qdata.errors import QdataError

INTERRUPTED = 75
"""Exit code of a run that was asked to stop and can go on: EX_TEMPFAIL of sysexits.h, "try again"."""
_SHOWN_ROWS = 8


class InterruptedRunError(Exception):
    """A signal came; the step was finished and a checkpoint saved."""


class NotFiniteError(Exception):
    """A loss or gradient that is NaN or infinite. `indices` are the rows of the train split it came from."""

    def __init__(self, what: str, step: int, rate: float, indices: Sequence[int]) -> None:
        super().__init__(what)
        self.what, self.step, self.rate, self.indices = what, step, rate, indices


@dataclass(frozen=True)
class Batch:
    """The batch under way: at which step, how many tokens in how many rows."""

    step: int
    tokens: int
    rows: int


class Stop:
    """Inside it, a first SIGTERM or SIGINT only asks to stop after the step; a second one does what it did before."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.signal: str | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():  # else Python lets nobody listen
            self._before = {s: signal.signal(s, self._asked) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _asked(self, number: int, _: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
        self.__exit__()
        self.console.print(f"[bold yellow]{self.signal}: the step is finished and saved; once more stops at once[/]")


def full_disk(error: BaseException, folder: Path, needed: int, free: int) -> QdataError | None:
    """The sentence for a write that failed for want of room; None where `error` is about something else.

    `needed` bytes were to be written, `free` were there before.
    """
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    # torch's zip writer and safetensors have errors of their own, with or without the system's words
    words = ("No space left", "os error 28", "Disk quota", "PytorchStreamWriter failed", "unexpected pos")
    if not full and not any(word in str(error) for word in words):
        return None
    missing = f", {_size(needed - free)} too few" if needed > free else ""
    return QdataError(
        f"{folder}: the disk is full: {_size(needed)} were to be written, {_size(free)} were free{missing}. Nothing "
        f"half-written was left; what was saved before stands. Make room (or lower [train] save_total_limit, or save "
        f"to another disk with --output), then go on with --resume"
    )


def not_finite(error: NotFiniteError, rows: Sequence[str]) -> QdataError:
    """`rows` are the ids of the rows the batch held."""
    shown = ", ".join(rows[:_SHOWN_ROWS]) + (
        f" and {len(rows) - _SHOWN_ROWS:,} more" if len(rows) > _SHOWN_ROWS else ""
    )
    return QdataError(
        f"step {error.step}: the {error.what} at learning rate {error.rate:.2e}; its batch held the rows {shown}. "
        f"Try a lower learning_rate, more warmup_steps, a smaller max_grad_norm, bf16 or float32 instead of fp16, "
        f"or look at these rows with `qdata show`"
    )


def no_memory(batch: Batch, *, longest: int, tuning: str, checkpointing: bool) -> QdataError:
    """What to change where the GPU's memory did not suffice; `longest` is the tokens of the longest row."""
    ways = [f"a smaller [data] max_length and pack (the longest row has {longest:,} tokens)"]
    if batch.rows > 1:
        ways.insert(0, "a lower per_device_train_batch_size with more gradient_accumulation_steps")
    if not checkpointing:
        ways.append("activation_checkpointing = true")
    if tuning != "qlora":
        ways.append('tuning = "qlora"' if tuning == "lora" else 'tuning = "lora" or "qlora"')
    ways.append('sharding = "fsdp" with --gpus N')
    return QdataError(
        f"step {batch.step}: the GPU's memory does not suffice for a batch of {batch.tokens:,} tokens "
        f"({batch.rows} row{'s' if batch.rows != 1 else ''}). Try {'; '.join(ways)}"
    )


@contextmanager
def fitting(name: str, tuning: str) -> Iterator[None]:
    """Inside it the model is loaded. Raises QdataError where the GPU's memory does not suffice for its weights."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError:
        ways = [] if tuning == "qlora" else ['tuning = "qlora" (weights of 4 bits)']
        ways += ['sharding = "fsdp" with --gpus N', "a smaller model", "or end what else runs on this GPU"]
        raise QdataError(
            f"{name}: the GPU's memory does not suffice for its weights ({tuning}). Try {', '.join(ways)}"
        ) from None


def _size(count: int) -> str:
    """
    >>> _size(1_234_567), _size(999)
    ('1.2 MB', '999 bytes')
    """
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
