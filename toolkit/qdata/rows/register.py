"""Files of ours as entries of LLaMA-Factory's `dataset_info.json`, so that it trains on them as they are."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from qdata import plugin
from qdata.errors import QdataError
from qdata.paths import whole
from qdata.rows import formats, kinds, registry
from qdata.rows.formats._turns import VERDICTS

_ALPACA = {"prompt": "instruction", "query": "input", "response": "output", "system": "system", "history": "history"}
_MESSAGES_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "system_tag": "system",
}


_TURNS = {"messages": "conversations", "system": "system", "tools": "tools"}
_QUESTION = {name: column for name, column in _ALPACA.items() if name != "response"}
_PAIR = {"chosen": "chosen", "rejected": "rejected"}
_PROMPT = {"prompt": "prompt", "system": "system"}


class _Layout(NamedTuple):
    """How LLaMA-Factory reads a dialect: its names for our columns, and what else its entry says."""

    columns: dict[str, str]
    more: dict[str, Any]


_SHAREGPT, _RANKING = {"formatting": "sharegpt"}, {"ranking": True}
_LAYOUTS = {
    "alpaca": _Layout(_ALPACA, {}),
    "pairs": _Layout({"prompt": "prompt", "response": "response"}, {}),
    "completion": _Layout({"prompt": "prompt", "response": "completion"}, {}),
    "sharegpt": _Layout(_TURNS, _SHAREGPT),
    "alpaca_preference": _Layout(_QUESTION | _PAIR, _RANKING),
    "alpaca_rejected": _Layout(_QUESTION | {"chosen": "output", "rejected": "rejected"}, _RANKING),
    "preference": _Layout(_PROMPT | _PAIR, _RANKING),
    "sharegpt_preference": _Layout(_TURNS | _PAIR, _SHAREGPT | _RANKING),
    "kto": _Layout({"prompt": "prompt", "response": "completion"}, {}),
    "kto_alpaca": _Layout(_ALPACA, {}),
    "kto_sharegpt": _Layout(_TURNS, _SHAREGPT),
}
_TO = {"preference": "sharegpt_preference", "judged": "kto_sharegpt"}  # what to convert other dialects to


def entry_of(file: Path, dialect: str, rows: Iterable[Mapping[str, Any]], folder: Path) -> dict[str, Any]:
    """The entry of a file whose rows are `rows`, for a registry that lies in `folder`.

    Only columns that are there are named: that tool stops at one that is missing. Raises QdataError for rows it
    would read as something else than what they are.
    """
    place = {"file_name": os.path.relpath(file.resolve(), folder.resolve()).replace(os.sep, "/")}
    rows = list(rows)
    kind = kinds.kind(plugin.find(formats, dialect))
    verdict = {"kto_tag": _verdict(file, rows)} if kind == "judged" else {}
    if dialect in ("messages", "conversations", "kto_messages"):
        columns = _messages(file, rows, "conversations" if dialect == "conversations" else "messages") | verdict
        return place | _SHAREGPT | {"columns": columns, "tags": _MESSAGES_TAGS}
    if dialect not in _LAYOUTS:
        to = _TO.get(kind, "sharegpt")
        raise QdataError(f"{file}: LLaMA-Factory reads no {dialect}; convert it first: qdata convert {file} --to {to}")
    have = {column for row in rows for column in row}
    layout = _LAYOUTS[dialect]
    columns = {theirs: ours for theirs, ours in layout.columns.items() if ours in have}
    if layout.more.get("formatting") == "sharegpt":
        _refuse_words(file, rows, _TO.get(kind, "sharegpt"))
    return place | layout.more | {"columns": columns | verdict}


def _verdict(file: Path, rows: Iterable[Mapping[str, Any]]) -> str:
    """The column of the verdicts. Any but true and false would be passed over there, and the answer imitated."""
    for name in VERDICTS:
        if all(isinstance(row.get(name), bool) for row in rows):
            return name
    raise QdataError(
        f"{file}: LLaMA-Factory wants true or false in one column of all rows, label or kto_tag; convert it first: "
        f"qdata convert {file} --to {_TO['judged']}"
    )


def _refuse_words(file: Path, rows: Iterable[Mapping[str, Any]], to: str) -> None:
    """Raises QdataError for roles in spellings that only we read."""
    for row in rows:
        turns = [*(row.get("conversations") or ()), *(turn for name in _PAIR if (turn := row.get(name)))]
        odd = next((turn["from"] for turn in turns if turn["from"] not in _ROLES), None)
        if odd is not None:
            raise QdataError(
                f"{file}: LLaMA-Factory knows no role {odd!r}, only {', '.join(_ROLES)}; convert it first: "
                f"qdata convert {file} --to {to}"
            )


_ROLES = ("human", "gpt", "observation", "function_call", "system")  # its tags, where an entry names none


_OTHER_ROLES = ("function", "developer", "tool_call", "tool_response")
_UNSEEN = ("tool_calls", "function_call", "reasoning_content", "reasoning")


def _messages(file: Path, rows: Iterable[Mapping[str, Any]], column: str) -> dict[str, str]:
    columns = {"messages": column}
    convert = f"convert it first: qdata convert {file} --to sharegpt"
    for row in rows:
        turns = row.get(column) or ()
        if any(m.get(key) for m in turns for key in _UNSEEN) or any(m.get("role") in _OTHER_ROLES for m in turns):
            raise QdataError(
                f"{file}: LLaMA-Factory does not see tool_calls and reasoning_content of messages; {convert}"
            )
        if row.get("functions"):
            raise QdataError(f"{file}: LLaMA-Factory wants tools where this has functions; {convert}")
        if row.get("system"):
            columns["system"] = "system"
        if (tools := row.get("tools")) is not None:
            if not isinstance(tools, str):
                raise QdataError(f"{file}: LLaMA-Factory wants tools as JSON text; {convert}")
            columns["tools"] = "tools"
    return columns


def add(entries: Mapping[str, Mapping[str, Any]], file: Path) -> int:
    """Adds entries to a registry (made where there is none), beside those it has; returns how many it holds then.

    Raises QdataError for a name that stands for another file there.
    """
    held: dict[str, Any] = {}
    if file.exists():
        registry.read(file)  # a file that is no registry is refused, not written over
        held = json.loads(file.read_text(encoding="utf-8"))
    for name, entry in entries.items():
        if name in held and held[name].get("file_name") != entry["file_name"]:
            raise QdataError(f"{file}: {name} stands for {held[name]} there; rename {entry['file_name']}")
    with whole(file, replace=True) as partial:
        text = json.dumps(held | dict(entries), ensure_ascii=False, indent=2)
        partial.write_text(text + "\n", encoding="utf-8")
    return len(held | dict(entries))
