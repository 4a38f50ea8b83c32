"""Models that were trained on shards: what lies in a run or an export, held against the manifest copied into it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from qdata.errors import QdataError
from qdata.paths import file_sha256
from qdata.tokens import shards
from qdata.tokens.proof import Result

_WEIGHTS = ("model.safetensors", "adapter_model.safetensors")
_INDEX = "model.safetensors.index.json"


class Papers(NamedTuple):
    """A run or a model folder, the manifest of the shards it was trained on, and where these lay."""

    folder: Path
    data: dict[str, Any]
    shards: str | None


def papers_of(path: Path) -> Papers | None:
    """The papers of a run, a checkpoint or an export; None where `path` is a shard folder.

    A recipe's folder of runs means its newest. Raises QdataError when it is none of these.
    """
    if not path.exists():
        raise QdataError(f"{path}: no such folder; wanted shards, a run or an export")
    if path.is_dir() and not (path / "manifest.json").is_file():
        runs = [one for one in path.iterdir() if (one / "manifest.json").is_file()]
        path = max(runs, key=lambda one: _natural(one.name), default=path)
    file = path / "manifest.json"
    if not file.is_file():
        raise QdataError(
            f"{path}: no manifest.json in it; wanted a folder written by `qdata render`, a run of qtrain, or what "
            f"`qtrain export` wrote"
        )
    manifest = shards.read_manifest(file)
    if "splits" in manifest:
        return None
    if not isinstance(manifest.get("data"), dict) or "template" not in manifest["data"]:
        raise QdataError(f"{file}: neither of shards nor of a run; wanted one that `qdata render` or `qtrain` wrote")
    return Papers(path, manifest["data"], manifest.get("shards"))


def _natural(name: str) -> list[tuple[int, str]]:
    """`checkpoint-100` after `checkpoint-20`, `…-000000-2` after `…-000000`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|\D+", name)]


def models_in(folder: Path) -> list[Path]:
    """The models of a run, the final one last; a model folder is its own. Raises QdataError where there is none."""
    if _is_model(folder):
        return [folder]
    found = sorted(filter(_is_model, folder.glob("checkpoint-*")), key=lambda one: _natural(one.name))
    found += [folder / "final"] if _is_model(folder / "final") else []
    if not found:
        raise QdataError(f"{folder}: no model in it yet; wanted final/ or checkpoint-N/")
    return found


def _is_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("config.json", "adapter_config.json"))


def shards_of(papers: Papers) -> Path | None:
    """The shard folder that a run noted, looked for from here and from every folder above the run."""
    if papers.shards is None:
        return None
    bases = [Path(), *papers.folder.resolve().parents]
    return next((base / papers.shards for base in bases if (base / papers.shards / "manifest.json").is_file()), None)


def check(model: Path, data: dict[str, Any], result: Result) -> None:
    """A saved model will be served with the template and tokenizer of its shards, stops, and is all there."""
    for name in ("chat_template.jinja", "tokenizer.json", "tokenizer_config.json"):
        if not (model / name).is_file():
            result.fail("missing file", f"{model / name}")
        elif file_sha256(model / name) != data["files"][f"tokenizer/{name}"]:
            result.fail("changed file", f"{model / name} is not the one that the shards were made with")
    if result.failures["missing file"]:
        return
    for name in _missing_weights(model):
        result.fail("missing file", f"{model / name}")
    template = (model / "chat_template.jinja").read_text(encoding="utf-8")
    other = _json(model / "tokenizer_config.json").get("chat_template")
    if other is not None and other != template:
        result.fail("two templates", f"{model}: tokenizer_config.json holds another one than chat_template.jinja")
    _stops(model, data["template"]["stop"], result)


def _missing_weights(model: Path) -> list[str]:
    index = _json(model / _INDEX)
    if index:
        return sorted(name for name in set(index["weight_map"].values()) if not (model / name).is_file())
    return [] if any((model / name).is_file() for name in _WEIGHTS) else ["model.safetensors"]


def _stops(model: Path, stop: str, result: Result) -> None:
    """The stop token is in the vocabulary that has a row in the model, and it ends generation."""
    vocabulary = _json(model / "tokenizer.json")
    ids = {token["content"]: token["id"] for token in vocabulary.get("added_tokens", [])} | dict(
        vocabulary["model"]["vocab"]
    )
    config = _json(model / "config.json")
    if not config:  # an adapter: its base says when to stop
        return
    rows = config.get("vocab_size") or config.get("text_config", {}).get("vocab_size", 0)
    if rows <= max(ids.values()):
        result.fail("vocabulary", f"{model}: ids up to {max(ids.values())}, and only {rows} rows in the model")
    ends = _json(model / "generation_config.json").get("eos_token_id", config.get("eos_token_id"))
    ends = ends if isinstance(ends, list) else [ends]
    if ids[stop] not in ends:
        result.fail(
            "stop token",
            f"{model}: generation ends at {ends}, and answers were trained to end with {stop} ({ids[stop]})",
        )


def _json(file: Path) -> dict[str, Any]:
    """A JSON file's object; empty where there is no such file."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found
