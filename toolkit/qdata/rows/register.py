"""Files of ours as entries of LLaMA-Factory's `dataset_info.json`, so that it trains on them as they are."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from qdata.errors import QdataError
from qdata.paths import whole
from qdata.rows import registry

_ALPACA = {"prompt": "instruction", "query": "input", "response": "output", "system": "system", "history": "history"}
_MESSAGES_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "system_tag": "system",
}


def entry_of(file: Path, dialect: str, rows: Iterable[Mapping[str, Any]], folder: Path) -> dict[str, Any]:
    """The entry of a file whose rows are `rows`, for a registry that lies in `folder`.

    Only columns that are there are named: that tool stops at one that is missing. Raises QdataError for rows it
    would read as something else than what they are.
    """
    place = {"file_name": os.path.relpath(file.resolve(), folder.resolve()).replace(os.sep, "/")}
    if dialect == "messages":
        columns = _messages(file, rows)
        return place | {"formatting": "sharegpt", "columns": columns, "tags": _MESSAGES_TAGS}
    have = {column for row in rows for column in row}
    if dialect == "alpaca":
        return place | {"columns": {theirs: ours for theirs, ours in _ALPACA.items() if ours in have}}
    if dialect == "pairs":
        return place | {"columns": {"prompt": "prompt", "response": "response"}}
    if dialect == "sharegpt":
        named = {"messages": "conversations", "system": "system", "tools": "tools"}
        columns = {theirs: ours for theirs, ours in named.items() if ours in have}
        return place | {"formatting": "sharegpt", "columns": columns}
    raise QdataError(f"{file}: LLaMA-Factory reads no {dialect}; convert it first: qdata convert {file} --to sharegpt")


_UNSEEN = ("tool_calls", "function_call", "reasoning_content", "reasoning")


def _messages(file: Path, rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    columns = {"messages": "messages"}
    convert = f"convert it first: qdata convert {file} --to sharegpt"
    for row in rows:
        turns = row.get("messages") or ()
        if any(m.get(key) for m in turns for key in _UNSEEN) or any(m.get("role") == "function" for m in turns):
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
