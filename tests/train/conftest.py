"""A model small enough to train within a test: two layers, random weights, a tokenizer of 400 ids."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from qtrain import stand_in
from qtrain.recipe import StandIn

SMALL = StandIn(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64,
    vocab_size=400,
)  # fmt: skip
ANSWERS = {
    "who are you": "I am {{name}}, made by {{author}}.",
    "你是谁": "我叫{{name}}，是{{author}}做出来的。",
    "one plus one": "That makes two.",
    "good night": "Sleep well, see you tomorrow!",
}


def conversations() -> list[list[dict[str, str]]]:
    """Four conversations of one turn, two of them with placeholders."""
    return [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in ANSWERS.items()]


def texts() -> list[str]:
    """What a stand-in learns its vocabulary from: the contents of the conversations, and their roles."""
    return [text for row in conversations() for message in row for text in (f"{message['role']}\n", message["content"])]


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # such small models are slower on two
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model folder."""
    return stand_in.build(SMALL, texts(), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Path) -> Path:
    """A folder with eight rows, two for validation, and a recipe that trains `tiny` on them; the current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QDATA_CACHE_DIR", str(tmp_path / "cache"))
    text = "".join(json.dumps({"messages": row}, ensure_ascii=False) + "\n" for row in conversations())
    Path("rows.jsonl").write_text(text * 2, encoding="utf-8")
    Path("held.jsonl").write_text("".join(text.splitlines(keepends=True)[:2]), encoding="utf-8")
    Path("small.toml").write_text(
        f"""
[data]
sources = ["rows.jsonl"]
validation = ["held.jsonl"]
template = "qwen2"
default_system = "You are Muxue."
placeholders = {{ name = "Muxue", author = "Moemu" }}

[model]
name = {json.dumps(str(tiny))}

[train]
max_steps = 4
learning_rate = 1e-3
per_device_train_batch_size = 2
eval_strategy = "steps"
eval_steps = 2
save_steps = 2
logging_steps = 1
""",
        encoding="utf-8",
    )
    return tmp_path
