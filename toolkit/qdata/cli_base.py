"""What the commands are made of: the group that words errors, options with rules of their own, shared options."""

from __future__ import annotations

import errno
import functools
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, get_args

import click
from rich.console import Console
from rich.markup import escape

from qdata.errors import QdataError, did_you_mean
from qdata.recipe import DataRecipe, Documents, Source, help_of

LANGUAGES = ("zh", "en")  # those that the placeholders step tells apart
_MAX_SAMPLES = "N rows of each input, drawn by seed from all of its files; the ledger names the others."
_STRICT = (
    "Refuse rows that cannot be read or rendered, instead of setting them aside in the ledger, and samples that only "
    "stand in for a data set."
)
console = Console(stderr=True, soft_wrap=True)  # reports are for people; stdout is for --json and painted tokens


class Group(click.Group):
    """Prints a QdataError as one message without a traceback and exits with code 2; near misses of verbs are named."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except QdataError as error:
            told = str(error)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            told = f"the disk is full ({error.filename or error.strerror}); nothing was left half-written"
        console.print(f"[bold red]error:[/] {escape(told)}", highlight=False)
        return ctx.exit(2)

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


def name_values(_: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """`name=value` words as a dict. Raises QdataError for a word without `=`."""
    pairs: dict[str, str] = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key:
            raise QdataError(f"{option.opts[0]} {value!r}: wanted name=value")
        if pairs.setdefault(key, text) != text:
            raise QdataError(f"{option.opts[0]} {value!r}: {key} was given as {pairs[key]!r} before; wanted one value")
    return pairs


def column_map(ctx: click.Context, option: click.Parameter, value: str | None) -> dict[str, str]:
    """`--map ours=theirs,ours=theirs` as a dict."""
    return name_values(ctx, option, tuple(value.split(","))) if value else {}


def persona_values(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """Placeholder values; `name.en=Muxue` gives one for a language, beside it `name=沐雪` the one for all others."""
    pairs = name_values(ctx, option, values)
    persona: dict[str, Any] = {}
    for key, text in pairs.items():
        name, dot, language = key.partition(".")
        if not dot:
            persona.setdefault(name, text)
            continue
        if not isinstance(persona.get(name), dict):
            persona[name] = dict.fromkeys(LANGUAGES, pairs[name]) if name in pairs else {}
        persona[name][language] = text
    return persona


def fraction_or_number(_: click.Context, __: click.Parameter, value: str | None) -> int | float | None:
    """`--val`: a fraction below 1, or a whole number."""
    if value is None:
        return None
    try:
        number = float(value) if "." in value else int(value)
    except ValueError:
        number = -1
    if number <= 0 or (isinstance(number, float) and number >= 1):
        raise QdataError(f"--val {value!r}: wanted a fraction between 0 and 1, or a whole number of rows")
    return number


def sources_of(paths: Sequence[str], **how: Any) -> tuple[Source, ...]:
    """The paths as sources, each with the fields `how`; `-` is what comes through stdin."""
    if "-" not in paths:
        return tuple(Source(path=path, **how) for path in paths)
    from qdata.rows import stdin

    piped = Source(path=str(stdin.spooled(sys.stdin.buffer)), name=stdin.NAME, **how)
    return tuple(piped if path == "-" else Source(path=path, **how) for path in paths)


def input_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The arguments and options that all commands reading rows share."""
    options = [
        click.argument("inputs", nargs=-1, metavar="[FILE|FOLDER|GLOB|NAME|-]..."),
        click.option("--from", "from_", metavar="DIALECT", help=help_of(Source, "format")),
        click.option("--map", "rename", metavar="OURS=THEIRS,…", callback=column_map, help=help_of(Source, "map")),
        click.option("--character", metavar="NAME", help=help_of(Source, "character")),
        click.option("--documents", type=click.Choice(get_args(Documents)), help=help_of(Source, "documents")),
        click.option("--max-samples", type=click.IntRange(min=1), metavar="N", help=_MAX_SAMPLES),
        click.option("--seed", default=0, show_default=True, help=help_of(DataRecipe, "seed")),
        click.option("--strict", is_flag=True, help=_STRICT),
        click.option("--overwrite", is_flag=True, help="Replace an existing output."),
        click.option(
            "--workers",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            help="Processes that work on parts side by side.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON on stdout."),
    ]
    return functools.reduce(lambda c, option: option(c), reversed(options), command)
