"""Inputs to begin with: every dialect's sample rows in every container, and the first rows of real files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tests.fuzz.mutate import KEYS
from tests.fuzz.targets import ENDINGS, SAMPLES, TABLE, as_table, head

from qdata import plugin
from qdata.errors import QdataError
from qdata.paths import shipped
from qdata.recipe import DataRecipe
from qdata.rows import formats, source

_MOST = 6000  # bytes of a seed


def seeds(target: str, data: Path | None, folder: Path) -> Iterator[bytes]:
    """The inputs for a target. `data`: a folder with files of rows, of which the first three are taken."""
    if target in ("files", "dialects"):
        yield from _files(target, data, folder)
    elif target == "registry":
        yield from _registries(data)
    elif target == "map":
        yield from _maps()
    elif target == "recipe":
        yield from (file.read_bytes() for file in shipped("recipes").glob("*.toml"))
        yield b"[data]\n" + "".join(f"{name} = 1\n" for name in DataRecipe.__dataclass_fields__).encode()
        yield b'--set data.sources=["x"]\n[data]\nsources = [{path = "a", map = {prompt = "q"}}]\n'
    else:
        yield from (file.read_bytes() for file in shipped("templates").glob("*.jinja"))


def _files(target: str, data: Path | None, folder: Path) -> Iterator[bytes]:
    groups = [plugin.find(formats, name).sample for name in plugin.names(formats)]
    for path in sorted(data.rglob("*")) if data else ():
        if path.suffix in source.suffixes():
            try:
                rows = source.peek(path, "s", path.name, 3).rows
            except QdataError:
                continue
            groups.append([row for row in rows if len(json.dumps(row)) < _MOST])
    for number, rows in enumerate(filter(None, groups)):
        lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
        yield head(ENDINGS.index(".jsonl"), number, 0, 30) + lines
        if target == "dialects" and number % 6:  # every dialect in every container is what `files` has
            continue
        yield head(ENDINGS.index(".json")) + json.dumps(rows, ensure_ascii=False).encode()
        for suffix in (".parquet", ".arrow", ".xlsx"):
            yield head(ENDINGS.index(suffix), 0, TABLE) + lines
            yield head(ENDINGS.index(suffix)) + as_table(lines, suffix, folder, 2)
        for suffix in (".csv", ".tsv"):
            with source.sink(folder / f"seed{suffix}", f"seed{suffix}", {}) as take:
                take(lines + b"\n")
            yield head(ENDINGS.index(suffix)) + (folder / f"seed{suffix}").read_bytes()
        yield head(ENDINGS.index(".txt")) + lines[:200].replace(b"{", b"")


def _registries(data: Path | None) -> Iterator[bytes]:
    full = {"messages": "messages", "system": "system", "tools": "tools", "chosen": "chosen", "rejected": "rejected"}
    entries = [
        {"columns": {"prompt": "instruction", "query": "input", "response": "output", "history": "history"}},
        {"formatting": "sharegpt", "columns": {"messages": "conversations"}, "tags": {"role_tag": "from"}},
        {"formatting": "openai", "columns": full, "tags": {"role_tag": "role", "content_tag": "content"}},
        {"ranking": True, "columns": {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}},
        {"columns": {"prompt": "prompt", "response": "completion", "kto_tag": "label"}, "num_samples": 2},
    ]
    for entry in entries:
        yield json.dumps({"a": {"file_name": "data.json", **entry}}).encode()
    for file in sorted(data.rglob("dataset_info.json")) if data else ():
        for chunk in _chunks(json.loads(file.read_text(encoding="utf-8")), 3):
            yield json.dumps({n: one | {"file_name": "data.json"} for n, one in chunk.items()}).encode()


def _chunks(table: dict[str, dict[str, object]], size: int) -> Iterator[dict[str, dict[str, object]]]:
    left = iter(table.items())
    while chunk := dict(islice(left, size)):
        yield chunk


def _maps() -> Iterator[bytes]:
    yield b"prompt=question,response=answer"
    yield b"messages[].role=from,messages[].content=value,messages[].role.user=human,messages=conversations"
    for row, key in zip(SAMPLES, KEYS, strict=False):
        yield ",".join(f"{ours}={theirs}" for ours, theirs in zip(row, reversed(row), strict=True)).encode()
        yield f"{key}[].role={key},{key}=".encode()
