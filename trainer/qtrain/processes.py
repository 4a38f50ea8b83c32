"""One recipe for one process or several: who is who, who builds, and how `--processes N` starts them.

A process of several knows its place from the variables torchrun and `accelerate launch` set, and so do ours.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from types import FrameType
from typing import Any

from qdata.errors import QdataError

_HELLO = timedelta(minutes=10)  # all processes have started by then, or one never will
_PATIENCE = timedelta(days=7)  # building shards may take hours; nobody should wait for ever
_GRACE = 10.0  # seconds between asking the other processes to end and ending them


def rank() -> int:
    """This process's number among those that train together; 0 speaks and writes."""
    return int(os.environ.get("RANK", 0))


def count() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", 1))


def here() -> int:
    """How many of them are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def alone() -> bool:
    """Whether nobody started this process as one of a group; torchrun may start a group of one."""
    return "LOCAL_RANK" not in os.environ


def refuse_too_many(processes: int, gpus: bool) -> None:
    """Raises QdataError where there are GPUs, but fewer than processes; with `gpus`, also where there are none."""
    import torch

    there = torch.cuda.device_count()
    if processes > there and (there or gpus):
        have = f"{there} GPU{'s' if there != 1 else ''}" if there else "no GPU"
        raise QdataError(
            f"{processes} processes want a GPU each, and this machine has {have}: ask for at most {there}"
            if there
            else f"--gpus {processes}: this machine has no GPU; --processes {processes} trains on its CPU"
        )


class Turn:
    """Process 0 builds what all of them need while the others wait, without a time-out of their process group.

    The group is made later: until then they share only the store behind MASTER_ADDR and MASTER_PORT.
    """

    def __init__(self) -> None:
        self.store: Any = None
        # Started again by torchrun after a crash, they meet in the same store.
        self.key = f"qtrain/built/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"

    def __enter__(self) -> Turn:
        if count() > 1:
            from torch.distributed.rendezvous import rendezvous

            self.store, *_ = next(rendezvous("env://", timeout=_HELLO))
            if rank() > 0:
                self.store.wait([self.key], _PATIENCE)
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if self.store is not None and rank() == 0 and error is None:
            self.store.set(self.key, "yes")


def from_first(value: Any) -> Any:
    """What process 0 gives, for all of them."""
    if count() == 1:
        return value
    import torch.distributed

    box = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def part() -> None:
    """The processes need each other no more."""
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def launch(number: int, arguments: Sequence[str]) -> int:
    """Run `qtrain ARGUMENTS` in `number` processes on this machine until all have ended; returns the exit code.

    A signal is handed on. When one process fails the others, who would wait for it for ever, are ended.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "QTRAIN_PARENT": str(os.getpid()),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // number))),
    }  # fmt: skip
    command = [sys.executable, "-m", "qtrain", *arguments]
    children = [
        # In a session of their own: a Ctrl-C of the terminal reaches them once, through us.
        subprocess.Popen(
            command, env={**os.environ, **shared, "RANK": str(n), "LOCAL_RANK": str(n)}, start_new_session=True
        )
        for n in range(number)
    ]

    def hand_on(number: int, _: FrameType | None) -> None:
        for child in children:
            child.send_signal(number)

    before = {s: signal.signal(s, hand_on) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        return _await(children)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _await(children: Sequence[subprocess.Popen[bytes]]) -> int:
    failed: int | None = None
    deadline = float("inf")
    while any(child.poll() is None for child in children):
        time.sleep(0.1)
        codes = [child.returncode for child in children if child.returncode]
        if codes and failed is None:
            failed, deadline = codes[0], time.monotonic() + _GRACE
        if time.monotonic() > deadline:
            for child in children:
                child.kill()
    codes = [child.returncode for child in children if child.returncode]
    code = failed if failed is not None else next(iter(codes), 0)
    return code if code >= 0 else 128 - code  # ended by a signal, as shells say it
