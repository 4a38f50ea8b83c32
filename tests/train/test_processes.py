"""Several processes are one: the same rows in a step, one loss over all of them, the same weights at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from accelerate.data_loader import BatchSamplerShard
from datasets import Dataset
from safetensors.torch import load_file
from tests.train.shards import row
from tests.train.test_loss import ROWS, trained
from tests.train.test_resume import ended
from torch.utils.data import BatchSampler

from qtrain import checkpoint, faults
from qtrain.data import packed
from qtrain.order import Order, with_spare


def batches(rows: int, size: int, accumulated: int, processes: int, seed: int | None, epoch: int) -> list[list[int]]:
    """The rows of each optimiser step, as accelerate hands them to so many processes; without the spare one."""
    steps: list[list[int]] = []
    for process in range(processes):
        order = Order(rows, seed=seed, multiple=size * processes if processes > 1 else 1)
        order.set_epoch(epoch)
        plain = BatchSampler(order, size, drop_last=False)
        taken = list(BatchSamplerShard(plain, processes, process)) if processes > 1 else list(plain)
        for step, first in enumerate(range(0, len(taken), accumulated)):
            steps += [[]] if step == len(steps) else []
            steps[step] += [i for batch in taken[first : first + accumulated] for i in batch if i < rows]
    return [sorted(step) for step in steps]


@pytest.mark.parametrize("rows", [1, 5, 8, 13, 24])
@pytest.mark.parametrize(("size", "accumulated", "processes"), [(1, 2, 2), (2, 1, 3), (3, 2, 2), (1, 1, 4)])
@pytest.mark.parametrize("seed", [None, 7])
def test_a_step_holds_the_same_rows(rows: int, size: int, accumulated: int, processes: int, seed: int | None) -> None:
    """Also the last steps of an epoch, where the rows do not come out even: none is read twice, none left out."""
    for epoch in (0, 1):
        several = batches(rows, size, accumulated, processes, seed, epoch)
        assert several == batches(rows, size, accumulated * processes, 1, seed, epoch)
        assert sorted(i for step in several for i in step) == list(range(rows))


def test_each_epoch_has_an_order_of_its_own() -> None:
    order = Order(100, seed=3)
    first = list(order)
    assert list(order) == first != sorted(first)
    order.set_epoch(1)
    assert list(order) != first and list(Order(100, seed=3)) == first != list(Order(100, seed=4))


@pytest.mark.parametrize("weighted", [False, True])
def test_the_spare_row_weighs_nothing(tiny: Path, tmp_path: Path, weighted: bool) -> None:
    rows = [{**r, **({"weights": [0.5] * len(r["labels"])} if weighted else {})} for r in ROWS]
    spare = with_spare(Dataset.from_list(rows))
    assert len(spare) == len(rows) + 1 and spare[0] == rows[0]
    trainer = trained(tiny, tmp_path, rows, max_steps=1, learning_rate=0.0, per_device_eval_batch_size=1)
    alone = trainer.evaluate(trainer.train_dataset)["eval_loss"]
    assert trainer.evaluate(with_spare(trainer.train_dataset))["eval_loss"] == pytest.approx(alone, rel=1e-6)
    assert packed([spare[len(rows)]])["input_ids"].shape == (1, 1)
    pairs = [{"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3]}]
    assert with_spare(Dataset.from_list(pairs))[1] == pairs[0]


def qtrain(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **more}
    return subprocess.run([sys.executable, "-m", "qtrain", *words], capture_output=True, text=True, env=environment)


def sets(*overrides: str) -> list[str]:
    return [word for one in overrides for word in ("--set", one)]


def losses(run: Path) -> list[tuple[str, float]]:
    log = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(key, entry[key]) for entry in log for key in ("loss", "eval_loss") if key in entry]


# Seven rows by two: an epoch's last step is smaller, and one process has nothing in it.
SEVEN = ("train.max_steps=9", "train.per_device_train_batch_size=1", "train.save_steps=3",
         "train.eval_steps=4", "train.per_device_eval_batch_size=1")  # fmt: skip


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_accumulation(project: Path) -> None:
    """Over gloo on a CPU, in float32: each tensor's weights within 1e-5 of its norm; also when resumed."""
    text = Path("rows.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    Path("rows.jsonl").write_text("".join(text[:7]), encoding="utf-8")
    one = qtrain("small.toml", "--output", "one", *sets(*SEVEN, "train.gradient_accumulation_steps=4"))
    assert one.returncode == 0, one.stderr
    words = ("small.toml", "--output", "two", *sets(*SEVEN, "train.gradient_accumulation_steps=2"))
    two = qtrain(*words, "--processes", "2", "--json")
    assert two.returncode == 0, two.stderr
    report = json.loads(two.stdout)
    assert two.stderr.count("step 9/9") == 1, "one process speaks"
    (first,), (second,) = Path("one/small").iterdir(), Path("two/small").iterdir()
    assert Path(report["run"]) == second
    assert json.loads((second / "manifest.json").read_text(encoding="utf-8"))["processes"] == 2
    expected, got = (load_file(run / "final" / "model.safetensors") for run in (first, second))
    assert expected.keys() == got.keys()
    for name, tensor in expected.items():
        # Attention does not see a key's bias: its gradient is rounding alone, which Adam brings to full size.
        if not name.endswith("k_proj.bias"):
            assert (got[name] - tensor).norm() <= 1e-5 * tensor.norm(), name
    assert [key for key, _ in losses(second)] == [key for key, _ in losses(first)]
    assert [x for _, x in losses(second)] == pytest.approx([x for _, x in losses(first)], rel=1e-5)

    before = (second / "final" / "model.safetensors").read_bytes()
    for gone in ("final", "checkpoint-9"):
        (second / gone).rename(project / gone)
    again = qtrain(*words, "--processes", "2")
    assert again.returncode == 0 and "goes on at step 6 of 9" in " ".join(again.stderr.split()), again.stderr
    assert (second / "final" / "model.safetensors").read_bytes() == before, "resumed in the middle of an epoch"
    (second / "final").rename(project / "final-2")
    alone = qtrain(*words, "--resume")
    assert alone.returncode == 2 and "this run was begun with --processes 2, not 1" in " ".join(alone.stderr.split())


@pytest.mark.slow
def test_torchrun_finds_the_same_place(project: Path) -> None:
    """Process 0 builds the shards and makes the one run; the others wait for it."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    words = ["-m", "qtrain", "small.toml", *sets("train.max_steps=2", "train.per_device_train_batch_size=1")]
    done = subprocess.run(
        [*launcher, *words], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    (run,) = Path("runs/small").iterdir()
    assert (run / "final").is_dir() and done.stderr.count("building it") == 1 and done.stdout.count("talk to it") == 1


@pytest.mark.slow
def test_a_signal_stops_all_of_them(project: Path) -> None:
    words = sets("train.max_steps=100000", "train.save_strategy=no", "train.eval_strategy=no")
    command = [sys.executable, "-m", "qtrain", "small.toml", *words, "--processes", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    said = ended(process, signal.SIGTERM)
    assert process.returncode == faults.INTERRUPTED, said
    (run,) = Path("runs/small").iterdir()
    (saved,) = checkpoint.all_of(run)
    assert checkpoint.flaw(saved) is None and len(list(saved.glob("rng_state_*.pth"))) == 2


@pytest.mark.slow
def test_when_one_fails_the_others_end(project: Path) -> None:
    """A recipe that goes wrong in the processes only: one sentence, exit code 2."""
    done = qtrain("small.toml", "--processes", "2", *sets("train.eval_strategy=sometimes"))
    assert done.returncode == 2 and "TRL does not take these arguments" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_padding_never_hides_a_row(tiny: Path) -> None:
    """The spare row stands at an index of its own, whatever the rows are."""
    dataset = Dataset.from_list([row([3]), row([4])])
    order = Order(len(dataset), seed=0, multiple=4)
    spare = with_spare(dataset)
    assert sorted(order.indices()) == [0, 1, 2, 2] and spare[2]["labels"] == [-100]
