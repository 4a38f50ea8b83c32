"""`qdata report`: what an output is, in the terminal and as one HTML file."""

from __future__ import annotations

from pathlib import Path

import click
from rich.markup import escape

from qdata.cli_base import console


@click.command()
@click.argument("out", metavar="[OUT]", required=False, type=click.Path(path_type=Path))
@click.option("-o", "--output", metavar="FILE.html", type=click.Path(path_type=Path, dir_okay=False),
              help="The HTML file; default: OUT.report.html beside OUT; then the terminal is told too.")  # fmt: skip
@click.option("--samples", "many", default=3, show_default=True, type=click.IntRange(min=0), metavar="N",
              help="Examples of what each step edited, and of each reason for which rows were dropped.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace a FILE.html named with -o.")
def report(out: Path | None, output: Path | None, many: int, overwrite: bool) -> None:
    """Tell what was done to rows, and what the rows are like: funnel, reasons, distributions, before and after.

    OUT is a file that a command wrote, a shard folder or a run; without it, the last output. What it was made of is
    told too, where it still lies beside it. The page is one file: no network, no script. Its sums must close, and the
    ledger must say what the manifest says: else it is not written (exit 2).

    \b
    qdata report rows.clean.jsonl
    qdata report data/shards -o report.html --samples 5
    """
    from qdata import workspace
    from qdata.paths import whole
    from qdata.reporting import facts, page, terminal

    out = out or workspace.newest()
    target = output or out.resolve().with_name(f"{out.resolve().name.removesuffix('.qdata')}.report.html")
    found = facts.of(out, many)
    with whole(target, replace=overwrite or (output is None and _is_ours(target))) as partial:
        # a name of a file may hold what UTF-8 has no word for
        partial.write_text(page.html(found), encoding="utf-8", errors="backslashreplace", newline="\n")
    if output is None:
        terminal.told(console, found)
    console.print(f"[bold green]{escape(_short(target))}[/]", highlight=False)


def _is_ours(file: Path) -> bool:
    """Whether a file is a report: another one of its name is not replaced."""
    return file.is_file() and b"qdata report</title>" in file.read_bytes()[:2000]


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
