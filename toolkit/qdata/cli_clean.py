"""`qdata clean`: steps over rows, and the funnel of what they did."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from qdata.cli_base import console
from qdata.cli_rows import row_options, write_rows
from qdata.errors import QdataError

if TYPE_CHECKING:
    from qdata.part import Step


class Clean(click.Command):
    """A command whose `--step` takes a name and any number of key=value words: --step length min_answer=2."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Puts the words behind a step's name into its value."""
        out: list[str] = []
        inside = False
        for word in args:
            if inside and re.match(r"\w+=", word):
                out[-1] += f"\0{word}"
                continue
            inside = bool(out) and out[-1] == "--step"
            out.append(word)
        return super().parse_args(ctx, out)


def step_tables(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> list[dict[str, Any]]:
    """Each `--step NAME key=value …` as the table it would be in a preset; values are read as TOML, or are text."""
    return [_table(value.split("\0")) for value in values]


def _table(words: Sequence[str]) -> dict[str, Any]:
    table: dict[str, Any] = {"step": words[0]}
    for word in words[1:]:
        key, _, text = word.partition("=")
        if key in table:
            raise QdataError(f"--step {words[0]}: {key} is given twice; wanted one value")
        try:
            table[key] = tomllib.loads(f"v = {text}")["v"]
        except tomllib.TOMLDecodeError:
            table[key] = text  # a bare word is a string: nobody quotes twice on a command line
    return table


@click.command(cls=Clean)
@row_options
@click.option(
    "--preset", metavar="NAME|FILE.toml", help="Steps of a file: sft-en, sft-zh, preference, pretrain, yours."
)
@click.option("--step", "steps", multiple=True, metavar="NAME key=value…", callback=step_tables,
              help="One more step, behind those of the preset; docs/recipe.md lists them.")  # fmt: skip
@click.option("--to", metavar="DIALECT", help="Dialect to write; default: the rows' own.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and write nothing.")
@click.option("--samples", default=3, show_default=True, type=click.IntRange(min=0), metavar="N",
              help="Examples of what each step did.")  # fmt: skip
def clean(preset: str | None, steps: list[dict[str, Any]], samples: int, **options: Any) -> None:
    """Edit and filter rows by steps, with a ledger of every row.

    Nothing is deleted in silence: what is dropped lies beside the output with its reason, what is edited as it was
    before. Rows stay in their dialect. The presets are files to copy: `qdata clean --preset NAME --dry-run` shows what
    one does to your rows.

    \b
    qdata clean rows.jsonl --preset sft-en
    qdata clean rows.jsonl --step length min_answer=2 --step mask_pii do=drop
    """
    from qdata import preset as presets
    from qdata import report

    def tell(written: Path, manifest: dict[str, Any]) -> None:
        report.cleaned(console, manifest, written, samples)
        odd = presets.misfit(presets.load(preset), {one["format"] for one in manifest["inputs"]}) if preset else None
        if odd:
            console.print(f"[yellow]--preset {escape(preset or '')}: {odd}[/]", highlight=False)

    write_rows(command="clean", name="clean", steps=_steps(preset, steps), tell=tell, **options)


def _steps(preset: str | None, tables: list[dict[str, Any]]) -> tuple[Step, ...]:
    """The steps of the preset, then those of the command line. Raises QdataError where there are none."""
    from qdata import preset as presets
    from qdata import stepping

    if preset is None and not tables:
        raise QdataError(f"no steps: wanted --preset ({', '.join(presets.names())}, or a .toml file) or --step NAME")
    made = stepping.steps_of(presets.load(preset).steps, f"{preset}: steps") if preset else []
    return (*made, *stepping.steps_of(tables, "--step"))
