"""LLaMA-Factory: what `llamafactory-cli train` does up to the tokenized data set."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import driver
from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer


def prepare(job: driver.Job) -> tuple[Iterable[Any], str]:
    """Rows in alpaca or ShareGPT layout; reasoning stands as <think> in the text, as its templates want it."""
    folder = Path(job["work"])
    layout = job["native"] if job["native"] in ("alpaca", "sharegpt") else "sharegpt"
    shutil.copy(Path(job["data"]) / f"{layout}.jsonl", folder / "rows.jsonl")
    entry: dict[str, Any] = {"file_name": "rows.jsonl"}
    if layout == "sharegpt":
        entry |= {"formatting": "sharegpt", "columns": {"messages": "conversations"}}
        if any("tools" in row for row in driver.rows(job, layout)):
            entry["columns"]["tools"] = "tools"
    (folder / "dataset_info.json").write_text(json.dumps({"rows": entry}), encoding="utf-8")
    options: dict[str, Any] = {"template": "qwen" if job["template"] == "qwen2_5" else "qwen3"}
    if job["template"] == "qwen3" and not job["reasoning"]:
        options["enable_thinking"] = False
    options |= job["options"]
    arguments = {
        "model_name_or_path": job["model"],
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full",
        "dataset_dir": str(folder),
        "dataset": "rows",
        "cutoff_len": 131072,
        "overwrite_cache": True,
        "tokenized_path": str(folder / "tokenized"),
        "output_dir": str(folder / "out"),
        "report_to": "none",
    }
    model, data, training, _, _ = get_train_args(arguments | options)
    tokenizer = load_tokenizer(model)
    template = get_template_and_fix_tokenizer(tokenizer["tokenizer"], data)
    prepared = get_dataset(template, model, data, training, stage="sft", **tokenizer)["train_dataset"]
    return prepared, ", ".join(f"{key}: {str(value).lower()}" for key, value in options.items())


driver.run(prepare, "llamafactory", "transformers", "datasets")
