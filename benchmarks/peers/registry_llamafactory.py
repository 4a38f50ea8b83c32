"""What LLaMA-Factory reads through a registry: its converter's rows, as JSON lines. Runs in its own environment.

Arguments: the folder of the registry, the folder to write NAME.jsonl to, and the names.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

from llamafactory.data.loader import _load_single_dataset
from llamafactory.data.parser import get_dataset_list


def main() -> None:
    """One file for each entry, and `versions.json`."""
    folder, out, *names = sys.argv[1:]
    model = SimpleNamespace(cache_dir=None, hf_hub_token=None)
    data = SimpleNamespace(
        dataset_dir=folder,
        media_dir=folder,
        streaming=False,
        max_samples=None,
        preprocessing_num_workers=None,
        overwrite_cache=True,
    )
    training = SimpleNamespace(local_process_index=0, dataloader_num_workers=0)
    for name, entry in zip(names, get_dataset_list(names, folder), strict=True):
        with (Path(out) / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for row in _load_single_dataset(entry, model, data, training):
                kept = {key: row[f"_{key}"] for key in ("prompt", "response", "system", "tools")}
                file.write(json.dumps(kept, ensure_ascii=False) + "\n")
    versions = {package: version(package) for package in ("llamafactory", "datasets")}
    (Path(out) / "versions.json").write_text(json.dumps(versions), encoding="utf-8")


main()
