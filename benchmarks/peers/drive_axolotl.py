"""Axolotl: `axolotl preprocess` over OpenAI messages, with the model's own template."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import driver
from datasets import load_from_disk


def prepare(job: driver.Job) -> tuple[Iterable[Any], str]:
    """The defaults of `type: chat_template`, and the field that says which turns are trained.

    Tools are JSON text, which it reads: from lists it takes every key out that is null in the data.
    """
    folder = Path(job["work"])
    rows = driver.rows(job, "messages")
    rows = [row | {"tools": json.dumps(row["tools"], ensure_ascii=False)} if "tools" in row else row for row in rows]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(text, encoding="utf-8")
    source = {
        "path": str(folder / "rows.jsonl"),
        "ds_type": "json",
        "type": "chat_template",
        "field_messages": "messages",
        "message_field_training": "train",
    }
    config = {
        "base_model": job["model"],
        "datasets": [source],
        "chat_template": "tokenizer_default",
        "dataset_prepared_path": str(folder / "prepared"),
        "dataset_num_proc": 1,
        "sequence_len": 131072,
        "sample_packing": False,
        "output_dir": str(folder / "out"),
        "micro_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "num_epochs": 1,
        "optimizer": "adamw_torch",
        "learning_rate": 1e-5,
        "special_tokens": {"pad_token": "<|endoftext|>"},
    }
    (folder / "config.yaml").write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    command = Path(sys.executable).with_name("axolotl")
    done = subprocess.run([str(command), "preprocess", str(folder / "config.yaml")], stderr=subprocess.PIPE, text=True)
    print(done.stderr)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    prepared = load_from_disk(str(next((folder / "prepared").glob("*/dataset_info.json")).parent))
    return prepared, "type: chat_template, chat_template: tokenizer_default, message_field_training: train"


driver.run(prepare, "axolotl", "transformers", "datasets")
