"""Presets: cleaning steps in a TOML file that a user can read, copy and change."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qdata import plugin
from qdata.errors import QdataError, did_you_mean
from qdata.paths import shipped
from qdata.recipe import option, read_toml, refuse, structure
from qdata.rows import formats, kinds

FOLDER = "recipes/presets"


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A file of steps, as `recipes/presets/` has them."""

    about: str = option("", "what it is for, in a line")
    kinds: tuple[Literal["chat", "preference", "judged", "text"], ...] = option(
        (), "the rows it is for: chat, preference, judged, text; default: any"
    )
    steps: tuple[dict[str, Any], ...] = option((), "local steps in order, each a table [[steps]] with step = NAME")


def names() -> list[str]:
    """The presets that ship with qdata."""
    return sorted(file.stem for file in shipped(FOLDER).glob("*.toml"))


def misfit(preset: Preset, formats_found: Iterable[str]) -> str | None:
    """What is odd about these steps for rows of these dialects, in words, or None."""
    found = {kinds.kind(plugin.find(formats, name)) for name in formats_found}
    if not preset.kinds or found <= set(preset.kinds):
        return None
    wanted, others = (", ".join(kinds.WORDS[one] for one in sorted(some)) for some in (preset.kinds, found))
    return f"its steps are made for {wanted}, and these rows are {others}: look at what each of them did"


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
