"""steps.jsonl: the rows of every optimiser step and what each conversation in them cost.

One line a step: `step`, `loss` (nats per trained token, weighted), `tokens`, `trained` (tokens), `rows` (their numbers
in the train split), `losses` (the mean of each conversation of these rows, in order) and `sources` (of each source
Σ weight · nll and Σ weight). Of preference pairs `losses` are DPO's own, −log σ(margin), and `margins` stand beside
them. Like every file of a run that has a step in each line, it is cut back where a run goes on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from qdata.errors import QdataError

FILE = "steps.jsonl"
WINDOW = 50
"""Steps that a loss is held against."""
_FEW = 10  # steps before which nothing counts as unusual
_SPREADS = 5  # median absolute deviations; 3.4 standard deviations of a normal distribution
_SMALLEST = 0.02  # of the median: where a loss hardly moves, not every wrinkle is a spike


def usual(before: Sequence[float]) -> tuple[float, float]:
    """The median of the losses before a step, and their median absolute deviation.

    >>> usual([2.0, 2.1, 2.2, 2.1, 9.0])
    (2.1, 0.1)
    """
    middle = median(before)
    return middle, round(median(abs(loss - middle) for loss in before), 6)


def is_spike(loss: float, before: Sequence[float]) -> bool:
    """Whether `loss` stands out: above the median of the last 50 losses by more than 5 median absolute deviations.

    A deviation below 2 % of the median counts as 2 %. Before the tenth step only a loss that is no number stands out.

    >>> is_spike(3.0, [2.0, 2.1] * 10), is_spike(2.2, [2.0, 2.1] * 10), is_spike(3.0, [2.0] * 3)
    (True, False, False)
    """
    if not math.isfinite(loss):
        return True
    if len(before) < _FEW:
        return False
    middle, spread = usual(before[-WINDOW:])
    return loss > middle + _SPREADS * max(spread, _SMALLEST * middle)


def append(file: Path, entry: Mapping[str, Any]) -> None:
    """Add one line."""
    with file.open("a", encoding="utf-8") as out:
        out.write(json.dumps(entry, ensure_ascii=False) + "\n")


def read(file: Path) -> list[dict[str, Any]]:
    """All entries, in order; none where there is no file. A last line that broke off is left out."""
    if not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def rewind(file: Path, step: int) -> list[dict[str, Any]]:
    """Cut off what lies after `step`, for a run that goes on from there; returns what stays."""
    entries = read(file)
    kept = [entry for entry in entries if entry["step"] <= step]
    if file.is_file():
        text = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in kept)
        partial = file.with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(file)
    return kept


def of(run: Path) -> dict[int, dict[str, Any]]:
    """The steps of a run by number. Raises QdataError where it has none."""
    # The later line of a step is the one that was trained on: a run may have been killed between a step and its save.
    entries = {entry["step"]: entry for entry in read(run / FILE)}
    if not entries:
        raise QdataError(f"{run}: no {FILE} in it; wanted a run of qtrain with at least one step")
    return entries
