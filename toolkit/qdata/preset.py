"""Presets: cleaning steps in a TOML file that a user can read, copy and change."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qdata.errors import QdataError, did_you_mean
from qdata.paths import shipped
from qdata.recipe import option, read_toml, refuse, structure

FOLDER = "recipes/presets"


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A file of steps, as `recipes/presets/` has them."""

    about: str = option("", "what it is for, in a line")
    steps: tuple[dict[str, Any], ...] = option((), "local steps in order, each a table [[steps]] with step = NAME")


def names() -> list[str]:
    """The presets that ship with qdata."""
    return sorted(file.stem for file in shipped(FOLDER).glob("*.toml"))


def load(name: str) -> Preset:
    """A shipped preset by its name, or a file that ends in .toml.

    Raises QdataError for a name or file that is not there, and with all mistakes of the file at once. What the steps
    are and may be set to is checked when they are made.
    """
    if not name.endswith(".toml") and name not in names():
        raise QdataError(f"no preset is called {name!r}.{did_you_mean(name, names())} A file's name ends in .toml.")
    path = Path(name) if name.endswith(".toml") else shipped(FOLDER) / f"{name}.toml"
    mistakes: list[str] = []
    table = read_toml(path, what="preset")
    preset = structure(Preset, table, path.name, mistakes)
    if preset is not None and not preset.steps:
        mistakes.append(f"{path.name}.steps: empty; wanted at least one [[steps]] table with step = NAME")
    refuse(path, mistakes)
    assert preset is not None
    return preset
