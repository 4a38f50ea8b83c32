"""What the commands that write rows share: options, where the rows go, and the report."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from qdata.cli_base import console, input_options, sources_of
from qdata.errors import QdataError

STDOUT = Path("-")


def row_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The inputs, and the file to write."""
    output = click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path),
        help="File to write: .jsonl .json .csv .tsv .parquet, each also .gz .zst .bz2 .xz; or - for stdout.",
    )
    return input_options(output(command))


def write_rows(
    inputs: tuple[str, ...],
    to: str | None,
    output: Path | None,
    *,
    name: str,
    from_: str | None,
    rename: dict[str, str],
    character: str | None,
    documents: str | None,
    max_samples: int | None,
    overwrite: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Rows of the inputs to rows of `to` (None: their own dialect), as `qdata.convert.convert` does it, and a report.

    Without an output the rows go to data/INPUT.NAME.jsonl. `options` are handed on.
    """
    from qdata import convert as library
    from qdata import report, workspace
    from qdata.rows.provenance import manifest_beside

    workspace.check()
    if not inputs:
        raise QdataError("no input given; wanted files, folders or a catalogue name (`qdata catalog` lists them)")
    if output == STDOUT and as_json:
        raise QdataError("-o - and --json: both would go to stdout; leave one out")
    how: dict[str, Any] = {"character": character, "documents": documents, "max_samples": max_samples}
    sources = sources_of(inputs, format=from_, map=rename, **how)
    report.left_out(console, sources)
    if output == STDOUT:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "stdout.jsonl"
            result = library.convert(sources, to, target, console=console, **options)
            report.notices(console, result.inputs)
            report.set_aside(console, result.aside, ledger=False)
            console.print(report.rows_line(result.manifest["rows"]), highlight=False)
            with target.open("rb") as rows:
                shutil.copyfileobj(rows, sys.stdout.buffer)
        return
    target = output or library.default_output(sources, name)
    ours = output is None and target.exists() and manifest_beside(target) is not None
    result = library.convert(sources, to, target, replace=overwrite or ours, console=console, **options)
    workspace.remember("rows", target)
    if as_json:
        click.echo(json.dumps(result.manifest, ensure_ascii=False, indent=2))
    report.notices(console, result.inputs)
    report.set_aside(console, result.aside)
    report.converted(console, result.manifest, target, result.sample)
