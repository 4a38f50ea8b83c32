"""The commands of `qdata`: each takes arguments, makes one library call, and prints one report.

Heavy imports stand inside the commands, so that `qdata --help` answers at once. Here are the commands that make
something; those that only look are in cli_look.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import click
from rich.markup import escape

from qdata import cli_cache, cli_clean, cli_ledger, cli_look, cli_report, cli_score, cli_system
from qdata.cli_base import Group, Persona, console, fraction_or_number, input_options, persona_values, sources_of
from qdata.cli_rows import row_options, write_rows
from qdata.errors import QdataError
from qdata.paths import name_of
from qdata.recipe import DataRecipe, Documents, Specials, Think, TooLong, help_of


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="qdata", prog_name="qdata")
def main() -> None:
    """Raw conversations to tokenized, loss-masked, packed Arrow shards for Qwen.

    \b
    qdata convert align-anything --to alpaca     rows of one dialect to another
    qdata render --template qwen2                rows to shards, with the template that will be served
    qdata show data/align-anything.alpaca.qwen2  the tokens, painted by what is trained
    qdata verify data/align-anything.alpaca.qwen2  the proof that training equals serving
    """


@main.command()
@click.argument("name", metavar="NAME|model:ORG/NAME")
@click.option("--revision", help="Branch, tag or commit of the data set or model; default: its newest.")
def fetch(name: str, revision: str | None) -> None:
    """Download a catalogue entry into data/NAME/, or a model into the hub cache.

    What is here already is not asked for again, and a download that was stopped goes on. HF_ENDPOINT names a mirror,
    HF_TOKEN (or `hf auth login`) opens gated ones, HF_HUB_CACHE says where models go; qtrain finds them there.
    """
    from qdata.rows import hub

    console.print(f"[bold green]{escape(str(hub.fetch(name, revision)))}[/]", highlight=False)


@main.command()
@row_options
@click.option("--to", required=True, metavar="DIALECT", help="Dialect to write; `qdata formats` lists them.")
@click.option(
    "--lossy",
    is_flag=True,
    help="Write rows without what DIALECT cannot express; a row that cannot be expressed even so (a judged bad answer "
    "as chat) is set aside in the ledger with its reason.",
)
def convert(to: str, **options: Any) -> None:
    """Turn rows of one dialect into rows of another. Columns nobody knows come back out.

    The dialect is told by the rows and shown with one of them. A catalogue name stands for data/NAME/ if it was
    fetched, else for the sample that ships with qdata, and `-` for stdin. Without -o the output is
    data/NAME.DIALECT.jsonl; with `-o -` rows go to stdout, JSON lines without a ledger, and the report to stderr.
    """
    write_rows(to=to, command="convert", name=to, **options)


@main.command(cls=Persona)
@input_options
@click.option("--template", default="qwen2", show_default=True, help=help_of(DataRecipe, "template"))
@click.option("--tokenizer", metavar="DIR|HUB_ID", help=help_of(DataRecipe, "tokenizer"))
@click.option("--default-system", metavar="TEXT", help=help_of(DataRecipe, "default_system"))
@click.option("--loss", type=click.Choice(["assistant", "last", "whole"]), default="assistant", show_default=True,
              help=help_of(DataRecipe, "loss"))  # fmt: skip
@click.option("--think", type=click.Choice(get_args(Think)), default="keep", show_default=True,
              help=help_of(DataRecipe, "think"))  # fmt: skip
@click.option("--expand/--no-expand", default=True, show_default=True, help=help_of(DataRecipe, "expand"))
@click.option("--specials", type=click.Choice(get_args(Specials)), default="text", show_default=True,
              help=help_of(DataRecipe, "specials"))  # fmt: skip
@click.option("--too-long", type=click.Choice(get_args(TooLong)),
              help=help_of(DataRecipe, "too_long"))  # fmt: skip
@click.option("--max-length", type=click.IntRange(min=1), metavar="N", help=help_of(DataRecipe, "max_length"))
@click.option("--pack", type=click.IntRange(min=1), metavar="N", help=help_of(DataRecipe, "pack"))
@click.option("--val", metavar="FRACTION|N", callback=fraction_or_number, help=help_of(DataRecipe, "val"))
@click.option("--validation", multiple=True, metavar="FILE", help=help_of(DataRecipe, "validation"))
@click.option("--persona", "placeholders", multiple=True, metavar="NAME=TEXT…", callback=persona_values,
              help="Fill placeholders like {{name}}: name=沐雪 author=Moemu; name.en=… for one language.")  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder; default: data/NAME.TEMPLATE")
def render(
    inputs: tuple[str, ...],
    from_: str | None,
    rename: dict[str, str],
    character: str | None,
    documents: Documents | None,
    max_samples: int | None,
    validation: tuple[str, ...],
    output: Path | None,
    overwrite: bool,
    as_json: bool,
    strict: bool,
    workers: int,
    **settings: Any,
) -> None:
    """Turn rows of any known dialect into TOKENS shards that any trainer can read.

    Without an input, the last output of `qdata convert` is taken. The tokenizer is the one the template declares,
    from the local hub cache, the hub, or the vocabulary embedded by the `offline` extra.
    """
    from qdata import pipeline, report, workspace

    workspace.check()
    if not inputs:
        last = workspace.last("rows")
        console.print(f"no input given: taking the last output, [bold]{escape(str(last))}[/]", highlight=False)
        inputs = (str(last),)
    how: dict[str, Any] = {"character": character, "documents": documents, "max_samples": max_samples}
    sources, held_out = (sources_of(paths, format=from_, map=rename, **how) for paths in (inputs, validation))
    report.left_out(console, [*sources, *held_out])
    recipe = DataRecipe(sources=sources, validation=held_out, **settings)
    target = output or _shards_folder([one.path for one in sources], recipe.template)
    shards = _holds_shards(target)
    if overwrite and target.exists() and not shards and not (target.is_dir() and not any(target.iterdir())):
        raise QdataError(
            f"-o {target}: not a folder that render made; --overwrite replaces no other. Choose another -o"
        )
    planned = pipeline.plan(recipe)
    report.notices(console, planned.inputs)
    ours = output is None and shards
    manifest = pipeline.run(planned, target, replace=overwrite or ours, strict=strict, workers=workers, console=console)
    workspace.remember("shards", target)
    if as_json:
        click.echo(json.dumps(manifest, ensure_ascii=False, indent=2))
    report.built(console, manifest, target)


def _holds_shards(folder: Path) -> bool:
    """Whether a folder is an output of render, by its manifest."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("command") == "render"


def _shards_folder(inputs: Sequence[str], template: str) -> Path:
    names = {name_of(p) for p in inputs}
    if len(names) != 1:
        raise QdataError("several inputs: name the output with -o FOLDER")
    return Path("data") / f"{names.pop()}.{Path(template).stem}"


for _command in (
    cli_clean.clean, cli_system.system, cli_score.score, cli_score.filter_rows, cli_score.dedup,
    cli_ledger.why, cli_ledger.ledger, cli_ledger.diff,
    cli_look.catalog, cli_look.formats, cli_look.template, cli_look.show, cli_look.verify,
    cli_report.report, cli_cache.cache,
):  # fmt: skip
    main.add_command(_command)

if __name__ == "__main__":
    main()
