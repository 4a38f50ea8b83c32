"""The plan of a recipe, for a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from qtrain.memory import Parts
from qtrain.plan import gb

_PARTS = {
    "weights": "weights", "reference": "the reference model", "gradients": "gradients", "optimizer": "optimizer states",
    "activations": "activations", "logits": "the head and its loss", "copies": "16-bit copies of weights",
    "buffers": "for a moment", "heap": "holes in the heap", "process": "libraries, the process itself",
}  # fmt: skip
_OFF = 0.15
_INDENT = " " * 14


def lines(report: dict[str, Any]) -> Sequence[str]:
    """The report, line by line."""
    out = []
    for model in report["models"]:
        out += [*_model(model, report["stage"]), ""]
    if (probe := report.get("probe")) is not None:
        out.append(f"a few steps on {probe['device']}: {gb(probe['peak'])} at most, the estimate is "
                   f"{probe['difference']:+.0%} off; {probe['tokens_per_second']:,} tokens/s")  # fmt: skip
        out.append(
            f"time: {probe['seconds_per_step']:,} s a step, {span(probe['seconds'])} in all, without evaluations"
        )
        if abs(probe["difference"]) > _OFF:
            out.append("! The estimate is far off here: plan with the measured peak.")
    else:
        out.append(f"no steps were tried: {report['no_probe']}")
    return [*out, *(f"! {told}" for told in report["odd"])]


def _model(model: dict[str, Any], stage: str) -> list[str]:
    parameters, held, steps, rows = model["parameters"], model["memory"], model["steps"], model["rows"]
    batch, why = model["work"]["batch"], f" ({model['elsewhere']})" if model["elsewhere"] else ""
    kinds = ", ".join(f"{kind} {_count(n)}" for kind, n in parameters["by_module"].items())
    side = f"{batch['rows']} × {batch['length']:,}" if batch["rows"] > 1 else f"{batch['length']:,}"
    held_out = f", {rows['validation']:,} held out" if rows["validation"] else ""
    what = "pairs" if stage == "dpo" else "rows"
    checkpointing = "on" if model["work"]["checkpointing"] else "off"
    devices = model["work"]["devices"]
    each = f"each of {devices} {model['device'].upper()}s" if devices > 1 else f"one {model['device'].upper()}"
    share = f"{parameters['trained'] / parameters['all']:.1%}, {model['tuning']}"
    out = [f"{model['model']}{why}"]
    told = {
        "parameters": [f"{parameters['all']:,}, of which {parameters['trained']:,} are trained ({share})"],
        "": [kinds],
        what: [f"{rows['train']:,}{held_out}; {rows['tokens']:,} tokens, {rows['trained']:,} trained",
               f"longest {rows['longest']:,}"],
        "steps": [f"{steps['total']:,} in all: {steps['per_epoch']:,} an epoch, epochs {steps['epochs']:g}",
                  f"warmup {steps['warmup']:,}"],
        "a step": [f"{_plural(steps['global_batch'], what)}, {model['tokens_per_step']:,} tokens",
                   f"{model['trained_per_step']:,} trained", f"{model['tokens']:,} tokens in all"],
        "memory": [f"{gb(held['total'])} on {each}, estimated, at {held['moment']}",
                   f"largest batch {side} tokens", f"checkpointing {checkpointing}"],
    }  # fmt: skip
    for name, words in told.items():
        out.append(f"  {name:<12}{'; '.join(words)}")
    shown = [(_PARTS[field.name], held[field.name]) for field in fields(Parts) if held[field.name]]
    out += [f"{_INDENT}{name:<32}{gb(size):>8}" for name, size in shown]
    return out + [f"  ! {told}" for told in model["odd"]]


def _plural(number: int, what: str) -> str:
    """A number of things, `what` in the plural.

    >>> _plural(1, "rows"), _plural(2, "rows")
    ('1 row', '2 rows')
    """
    return f"{number:,} {what.removesuffix('s') if number == 1 else what}"


def _count(number: int) -> str:
    """A large count, short.

    >>> _count(1_543_714_304), _count(233_373_696), _count(12_345), _count(128)
    ('1.54 B', '233 M', '12 k', '128')
    """
    if number >= 10**9:
        return f"{number / 10**9:.2f} B"
    if number >= 10**6:
        return f"{number / 10**6:.0f} M"
    return f"{number / 1000:.0f} k" if number >= 1000 else str(number)


def span(seconds: int) -> str:
    """A length of time.

    >>> span(59), span(3700), span(200_000)
    ('59 s', '1 h 1 min', '2 days 7 h')
    """
    if seconds < 60:
        return f"{seconds} s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86_400
    if days:
        return f"{days} day{'s' if days > 1 else ''} {hours % 24} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min {seconds % 60} s"
