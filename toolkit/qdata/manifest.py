"""What an output was made of: inputs, steps, template, tokenizer, versions, counts. Enough to make it again."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from qdata.part import Done, Read, code_sha256, step_facts
from qdata.rows import provenance

if TYPE_CHECKING:
    from qdata.pipeline import Found, Plan

LIBRARIES = ("qdata", "polars", "pyarrow", "jinja2", "tokenizers", "numpy", "orjson")


def versions() -> dict[str, str]:
    """The versions of the libraries that had a hand in it."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def of_inputs(inputs: Sequence[Found], done: Sequence[Read]) -> dict[str, Any]:
    """What every output was made of and by: our code and the libraries, the input files."""
    return {
        "code_sha256": code_sha256(),
        "versions": versions(),
        "sample": any(found.samples for found in inputs),
        "inputs": _listed(inputs, done),
    }


def _listed(inputs: Sequence[Found], done: Sequence[Read]) -> list[dict[str, Any]]:
    """Each input file with its parts: bytes, hashes, dialect."""
    listed = []
    for found in inputs:
        one = found.input
        parts = [d.work.part for d in done if d.work.part.path == one.path]
        listed.append(
            {
                "source": one.source,
                "relative": one.relative,
                "format": found.detection.format,
                "map": dict(one.rename),
                "documents": one.documents,
                "max_samples": one.max_samples,
                "sample": bool(found.samples),
                "made_by": _made_by(one.path),
                "split": next((d.work.split for d in done if d.work.part.path == one.path), "train"),
                "parts": [{"start": p.start, "stop": p.stop, "first": p.first, "sha256": p.sha256} for p in parts],
            }
        )
    return listed


def _made_by(path: Path) -> dict[str, str] | None:
    """The command of ours that wrote an input, and the file by name and content: where its rows' history goes on."""
    beside = provenance.manifest_beside(path)
    return {"command": beside["command"], **beside["output"]} if beside else None


def steps_of(done: Sequence[Done]) -> list[dict[str, Any]]:
    """Each step with its settings and how many rows it edited; drops are counted in `rows`."""
    if not done:
        return []
    edits = pl.concat([d.edits() for d in done])["step"].value_counts()
    counts = dict(edits.iter_rows())
    return [
        {"step": name, "settings": settings, "edited": counts.get(name, 0)}
        for name, settings in map(step_facts, done[0].work.steps)
    ]


def encoded_by(done: Sequence[Done]) -> str:
    """The library that encoded the parts, with its version."""
    how = done[0].work.rendering if done else None
    return f"{how.engine} {importlib.metadata.version(how.engine)}" if how else ""


def of_build(
    planned: Plan, done: Sequence[Done], sums: dict[str, Any], splits: dict[str, Any], lengths: dict[str, Any]
) -> dict[str, Any]:
    """The manifest of shards."""
    recipe, template = planned.recipe, planned.template
    return {
        "command": "render",
        "kind": planned.kind,
        "fingerprint": planned.fingerprint,
        **of_inputs(planned.inputs, done),
        "steps": steps_of(done),
        "global_steps": [step_facts(step) for step in (done[0].work.global_steps if done else ())],
        "rows": sums,
        "unfilled_placeholders": sum(d.unfilled_rows for d in done),
        "unfilled": sorted({name for d in done for name in d.unfilled}),
        "template": {
            "name": template.name,
            "sha256": template.sha256,
            "default_system": template.default_system,
            "stop": template.stop,
        },
        "tokenizer": {
            "name": planned.tokenizer.name,
            "from": planned.tokenizer.origin,
            "sha256": done[0].work.rendering.tokenizer_sha256 if done and done[0].work.rendering else "",
        },
        "encoder": {"engine": encoded_by(done), "checked": sum(d.checked for d in done), "slow": planned.slow},
        "rendered": {"by_shape": sum(d.by_shape for d in done), "by_row": sum(d.by_row for d in done)},
        "controls": sum(d.controls for d in done),
        "emptied_answers": sum(d.emptied for d in done),
        "specials": recipe.specials,
        "think": recipe.think,
        "expand": recipe.expand,
        "loss": recipe.loss,
        "max_length": recipe.max_length,
        "too_long": recipe.too_long,
        **lengths,
        "pack": recipe.pack,
        "val": recipe.val,
        "seed": recipe.seed,
        "splits": splits,
    }
