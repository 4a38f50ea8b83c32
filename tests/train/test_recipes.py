"""Every write-up has its recipe, with the values that are on record. That they run: test_rehearsals.py."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from qtrain import recipe as recipes

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


RECIPES = sorted(file.stem for file in (ROOT / "recipes").glob("*.toml"))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_how_it_is_run(name: str) -> None:
    """In its first lines, and in its row of docs/recipes.md."""
    command = f"qtrain recipes/{name}.toml"
    head = (ROOT / "recipes" / f"{name}.toml").read_text(encoding="utf-8").split("\n[")[0]
    assert all(line.startswith("#") for line in head.splitlines() if line) and command in head
    rows = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8").splitlines()
    assert sum(line.startswith(f"| `{name}` |") and command in line for line in rows) == 1


def test_the_three_stages_are_asked_the_same() -> None:
    """What pretraining goes on with and the other two answer, in both languages, long enough to hear a repetition."""
    asked = {recipes.load(ROOT / f"recipes/mini-qwen-{stage}.toml").eval for stage in ("pt", "sft", "dpo")}
    assert len(asked) == 1
    prompts = next(iter(asked)).prompts
    chinese = [prompt for prompt in prompts if re.search("[\u4e00-\u9fff]", prompt)]
    assert len(chinese) >= 3 and len(prompts) - len(chinese) >= 3
