"""`--map`: what a file calls its columns, the keys inside its messages and its roles, in a dialect's own names.

    prompt=question                        a column
    system=                                a column that is not to be read, though it has a name the dialect knows
    messages[].role=speaker                a key of each message
    messages[].role.user=Human             a value of that key

To the left the dialect's name, to the right the file's. What is not named keeps its name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

INSIDE = "[]."


class Renaming(NamedTuple):
    """A map, taken apart: columns by the file's names; for each column with messages, their keys and values."""

    columns: dict[str, str]
    keys: dict[str, dict[str, str]]  # column → the file's key → ours
    values: dict[str, dict[str, dict[str, str]]]  # column → our key → the file's value → ours


def renaming(rename: Mapping[str, str]) -> Renaming:
    """The map taken apart.

    >>> renaming({"prompt": "question", "messages[].role": "who", "messages[].role.user": "Human"})
    Renaming(columns={'question': 'prompt'}, keys={'messages': {'who': 'role'}}, \
values={'messages': {'role': {'Human': 'user'}}})
    """
    return _renaming(tuple(rename.items()))


@functools.lru_cache(maxsize=64)
def _renaming(pairs: tuple[tuple[str, str], ...]) -> Renaming:
    columns: dict[str, str] = {}
    keys: dict[str, dict[str, str]] = {}
    values: dict[str, dict[str, dict[str, str]]] = {}
    for ours, theirs in pairs:
        column, inside, place = ours.partition(INSIDE)
        key, is_value, value = place.partition(".")
        if not inside:
            columns[theirs] = ours
        elif is_value:
            values.setdefault(column, {}).setdefault(key, {})[theirs] = value
        else:
            keys.setdefault(column, {})[theirs] = key
    columns.pop("", None)  # NAME= : no column of the file stands for it
    return Renaming(columns, keys, values)


def renamed(row: Mapping[str, Any], rename: Mapping[str, str], listed: Callable[[Any], Any] = lambda v: v) -> Any:
    """A row with the file's names replaced by the dialect's; `listed` decodes a column that holds a list as text.

    A column that already has a name which another one is mapped to is left out: it is not what the user means by it.
    A key of a message in that place gets `[]` after its name, so that it is kept as one that nobody knows.
    """
    columns, keys, values = renaming(rename)
    out = {columns.get(k, k): v for k, v in row.items() if k in columns or k not in rename}
    for column in keys.keys() | values.keys():
        turns = listed(out.get(column))
        own, their = keys.get(column, {}), values.get(column, {})
        if isinstance(turns, list):
            out[column] = [_turn(t, own, their) if isinstance(t, dict) else t for t in turns]
        elif isinstance(turns, dict):  # an answer of a pair is a single message
            out[column] = _turn(turns, own, their)
    return out


def _turn(turn: dict[str, Any], keys: dict[str, str], values: dict[str, dict[str, str]]) -> dict[str, Any]:
    taken = keys.values()
    out = {keys.get(k, f"{k}[]" if k in taken else k): v for k, v in turn.items()}
    for key, ours in values.items():
        if isinstance(value := out.get(key), str):
            out[key] = ours.get(value, value)
    return out


def twice(rename: Mapping[str, str]) -> list[str]:
    """The file's names that stand for two things of one kind; sorted."""
    seen: set[tuple[str, str]] = set()
    found: set[str] = set()
    for ours, theirs in rename.items():
        column, inside, place = ours.partition(INSIDE)
        key, is_value, _ = place.partition(".")
        kind = (column + INSIDE + (key if is_value else "") if inside else "", theirs)
        if kind in seen and theirs:
            found.add(theirs)
        seen.add(kind)
    return sorted(found)
