"""The data half of a recipe: the dataclasses it maps onto, and how a TOML file becomes them.

Loading is strict. Every mistake of the file is found in one go and told with its address; a key that is not known
is refused with the nearest one that is. The command line builds the very same dataclass from its options, so there
is one road and one vocabulary.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import cattrs
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError, IterableValidationError

from qdata.errors import QdataError, did_you_mean

T = TypeVar("T")
Loss = Literal["assistant", "last", "whole"]
Think = Literal["keep", "strip", "empty_masked", "empty_trained", "none"]
TooLong = Literal["drop", "truncate_turns", "truncate", "split", "error"]
Documents = Literal["lines", "paragraphs", "file"]
Specials = Literal["text", "keep", "error"]


def option(default: Any, help: str) -> Any:
    """A dataclass field whose default and explanation stand together; `help` is what `--help` prints."""
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata={"help": help})
    return field(default=default, metadata={"help": help})


def help_of(cls: type[Any], name: str) -> str:
    """The sentence that stands beside a recipe field."""
    return str(next(f for f in dataclasses.fields(cls) if f.name == name).metadata["help"])


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where rows come from: a file, a folder, a glob, or the name of a catalogue entry."""

    path: str = field(metadata={"help": "file, folder, glob, catalogue name, or dataset_info.json:NAME"})
    name: str | None = option(None, "name of the source in row ids and reports; default: the folder's name")
    files: tuple[str, ...] = option((), "only these files of a folder or catalogue entry (names or globs)")
    format: str | None = option(None, "dialect of the rows; default: detected from the rows")
    map: dict[str, str] = option(
        {},
        "the dialect's column = the file's (NAME= leaves one unread); messages[].role = a key of messages; "
        "messages[].role.user=Human or conversations[].from.human=User a role (`qdata formats` lists those known)",
    )
    character: str | None = option(
        None, "who answers in talks of characters (ChatHaruhi): a name, or NAME,NAME for one under several names"
    )
    documents: Documents | None = option(
        None, "what a document of plain text (.txt) is: a line (default), what stands between blank lines, or the file"
    )
    max_samples: int | None = option(None, "this many rows drawn by seed from all files of the source; default: all")
    think: Think | None = option(None, "thinking policy of these rows; default: the one of [data]")


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """`[data]`: from raw rows to shards. Each field is a TOML key and, where that makes sense, an option of render."""

    sources: tuple[Source, ...] = option((), "where the rows come from; paths are relative to the recipe")
    validation: tuple[Source, ...] = option((), "rows kept apart for evaluation, from files of their own")
    val: int | float | None = option(
        None, "rows held out of the sources for evaluation: a fraction below 1, or a number"
    )
    steps: tuple[dict[str, Any], ...] = option((), "local steps in order, each `{ step = NAME, ... }`")
    global_steps: tuple[dict[str, Any], ...] = option(
        (), "steps that look at all rows, after the local ones, each `{ step = NAME, ... }`"
    )
    placeholders: dict[str, str | dict[str, str]] = option(
        {}, "values for {{name}}, {{author}} …; a table { zh = …, en = … } gives one per language"
    )
    template: str = option("qwen2", "chat template: a name in templates/ or a .jinja file")
    default_system: str | None = option(
        None, 'system prompt the template supplies where a conversation has none; "none" takes a vendor\'s away'
    )
    tokenizer: str | None = option(None, "folder or hub id; default: the one the template declares")
    loss: Loss = option("assistant", "what is trained: every assistant turn, the last one, or the whole text")
    think: Think = option("keep", "what is trained of reasoning, and so what serving needs; see docs/thinking.md")
    expand: bool = option(True, "a sample for each set of turns whose serving prompts agree; else one per conversation")
    specials: Specials = option("text", "control tokens that stand in the data: made plain text, kept, or an error")
    max_length: int | None = option(None, "longest sample, in tokens")
    too_long: TooLong | None = option(
        None, "what becomes of longer samples; default: pretraining text is split, all else is dropped"
    )
    pack: int | None = option(
        None, "pack samples into rows of at most this many tokens; max_length where none is given"
    )
    seed: int = option(0, "seed of max_samples, of the split and of the order after packing")


def read_toml(path: Path, overrides: Sequence[str] = (), what: str = "recipe") -> dict[str, Any]:
    """The recipe file as nested dicts, with `table.key=value` overrides applied (the value is read as TOML).

    `what` the file is, for messages.

    Raises QdataError for a missing file, broken TOML, or an override that cannot be placed.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*.toml")]) if path.parent.is_dir() else ""
        raise QdataError(f"{path}: no such {what}.{near}") from None
    except (IsADirectoryError, UnicodeDecodeError) as error:
        raise QdataError(f"{path}: not a TOML text file ({error})") from None
    except tomllib.TOMLDecodeError as error:
        raise QdataError(f"{path}: not valid TOML: {error}") from None
    for text in overrides:
        _override(table, text)
    return table


def _override(table: dict[str, Any], text: str) -> None:
    address, equals, value = text.partition("=")
    *parents, key = address.strip().split(".")
    if not equals or not parents or not key:
        raise QdataError(f"--set {text!r}: wanted table.key=value, for example --set train.learning_rate=2e-5")
    try:
        parsed = tomllib.loads(f"v = {value.strip()}")["v"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()  # a bare word is a string: nobody quotes twice on a command line
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise QdataError(f"--set {text!r}: {parent} is a value, not a table")
    table[key] = parsed


# cattrs converts eagerly ("no" to True, 1 to "1", "abc" to a tuple of letters); a recipe means what it says.
_CONVERTER = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)


def _exactly(kind: type, *also: type) -> Any:
    def hook(value: Any, _: Any) -> Any:
        if (isinstance(value, bool) and kind is not bool) or not isinstance(value, (kind, *also)):
            raise ValueError(f"wanted {_KINDS[kind]}, got {_shown(value)}")
        return kind(value)

    return hook


_KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
for _kind, _also in ((str, ()), (int, ()), (float, (int,)), (bool, ())):
    _CONVERTER.register_structure_hook(_kind, _exactly(_kind, *_also))


def _shown(value: Any) -> str:
    text = {True: "true", False: "false"}.get(value, repr(value)) if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _origin(kind: Any) -> Any:
    return get_origin(kind)


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (types.UnionType, typing.Union)


def _one_of(value: Any, kind: Any) -> Any:
    plain = [k for k in get_args(kind) if k is not type(None)]
    if value is None and len(plain) < len(get_args(kind)):
        return None
    for candidate in plain:
        try:
            return _CONVERTER.structure(value, candidate)
        except Exception:
            if len(plain) == 1:
                raise
    wanted = " or ".join("a table" if get_origin(k) is dict else _KINDS.get(k, str(k)) for k in plain)
    raise ValueError(f"wanted {wanted}, got {_shown(value)}")


def _literal(value: Any, kind: Any) -> Any:
    if value not in get_args(kind):
        raise ValueError(f"{_shown(value)} is not one of {', '.join(map(repr, get_args(kind)))}.")
    return value


def _array(value: Any, kind: Any) -> Any:
    if not isinstance(value, (list, tuple)):
        example = f", here [{json.dumps(value, ensure_ascii=False)}]" if isinstance(value, str) else " [ … ]"
        raise ValueError(f"wanted an array{example}, got {_shown(value)}")
    item, problems, out = get_args(kind)[0], [], []
    for index, entry in enumerate(value):
        try:
            out.append(_CONVERTER.structure(entry, item))
        except Exception as error:
            error.add_note(f"[{index}]")
            problems.append(error)
    if problems:
        raise IterableValidationError("array", problems, kind)
    return tuple(out)


def _mapping(value: Any, kind: Any) -> Any:
    item = get_args(kind)[1]
    return {key: _CONVERTER.structure(entry, item) for key, entry in _table(value).items()}


def _source(value: Any, _: Any) -> Source:
    if not isinstance(value, (str, dict)):
        raise ValueError(f"wanted a path, or a table with a path, got {_shown(value)}")
    return _plain_source({"path": value} if isinstance(value, str) else value, Source)


_CONVERTER.register_structure_hook_func(_is_union, _one_of)
_CONVERTER.register_structure_hook_func(lambda k: _origin(k) is Literal, _literal)
_CONVERTER.register_structure_hook_func(lambda k: _origin(k) is tuple, _array)
_CONVERTER.register_structure_hook_func(lambda k: _origin(k) is dict, _mapping)
_CONVERTER.register_structure_hook_func(lambda k: k == dict[str, Any], lambda value, _: _table(value))
_plain_source = cattrs.gen.make_dict_structure_fn(Source, _CONVERTER, _cattrs_forbid_extra_keys=True)
_CONVERTER.register_structure_hook(Source, _source)


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"wanted a table, got {_shown(value)}")
    return value


def structure(cls: type[T], table: Mapping[str, Any], address: str, mistakes: list[str]) -> T | None:
    """`table` as the dataclass `cls`, or None with every mistake appended as "address: what is wrong"."""
    try:
        return _CONVERTER.structure(_table(table), cls)
    except Exception as error:
        mistakes.extend(_told(error, address))
        return None


def _told(error: BaseException, address: str) -> list[str]:
    if isinstance(error, ForbiddenExtraKeysError):
        known = [f.name for f in dataclasses.fields(error.cl)]
        return [f"{address}.{key}: no such key.{did_you_mean(key, known)}" for key in sorted(error.extra_fields)]
    if isinstance(error, (ClassValidationError, IterableValidationError)):
        return [told for inner in error.exceptions for told in _told(inner, address + _place(inner))]
    if isinstance(error, KeyError):
        return [f"{address}.{error.args[0]}: missing"]
    return [f"{address}: {error}"]


def _place(error: BaseException) -> str:
    for note in getattr(error, "__notes__", []):
        if isinstance(note, cattrs.AttributeValidationNote) and not isinstance(error, KeyError):
            return f".{note.name}"
        if isinstance(note, str) and note.startswith("["):
            return note
    return ""


def refuse(path: Path, mistakes: Sequence[str]) -> None:
    """Raises one QdataError that lists all mistakes of a recipe; does nothing when there are none."""
    if mistakes:
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        raise QdataError("\n".join([f"{path}: {count}", *(f"  {m}" for m in mistakes)]))
