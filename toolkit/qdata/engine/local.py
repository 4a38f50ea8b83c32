"""Runs a function over items on this machine: here alone, or here and in worker processes."""

from __future__ import annotations

import functools
import gc
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_Queue = SimpleQueue[tuple[Future[Any], Any] | None]  # items, each with the place of its result; None: no more
_WAITING = 2  # items drawn for each other process, so that it need not wait until this one has done its own
_AHEAD = 8  # results of each process that may wait for an earlier one


def run(function: Callable[[Item], Result], items: Iterable[Item], workers: int = 1) -> Iterator[Result]:
    """The results in the order of the items, whatever the number of workers; items are drawn as they are needed.

    This process is one of the workers: it works while the others start, and whenever no result is there to be passed
    on. What an item raises, or the drawing of one, is raised in its place; then no process is left.
    """
    undisturbed = functools.partial(_undisturbed, function)
    drawn = iter(items)
    first = list(itertools.islice(drawn, 2)) if workers > 1 else []
    if len(first) <= 1:
        yield from map(undisturbed, itertools.chain(first, drawn))
        return
    others = workers - 1
    # Spawned, not forked: polars and tokenizers hold threads that do not survive a fork.
    with (
        _threads_each(workers),
        ProcessPoolExecutor(others, mp_context=get_context("spawn")) as pool,
        ThreadPoolExecutor(others) as threads,
    ):
        waiting: _Queue = SimpleQueue()
        for _ in range(others):
            threads.submit(_serve, pool, undisturbed, waiting)
        try:
            yield from _share(undisturbed, itertools.chain(first, drawn), waiting, others)
        finally:
            while _taken(waiting):
                pass
            for _ in range(others):
                waiting.put(None)


def _share(function: Callable[[Item], Result], items: Iterator[Item], waiting: _Queue, others: int) -> Iterator[Result]:
    """Draws items for all, works on them as the others do, and gives the results in order."""
    results: deque[Future[Result]] = deque()
    is_more = True
    while True:
        while is_more and waiting.qsize() < _WAITING * others and len(results) < _AHEAD * (others + 1):
            place: Future[Result] = Future()
            try:
                waiting.put((place, next(items)))
            except StopIteration:
                is_more = False
                break
            except Exception as error:
                is_more = False
                place.set_exception(error)
            results.append(place)
        if not results:
            return
        if not results[0].done() and (task := _taken(waiting)):
            _settle(function, *task)
        else:
            yield results.popleft().result()


def _serve(pool: ProcessPoolExecutor, function: Callable[[Any], Any], waiting: _Queue) -> None:
    """A thread's life: hands items to one process, each when it is done with the one before."""
    while task := waiting.get():
        _settle(lambda item: pool.submit(function, item).result(), *task)


def _taken(waiting: _Queue) -> tuple[Future[Any], Any] | None:
    try:
        return waiting.get_nowait()
    except Empty:
        return None


def _settle(function: Callable[[Any], Any], place: Future[Any], item: Any) -> None:
    try:
        place.set_result(function(item))
    except BaseException as error:
        place.set_exception(error)
        if not isinstance(error, Exception):  # somebody wants an end now
            raise


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
