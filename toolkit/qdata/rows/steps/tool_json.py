"""Arguments of tool calls that are no JSON: a quote that is missing, a comma too many, Python's True."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

import polars as pl

from qdata.rows.steps._extra import library, require
from qdata.rows.steps._judge import dropped, first_reason
from qdata.rows.steps._texts import edited


@dataclass(frozen=True)
class ToolJson:
    """Repairs call arguments with json-repair, or drops conversations in which some are no JSON object.

    Calls that are right keep every letter. Repair leaves what it cannot make an object; `do = "drop"` behind it drops
    that. Arguments are text (as OpenAI writes them) or already an object; no arguments at all are right too.
    """

    do: Literal["repair", "drop"] = field(default="repair", metadata={"help": "what becomes of them"})

    def __post_init__(self) -> None:
        """Raises QdataError where something is to be repaired without json-repair."""
        if self.do == "repair":
            require("json_repair")

    @property
    def edits(self) -> bool:
        """Repairing does."""
        return self.do == "repair"

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Edits `tool_calls`. Reasons: `tool_json.no_json`, `tool_json.no_name`, `tool_json.no_object`.

        >>> from qdata.rows.steps._turns import example, shown
        >>> calls = '[{"name": "f", "arguments": "{\\\\"a\\\\": True,"}]'
        >>> rows = example("user: a", "assistant!: ").with_columns(
        ...     pl.col("messages").list.eval(pl.element().struct.with_fields(tool_calls=pl.lit(calls)))
        ... )
        >>> shown(ToolJson(do="drop")(rows))
        ['tool_json.no_json']
        >>> ToolJson()(rows).collect()["messages"][0][1]["tool_calls"]
        '[{"name": "f", "arguments": "{\\\\"a\\\\": true}"}]'
        """
        if self.do == "repair":
            return edited(frame, _repaired, fields=("tool_calls",), text=False)
        calls = pl.col("tool_calls").map_batches(_reasons, pl.String)
        return dropped(frame, first_reason(calls, text=False))


def _reasons(texts: pl.Series) -> pl.Series:
    return pl.Series([None if text is None else _fault(text) for text in texts.to_list()], dtype=pl.String)


def _repaired(texts: pl.Series) -> pl.Series:
    return pl.Series([_mended(text) for text in texts.to_list()], dtype=pl.String)


def _fault(text: str) -> str | None:
    calls = _parsed(text)
    if not text.strip() or calls is None:
        return None
    if not isinstance(calls, list):
        return "tool_json.no_json"
    for call in calls:
        function = _function(call)
        if function is None or not isinstance(function.get("name"), str) or not function["name"]:
            return "tool_json.no_name"
        given = function.get("arguments")
        if isinstance(given, str) and given.strip():
            given = _parsed(given)
            if given is _NONE:
                return "tool_json.no_json"
        if given not in (None, "") and not isinstance(given, dict):
            return "tool_json.no_object" if not isinstance(given, str) or given.strip() else None
    return None


def _mended(text: str) -> str:
    """The calls with arguments that are JSON objects, letter for letter as they were where they are right."""
    if _fault(text) is None:
        return text
    calls = _parsed(text)
    if calls is _NONE:
        calls = library("json_repair").loads(text)
    if not isinstance(calls, list):
        return text
    for call in calls:
        function = _function(call)
        if function is None:
            return text
        given = function.get("arguments")
        if isinstance(given, str) and given.strip() and not isinstance(_parsed(given), dict):
            made = library("json_repair").loads(given)
            if not isinstance(made, dict) or not made:
                return text
            function["arguments"] = json.dumps(made, ensure_ascii=False)
    made_text = json.dumps(calls, ensure_ascii=False)
    return made_text if _fault(made_text) is None else text


def _function(call: Any) -> dict[str, Any] | None:
    """Name and arguments of a call: OpenAI wraps them in `function`."""
    if not isinstance(call, dict):
        return None
    inner = call.get("function", call)
    return inner if isinstance(inner, dict) else None


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _NONE


_NONE = object()  # no JSON at all
