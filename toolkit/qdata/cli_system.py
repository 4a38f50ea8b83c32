"""`qdata system`: rewrites system prompts and identity, and can show what changes before anything is written."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from qdata.cli_base import Persona, console, persona_values
from qdata.cli_rows import refuse_text, row_options, write_rows
from qdata.errors import QdataError
from qdata.recipe import structure

if TYPE_CHECKING:
    from qdata.part import Step
    from qdata.recipe import Source


@click.command(cls=Persona)
@row_options
@click.option("--set", "text", metavar="TEXT", help="Replace every system prompt, and fill in missing ones.")
@click.option("--fill", metavar="TEXT", help="Fill in missing system prompts only.")
@click.option("--drop", is_flag=True, help="Take all system prompts away.")
@click.option("--pool", type=click.Path(path_type=Path), metavar="FILE.toml",
              help="Draw system prompts by weight: the keys of the step system_pool.")  # fmt: skip
@click.option("--card", type=click.Path(path_type=Path), metavar="FILE",
              help="A character card (JSON, TOML) as the prompt; --persona user=… names {{user}}.")  # fmt: skip
@click.option("--persona", multiple=True, metavar="NAME=TEXT…", callback=persona_values,
              help="Fill placeholders like {{name}} in prompts and turns: name=沐雪 author=Moemu.")  # fmt: skip
@click.option("--identity", is_flag=True,
              help='"I am Qwen, by Alibaba Cloud" and its like become the persona\'s name and author.')  # fmt: skip
@click.option("--to", metavar="DIALECT", help="Dialect to write; default: the one the rows are in.")
@click.option("--dry-run", is_flag=True, help="Write nothing; show up to ten rows before and after, and the counts.")
def system(to: str | None, dry_run: bool, **options: Any) -> None:
    """Rewrite the system prompts of conversations, and who the model says it is.

    The ledger keeps every row before and after. By language or source, and in recipes: the steps system_set,
    system_pool, system_card, identity. See docs/system.md.
    """
    wanted = {name: options.pop(name) for name in ("text", "fill", "drop", "pool", "card", "persona", "identity")}
    sets = not wanted["drop"] and any(wanted[name] for name in ("text", "fill", "pool", "card"))

    def tell(written: Path, _: dict[str, Any]) -> None:
        from qdata.schema import PLACEHOLDER

        _show(written, samples=10 if dry_run else 0)
        if not wanted["persona"] and (open_ones := re.findall(PLACEHOLDER, wanted["text"] or wanted["fill"] or "")):
            console.print(
                f"[bold black on yellow] UNFILLED [/] the prompt holds {escape(', '.join(open_ones))}, and rows with "
                f"it cannot be trained: --persona name=…, here or for qdata render, fills it",
                highlight=False,
            )

    write_rows(
        command="system",
        name="system",
        to=to,
        dry_run=dry_run,
        steps=_steps(wanted),
        check=functools.partial(_refuse_without_place, to=to) if sets else refuse_text("has no system prompts"),
        tell=tell,
        **options,
    )


def _steps(wanted: Mapping[str, Any]) -> tuple[Step, ...]:
    """What the options ask for, in order: the prompt, then placeholders, then identity."""
    from qdata.rows.steps.identity import Identity
    from qdata.rows.steps.placeholders import Placeholders
    from qdata.rows.steps.system_card import SystemCard
    from qdata.rows.steps.system_pool import SystemPool
    from qdata.rows.steps.system_set import SystemSet

    persona = wanted["persona"]
    named = {"--set": wanted["text"], "--fill": wanted["fill"], "--pool": wanted["pool"], "--card": wanted["card"]}
    given = [name for name, value in named.items() if value is not None] + ["--drop"] * wanted["drop"]
    if len(given) > 1:
        raise QdataError(f"{' and '.join(given)}: wanted one of them; rewrite twice for both")
    if not given and not persona and not wanted["identity"]:
        raise QdataError("nothing to do; wanted --set, --fill, --drop, --pool, --card, --persona or --identity")
    mistakes: list[str] = []
    made: list[Any] = []
    if "--set" in given:
        made.append(structure(SystemSet, {"text": wanted["text"]}, "--set", mistakes))
    elif "--fill" in given:
        made.append(structure(SystemSet, {"do": "fill", "text": wanted["fill"]}, "--fill", mistakes))
    elif "--drop" in given:
        made.append(SystemSet(do="drop"))
    elif "--pool" in given:
        made.append(structure(SystemPool, _toml(wanted["pool"]), f"--pool {wanted['pool']}", mistakes))
    elif "--card" in given:
        user = {"user": persona["user"]} if "user" in persona else {}
        made.append(structure(SystemCard, {"file": str(wanted["card"])} | user, "--card", mistakes))
    if persona:
        made.append(Placeholders(persona))
    if wanted["identity"]:
        missing = [name for name in ("name", "author") if name not in persona]
        if missing:
            raise QdataError(f"--identity: wanted --persona name=… author=…; {' and '.join(missing)} missing")
        made.append(structure(Identity, {n: persona[n] for n in ("name", "author")}, "--persona", mistakes))
    if mistakes:
        raise QdataError("\n".join(mistakes))
    return tuple(made)


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise QdataError(f"--pool {file}: {error.strerror}; wanted a TOML file with texts = [{{ text = … }}]") from None
    except ValueError as error:
        raise QdataError(f"--pool {file}: not valid TOML: {error}") from None


def _refuse_without_place(sources: Sequence[Source], to: str | None) -> None:
    """Raises QdataError where the rows' dialect, or the one to write, has no place for a system prompt."""
    refuse_text("has no system prompts")(sources)
    from qdata import pipeline, plugin
    from qdata.rows import formats, kinds
    from qdata.schema import CONVERSATION, MESSAGE

    nothing = dict.fromkeys(CONVERSATION), dict.fromkeys(field.name for field in MESSAGE.fields)
    turns = [nothing[1] | {"role": role, "content": "x"} for role in ("system", "user", "assistant")]
    dialects = {to: "--to"} if to else {one.detection.format: str(one.input.path) for one in pipeline.find(sources)}
    for name, where in dialects.items():
        form = plugin.find(formats, name)
        if kinds.kind(form) == "chat" and form.loses(nothing[0] | {"messages": turns}) is not None:
            raise QdataError(
                f"{where}: rows of {name} have no place for a system prompt; choose a dialect that has one: "
                f"--to messages (`qdata formats` lists them)"
            )


def _show(written: Path, samples: int) -> None:
    """How many rows were changed in which way, and some of each way before and after, line by line."""
    from qdata.changes import changes, lines

    found = changes(written)
    for kind in found.samples(samples):
        console.print(f"\n[bold]{escape(kind.row)}[/] [dim]({escape(kind.what)})[/]", highlight=False)
        for sign, line in lines(kind.before, kind.after):
            style = {"-": "red", "+": "green"}.get(sign, "dim")
            console.print(f"  {sign} {escape(line)}", style=style, highlight=False)
    for what, count in found.counts.items():
        console.print(f"[bold]{count:,}[/] rows: {escape(what)}", highlight=False)
    if not found.counts:
        console.print("[yellow]no row is changed[/]", highlight=False)
