"""What the commands that write rows share: options, where the rows go, and the report."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qdata.cli_base import console, input_options, sources_of
from qdata.errors import QdataError

if TYPE_CHECKING:
    from qdata.recipe import Source

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


def refuse_text(why: str) -> Callable[[Sequence[Source]], None]:
    """A check for `write_rows` that raises QdataError where an input is plain text, of which `why` is true."""

    def check(sources: Sequence[Source]) -> None:
        from qdata import pipeline, plugin
        from qdata.paths import shown
        from qdata.rows import formats, kinds

        for one in pipeline.find(sources):
            if kinds.kind(plugin.find(formats, one.detection.format)) == "text":
                raise QdataError(f"{shown(one.input.path)}: plain text ({one.detection.format}), which {why}")

    return check


def write_rows(
    inputs: tuple[str, ...],
    to: str | None,
    output: Path | None,
    *,
    command: str,
    name: str,
    from_: str | None,
    rename: dict[str, str],
    character: str | None,
    documents: str | None,
    max_samples: int | None,
    overwrite: bool,
    as_json: bool,
    dry_run: bool = False,
    check: Callable[[Sequence[Source]], None] | None = None,
    tell: Callable[[Path, dict[str, Any]], None] | None = None,
    **options: Any,
) -> None:
    """Rows of the inputs to rows of `to` (None: their own dialect), as `qdata.convert.convert` does it, and a report.

    Without an output the rows go to data/INPUT.NAME.jsonl. `check` may refuse the inputs before any work; `tell` says
    what `command` did, of the file that was written and its manifest. `options` are handed on.
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
    if check:
        check(sources)
    passing = dry_run or output == STDOUT  # nothing stays on the disk
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / f"{name}.jsonl" if passing else output or library.default_output(sources, name)
        ours = output is None and target.exists() and manifest_beside(target) is not None
        options |= {"command": command, "replace": overwrite or ours, "console": console}
        result = library.convert(sources, to, target, **options)
        if not passing:
            workspace.remember("rows", target)
        if as_json:
            click.echo(json.dumps(result.manifest, ensure_ascii=False, indent=2))
        report.notices(console, result.inputs)
        report.set_aside(console, result.aside, ledger=not passing)
        if tell:
            tell(target, result.manifest)
        report.converted(console, result.manifest, None if passing else target, result.sample)
        if dry_run:
            console.print("[bold]nothing was written[/] (--dry-run)", highlight=False)
        elif output == STDOUT:
            with target.open("rb") as rows:
                shutil.copyfileobj(rows, sys.stdout.buffer)
