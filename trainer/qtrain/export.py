"""A run's model as a plain Hugging Face folder: adapters merged, all a server needs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from qdata.errors import QdataError
from qdata.paths import whole
from qtrain import model as models
from qtrain import run


def export(path: Path, output: Path, *, max_shard_size: str = "5GB") -> dict[str, Any]:
    """Write the model that `path` means to the new folder `output`; returns the report.

    Weights are float32 as trained, computed on the CPU, in safetensors files of at most `max_shard_size`. The folder
    appears whole or not at all. Raises QdataError where `output` exists or `path` holds no model.
    """
    if output.exists():
        raise QdataError(f"{output}: exists already; export writes a new folder and overwrites nothing")
    models.quiet()
    folder = run.model_in(path)
    with whole(output, replace=False) as partial:
        partial.mkdir()
        parameters = _write(folder, partial, max_shard_size)
    files = {file.name: file.stat().st_size for file in sorted(output.iterdir())}
    return {"model": str(folder), "output": str(output), "parameters": parameters, "files": files}


def _write(folder: Path, target: Path, max_shard_size: str) -> int:
    from transformers import AutoTokenizer, GenerationConfig

    # Merged onto the full-precision base, also where the adapter was trained on one of 4 bits.
    model = models.load(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    # A fresh configuration: the vendor's carries sampling temperatures that were not chosen for this model.
    model.generation_config = GenerationConfig(pad_token_id=tokenizer.pad_token_id)
    models.stop_at(model, models.stops(tokenizer, run.stop_of(folder)))
    model.config.pad_token_id = tokenizer.pad_token_id
    try:
        model.save_pretrained(target, max_shard_size=max_shard_size)
    except ValueError as error:
        raise QdataError(f"--max-shard-size {max_shard_size}: {error}") from None
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "manifest.json", "recipe.toml"):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, target / name)
    return models.parameters(model)[1]
