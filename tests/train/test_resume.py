"""A run that is stopped or killed and goes on is the run that never stopped, byte for byte."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.train.conftest import ANSWERS
from tests.train.shards import pairs

from qdata.errors import QdataError
from qtrain import checkpoint, faults
from qtrain import recipe as recipes
from qtrain import resume as resumed
from qtrain import train as road
from qtrain.callbacks import Journal

# Logs, evaluations, epochs and checkpoints that never fall on the same step: 3 steps an epoch, the last one smaller.
UNEVEN = (
    "train.max_steps=11", "train.per_device_train_batch_size=1", "train.gradient_accumulation_steps=3",
    "train.logging_steps=4", "train.eval_steps=5", "train.save_steps=4", "train.warmup_steps=3",
)  # fmt: skip
LORA = ("train.tuning=lora", "train.lora.r=4", "train.lora.lora_dropout=0.3", "train.learning_rate=5e-2")


def go(*overrides: str, **how: Any) -> tuple[Path, str]:
    out = io.StringIO()
    report = road.train(recipes.load(Path("small.toml"), overrides), Path("runs"), Console(file=out, width=400), **how)
    return Path(report["run"]), out.getvalue()


def weights(run: Path) -> bytes:
    (file,) = (run / "final").glob("*.safetensors")
    return file.read_bytes()


def log(run: Path) -> list[dict[str, Any]]:
    """Every logged number but those of the clock."""
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    timed = ("runtime", "per_second")
    return [{k: v for k, v in json.loads(line).items() if not k.endswith(timed)} for line in lines]


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sends this process a SIGTERM within a step; 0 sends none."""
    step = 0

    class Stopping(Journal):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == step:
                os.kill(os.getpid(), signal.SIGTERM)

    def at(wanted: int) -> None:
        nonlocal step
        step = wanted

    monkeypatch.setattr(road, "Journal", Stopping)
    return at


def test_a_stopped_run_goes_on_by_itself_in_its_folder(project: Path, stop_at: Any) -> None:
    whole, _ = go(*UNEVEN)
    stop_at(7)
    with pytest.raises(faults.InterruptedRunError, match=r"stopped at step 7 of 11, runs/small/.*same command goes on"):
        go(*UNEVEN)
    stop_at(0)
    again, said = go(*UNEVEN)
    assert (
        "it goes on at step 7 of 11. --fresh starts a new one" in said and len(list(Path("runs/small").iterdir())) == 2
    )
    assert weights(again) == weights(whole) and log(again) == log(whole)
    manifest = json.loads((again / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["resumed_at"] == [7] and manifest["result"]["steps"] == 11
    names = {file.name for file in (again / "checkpoint-7").iterdir()}
    assert names >= {"manifest.json", "recipe.toml", "tokenizer.json", checkpoint.SEAL}
    assert "arguments" in json.loads((again / "checkpoint-7/manifest.json").read_text(encoding="utf-8"))
    assert not (again / checkpoint.STAGING).exists() and not (again / ".lock").exists()
    third, said = go("train.max_steps=1")
    assert third != again and "unfinished" not in said


@pytest.mark.parametrize("step", [1, 3, 8, 11])
@pytest.mark.parametrize(
    "how",
    [
        ("data.pack=64", *LORA),
        ("train.eval_strategy=epoch", "train.save_strategy=epoch", "train.logging_strategy=epoch"),
    ],
    ids=["packed, lora, dropout", "by epochs"],
)
@pytest.mark.slow
def test_wherever_it_was_stopped(project: Path, stop_at: Any, step: int, how: tuple[str, ...]) -> None:
    """In the first step, at an epoch's last one, on a log and at the very end; with random numbers in every step."""
    how = (*UNEVEN, *how)
    whole, _ = go(*how)
    stop_at(step)
    with pytest.raises(faults.InterruptedRunError):
        go(*how)
    stop_at(0)
    again, _ = go(*how, resume="")
    assert weights(again) == weights(whole) and log(again) == log(whole)


PAIRS = ("train.stage=dpo", "train.learning_rate=1e-2")
TEXTS = ('data.sources=["plain.jsonl"]', "data.validation=[]", "data.val=2", "data.pack=64", "train.stage=pt")
BEST = ("train.early_stopping_patience=1", "train.save_steps=2", "train.eval_steps=2", "train.learning_rate=0.1")
WAYS = {
    "dpo": PAIRS,
    "dpo, lora": (*PAIRS, *LORA),
    "dpo, precomputed": (*PAIRS, "train.precompute_ref_log_probs=true"),
    "dpo, lora, precomputed": (*PAIRS, *LORA, "train.precompute_ref_log_probs=true"),
    "pt, packed": TEXTS,
    "freeze": ("train.tuning=freeze", 'train.freeze.train=["layers.1", "norm"]'),
    "dora": (*LORA, "train.lora.use_dora=true", "train.lora.use_rslora=true"),
    "pissa": (*LORA, "train.lora.init_lora_weights=pissa"),
    "pissa_niter, best": (*LORA, "train.lora.init_lora_weights=pissa_niter_4", *BEST),
    "olora": (*LORA, "train.lora.init_lora_weights=olora"),
    "qlora": (*LORA, "train.tuning=qlora"),
    "8-bit Adam": ("train.optim=adamw_8bit",),
    "NEFTune": ("train.neftune_noise_alpha=5",),
    "early stopping": BEST,
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_training_goes_on(project: Path, stop_at: Any, way: str) -> None:
    """Weights, log and steps.jsonl are those of the run that never stopped."""
    if way in ("qlora", "8-bit Adam"):
        pytest.importorskip("bitsandbytes")
    texts = [{"text": " ".join(answer for _, answer in list(ANSWERS.items())[: n % 3 + 1])} for n in range(8)]
    Path("plain.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts), encoding="utf-8")
    how = (*UNEVEN, *(pairs() if "dpo" in way else ()), *WAYS[way])
    whole, _ = go(*how)
    steps = json.loads((whole / "manifest.json").read_text(encoding="utf-8"))["result"]["steps"]
    assert (steps < 11) == ("train.early_stopping_patience=1" in how), "nothing stopped it early"
    stop_at(3 if steps < 6 else 6)
    with pytest.raises(faults.InterruptedRunError):
        go(*how)
    stop_at(0)
    again, said = go(*how)
    assert again != whole and "it goes on at step" in said
    assert weights(again) == weights(whole) and log(again) == log(whole)
    assert (again / "steps.jsonl").read_bytes() == (whole / "steps.jsonl").read_bytes()


def command(*overrides: str) -> list[str]:
    code = "import torch; torch.set_num_threads(1); from qtrain.cli import main; main()"
    return [sys.executable, "-c", code, "small.toml", *(word for one in overrides for word in ("--set", one))]


KILLED = """
import os, signal, sys, torch
from qtrain import checkpoint
from qtrain.callbacks import Journal
torch.set_num_threads(1)
step, where = int(sys.argv[1]), sys.argv[2]

def on_step_end(self, args, state, control, **_):
    if where == "step" and state.global_step == step:
        os.kill(os.getpid(), signal.SIGKILL)

def seal(folder):
    if where == "saving" and folder.name == f"checkpoint-{step}":
        (folder / "optimizer.pt").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    sealed(folder)

Journal.on_step_end = on_step_end
sealed, checkpoint.seal = checkpoint.seal, seal
from qtrain.cli import main
main(sys.argv[3:])
"""


@pytest.mark.slow
@pytest.mark.parametrize(("step", "where"), [(6, "step"), (10, "step"), (8, "saving")])
@pytest.mark.parametrize("how", [(), ("data.pack=64", *LORA)], ids=["full", "packed, lora"])
def test_a_killed_run_goes_on(project: Path, step: int, where: str, how: tuple[str, ...]) -> None:
    """kill -9 in a step and in the middle of writing a checkpoint; the same command again."""
    how = (*UNEVEN, *how)
    whole, _ = go(*how)
    words = [word for one in how for word in ("--set", one)]
    killed = [sys.executable, "-c", KILLED, str(step), where, "small.toml", *words]
    assert subprocess.run(killed, capture_output=True).returncode == -signal.SIGKILL
    done = subprocess.run(command(*how), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"goes on at step {4 if step < 9 else 8} of 11" in " ".join(done.stderr.split())
    again = max(Path("runs/small").iterdir())
    assert again != whole and weights(again) == weights(whole) and log(again) == log(whole)


def ended(process: subprocess.Popen[str], number: int) -> str:
    """What a training process says from its third step on, where it gets a signal, to its end."""
    with process:
        assert process.stderr is not None
        lines = iter(process.stderr)
        assert any("step 3/" in line for line in lines)
        process.send_signal(number)
        return "".join(lines)


@pytest.mark.slow
def test_a_signal_has_an_exit_code_of_its_own(project: Path) -> None:
    text = Path("small.toml").read_text(encoding="utf-8").replace("max_steps = 4", "max_steps = 100000")
    Path("small.toml").write_text(text, encoding="utf-8")
    process = subprocess.Popen(
        command("train.save_strategy=no", "train.eval_strategy=no"), stderr=subprocess.PIPE, text=True
    )
    said = ended(process, signal.SIGINT)
    assert process.returncode == faults.INTERRUPTED, said
    assert "SIGINT: the step is finished and saved" in said and "--resume" in said and "Traceback" not in said
    (run,) = Path("runs/small").iterdir()
    (saved,) = checkpoint.all_of(run)
    assert checkpoint.flaw(saved) is None


@pytest.fixture
def broken_off(project: Path, stop_at: Any) -> Path:
    """A run that was stopped at step 3 of 4 and has a checkpoint at 2 and 3."""
    stop_at(3)
    with pytest.raises(faults.InterruptedRunError):
        go()
    stop_at(0)
    (run,) = Path("runs/small").iterdir()
    return run


def test_a_damaged_checkpoint_is_passed_over(broken_off: Path) -> None:
    saved = broken_off / "checkpoint-3" / "optimizer.pt"
    os.truncate(saved, 100)
    again, said = go()
    assert again == broken_off and "checkpoint-3 is not whole (optimizer.pt has 100 bytes of" in said
    assert "goes on at step 2 of 4" in said and checkpoint.flaw(again / "checkpoint-4") is None
    fresh, _ = go(fresh=True)
    assert weights(fresh) == weights(again) and log(fresh) == log(again)


def test_what_a_checkpoint_may_suffer(broken_off: Path, tmp_path: Path) -> None:
    saved = broken_off / "checkpoint-3"
    assert checkpoint.flaw(saved) is None
    weights = saved / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert checkpoint.flaw(saved) == "model.safetensors is not what was written"
    weights.unlink()
    assert checkpoint.flaw(saved) == "model.safetensors is missing"
    (saved / checkpoint.SEAL).write_text("{", encoding="utf-8")
    assert checkpoint.flaw(saved) == f"it has no readable {checkpoint.SEAL}"
    shutil.rmtree(broken_off / "checkpoint-2")
    with pytest.raises(QdataError, match="no whole checkpoint in this run"):
        go(resume="")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["train.learning_rate=2e-3"], r"the recipe changed since.*train.learning_rate: 0.001 → 0.002"),
        (["train.max_steps=8"], r"train.max_steps: 4 → 8.*a longer run has another learning rate at every step"),
        (["train.seed=7", "data.seed=7"], r"data.seed: not given → 7 and 1 more"),
    ],
)
def test_another_recipe_is_another_run(broken_off: Path, overrides: list[str], told: str) -> None:
    before = (broken_off / "log.jsonl").read_bytes()
    with pytest.raises(QdataError, match=told):
        go(*overrides, resume="")
    assert (broken_off / "log.jsonl").read_bytes() == before and len(list(Path("runs/small").iterdir())) == 1


def test_another_recipe_starts_a_new_run_by_itself(broken_off: Path) -> None:
    new, said = go("train.max_steps=1")
    assert new != broken_off and "a new one is started" in said and "max_steps: 4 → 1" in said
    with pytest.raises(QdataError, match="this run is finished"):
        go("train.max_steps=1", resume=new.name)
    again, _ = go(resume=broken_off.name)
    assert again == broken_off, "an older one goes on by name"


def test_changed_rows_are_another_run(broken_off: Path) -> None:
    """Raw rows that changed do not matter while the shards are those it began with; other shards do."""
    rows = Path("rows.jsonl").read_text(encoding="utf-8")
    Path("rows.jsonl").write_text(rows.replace("two", "three"), encoding="utf-8")
    shutil.rmtree("data/shards/small")
    with pytest.raises(QdataError, match="data/shards/small is not what this run began with"):
        go(resume="")
    Path("rows.jsonl").write_text(rows, encoding="utf-8")
    shutil.rmtree("data/shards/small")
    again, said = go(resume="")
    assert again == broken_off and "missing, building it" in said


def test_weights_only_cannot_go_on(project: Path, stop_at: Any) -> None:
    stop_at(3)
    with pytest.raises(faults.InterruptedRunError, match=r"save_only_model.*cannot go on"):
        go("train.save_only_model=true")
    stop_at(0)
    with pytest.raises(QdataError, match="weights without the optimizer's state"):
        go("train.save_only_model=true", resume="")


def test_a_run_belongs_to_one_process(broken_off: Path) -> None:
    with resumed.locked(broken_off):
        assert resumed.is_alive(broken_off)
        with pytest.raises(QdataError, match="a process is training this run"):
            go(resume="")
    assert not resumed.is_alive(broken_off)


def test_nothing_to_go_on_with(project: Path) -> None:
    with pytest.raises(QdataError, match="runs/small: no run to go on with"):
        go(resume="")
    with pytest.raises(QdataError, match="2026: no run to go on with"):
        go(resume="2026")


def test_the_best_checkpoint_is_the_final_model(project: Path) -> None:
    """Early stopping at a learning rate that makes it worse; the best checkpoint outlives save_total_limit."""
    stopping = (
        "train.early_stopping_patience=2",
        "train.save_total_limit=1",
        "train.eval_steps=1",
        "train.save_steps=1",
    )
    run, said = go(*stopping, "train.max_steps=12", "train.learning_rate=0.3")
    result = json.loads((run / "manifest.json").read_text(encoding="utf-8"))["result"]
    best, losses = result["best_step"], {e["step"]: e["eval_loss"] for e in log(run) if "eval_loss" in e}
    assert f"final/ is the model of step {best}" in said and result["steps"] == best + 2 < 12
    assert losses[best] == min(losses.values()) and result["eval_loss"] == losses[best]
    assert weights(run) == (run / f"checkpoint-{best}" / "model.safetensors").read_bytes()
    with pytest.raises(QdataError, match="early_stopping_patience wants evaluations"):
        go("train.early_stopping_patience=2", "train.eval_strategy=no")
    with pytest.raises(QdataError, match="leave save_strategy and save_steps out"):
        go("train.early_stopping_patience=2", "train.eval_steps=1")
