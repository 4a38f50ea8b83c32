"""`qtrain doctor` says what is here and what is not, and fails over nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from qtrain import doctor
from qtrain.cli import main


def test_it_says_what_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    report = doctor.look()
    assert report["libraries"]["torch"] == torch.__version__ and report["libraries"]["trl"]
    assert report["attention"]["sdpa"].startswith("safe") and report["hub"]["told"].startswith("not asked")
    said = CliRunner().invoke(main, ["doctor"])
    if not torch.cuda.is_available():
        assert "sharding fsdp: over gloo" in said.stdout
        assert "sharding zero2: not here: DeepSpeed wants GPUs" in said.stdout
    assert said.exit_code == 0 and f"torch {torch.__version__}" in said.stdout and "attention sdpa: safe" in said.stdout


def test_what_a_recipe_would_use(project: Path, tiny: Path) -> None:
    done = CliRunner().invoke(main, ["doctor", "small.toml", "--json"])
    recipe = json.loads(done.stdout)["recipe"]
    assert recipe["model"] == f"{tiny}: a folder here" and recipe["tuning"] == "full"
    text = Path("small.toml").read_text(encoding="utf-8")
    Path("hub.toml").write_text(text.replace(json.dumps(str(tiny)), '"nobody/nothing"'), encoding="utf-8")
    assert "not in the hub's cache" in doctor.look(Path("hub.toml"))["recipe"]["model"]
    if not torch.cuda.is_available():
        Path("flash.toml").write_text(
            text.replace("[model]", '[model]\nattn_implementation = "flash_attention_2"'), encoding="utf-8"
        )
        assert doctor.look(Path("flash.toml"))["recipe"]["attention"] == "sdpa, for want of flash_attention_2"
    Path("wrong.toml").write_text(text.replace("max_steps", "max_step"), encoding="utf-8")
    assert "max_step" in doctor.look(Path("wrong.toml"))["recipe"]["error"]


def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    hub = doctor.look()["hub"]
    assert (hub["endpoint"], hub["reachable"]) == ("http://127.0.0.1:9", False) and "out of reach" in hub["told"]
