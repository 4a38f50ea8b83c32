"""Runs a function over items on this machine: here, or in worker processes."""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def run(function: Callable[[Item], Result], items: Sequence[Item], workers: int = 1) -> Iterator[Result]:
    """The results in the order of the items, whatever the number of workers.

    Workers are spawned, not forked: polars and tokenizers hold threads that do not survive a fork.
    """
    undisturbed = functools.partial(_undisturbed, function)
    if workers <= 1 or len(items) <= 1:
        yield from map(undisturbed, items)
        return
    with _threads_each(workers), ProcessPoolExecutor(min(workers, len(items)), mp_context=get_context("spawn")) as pool:
        yield from pool.map(undisturbed, items)


@contextmanager
def _threads_each(workers: int) -> Iterator[None]:
    """Processes started in this block share the cores: polars in each of them would otherwise take all."""
    if "POLARS_MAX_THREADS" in os.environ:
        yield
        return
    os.environ["POLARS_MAX_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))
    try:
        yield
    finally:
        del os.environ["POLARS_MAX_THREADS"]


def _undisturbed(function: Callable[[Item], Result], item: Item) -> Result:
    """Without the search for cycles: the millions of objects a part makes are in none, and a tenth of its time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return function(item)
    finally:
        if was_enabled:
            gc.enable()
