"""JSON lists as text, whose items are taken and written letter for letter."""

from __future__ import annotations

import json
from typing import Any

import polars as pl


def items(text: str) -> list[str] | None:
    """The JSON texts of the objects of a JSON list, letter for letter: joined by commas in brackets they are `text`.

    None where the text is not such a list.
    """
    try:
        listed = json.loads(text)
    except ValueError:
        return None
    if not (text.startswith("[") and text.endswith("]") and all(isinstance(item, dict) for item in listed)):
        return None
    found, start = [], 1
    for _ in listed:
        begin = text.index("{", start)
        stop = _DECODER.raw_decode(text, begin)[1]
        stop = min(at for at in (text.find(",", stop), len(text) - 1) if at >= 0)
        found.append(text[start:stop])
        start = stop + 1
    return found


def functions_as_tools(functions: pl.Expr) -> pl.Expr:
    """OpenAI's old `functions` as its `tools`: each wrapped; null where the text is no list of named objects."""
    return functions.map_elements(_wrapped, pl.String)


def are_none(listed: pl.Expr) -> pl.Expr:
    """Whether a JSON text is null, empty, or an empty list."""
    return listed.str.contains(r"^\s*(null|\[\s*\])?\s*$").fill_null(True)


def as_list(call: pl.Expr) -> pl.Expr:
    """One call is written as an object, several as a list; we always hold a list."""
    return pl.when(call.str.starts_with("[")).then(call).otherwise(pl.concat_str(pl.lit("["), call, pl.lit("]")))


def are_calls(text: str) -> bool:
    """Whether a JSON text is a list of calls as LLaMA-Factory takes them: a name and arguments, which are an object."""
    try:
        calls = json.loads(text)
    except ValueError:
        return False
    return isinstance(calls, list) and text[0] + text[-1] == "[]" and bool(calls) and all(map(_is_call, calls))


def _is_call(call: Any) -> bool:
    if not (isinstance(call, dict) and call.keys() == {"name", "arguments"}):
        return False
    return isinstance(call["name"], str) and isinstance(call["arguments"], dict)


def _wrapped(text: str) -> str | None:
    each = items(text.strip()) if text.strip() else []
    if each is None or not all(isinstance(json.loads(one).get("name"), str) for one in each):
        return None
    return "[" + ",".join(f'{{"type":"function","function":{one}}}' for one in each) + "]"


_DECODER = json.JSONDecoder()
