"""What one optimiser step was made of: its conversations or pairs with their losses, and the losses around it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from qdata.errors import QdataError
from qdata.tokens import saved, shards
from qtrain import run, steps

_AROUND = 5  # steps before and after


def why(path: Path, step: int, shard_folder: Path | None = None) -> dict[str, Any]:
    """The report of `step` of the run that `path` means; its conversations the costliest first.

    Raises QdataError where the run has no such step, or its shards are gone or were built anew.
    """
    folder = run.find(path)
    entries = steps.of(folder)
    if step not in entries:
        raise QdataError(f"{folder}: no step {step}; it has {min(entries)} to {max(entries)}")
    entry = entries[step]
    directory = _shards(folder, shard_folder)
    before = [one["loss"] for at, one in sorted(entries.items()) if at < step and one["loss"] is not None]
    loss = math.nan if entry["loss"] is None else entry["loss"]
    middle, spread = steps.usual(before[-steps.WINDOW :]) if before else (None, None)
    around = range(step - _AROUND, step + _AROUND + 1)
    return {
        "run": str(folder),
        "step": step,
        "loss": entry["loss"],
        "median_before": middle,
        "deviation_before": spread,
        "spike": steps.is_spike(loss, before),
        "around": {at: entries[at]["loss"] for at in around if at in entries},
        "tokens": entry["tokens"],
        "trained": entry["trained"],
        "sources": {name: nll / weight if weight else None for name, (nll, weight) in entry["sources"].items()},
        "shards": str(directory),
        "rows": sorted(_conversations(entry, directory), key=_cost, reverse=True),
    }


def _cost(row: Mapping[str, Any]) -> float:
    return -math.inf if row["loss"] is None else float(row["loss"])


def _shards(folder: Path, given: Path | None) -> Path:
    """The shards of the run, as they were when it was trained."""
    papers = saved.papers_of(folder)
    assert papers is not None  # a run's manifest is not that of shards
    directory = given or saved.shards_of(papers)
    if directory is None:
        raise QdataError(f"{folder}: its shards {papers.shards} are gone from here; say where they lie with --shards")
    if shards.manifest_of(directory)["splits"] != papers.data["splits"]:
        raise QdataError(f"{directory}: built anew since {folder} was trained; its rows are not those of the run")
    return directory


def _conversations(entry: Mapping[str, Any], directory: Path) -> list[dict[str, Any]]:
    from datasets import load_from_disk

    rows = load_from_disk(str(directory))["train"]
    losses = iter(entry["losses"])
    if "margins" in entry:
        return [
            {**_pair(rows[number], number), "loss": loss, "margin": margin}
            for number, loss, margin in zip(entry["rows"], losses, entry["margins"], strict=True)
        ]
    out = []
    for number in entry["rows"]:
        row, start = rows[number], 0
        for name, source, length in zip(row["rows"], row["sources"], row["seq_lengths"], strict=True):
            labels = row["labels"][start + 1 : start + length]  # nothing predicts a conversation's first token
            trained = sum(label != -100 for label in labels)
            told = {"row": name, "source": source, "shard_row": number, "tokens": length, "trained": trained}
            out.append({**told, "loss": next(losses)})
            start += length
    return out


def _pair(row: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Of a preference pair; its prompt is read twice, once before each answer."""
    prompt, chosen, rejected = (len(row[name]) for name in ("prompt_ids", "chosen_ids", "rejected_ids"))
    counts = {"tokens": 2 * prompt + chosen + rejected, "trained": chosen + rejected}
    return {"row": row["rows"][0], "source": row["sources"][0], "shard_row": number, **counts}


def table(report: Mapping[str, Any], limit: int) -> Group:
    """The report for a person, at most `limit` conversations."""
    said = Text(f"{report['run']}, step {report['step']}: loss {_loss(report['loss'])}")
    if report["median_before"] is not None:
        said.append(
            f"; the steps before it {_loss(report['median_before'])} ± {_loss(report['deviation_before'])} (median and "
            "its deviation)"
        )
    said.append(": a spike" if report["spike"] else ": nothing unusual", style="yellow" if report["spike"] else "")
    around = " ".join(
        f"[{at}: {_loss(loss)}]" if at == report["step"] else f"{at}: {_loss(loss)}"
        for at, loss in report["around"].items()
    )
    first = report["rows"][0]
    measured = [name for name in ("loss", "margin") if name in first]
    rows = Table(*measured, "row", "source", "tokens", "trained", "in shards")
    for row in report["rows"][:limit]:
        numbers, counts = (_loss(row[name]) for name in measured), (f"{row[n]:,}" for n in ("tokens", "trained"))
        rows.add_row(*numbers, Text(row["row"]), Text(row["source"]), *counts, f"--row {row['shard_row']}")
    more = len(report["rows"]) - limit
    lines = [f"and {more:,} more, with --limit or --json"] if more > 0 else []
    lines.append(f"its tokens: qdata show {report['shards']} --row {shlex.quote(first['row'])}")
    return Group(said, Text(f"around it: {around}", style="dim"), rows, *map(Text, lines))


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
