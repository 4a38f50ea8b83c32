"""The history of one row, told by the ledgers of all outputs on its way: from the file it came from to the tokens."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import polars as pl

from qdata import changes, texts
from qdata import output as outputs
from qdata.output import Output
from qdata.tokens import shards


class Stage(NamedTuple):
    """An output on a row's way, and what its ledger says of the row (LEDGER, one line)."""

    output: Output
    line: pl.DataFrame


def lineage(output: Output) -> list[Output]:
    """An output and all that it was made of, as far as they are found, the oldest first."""
    found = [one for earlier in outputs.before(output) for one in lineage(earlier)]
    return list({one.folder.resolve(): one for one in [*found, output]}.values())


def missing(output: Output) -> list[dict[str, str]]:
    """The files that an output was made of, by a command of ours, and that are not found: command, name, sha256."""
    made = [one["made_by"] for one in output.manifest["inputs"] if one.get("made_by")]
    found = {(one.path.name, one.manifest["output"]["sha256"]) for one in outputs.before(output)}
    return [one for one in made if (one["name"], one["sha256"]) not in found]


def stages(row: str, output: Output) -> list[Stage]:
    """The way of a row to `output`, the oldest stage first; it may have ended earlier. Empty where nobody knows it."""
    line = output.ledger().filter(pl.col("row") == row).collect()
    ways = [way for earlier in outputs.before(output) if (way := stages(row, earlier))]
    if line.is_empty():
        return ways[0] if ways else []
    came = [way for way in ways if way[-1].line["action"][0] != "dropped"]
    return [*(came[0] if came else []), Stage(output, line)]


def told(row: str, output: Output) -> dict[str, Any]:
    """The history as plain data: `row`, `stages`, `missing` (files on the way that are not found), `now`.

    `now`: what the row says, as `said` (canonical JSON; null where the text is not here any more).
    """
    way = stages(row, output)
    found = [_text(stage, wanted=stage is way[-1] or bool(stage.output.manifest.get("scores"))) for stage in way]
    said = found[-1][0] if way else None
    seen = [_told(stage, scores) for stage, (_, scores) in zip(way, found, strict=True)]
    return {"row": row, "stages": seen, "missing": missing(way[0].output) if way else [], "now": said}


def _text(stage: Stage, wanted: bool) -> tuple[str | None, dict[str, Any]]:
    """What the row says at a stage, and its scores; of a file some of it is read again, so only where it is wanted."""
    if not wanted:
        return None, {}
    found = texts.said(stage.output, stage.line)
    if found.is_empty():
        return stage.line["after"][0], {}
    return found["said"][0], texts.scores_of(found["scores"][0])


def _told(stage: Stage, scores: dict[str, Any]) -> dict[str, Any]:
    output, line = stage
    facts = line.row(0, named=True)
    dropped = facts["action"] == "dropped"
    edited = facts["before"] is not None
    return {
        "command": output.manifest["command"],
        "output": str(output.path),
        "action": facts["action"],
        "steps": (facts["step"] or "").split(",") if facts["step"] and not dropped else [],
        "dropped_by": f"{facts['step']}.{facts['reason']}" if dropped else None,
        "note": None if dropped else facts["reason"],  # what was left out for the dialect
        "before": facts["before"],
        "after": facts["after"],
        "diff": list(changes.lines(facts["before"], facts["after"])) if edited else [],
        "scores": scores,
        "place": _place(output, facts),
        "by": _survivor(output, facts["by"]),
    }


def _survivor(output: Output, row: str | None) -> dict[str, Any] | None:
    """The row that stays in another's stead, and what it says."""
    if row is None:
        return None
    text = texts.said(output, output.ledger().filter(pl.col("row") == row).collect())
    return {"row": row, "said": text["said"][0] if len(text) else None}


def _place(output: Output, facts: dict[str, Any]) -> dict[str, Any] | None:
    """Where a row stands; in shards, all samples that it became, each with the row of the split that holds it."""
    if facts["index"] is None:
        return None
    if not output.is_shards:
        return {"file": facts["shard"], "ordinal": facts["index"] + 1, "unchanged": texts.unchanged(output)}
    return {"samples": list(_samples(output, facts["row"]))}


def _samples(output: Output, row: str) -> Iterator[dict[str, Any]]:
    """All places of a row in the shards: each sample it became, in order."""
    for split, facts in output.manifest["splits"].items():
        starts = [0, *itertools.accumulate(shard["rows"] for shard in facts["shards"])]
        seen = 0
        for batch in shards.read_split(output.folder, split):
            ids = pl.DataFrame(batch.select(["rows"])).with_row_index("at", offset=seen).explode("rows")
            for at in ids.filter(pl.col("rows") == row)["at"].to_list():
                number = bisect.bisect_right(starts, at) - 1
                name = facts["shards"][number]["name"]
                yield {"split": split, "shard": name, "index": at - starts[number], "row": at}
            seen += batch.num_rows
