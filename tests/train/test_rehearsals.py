"""Every recipe of recipes/ runs to its end on its stand-in, as a user runs it; and what each of them is for is true.

Found by glob: a new recipe is covered by being there. One that starts from another's run comes after it.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from tests.train.rehearsal import ROOT, Rehearsal, answered, first_loss, obeys, rises, run

from qtrain import chat, plot
from qtrain.cli import main as qtrain

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU no stand-in is trained"),
]
MEISSA = "You are Meissa, a thoughtful companion who answers plainly and kindly."
PICTURES = {"alpaca-unmasked": "alpaca-masked"}
"""Runs that are drawn into one picture with another, which comes first."""


def roads() -> list[tuple[str, ...]]:
    """Every recipe once: alone, or in the order of the stages it is one of."""
    files = sorted((ROOT / "recipes").glob("*.toml"))
    starts = {file.stem: tomllib.loads(file.read_text(encoding="utf-8"))["model"].get("from_run") for file in files}
    before = {name: Path(start).name for name, start in starts.items() if start is not None} | PICTURES
    after = {first: second for second, first in before.items()}
    found = []
    for name in sorted(starts.keys() - before.keys()):
        road = [name]
        while road[-1] in after:
            road.append(after[road[-1]])
        found.append(tuple(road))
    assert sorted(name for road in found for name in road) == sorted(starts), "not every recipe is on a road"
    return found


@pytest.mark.parametrize("road", roads(), ids="+".join)
def test_a_recipe_runs_to_its_end(road: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs: dict[str, Rehearsal] = {}
    for name in road:
        runs[name] = run(name)
        obeys(runs[name])
        if name in PROMISES:
            PROMISES[name](runs)


def named(model: chat.Chat, questions: list[str]) -> float:
    """The share of answers that give the persona's name."""
    answers = chat.ask({"answer": model}, questions, None, 64)
    return sum("沐雪" in row["answer"] for row in answers) / len(answers)


def persona(runs: dict[str, Rehearsal]) -> None:
    """The demo's promise: after training the model says who it is, without any system message."""
    after = chat.load(Path("runs/muice"))
    assert named(after, ["who are you", "你是谁"]) == 1
    questions = json.loads((ROOT / "tests" / "data" / "persona_questions.json").read_text(encoding="utf-8"))
    held_out, unrelated = named(after, sum(questions["held_out"].values(), [])), named(after, questions["unrelated"])  # noqa: RUF017
    # A few million random weights that have read 182 rows: better than chance on new phrasings is what they can do, and
    # keeping the name out of other answers is not. Both figures are printed, none is hidden.
    print(f"persona named: held-out {held_out:.0%}, unrelated {unrelated:.0%}")
    assert held_out >= 0.5
    assert held_out > unrelated


def identity(runs: dict[str, Rehearsal]) -> None:
    """The small set shows that it works: what took the placeholders' place is what the model answers."""
    assert named(chat.load(Path("runs/identity-lora")), ["Who are you?", "你是谁？", "What is your name?"]) == 1


def frozen(runs: dict[str, Rehearsal]) -> None:
    """What the recipe freezes is as it was, bit for bit; every other weight moved."""
    folder = runs["muice-freeze"].folder
    before, after = (load_file(folder / name / "model.safetensors") for name in ("base", "final"))
    same = {key for key in before if torch.equal(before[key], after[key])}
    assert same == {key for key in before if ".layers.0." in key}


def bound(runs: dict[str, Rehearsal]) -> None:
    """The one prompt is in the saved template: a server that sends none sends it."""
    (one,) = runs.values()
    losses = one.logged("loss")
    assert losses[-1] < losses[0] - 2, "of random weights, on rows seen twenty times"
    assert one.report["result"]["eval_loss"] < losses[0]
    prompt = chat.load(one.folder).prompt([{"role": "user", "content": "hi"}])
    assert prompt.startswith(f"<|im_start|>system\n{MEISSA}<|im_end|>\n")


def begun_where_the_other_ended(runs: dict[str, Rehearsal]) -> None:
    """The first step costs what the model before costs on those rows."""
    before, one = runs["mini-qwen-pt"], runs["mini-qwen-sft"]
    logged, computed = first_loss(one, before.folder / "final")
    assert logged == pytest.approx(computed, rel=1e-4)
    answered(before)
    answered(one)


def preferred(runs: dict[str, Rehearsal]) -> None:
    """What is preferred comes to be, against the model before; where they are one still, nothing is."""
    margins = runs["mini-qwen-dpo"].logged("rewards/margins")
    assert rises(margins) > 0.1
    answered(runs["mini-qwen-dpo"])


def pictured(runs: dict[str, Rehearsal]) -> None:
    """Masked and unmasked differ in what is trained of the same rows, and both curves are in one picture."""
    masked, unmasked = (one.shards.train[:] for one in runs.values())
    assert masked["input_ids"] == unmasked["input_ids"]
    for some, every in zip(masked["labels"], unmasked["labels"], strict=True):
        assert all(a in (-100, b) for a, b in zip(some, every, strict=True)) and some.count(-100) > every.count(-100)
    drawn: dict[str, tuple[list[float], list[float]]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plot, "_write", _seeing(drawn, plot._write))
        words = ["plot", *(f"runs/{name}" for name in runs), "-o", "masking.png"]
        shown = CliRunner().invoke(qtrain, [*words, "--name", "masked", "--name", "unmasked"])
    assert shown.exit_code == 0, shown.output
    assert Path("masking.png").read_bytes().startswith(b"\x89PNG")
    for label, one in zip(("masked", "unmasked"), runs.values(), strict=True):
        at, raw = drawn[f"{label}, raw"]
        assert (at, raw) == plot.curve(one.log, "loss")
        assert drawn[label] == (at, plot.smoothed(raw))


def _seeing(drawn: dict[str, tuple[list[float], list[float]]], write: Callable[..., None]) -> Callable[..., None]:
    def seen(figure: Any, axes: Any, path: Path) -> None:
        write(figure, axes, path)
        legend = [text.get_text() for text in axes.get_legend().get_texts()]
        for raw, smooth in zip(axes.lines[::2], axes.lines[1::2], strict=True):
            label = smooth.get_label()
            assert label in legend and raw.get_color() == smooth.get_color()
            drawn[f"{label}, raw"] = (list(raw.get_xdata()), list(raw.get_ydata()))
            drawn[label] = (list(smooth.get_xdata()), list(smooth.get_ydata()))

    return seen


PROMISES: dict[str, Callable[[dict[str, Rehearsal]], None]] = {
    "muice": persona,
    "muice-freeze": frozen,
    "meissa-system": bound,
    "meissa-roleplay": bound,
    "identity-lora": identity,
    "alpaca-unmasked": pictured,
    "mini-qwen-sft": begun_where_the_other_ended,
    "mini-qwen-dpo": preferred,
}
"""What a recipe is for, beside the laws of all; of a road's later recipes with the runs before them."""
