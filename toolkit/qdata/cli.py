"""The commands of `qdata`: each takes arguments, makes one library call, and prints one report.

Heavy imports stand inside the commands, so that `qdata --help` answers at once.
"""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from qdata.errors import QdataError, did_you_mean
from qdata.recipe import DataRecipe, Source, help_of

console = Console(stderr=True, soft_wrap=True)  # reports are for people; stdout is for --json and painted tokens


class Group(click.Group):
    """Prints a QdataError as one message without a traceback and exits with code 2; near misses of verbs are named."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except QdataError as error:
            console.print(f"[bold red]error:[/] {_escape(str(error))}", highlight=False)
            ctx.exit(2)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the verb, or says which one was meant."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise QdataError(f"no command is called {args[0]!r}.{did_you_mean(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


class Persona(click.Command):
    """A command whose `--persona` takes any number of name=value words: --persona name=沐雪 author=Moemu."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeats the option before each further name=value."""
        out: list[str] = []
        for word in args:
            more = len(out) > 1 and out[-2] == "--persona" and re.fullmatch(r"\w+(\.\w+)?=.*", word, re.DOTALL)
            out += ["--persona", word] if more else [word]
        return super().parse_args(ctx, out)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _pairs(_: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key:
            raise QdataError(f"{option.opts[0]} {value!r}: wanted name=value")
        pairs[key] = text
    return pairs


def _map(ctx: click.Context, option: click.Parameter, value: str | None) -> dict[str, str]:
    return _pairs(ctx, option, tuple(value.split(","))) if value else {}


def _persona(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    persona: dict[str, Any] = {}
    for key, text in _pairs(ctx, option, values).items():
        name, dot, language = key.partition(".")
        if dot:
            persona.setdefault(name, {})[language] = text
        else:
            persona[name] = text
    return persona


def _val(_: click.Context, __: click.Parameter, value: str | None) -> int | float | None:
    if value is None:
        return None
    try:
        number = float(value) if "." in value else int(value)
    except ValueError:
        number = -1
    if number <= 0 or (isinstance(number, float) and number >= 1):
        raise QdataError(f"--val {value!r}: wanted a fraction between 0 and 1, or a whole number of rows")
    return number


def _inputs(command: Callable[..., Any]) -> Callable[..., Any]:
    """The arguments and options that all commands reading rows share."""
    options = [
        click.argument("inputs", nargs=-1, metavar="[FILE|FOLDER|GLOB|NAME]..."),
        click.option("--from", "from_", metavar="DIALECT", help=help_of(Source, "format")),
        click.option("--map", "rename", metavar="OURS=THEIRS,…", callback=_map, help=help_of(Source, "map")),
        click.option("--skip-bad", is_flag=True, help="Set unreadable rows aside in the ledger instead of stopping."),
        click.option("--strict", is_flag=True, help="Refuse samples that only stand in for a data set."),
        click.option("--overwrite", is_flag=True, help="Replace an existing output."),
        click.option("--workers", default=1, show_default=True, help="Processes that work on parts side by side."),
        click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON on stdout."),
    ]
    return functools.reduce(lambda c, option: option(c), reversed(options), command)


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
@click.argument("name")
@click.option("--revision", help="Branch, tag or commit of the data set; default: its newest.")
def fetch(name: str, revision: str | None) -> None:
    """Download a catalogue entry into data/NAME/ (resumable; HF_ENDPOINT is honoured)."""
    from qdata.rows import catalog

    console.print(f"[bold green]{catalog.fetch(name, revision)}[/]", highlight=False)


@main.command()
def catalog() -> None:
    """List the named data sets."""
    from rich.table import Table

    from qdata.rows import catalog as entries

    table = Table("name", "hub", "here", "about", box=None)
    for name, entry in entries.entries().items():
        here = "data/" + name if (entries.WORKSPACE / name).is_dir() else "sample" if entry.sample else "–"
        table.add_row(name, entry.hub or "–", here, entry.about)
    Console().print(table)


@main.command()
def formats() -> None:
    """List the dialects, each with a sample row."""
    from qdata import plugin
    from qdata.rows import formats as folder

    for name in plugin.names(folder):
        form = plugin.find(folder, name)
        click.echo(f"{name}: {str(form.__doc__).splitlines()[0]}\n  {json.dumps(form.sample[0], ensure_ascii=False)}")


@main.command()
@_inputs
@click.option("--to", required=True, metavar="DIALECT", help="Dialect to write; `qdata formats` lists them.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write: .jsonl, or .json for one array.")
def convert(
    inputs: tuple[str, ...],
    to: str,
    output: Path | None,
    from_: str | None,
    rename: dict[str, str],
    overwrite: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Turn rows of one dialect into rows of another. Columns nobody knows come back out.

    The dialect is told by the rows and shown with one of them. A catalogue name stands for data/NAME/ if it was
    fetched, else for the sample that ships with qdata. Without -o the output is data/NAME.DIALECT.jsonl.
    """
    from qdata import convert as library
    from qdata import report, workspace
    from qdata.rows.provenance import manifest_beside

    if not inputs:
        raise QdataError("no input given; wanted files, folders or a catalogue name (`qdata catalog` lists them)")
    sources = [Source(path=path, format=from_, map=rename) for path in inputs]
    target = output or library.default_output(sources, to)
    ours = output is None and target.exists() and manifest_beside(target) is not None
    result = library.convert(sources, to, target, replace=overwrite or ours, console=console, **options)
    workspace.remember("rows", target)
    if as_json:
        click.echo(json.dumps(result.manifest, ensure_ascii=False, indent=2))
    report.notices(console, result.inputs)
    report.converted(console, result.manifest, target, result.sample)


@main.command(cls=Persona)
@_inputs
@click.option("--template", default="qwen2", show_default=True, help=help_of(DataRecipe, "template"))
@click.option("--tokenizer", metavar="DIR|HUB_ID", help=help_of(DataRecipe, "tokenizer"))
@click.option("--default-system", metavar="TEXT", help=help_of(DataRecipe, "default_system"))
@click.option("--loss", type=click.Choice(["assistant", "last", "whole"]), default="assistant", show_default=True,
              help=help_of(DataRecipe, "loss"))  # fmt: skip
@click.option("--max-length", type=click.IntRange(min=1), metavar="N", help=help_of(DataRecipe, "max_length"))
@click.option("--pack", type=click.IntRange(min=1), metavar="N", help=help_of(DataRecipe, "pack"))
@click.option("--val", metavar="FRACTION|N", callback=_val, help=help_of(DataRecipe, "val"))
@click.option("--validation", multiple=True, metavar="FILE", help=help_of(DataRecipe, "validation"))
@click.option("--seed", default=0, show_default=True, help=help_of(DataRecipe, "seed"))
@click.option("--persona", "placeholders", multiple=True, metavar="NAME=TEXT…", callback=_persona,
              help="Fill placeholders like {{name}}: name=沐雪 author=Moemu; name.en=… for one language.")  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder; default: data/NAME.TEMPLATE")
def render(
    inputs: tuple[str, ...],
    from_: str | None,
    rename: dict[str, str],
    validation: tuple[str, ...],
    output: Path | None,
    overwrite: bool,
    as_json: bool,
    skip_bad: bool,
    strict: bool,
    workers: int,
    **settings: Any,
) -> None:
    """Turn rows of any known dialect into TOKENS shards that any trainer can read.

    Without an input, the last output of `qdata convert` is taken. The tokenizer is the one the template declares,
    from the local hub cache, the hub, or the vocabulary embedded by the `offline` extra.
    """
    from qdata import pipeline, report, workspace

    if not inputs:
        last = workspace.last("rows")
        console.print(f"no input given: taking the last output, [bold]{_escape(str(last))}[/]", highlight=False)
        inputs = (str(last),)
    sources, held_out = (
        tuple(Source(path=path, format=from_, map=rename) for path in paths) for paths in (inputs, validation)
    )
    recipe = DataRecipe(sources=sources, validation=held_out, **settings)
    target = output or _shards_folder(inputs, recipe.template)
    planned = pipeline.plan(recipe, skip_bad=skip_bad)
    report.notices(console, planned.inputs)
    ours = output is None and (target / "manifest.json").is_file()
    manifest = pipeline.run(planned, target, replace=overwrite or ours, strict=strict, workers=workers, console=console)
    workspace.remember("shards", target)
    if as_json:
        click.echo(json.dumps(manifest, ensure_ascii=False, indent=2))
    report.built(console, manifest, target)


def _shards_folder(inputs: tuple[str, ...], template: str) -> Path:
    names = {Path(p).stem for p in inputs}
    if len(names) != 1:
        raise QdataError("several inputs: name the output with -o FOLDER")
    return Path("data") / f"{names.pop()}.{Path(template).stem}"


@main.command()
@click.argument("shards", required=False, type=click.Path(path_type=Path))
@click.option(
    "--row", default="0", metavar="N|ROW_ID", help="Row number in the split, or an id like muice/train.jsonl#8."
)
@click.option("--split", default="train", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print ids, texts and labels as JSON.")
def show(shards: Path | None, row: str, split: str, as_json: bool) -> None:
    """Show a row of shards, its tokens painted by what is trained (without colours: in ⟦ ⟧)."""
    from qdata import workspace
    from qdata.tokens import paint

    directory = shards or workspace.last("shards")
    number, found = paint.row_of(directory, split, row)
    out = Console(soft_wrap=True)
    sequences = list(zip(found["rows"], paint.tokens_of(found, directory), strict=True))
    if as_json:
        click.echo(
            json.dumps([{"row": r, "tokens": [t._asdict() for t in ts]} for r, ts in sequences], ensure_ascii=False)
        )
        return
    for source_row, tokens in sequences:
        count, trained = (sum(len(t.ids) for t in ts) for ts in (tokens, [t for t in tokens if t.trained]))
        out.rule(
            f"{split} row {number} · {source_row} · {count} tokens, {trained} trained", style="dim", characters="─"
        )
        if out.color_system:
            out.print(paint.painted(tokens))
        else:
            click.echo(paint.bracketed(tokens))


@main.command()
@click.argument("shards", required=False, type=click.Path(path_type=Path))
@click.option("--sample", type=click.IntRange(min=1), metavar="N", help="Look at N rows of each split, not at all.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
def verify(shards: Path | None, sample: int | None, as_json: bool) -> None:
    """Prove, by a slow road of its own, that the shards train what a server will see. Exit 1 if they do not.

    Each prompt is rendered with the saved template by transformers and tokenised in one go, as a server does; each
    trained stretch must be exactly the answer and its stop token after that prompt.
    """
    from qdata import workspace
    from qdata.tokens import verify as library

    result = library.verify(shards or workspace.last("shards"), sample=sample, console=console)
    if as_json:
        click.echo(json.dumps(result.as_dict(), ensure_ascii=False, indent=2))
    library.report(result, console)
    if result.failures:
        sys.exit(1)


if __name__ == "__main__":
    main()
