"""Every write-up has its recipe, with the values that are on record; and the three stages from scratch run as one."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from qtrain import recipe as recipes
from qtrain.train import train

ROOT = Path(__file__).parents[2]
COSINE = {"lr_scheduler_type": "cosine", "warmup_steps": 0.1, "bf16": True}
SCRATCH = {"num_hidden_layers": 48, "hidden_size": 1024, "num_attention_heads": 16, "num_key_value_heads": 4}
ALPACA = {
    "num_train_epochs": 3, "learning_rate": 5e-5, "lr_scheduler_type": "linear", "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1, "bf16": True, "logging_steps": 500, "report_to": "tensorboard",
}  # fmt: skip
LORA = {
    **COSINE, "num_train_epochs": 3, "learning_rate": 1e-4, "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 8, "eval_steps": 500, "save_steps": 500,
}  # fmt: skip
ON_RECORD: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "mini-qwen-pt": (
        {"model.config_from": "Qwen/Qwen2.5-0.5B-Instruct", "model.config": SCRATCH, "train.stage": "pt",
         "data.pack": 1024, "train.global_batch_size": 1152, "train.tuning": "full", "train.sharding": "zero2"},
        {**COSINE, "learning_rate": 1e-4, "num_train_epochs": 1},
    ),
    "mini-qwen-sft": (
        {"model.from_run": "runs/mini-qwen-pt", "train.stage": "sft", "train.tuning": "full", "data.steps": (),
         "train.sharding": "zero2"},
        {**COSINE, "learning_rate": 1e-5, "num_train_epochs": 3},
    ),
    "mini-qwen-dpo": (
        {"model.from_run": "runs/mini-qwen-sft", "train.stage": "dpo", "train.global_batch_size": 384,
         "train.sharding": "zero2"},
        {**COSINE, "learning_rate": 5e-7, "num_train_epochs": 3},
    ),
    "muice-freeze": (
        {"model.name": "Qwen/Qwen2-1.5B-Instruct", "train.tuning": "freeze", "data.max_length": 1024, "data.val": 0.05},
        {"num_train_epochs": 10, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 8,
         "weight_decay": 1e-2, "bf16": True},
    ),
    "alpaca-masked": (
        {"model.name": "Qwen/Qwen2.5-0.5B", "data.loss": "assistant", "data.max_length": 1024, "data.val": None},
        ALPACA,
    ),
    "alpaca-unmasked": (
        {"model.name": "Qwen/Qwen2.5-0.5B", "data.loss": "whole", "data.max_length": 1024, "data.val": None}, ALPACA,
    ),
    "align-anything-lora": (
        {"model.name": "Qwen/Qwen2-7B", "train.tuning": "lora", "train.lora.target_modules": "all-linear",
         "data.max_length": 1024, "data.val": 0.1, "data.template": "qwen2"}, LORA,
    ),
    "identity-lora": (
        {"model.name": "Qwen/Qwen2-7B", "train.tuning": "lora", "train.lora.target_modules": "all-linear",
         "data.max_length": 1024, "data.val": 0.1, "data.template": "qwen2"}, LORA,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ON_RECORD)
def test_a_recipe_is_the_run_it_is_after(name: str) -> None:
    loaded = recipes.load(ROOT / "recipes" / f"{name}.toml")
    keys, arguments = ON_RECORD[name]
    for address, wanted in keys.items():
        value: Any = loaded
        for part in address.split("."):
            value = getattr(value, part)
        assert value == wanted, address
    assert {key: loaded.train.arguments[key] for key in arguments} == arguments
    assert loaded.stand_in is not None


@pytest.mark.slow
def test_three_stages_from_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each learns its rows, starts where the one before ended, and stays a rehearsal by its own word."""
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(os.cpu_count() or 1)
    for stage in ("pt", "sft", "dpo"):
        report = train(
            recipes.load(ROOT / f"recipes/mini-qwen-{stage}.toml"), Path("runs"), Console(file=io.StringIO())
        )
        if not report["stand_in"]:
            pytest.skip("the real shape is in the cache")
        text = (Path(report["run"]) / "log.jsonl").read_text(encoding="utf-8")
        log = [entry for line in text.splitlines() if "loss" in (entry := json.loads(line))]
        assert log[-1]["loss"] < log[0]["loss"]
        assert report["sample"] is True
    margins = [entry["rewards/margins"] for entry in log]
    assert margins[-1] > margins[0] + 0.1
