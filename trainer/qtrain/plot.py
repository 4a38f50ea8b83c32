"""The loss curves of runs as one picture: over-fitting is visible only where training and evaluation are both drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from qdata.errors import QdataError
from qtrain import run, steps

Curve = tuple[list[float], list[float]]
History = Sequence[Mapping[str, Any]]
_SOURCES = 8  # curves of sources in a picture
_TOKENS = "trained tokens"
_STEPS = "optimiser step"


@dataclass(frozen=True)
class Line:
    """A run in a picture: its log, and how far along the x axis each step lies (None: as far as its number)."""

    name: str
    history: History
    places: Mapping[int, float] | None = None


def curve(history: Iterable[Mapping[str, Any]], key: str) -> Curve:
    """The (steps, values) of one logged quantity.

    >>> curve([{"step": 5, "loss": 2.0}, {"step": 5, "eval_loss": 1.5}, {"step": 10, "loss": 1.0}], "loss")
    ([5, 10], [2.0, 1.0])
    """
    points = [(entry["step"], entry[key]) for entry in history if key in entry]
    return [step for step, _ in points], [value for _, value in points]


def once(history: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """A log without what was done again: a run that went on from step 10 after having reached 15 logged 11 to 15 twice.

    >>> lives = [{"step": 5, "loss": 3}, {"step": 10, "loss": 2}, {"step": 15, "loss": 9}, {"step": 10, "loss": 2}]
    >>> [entry["loss"] for entry in once(lives)]
    [3, 2]
    """
    kept: list[Mapping[str, Any]] = []
    for entry in history:
        while kept and kept[-1]["step"] > entry["step"]:
            kept.pop()
        at = len(kept) - 1
        while at >= 0 and kept[at]["step"] == entry["step"]:
            if _kind(kept[at]) == _kind(entry):
                del kept[at]
            at -= 1
        kept.append(entry)
    return kept


def _kind(entry: Mapping[str, Any]) -> str:
    return next((key for key in ("loss", "eval_loss") if key in entry), "")


def smoothed(values: Sequence[float]) -> list[float]:
    """Exponential moving average over about a twentieth of the values, at most the last 20.

    Corrected for its start as Adam's moments are, so that it is not pulled towards zero.

    >>> smoothed([4.0, 4.0, 4.0])
    [4.0, 4.0, 4.0]
    """
    weight = min(0.95, len(values) / (len(values) + 20))
    mean, out = 0.0, []
    for count, value in enumerate(values, start=1):
        mean = weight * mean + (1 - weight) * value
        out.append(round(mean / (1 - weight**count), 6))
    return out


def save(history: History, path: Path, title: str) -> None:
    """Draw train loss (raw and smoothed) and evaluation loss, of several sources too, over the steps into a PNG."""
    figure, axes = _canvas(_STEPS, title)
    line = Line("", once(history))
    _train(axes, line, "tab:blue", "train", "train, smoothed")
    _evaluation(axes, line, "tab:orange", "validation")
    found = sorted({key for entry in history for key in entry if key.startswith("eval_loss/")})
    for key in found[:_SOURCES] if len(found) > 1 else ():
        axes.plot(*_curve(line, key), linewidth=1, linestyle="--", label=f"validation, {key.partition('/')[2]}")
    _write(figure, axes, path)


def compare(runs: Sequence[Path], names: Sequence[str], path: Path, *, tokens: bool = False) -> dict[str, Any]:
    """Draw several runs into one PNG, each in its colour: train smoothed (raw behind it), evaluation dashed.

    `names` are given to the first runs; others are called by their folders. With `tokens` x is trained tokens, not
    steps, so that runs of different batch sizes lie over each other. Returns the report.
    """
    if path.suffix.lower() != ".png":
        raise QdataError(f"{path}: wanted a name that ends in .png")
    if len(names) > len(runs):
        raise QdataError(f"{len(names)} names for {len(runs)} runs")
    folders = [run.find(one) for one in runs]
    called = [*names, *(f"{folder.resolve().parent.name}/{folder.name}" for folder in folders[len(names) :])]
    lines = [_line(name, folder, tokens) for name, folder in zip(called, folders, strict=True)]
    figure, axes = _canvas(_TOKENS if tokens else _STEPS, "")
    for number, line in enumerate(lines):
        colour = f"C{number}"
        _train(axes, line, colour, None, line.name)
        _evaluation(axes, line, colour, f"{line.name}, validation", linestyle="--")
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(figure, axes, path)
    return {"output": str(path), "x": _TOKENS if tokens else _STEPS, "runs": [
        {"name": line.name, "run": str(folder), **_last(line)} for line, folder in zip(lines, folders, strict=True)
    ]}  # fmt: skip


def _line(name: str, folder: Path, tokens: bool) -> Line:
    history = once(steps.read(folder / "log.jsonl"))
    if not any("loss" in entry for entry in history):
        raise QdataError(f"{folder}: nothing is logged yet; wanted a log.jsonl with losses")
    if not tokens:
        return Line(name, history)
    done = sorted(steps.of(folder).items())
    reached = accumulate((entry["trained"] for _, entry in done), initial=0)
    return Line(name, history, dict(zip([0, *(step for step, _ in done)], reached, strict=True)))


def _last(line: Line) -> dict[str, float]:
    found = {key: curve(line.history, key)[1] for key in ("loss", "eval_loss")}
    return {key: values[-1] for key, values in found.items() if values}


def _curve(line: Line, key: str) -> Curve:
    at, values = curve(line.history, key)
    return (at if line.places is None else [line.places[int(step)] for step in at]), values


def _train(axes: Any, line: Line, colour: str, raw: str | None, label: str) -> None:
    at, losses = _curve(line, "loss")
    axes.plot(at, losses, color=colour, alpha=0.3, linewidth=1, label=raw)
    axes.plot(at, smoothed(losses), color=colour, linewidth=1.8, label=label)


def _evaluation(axes: Any, line: Line, colour: str, label: str, **style: Any) -> None:
    at, losses = _curve(line, "eval_loss")
    if at:
        axes.plot(at, losses, color=colour, linewidth=1.8, marker="o", markersize=3, label=label, **style)


def _canvas(x: str, title: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    # A figure of its own, without pyplot: no global state, no display, nothing to close.
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel=x, ylabel="loss (nats per trained token)", title=title)
    return figure, axes


def _write(figure: Any, axes: Any, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.legend()
    FigureCanvasAgg(figure).print_png(str(path))
