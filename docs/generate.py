"""Writes docs/commands.md and docs/recipe.md from the commands and the recipe's dataclasses.

Run by `make docs`; a test compares what it would write with what is committed, so the reference cannot rot.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import click

HERE = Path(__file__).parent
NOTE = "<!-- Written by `make docs`; edit the docstrings and help texts instead. -->\n"


def commands() -> str:
    """The help of every command of both programs."""
    from qdata.cli import main as qdata
    from qtrain.cli import main as qtrain

    parts = [NOTE, "# Commands\n"]
    for name, program in (("qdata", qdata), ("qtrain", qtrain)):
        parts.append(_help(name, program, None))
        with _context(name, program, None) as context:
            for verb in program.list_commands(context):
                command = program.get_command(context, verb)
                if command is not None and not command.hidden:
                    parts.append(_help(verb, command, context))
    return "\n".join(parts)


def _help(name: str, command: click.Command, parent: click.Context | None) -> str:
    with _context(name, command, parent) as context:
        return f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"


def _context(name: str, command: click.Command, parent: click.Context | None) -> click.Context:
    width = {"terminal_width": 100, "max_content_width": 100}
    return command.make_context(name, [], parent=parent, resilient_parsing=True, **width)


def recipe() -> str:
    """Every key of a recipe: its type, its default, its sentence."""
    from qdata import plugin
    from qdata.recipe import DataRecipe, Source
    from qdata.rows import global_steps, steps
    from qtrain.recipe import Eval, Freeze, Lora, Model, StandIn, Train

    parts = [NOTE, "# Recipe\n"]
    tables = {
        "[data]": DataRecipe,
        "[[data.sources]], [[data.validation]]": Source,
        "[model]": Model,
        "[train]": Train,
        "[train.lora]": Lora,
        "[train.freeze]": Freeze,
        "[eval]": Eval,
        "[stand_in]": StandIn,
    }
    parts += [_table(title, cls) for title, cls in tables.items()]
    parts.append("# Steps\n\nIn `[[data.steps]]`, each as `{ step = NAME, … }`.\n")
    parts += [_table(name, plugin.find(steps, name)) for name in plugin.names(steps)]
    parts.append("# Global steps\n\nIn `[[data.global_steps]]`, in order, when all local steps are done.\n")
    parts += [_table(name, plugin.find(global_steps, name)) for name in plugin.names(global_steps)]
    return "\n".join(parts)


def _table(title: str, cls: type[Any]) -> str:
    hints = get_type_hints(cls)
    lines = [f"## {title}\n", f"{(cls.__doc__ or '').strip()}\n"]
    fields = [f for f in dataclasses.fields(cls) if "help" in f.metadata]
    if fields:
        lines += ["| key | type | default | |", "|---|---|---|---|"]
    for one in fields:
        lines.append(f"| `{one.name}` | {_kind(hints[one.name])} | {_default(one)} | {one.metadata['help']} |")
    return "\n".join(lines) + "\n"


def _default(one: dataclasses.Field[Any]) -> str:
    if one.default is dataclasses.MISSING:
        return "required" if one.default_factory is dataclasses.MISSING else "empty"
    return "–" if one.default in (None, ()) else f"`{one.default}`"


def _kind(hint: Any) -> str:
    arguments = [a for a in get_args(hint) if a is not type(None)]
    if get_origin(hint) is typing.Literal:
        return ", ".join(f"`{a}`" for a in arguments)
    if get_origin(hint) in (types.UnionType, typing.Union):
        return " or ".join(dict.fromkeys(map(_kind, arguments)))
    if get_origin(hint) is tuple:
        return f"array of {_kind(arguments[0])}"
    names = {str: "text", int: "number", float: "number", bool: "true/false"}
    return names.get(hint, "table")


PAGES = {"commands.md": commands, "recipe.md": recipe}


def main() -> None:
    """Writes the pages."""
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
