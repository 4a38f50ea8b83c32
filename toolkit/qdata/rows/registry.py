"""LLaMA-Factory's registry, `dataset_info.json`: read as a catalogue as it is, and written for files of ours.

Its `columns` and `tags` become a dialect and a map; what an entry does not name is not read, as there. Entries of
which we cannot read the rows stay in the list, with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qdata import plugin
from qdata.errors import QdataError
from qdata.rows import formats
from qdata.rows.entry import Entry

NAME = "dataset_info.json"

_HUBS = {"ms_hub_url": "ModelScope", "om_hub_url": "Modelers"}
_KEYS = {
    *("hf_hub_url", "script_url", "cloud_file_name", "file_name", "file_sha1", *_HUBS),
    *("formatting", "ranking", "subset", "split", "folder", "num_samples", "columns", "tags"),
}
_COLUMNS = {"prompt": "instruction", "query": "input", "response": "output", "messages": "conversations"}
_OTHER_COLUMNS = ("history", "system", "tools", "images", "videos", "audios", "chosen", "rejected", "kto_tag")
_TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}
_OPENAI = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}


def read(file: Path) -> dict[str, Entry]:
    """All entries of a registry, in its order. Raises QdataError for a file that is none."""
    if not file.exists():
        raise QdataError(f"{file}: no such file; wanted a registry of LLaMA-Factory ({NAME})")
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise QdataError(f"{file}: not a registry: {error}; mend it or move it away") from None
    if not isinstance(table, dict) or not all(isinstance(entry, dict) for entry in table.values()):
        raise QdataError(f"{file}: not a registry; wanted an object of objects, {{NAME: {{file_name: …}}, …}}")
    if odd := [name for name in table if not name or set("/\\#") & set(name) or name.startswith(".")]:
        raise QdataError(
            f"{file}: {odd[0]!r}: wanted a name without / and #, which becomes a folder and part of row ids"
        )
    return {name: _entry(entry, file.parent) for name, entry in table.items()}


def _entry(entry: Mapping[str, Any], folder: Path) -> Entry:
    where, missing = _place(entry, folder)
    columns = _filled(entry, "columns", _COLUMNS, (*_COLUMNS, *_OTHER_COLUMNS))
    tags = _filled(entry, "tags", _TAGS, tuple(_TAGS))
    formatting = entry.get("formatting", "alpaca")
    reason = missing or _misfit(entry) or _unread(entry, formatting, columns)
    if reason:
        return Entry(**where, unsupported=reason)
    ranking = bool(entry.get("ranking"))
    form, rename = _alpaca(columns, ranking) if formatting == "alpaca" else _turns(columns, tags, ranking)
    samples = entry.get("num_samples")
    return Entry(**where, format=form, map=rename, max_samples=samples)


def _place(entry: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], str]:
    """Where its rows are, as fields of Entry, and what is missing for us to get at them."""
    if isinstance(hub := entry.get("hf_hub_url"), str):
        inside = {key: entry.get(key) for key in ("subset", "folder")}
        return {"hub": hub, "split": entry.get("split", "train"), **inside}, ""
    for key, what in _HUBS.items():
        if key in entry:
            return {"about": str(entry[key])}, f"it is on {what} only, which qdata fetch does not ask"
    if "script_url" in entry:
        return {"about": str(entry["script_url"])}, "it is made by a script, and foreign code is not run"
    if "cloud_file_name" in entry:
        return {"about": str(entry["cloud_file_name"])}, "it is in a cloud bucket; download it and use file_name"
    if isinstance(name := entry.get("file_name"), str):
        return {"path": str(folder / name)}, ""
    return {}, "it names neither file_name nor hf_hub_url"


def _misfit(entry: Mapping[str, Any]) -> str:
    """What is wrong with the entry itself."""
    if unknown := sorted(entry.keys() - _KEYS):
        return f"it has keys nobody knows: {', '.join(unknown)}"
    for key in ("columns", "tags"):
        named = entry.get(key, {})
        if not isinstance(named, dict) or not all(isinstance(v, str | None) for v in named.values()):
            return f"its {key} are not an object of names"
    samples = entry.get("num_samples")
    if samples is not None and not (type(samples) is int and samples > 0):
        return f"its num_samples is {samples!r}, wanted a whole number above 0"
    return ""


def _unread(entry: Mapping[str, Any], formatting: Any, columns: Mapping[str, str | None]) -> str:
    """Why rows like this cannot be read here."""
    if media := [key for key in ("images", "videos", "audios") if columns[key]]:
        return f"its rows hold {' and '.join(media)}; only text is read"
    if formatting not in ("alpaca", "sharegpt", "openai"):
        return f"its formatting is {formatting!r}; alpaca, sharegpt and openai are read"
    if entry.get("ranking") and not columns["kto_tag"] and not (columns["chosen"] and columns["rejected"]):
        return "its rows are preference pairs (ranking), and it does not name both chosen and rejected"
    if formatting == "alpaca" and columns["kto_tag"] and not columns["response"]:
        return "its rows are judged answers (kto_tag), and it names no response column"
    if formatting == "alpaca" and not columns["prompt"]:
        return "it names no prompt column"
    if formatting == "alpaca" and columns["tools"]:
        return "its rows are alpaca with tools, which no dialect of ours reads"
    if (
        formatting == "alpaca"
        and _is_text(entry.get("ranking"), columns)
        and any(columns[name] for name in _BESIDE_TEXT)
    ):
        return "its rows are pretraining text (no response), and it names more than a prompt column"
    if formatting != "alpaca" and not columns["messages"]:
        return "it names no messages column"
    return ""


def _filled(
    entry: Mapping[str, Any], key: str, defaults: Mapping[str, str], known: tuple[str, ...]
) -> dict[str, str | None]:
    """Names as LLaMA-Factory fills them in: where an entry names one, those it leaves out stand for nothing."""
    given = entry.get(key)
    named = given if isinstance(given, dict) else defaults
    return {name: named.get(name) for name in known}


_BESIDE_TEXT = ("query", "history", "system")


def _is_text(ranking: Any, columns: Mapping[str, str | None]) -> bool:
    """Whether rows in the alpaca layout are documents: nobody answers."""
    return not (ranking or columns["kto_tag"] or columns["response"])


def _alpaca(columns: Mapping[str, str | None], ranking: bool) -> tuple[str, dict[str, str]]:
    if _is_text(ranking, columns):
        return "text", _renames("text", {"text": columns["prompt"]})
    ours = {"instruction": "prompt", "input": "query", "output": "response"}
    named = dict(columns) | {name: columns[theirs] for name, theirs in ours.items()}
    form = "kto_alpaca" if columns["kto_tag"] else "alpaca_preference" if ranking else "alpaca"
    return form, _renames(form, named)


def _turns(
    columns: Mapping[str, str | None], tags: Mapping[str, str | None], ranking: bool
) -> tuple[str, dict[str, str]]:
    """The dialects of `messages` where the tags are OpenAI's, since they read tool calls too; else ShareGPT's."""
    kto = columns["kto_tag"]
    openai = all(tags[tag] == name for tag, name in _OPENAI.items()) and (kto or not ranking)
    if openai and tags["function_tag"] is None and tags["system_tag"] in (None, "system"):
        form = "kto_messages" if kto else "messages"
        tool = tags["observation_tag"]
        return form, _renames(form, columns) | ({"messages[].role.tool": tool} if tool and tool != "tool" else {})
    form = "kto_sharegpt" if kto else "sharegpt_preference" if ranking else "sharegpt"
    rename = _renames(form, dict(columns) | {"conversations": columns["messages"]})
    for at in ("conversations", "chosen", "rejected") if form == "sharegpt_preference" else ("conversations",):
        for tag, ours in _TAGS.items():
            if (theirs := tags[tag]) and theirs != ours:
                place = f"{at}[].{ours}" if tag in ("role_tag", "content_tag") else f"{at}[].from.{ours}"
                rename[place] = theirs
    return form, rename


def _renames(dialect: str, named: Mapping[str, str | None]) -> dict[str, str]:
    """The map for a dialect whose columns have these names; one that has none is not read."""
    theirs = {name: named.get(name) or "" for name in plugin.find(formats, dialect).columns}
    return {name: their for name, their in theirs.items() if name != their}
