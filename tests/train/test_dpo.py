"""Preference pairs: our loss is TRL's, the reference is where training began, and what is preferred gets likelier."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, DatasetDict
from transformers import AutoTokenizer
from trl import DPOTrainer

from qtrain import arguments as args
from qtrain import model as models
from qtrain import train as road
from qtrain.data import Shards, fits, open_shards
from qtrain.dpo import PreferenceTrainer
from qtrain.recipe import Freeze, Lora, Train

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
    for prompt, *answers in PAIRS:
        chosen, rejected = ([*ids(answer), tokenizer.eos_token_id] for answer in answers)
        rows.append({"prompt_ids": ids(prompt), "chosen_ids": chosen, "rejected_ids": rejected, "rows": ["x"]})
    path = tmp_path / "shards"
    DatasetDict({"train": Dataset.from_list(rows), "validation": Dataset.from_list(rows[:2])}).save_to_disk(str(path))
    (path / "manifest.json").write_text('{"kind": "preference", "template": {"stop": "<|im_end|>"}}', encoding="utf-8")
    (path / "tokenizer").mkdir()
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tiny / file, path / "tokenizer" / file)
    return open_shards(path)


def trainer_of(shards: Shards, tiny: Path, tmp_path: Path, tuning: Any = "full", **arguments: Any) -> Any:
    """The road's own trainer, before its first step."""
    train = Train(stage="dpo", tuning=tuning, lora=Lora(r=4), arguments={**PLAIN, **arguments})
    fits(shards, train.stage)
    models.quiet()
    made = args.make(train, rows=len(shards.train), validation=True)
    made.output_dir = str(tmp_path / "run")
    tokenizer = AutoTokenizer.from_pretrained(shards.tokenizer)
    return road._trainer(models.load(tiny), train, made, shards, tokenizer, print)


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
    trainer = road._trainer(models.load(tiny), train, made, shards, tokenizer, print)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    moved = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if ".layers.1." in name}
