"""Meissa's two recipes on their stand-ins, to the end: what is trained is learned, and answers under its one prompt."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
import torch
from rich.console import Console

from qtrain import chat
from qtrain import recipe as recipes
from qtrain.train import train

ROOT = Path(__file__).parents[2]
PROMPT = "You are Meissa, a thoughtful companion who answers plainly and kindly."


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rows"), [("meissa-system", 102), ("meissa-roleplay", 21)])
def test_a_stage_runs_to_its_end(name: str, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(os.cpu_count() or 1)
    report = train(recipes.load(ROOT / "recipes" / f"{name}.toml"), Path("runs"), Console(file=io.StringIO()))
    if not report["stand_in"]:
        pytest.skip("the real model is in the cache")
    folder = Path(report["run"])
    manifest = json.loads((folder / "final/manifest.json").read_text(encoding="utf-8"))
    assert manifest["sample"] is True and manifest["data"]["rows"]["kept"] == rows

    log = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert losses[-1] < losses[0] - 2, "of random weights, on rows seen twenty times"
    assert report["result"]["eval_loss"] < losses[0]

    after = chat.load(Path("runs") / name)
    assert after.prompt([{"role": "user", "content": "hi"}]).startswith(f"<|im_start|>system\n{PROMPT}<|im_end|>\n")
    (row,) = chat.ask({"before": chat.before(after), "after": after}, ["Who are you?"], None, 32)
    print(f"{name}: loss {losses[0]:.2f} → {losses[-1]:.2f}; {row['before']!r} → {row['after']!r}")
    assert row["before"] != row["after"]
