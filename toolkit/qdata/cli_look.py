"""The commands that look at things: data sets, dialects, templates, shards, and the proof."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape

from qdata.cli_base import Group, console
from qdata.errors import QdataError
from qdata.recipe import DataRecipe, help_of

if TYPE_CHECKING:
    from qdata.pipeline import Found
    from qdata.rows.entry import Entry


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--dataset-info", "target", type=click.Path(path_type=Path, dir_okay=False), metavar="OUT.json",
              help="Add the data files FILE… to a dataset_info.json of LLaMA-Factory, or make one.")  # fmt: skip
def catalog(files: tuple[str, ...], target: Path | None) -> None:
    """List the named data sets; or, of LLaMA-Factory registries FILE…, those that they name.

    A dataset_info.json in the working directory or in data/ is part of the list, and so is datasets.toml, in our own
    words (hub, path, format, map, files, max_samples, about …). Any other is named in full: DIR/dataset_info.json:NAME.
    """
    from rich.measure import Measurement
    from rich.table import Column, Table

    from qdata.rows import catalog as named
    from qdata.rows import registry

    if target is not None:
        _register(files, target)
        return
    registries = [registry.read(Path(file)) for file in files]
    table = Table(Column("name", no_wrap=True), "hub", "here", "about", box=None)
    for name, entry in (pair for each in registries or [named.entries()] for pair in each.items()):
        about = f"[yellow]cannot be read:[/] {escape(entry.unsupported)}" if entry.unsupported else escape(entry.about)
        table.add_row(escape(name), entry.hub or "–", escape(_here(name, entry)), about)
    out = Console()
    if not out.is_terminal:  # a pipe has no width; what reads it wants each entry on a line
        out.width = max(out.width, Measurement.get(out, out.options.update(max_width=1 << 16), table).maximum)
    out.print(table)


def _here(name: str, entry: Entry) -> str:
    """Where the rows of an entry lie on this machine, in a word."""
    from qdata.rows import catalog as named

    if entry.path is not None:
        return Path(entry.path).name if Path(entry.path).exists() else "missing"
    return f"data/{name}" if (named.WORKSPACE / name).is_dir() else "sample" if entry.sample else "–"


def _register(files: tuple[str, ...], target: Path) -> None:
    from qdata import pipeline
    from qdata.recipe import Source
    from qdata.rows import register

    if not files:
        raise QdataError("--dataset-info: no file named; wanted the data files to add")
    made = {}
    for found in pipeline.find([Source(path=file) for file in files]):
        one = found.input
        rows = _readable(found)
        if one.path.stem in made:
            raise QdataError(f"{one.path}: two files would be called {one.path.stem}; rename one of them")
        made[one.path.stem] = register.entry_of(one.path, found.detection.format, rows, target.parent)
    held = register.add(made, target)
    console.print(f"[bold green]{escape(str(target))}[/]  ({', '.join(made)}; of {held} in it)", highlight=False)


def _readable(found: Found) -> list[dict[str, Any]]:
    """The rows of a file, as they stand in it, that can be read; the others are told."""
    from qdata import aside, report
    from qdata.rows import load, source

    one = found.input
    rows, bad, total, container = [], [], 0, ""
    for part in source.parts_of(one.path, one.source, one.relative):
        read, loaded = source.read(part), load.load(part, found.detection.format, one.rename, one.character)
        out = {b.ordinal for b in loaded.bad}
        rows += [row for ordinal, row in zip(read.ordinals, read.rows, strict=True) if ordinal not in out]
        bad += loaded.bad
        total, container = total + loaded.frame.height + len(loaded.bad), part.container
    told = aside.unreadable(one.path, container, bad, total)
    if not rows:
        raise aside.nothing_left(one.path, told)
    report.unregistered(console, told)
    return rows


@click.command()
def formats() -> None:
    """List the dialects: a sample row of each, and which roles are read.

    A role of other words is named with --map: 'conversations[].from.human=User', 'messages[].role.user=Human'.
    """
    from qdata import plugin
    from qdata.rows import formats as folder

    for name in plugin.names(folder):
        form = plugin.find(folder, name)
        roles = "".join(f" [{place}: {_listed(known)}]" for place, known in getattr(form, "roles", {}).items())
        about = str(form.__doc__).splitlines()[0]
        click.echo(f"{name}: {about}{roles}\n  {json.dumps(form.sample[0], ensure_ascii=False)}")


def _listed(roles: dict[str, str]) -> str:
    """`human, user → user; gpt, assistant → assistant`."""
    words = {ours: [word for word, other in roles.items() if other == ours] for ours in roles.values()}
    return "; ".join(f"{', '.join(theirs)} → {ours}" for ours, theirs in words.items())


@click.command()
@click.argument("shards", required=False, type=click.Path(path_type=Path))
@click.option(
    "--row",
    default="0",
    metavar="N|ROW_ID",
    help="Row number in the split, from 0 (-1 is the last), or an id like muice/train.jsonl#8.",
)
@click.option("--split", default="train", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print ids, texts and labels as JSON.")
def show(shards: Path | None, row: str, split: str, as_json: bool) -> None:
    """Show a row of shards, its tokens painted by what is trained (without colours: in ⟦ ⟧)."""
    from qdata import workspace
    from qdata.tokens import paint

    directory = shards or workspace.last("shards")
    split = "validation" if split == "val" else split  # as render's --val calls it
    number, found = paint.row_of(directory, split, row)
    out = Console(soft_wrap=True)
    sequences = list(zip(paint.titles_of(found), paint.tokens_of(found, directory), strict=True))
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


@click.command()
@click.argument("path", metavar="[SHARDS|RUN|EXPORT]", required=False, type=click.Path(path_type=Path))
@click.option("--sample", type=click.IntRange(min=1), metavar="N", help="Look at N rows of each split, not at all.")
@click.option(
    "--shards", type=click.Path(path_type=Path), metavar="DIR", help="Of a run or export: where its shards lie now."
)
@click.option(
    "--served-by",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Another server's model or tokenizer folder: hold the shards against its template.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
def verify(path: Path | None, sample: int | None, shards: Path | None, served_by: Path | None, as_json: bool) -> None:
    """Prove, by a slow road of its own, that what is trained is what a server will see. Exit 1 if it is not.

    Each prompt is rendered with the saved template by transformers and tokenised in one go, as a server does; each
    trained stretch must be exactly the answer and its stop token after that prompt. Of a run or an exported model, the
    saved template, tokenizer and stop tokens are held against what it was trained on, then its shards are looked at.

    \b
    qdata verify data/shards/muice
    qdata verify runs/muice --sample 100
    """
    from qdata import workspace
    from qdata.tokens import verify as library

    result = library.verify(
        path or workspace.last("shards"), sample=sample, shard_folder=shards, served_by=served_by, console=console
    )
    if as_json:
        click.echo(json.dumps(result.as_dict(), ensure_ascii=False, indent=2))
    library.report(result, console)
    if result.failures:
        sys.exit(1)


@click.group(cls=Group)
def template() -> None:
    """Look at chat templates: what they are, what they supply, what another default system prompt changes."""


@template.command("list")
def template_list() -> None:
    """The templates that ship with qdata."""
    from qdata.tokens.template import SHIPPED, Template

    for file in sorted(SHIPPED.glob("*.jinja")):
        one = Template.load(file.stem)
        click.echo(f"{one.name}: {one.about}\n  default system prompt: {one.default_system!r}")


@template.command("show")
@click.argument("name")
@click.option("--default-system", metavar="TEXT|none", help=help_of(DataRecipe, "default_system"))
@click.option("--rendered", is_flag=True, help="What it makes of a short conversation, instead of its source.")
def template_show(name: str, default_system: str | None, rendered: bool) -> None:
    """Print a template (a name, or a .jinja file) as it would be saved with the model."""
    from qdata.tokens.template import Template

    one = Template.load(name).with_default_system(default_system)
    said = [("user", "你好"), ("assistant", "你好呀！"), ("user", "再见")]
    chat = [{"role": role, "content": content} for role, content in said]
    click.echo(one.render(chat, add_generation_prompt=True) if rendered else one.source)


@template.command("diff")
@click.argument("name")
@click.argument("other", required=False)
@click.option("--default-system", metavar="TEXT|none", help=help_of(DataRecipe, "default_system"))
def template_diff(name: str, other: str | None, default_system: str | None) -> None:
    """Compare a template with OTHER, or with itself under another default system prompt, as a unified diff."""
    import difflib

    from qdata.tokens.template import Template

    if other is None and default_system is None:
        raise QdataError("nothing to compare with: name a second template, or give --default-system")
    before = Template.load(name)
    after = (Template.load(other) if other else before).with_default_system(default_system)
    old, new = before.source.splitlines(), after.source.splitlines()
    for line in difflib.unified_diff(old, new, name, other or f"{name} --default-system", lineterm="", n=1):
        click.echo(line)
