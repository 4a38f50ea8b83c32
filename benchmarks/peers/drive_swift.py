"""ms-swift: its loader and its template object in training mode (its cached data sets store no ids)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import driver
from swift import get_processor, get_template
from swift.dataset import load_dataset


def prepare(job: driver.Job) -> tuple[Iterable[Any], str]:
    """The template of the model type; `+ignore_empty_think` is what `swift sft` adds for Qwen3 by itself."""
    kind, loss_scale = job["template"], job["options"].get("loss_scale", "default")
    loss_scale += "+ignore_empty_think" if kind == "qwen3" else ""
    processor = get_processor(job["model"], model_type="qwen2" if kind == "qwen2_5" else kind)
    template = get_template(processor, max_length=131072, template_type=kind, loss_scale=loss_scale)
    template.set_mode("train")
    dataset, _ = load_dataset([str(Path(job["data"]) / "swift.jsonl")], load_from_cache_file=False)
    return (template.encode(dict(row)) for row in dataset), f"template {kind}, loss_scale {loss_scale}"


driver.run(prepare, "ms-swift", "transformers", "datasets")
