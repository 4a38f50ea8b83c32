"""Preference pairs: our loss is TRL's, the reference is where training began, and what is preferred gets likelier."""

from __future__ import annotations

import io
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, DatasetDict
from rich.console import Console
from safetensors.torch import load_file
from tests.train.shards import pairs
from transformers import AutoTokenizer, TrainerCallback
from trl import DPOTrainer

from qtrain import arguments as args
from qtrain import model as models
from qtrain import steps
from qtrain import train as road
from qtrain.data import Shards, fits, open_shards
from qtrain.dpo import PreferenceTrainer
from qtrain.recipe import Freeze, Lora, Train
from qtrain.watch import Watch

PAIRS = [
    ("who are you", " I am Muxue", " I am Qwen"),
    ("hello", " hello to you too", " go away"),
    ("one plus one", " two", " three, I think"),
    ("good night", " sleep well", " no"),
]
PLAIN = {"learning_rate": 5e-3, "logging_steps": 1, "save_strategy": "no", "train_sampling_strategy": "sequential"}


@pytest.fixture
def shards(tiny: Path, tmp_path: Path) -> Shards:
    """`PAIRS` as qdata writes them: ids cut where a server cuts, at a token's border, ended by the stop token."""
    tokenizer = AutoTokenizer.from_pretrained(tiny)

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    rows = []
    for number, (prompt, *answers) in enumerate(PAIRS):
        chosen, rejected = ([*ids(answer), tokenizer.eos_token_id] for answer in answers)
        origin = {"rows": [f"p#{number}"], "sources": ["ab"[number % 2]]}
        rows.append({"prompt_ids": ids(prompt), "chosen_ids": chosen, "rejected_ids": rejected, **origin})
    path = tmp_path / "shards"
    DatasetDict({"train": Dataset.from_list(rows), "validation": Dataset.from_list(rows[:2])}).save_to_disk(str(path))
    (path / "manifest.json").write_text('{"kind": "preference", "template": {"stop": "<|im_end|>"}}', encoding="utf-8")
    (path / "tokenizer").mkdir()
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tiny / file, path / "tokenizer" / file)
    return open_shards(path)


def trainer_of(
    shards: Shards, tiny: Path, tmp_path: Path, tuning: Any = "full", watch: Console | None = None, **arguments: Any
) -> Any:
    """The road's own trainer, before its first step; `watch` is told of spikes."""
    train = Train(stage="dpo", tuning=tuning, lora=Lora(r=4), arguments={**PLAIN, **arguments})
    fits(shards, train.stage)
    models.quiet()
    made = args.make(train, rows=len(shards.train), validation=True)
    made.output_dir = str(tmp_path / "run")
    tokenizer = AutoTokenizer.from_pretrained(shards.tokenizer)
    trainer = road.trainer_of(models.load(tiny), train, made, shards, tokenizer, print)
    if watch is not None:
        (tmp_path / "run").mkdir(parents=True, exist_ok=True)
        trainer.watch = Watch(tmp_path / "run", shards, watch)
        trainer.add_callback(trainer.watch)
    return trainer


def weights_of(trainer: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def logged(trainer: Any, key: str) -> list[float]:
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def test_our_loss_is_trls_own_on_the_same_rows_as_text(shards: Shards, tiny: Path, tmp_path: Path) -> None:
    ours = trainer_of(shards, tiny, tmp_path, max_steps=4, per_device_train_batch_size=2, beta=0.3)
    text = Dataset.from_list([{"prompt": p, "chosen": c, "rejected": r} for p, c, r in PAIRS])
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    theirs = DPOTrainer(models.load(tiny), models.load(tiny), ours.args, train_dataset=text, processing_class=tokenizer)
    for mine, its in zip(ours.train_dataset, theirs.train_dataset, strict=True):
        assert all(mine[key] == its[key] for key in ("prompt_ids", "chosen_ids", "rejected_ids")), "a fair comparison"
    for trainer in (ours, theirs):
        trainer.train()
    assert logged(ours, "loss") == pytest.approx(logged(theirs, "loss"), rel=1e-5)
    assert logged(ours, "loss")[0] == pytest.approx(0.6931, abs=1e-4), "model and reference begin as one"
    assert logged(ours, "loss")[-1] < 0.69


@pytest.mark.parametrize(
    ("tuning", "arguments"),
    [("full", {}), ("lora", {"learning_rate": 2e-2}), ("full", {"precompute_ref_log_probs": True})],
    ids=("full", "lora", "precomputed"),
)
def test_what_is_preferred_gets_likelier(
    shards: Shards, tiny: Path, tmp_path: Path, tuning: str, arguments: dict[str, Any]
) -> None:
    trainer = trainer_of(shards, tiny, tmp_path, tuning, max_steps=20, per_device_train_batch_size=4, **arguments)
    assert isinstance(trainer, PreferenceTrainer)
    assert (trainer.ref_model is None) == (tuning == "lora" or bool(arguments)), (
        "a second model only where it is needed"
    )
    before = {name: p.detach().clone() for name, p in models.load(tiny).named_parameters()}
    trainer.train()
    margins = logged(trainer, "rewards/margins")
    assert margins[0] == pytest.approx(0, abs=1e-4) and margins[-1] > 0.2
    assert logged(trainer, "rewards/accuracies")[-1] == 1
    assert trainer.evaluate()["eval_loss"] < 0.6
    if trainer.ref_model is not None:
        for name, parameter in trainer.ref_model.named_parameters():
            assert torch.equal(parameter, before[name]), "the reference does not move"


def test_a_freeze_of_one_layer_prefers_too(shards: Shards, tiny: Path, tmp_path: Path) -> None:
    models.quiet()
    train = Train(stage="dpo", tuning="freeze", freeze=Freeze(train=("layers.1",)), arguments={**PLAIN, "max_steps": 2})
    made = args.make(train, rows=4, validation=True)
    made.output_dir = str(tmp_path / "run")
    tokenizer = AutoTokenizer.from_pretrained(shards.tokenizer)
    trainer = road.trainer_of(models.load(tiny), train, made, shards, tokenizer, print)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    moved = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if ".layers.1." in name}


WAYS = pytest.mark.parametrize(
    ("tuning", "arguments"),
    [
        ("full", {}),
        ("lora", {"learning_rate": 2e-2}),
        ("full", {"precompute_ref_log_probs": True}),
        ("lora", {"precompute_ref_log_probs": True, "learning_rate": 2e-2}),
    ],
    ids=("full", "lora", "precomputed", "lora, precomputed"),
)


@WAYS
def test_what_is_heard_of_pairs_is_what_is_trained(
    shards: Shards, tiny: Path, tmp_path: Path, tuning: str, arguments: dict[str, Any]
) -> None:
    """And listening changes nothing: the same losses and weights, bit for bit."""
    how = {"num_train_epochs": 3, "per_device_train_batch_size": 2, "train_sampling_strategy": "random", **arguments}
    alone, heard = (
        trainer_of(shards, tiny, folder, tuning, watch, **how)
        for folder, watch in ((tmp_path / "a", None), (tmp_path / "h", Console(file=io.StringIO())))
    )
    alone.train()
    heard.train()
    assert torch.equal(weights_of(alone), weights_of(heard)) and logged(alone, "loss") == logged(heard, "loss")

    entries = list(steps.of(tmp_path / "h/run").values())
    assert [entry["loss"] for entry in entries] == pytest.approx(logged(heard, "loss"), rel=1e-4)
    for entry, margin, accuracy in zip(
        entries, logged(heard, "rewards/margins"), logged(heard, "rewards/accuracies"), strict=True
    ):
        assert sum(entry["margins"]) / 2 == pytest.approx(margin, abs=1e-4)
        assert sum(one > 0 for one in entry["margins"]) / 2 == pytest.approx(accuracy) or entry["step"] == 1
        for loss, one in zip(entry["losses"], entry["margins"], strict=True):
            assert loss == pytest.approx(math.log1p(math.exp(-one)), abs=1e-4)
        pairs = [shards.train[number] for number in entry["rows"]]
        answers = sum(len(pair["chosen_ids"]) + len(pair["rejected_ids"]) for pair in pairs)
        assert entry["trained"] == answers
        assert entry["tokens"] == answers + sum(2 * len(pair["prompt_ids"]) for pair in pairs)
        for name, (total, count) in entry["sources"].items():
            of_source = [x for x, n in zip(entry["losses"], entry["rows"], strict=True) if "ab"[n % 2] == name]
            assert (len(of_source), sum(of_source)) == (count, pytest.approx(total, abs=1e-3))
    for epoch in range(3):
        assert sorted(entries[2 * epoch]["rows"] + entries[2 * epoch + 1]["rows"]) == [0, 1, 2, 3]
    metrics = heard.evaluate()
    assert (metrics["eval_loss/a"] + metrics["eval_loss/b"]) / 2 == pytest.approx(metrics["eval_loss"], rel=1e-5)


def test_a_pairs_own_loss(shards: Shards, tiny: Path, tmp_path: Path) -> None:
    """Held against each pair alone, its answers one by one without padding, by plain transformers."""
    trainer = trainer_of(shards, tiny, tmp_path, max_steps=2, per_device_train_batch_size=4, watch=Console(quiet=True))
    trainer.train()
    before, model = models.load(tiny).eval(), models.load(tiny).eval()
    first = trainer_of(shards, tiny, tmp_path / "first", max_steps=2, per_device_train_batch_size=4)
    first.add_callback(_StopAt(1))
    first.train()
    model.load_state_dict(first.model.state_dict())

    @torch.no_grad()
    def says(one: Any, prompt: list[int], answer: list[int]) -> float:
        logits = one.eval()(input_ids=torch.tensor([prompt + answer]), use_cache=False).logits[0, len(prompt) - 1 : -1]
        return float(logits.log_softmax(-1)[range(len(answer)), answer].sum())

    entry = steps.of(tmp_path / "run")[2]
    for number, margin in zip(entry["rows"], entry["margins"], strict=True):
        pair = shards.train[number]
        gains = [
            says(model, pair["prompt_ids"], pair[name]) - says(before, pair["prompt_ids"], pair[name])
            for name in ("chosen_ids", "rejected_ids")
        ]
        assert margin == pytest.approx(trainer.beta * (gains[0] - gains[1]), abs=2e-4)


class _StopAt(TrainerCallback):  # type: ignore[misc]
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = state.global_step == self.step


@pytest.mark.parametrize("how", [{}, {"loss_type": ["ipo"]}], ids=["sigmoid", "ipo"])
def test_a_step_of_pairs_has_one_loss_however_it_is_cut(
    shards: Shards, tiny: Path, tmp_path: Path, how: dict[str, Any]
) -> None:
    """Also where the last batch of a step is smaller than the others, and in an evaluation."""
    got = []
    plain = {"optim": "sgd", "max_grad_norm": 0.0, "warmup_steps": 0, "num_train_epochs": 2, "learning_rate": 0.5}
    for number, (size, accumulated) in enumerate(((4, 1), (1, 4), (3, 2))):
        made = trainer_of(
            shards, tiny, tmp_path / str(number), per_device_train_batch_size=size, per_device_eval_batch_size=size,
            gradient_accumulation_steps=accumulated, **plain, **how,
        )  # fmt: skip
        made.train()
        got.append((made, made.evaluate(made.train_dataset)["eval_loss"]))
    (first, loss), *rest = got
    assert logged(first, "loss")[1] < logged(first, "loss")[0]
    for other, its in rest:
        assert logged(other, "loss") == pytest.approx(logged(first, "loss"), rel=1e-5)
        assert its == pytest.approx(loss, rel=1e-5)
        torch.testing.assert_close(weights_of(other), weights_of(first), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_two_processes_train_on_pairs_as_one(project: Path) -> None:
    """Seven pairs by two: the spare one that evens them out weighs nothing, and is in no steps.jsonl."""
    how = (*pairs(), "train.max_steps=4", "train.per_device_train_batch_size=1", "train.eval_strategy=no")
    Path("one.jsonl").write_text("".join(Path("one.jsonl").read_text("utf-8").splitlines(True)[:3]), "utf-8")
    runs = []
    for processes, accumulated in (("1", 4), ("2", 2)):
        words = [word for one in (*how, f"train.gradient_accumulation_steps={accumulated}") for word in ("--set", one)]
        command = [sys.executable, "-m", "qtrain", "small.toml", *words, "--output", processes]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run([*command, "--processes", processes], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        (run,) = Path(processes, "small").iterdir()
        runs.append((load_file(run / "final" / "model.safetensors"), steps.of(run)))
    (expected, heard), (got, also) = runs
    for name, tensor in expected.items():
        if not name.endswith("k_proj.bias"):  # see test_processes.py
            assert (got[name] - tensor).norm() <= 1e-5 * tensor.norm(), name
    for step, entry in heard.items():
        assert sorted(also[step]["rows"]) == sorted(entry["rows"])
        assert also[step]["loss"] == pytest.approx(entry["loss"], rel=1e-4)
    assert [len(entry["rows"]) for entry in also.values()] == [4, 3, 4, 3]
