"""The loss curves of a run as one picture: over-fitting is visible only where both are drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Curve = tuple[list[float], list[float]]


def curve(history: Iterable[Mapping[str, Any]], key: str) -> Curve:
    """The (steps, values) of one logged quantity.

    >>> curve([{"step": 5, "loss": 2.0}, {"step": 5, "eval_loss": 1.5}, {"step": 10, "loss": 1.0}], "loss")
    ([5, 10], [2.0, 1.0])
    """
    points = [(entry["step"], entry[key]) for entry in history if key in entry]
    return [step for step, _ in points], [value for _, value in points]


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


def save(history: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Draw train loss (raw and smoothed) and evaluation loss over the steps into the PNG `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # A figure of its own, without pyplot: no global state, no display, nothing to close.
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    steps, losses = curve(history, "loss")
    axes.plot(steps, losses, color="tab:blue", alpha=0.3, linewidth=1, label="train")
    axes.plot(steps, smoothed(losses), color="tab:blue", linewidth=1.8, label="train, smoothed")
    steps, losses = curve(history, "eval_loss")
    if steps:
        axes.plot(steps, losses, color="tab:orange", linewidth=1.8, marker="o", markersize=3, label="validation")
    axes.set(xlabel="optimiser step", ylabel="loss (nats per trained token)", title=title)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.legend()
    FigureCanvasAgg(figure).print_png(str(path))
