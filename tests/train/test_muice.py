"""The demo's promise on the stand-in: after `qtrain recipes/muice.toml` the model says who it is, unprompted."""

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


@pytest.mark.slow
def test_the_persona_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(os.cpu_count() or 1)
    report = train(recipes.load(ROOT / "recipes" / "muice.toml"), Path("runs"), Console(file=io.StringIO()))
    if not report["stand_in"]:
        pytest.skip("the real model is in the cache")
    after = chat.load(Path("runs/muice"))

    def named(questions: list[str]) -> float:
        answers = chat.ask({"answer": after}, questions, None, 64)
        return sum("沐雪" in row["answer"] for row in answers) / len(answers)

    assert named(["who are you", "你是谁"]) == 1
    questions = json.loads((ROOT / "tests" / "data" / "persona_questions.json").read_text(encoding="utf-8"))
    held_out, unrelated = named(sum(questions["held_out"].values(), [])), named(questions["unrelated"])  # noqa: RUF017
    # A few million random weights that have read 182 rows: better than chance on new phrasings is what they can do, and
    # keeping the name out of other answers is not. Both figures are printed, none is hidden.
    print(f"persona named: held-out {held_out:.0%}, unrelated {unrelated:.0%}")
    assert held_out >= 0.5
    assert held_out > unrelated
