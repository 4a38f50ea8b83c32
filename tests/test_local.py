"""engine/local: the results of one process, from any number of them; in order, as they are wanted, and nothing left."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool

import pytest

from qdata.engine import local

AT_MOST = 60  # items drawn beyond what was asked for, of any number of workers below


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    threads = threading.active_count()
    yield
    assert multiprocessing.active_children() == []
    assert threading.active_count() == threads
    assert "POLARS_MAX_THREADS" not in os.environ


def squared(number: int) -> int:
    """Some take longer than others; negative ones cannot be had."""
    time.sleep(0.03 if number % 3 == 0 else 0)
    if number < 0:
        raise ValueError(f"{number} is below 0")
    return number * number


def worker(_: int) -> int:
    """Who does it."""
    time.sleep(0.05)
    return os.getpid()


def killed(parent: int) -> int:
    """A process that dies, unless it is the one that started the others."""
    if os.getpid() != parent:
        os._exit(1)
    time.sleep(0.05)
    return parent


def interrupted(parent: int) -> None:
    """Somebody presses Ctrl-C while this process works on an item."""
    if os.getpid() == parent:
        raise KeyboardInterrupt
    time.sleep(0.1)


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_results_come_in_the_order_of_the_items(workers: int, count: int) -> None:
    """Whoever is done first; from a list or from what draws items one by one."""
    assert list(local.run(squared, range(count), workers)) == [n * n for n in range(count)]
    assert list(local.run(squared, iter(range(count)), workers)) == [n * n for n in range(count)]


def test_this_process_is_one_of_the_workers() -> None:
    """It works while the others start; for a single item nobody else is started."""
    who = set(local.run(worker, range(30), 2))
    assert len(who) == 2
    assert os.getpid() in who
    assert set(local.run(worker, [1], 2)) == {os.getpid()}


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("place", [0, 1, 7])
def test_what_an_item_raises_is_raised_in_its_place(workers: int, place: int) -> None:
    """What comes before it is given; that a later one fails too, and earlier in time, is never told."""
    items = [*range(place), -3, -1, *range(100)]
    given = list[int]()
    with pytest.raises(ValueError, match="-3 is below 0"):
        given.extend(local.run(squared, items, workers))
    assert given == [n * n for n in range(place)]


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("place", [2, 7])
def test_what_drawing_raises_is_raised_in_its_place(workers: int, place: int) -> None:
    """As what an item raises; nothing is drawn after it."""

    def drawn() -> Iterator[int]:
        yield from range(place)
        raise OSError("the disk is gone")

    given = list[int]()
    with pytest.raises(OSError, match="the disk is gone"):
        given.extend(local.run(squared, drawn(), workers))
    assert given == [n * n for n in range(place)]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_items_are_drawn_as_they_are_needed(workers: int) -> None:
    """Of items without end a few are drawn ahead; who stops asking stops the work."""
    drawn = itertools.count()
    results = local.run(squared, drawn, workers)
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    results.close()  # type: ignore[attr-defined]
    assert next(drawn) <= 5 + AT_MOST


def test_a_worker_that_dies_ends_the_run() -> None:
    """And leaves nobody waiting for its result."""
    with pytest.raises(BrokenProcessPool):
        list(local.run(killed, [os.getpid()] * 10, 2))


def test_an_interrupt_ends_the_run_at_once() -> None:
    """Not in the place of the item that it interrupted."""
    with pytest.raises(KeyboardInterrupt):
        list(local.run(interrupted, [os.getpid()] * 1000, 2))
