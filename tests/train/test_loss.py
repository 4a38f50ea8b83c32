"""One optimiser step has one loss: how its rows are cut into batches, and by whom it is computed, changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import load_from_disk
from tests.train.shards import padded, row, write
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

from qdata.errors import QdataError
from qtrain import arguments as args
from qtrain import model as models
from qtrain.data import IGNORED, open_shards, packed
from qtrain.recipe import Train
from qtrain.sft import ShardTrainer

ROWS = [row([7, 3]), row([20]), row([4]), row([11, 2, 6]), row([9]), row([15, 5]), row([8]), row([6, 6])]


def trained(tiny: Path, tmp_path: Path, rows: list[dict[str, Any]], **arguments: Any) -> ShardTrainer:
    """A trainer after one pass over `rows`, without shuffling."""
    shards = open_shards(write(tmp_path / f"shards{len(list(tmp_path.iterdir()))}", rows, tiny))
    fixed = {"num_train_epochs": 1, "logging_steps": 1, "save_strategy": "no", "learning_rate": 1e-2}
    plain = {"max_grad_norm": 0.0, "train_sampling_strategy": "sequential"}
    train = Train(arguments={**fixed, **plain, **arguments})
    sft = args.make(train, rows=len(rows), validation=False)
    sft.output_dir = str(tmp_path / "run")
    trainer = ShardTrainer(
        model=models.load(tiny),
        args=sft,
        data_collator=packed,
        train_dataset=shards.train,
        processing_class=AutoTokenizer.from_pretrained(shards.tokenizer),
    )
    models.quiet()
    trainer.train()
    return trainer


def losses(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def weights_of(trainer: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


@pytest.mark.parametrize("weighted", [False, True])
def test_accumulation_changes_nothing(tiny: Path, tmp_path: Path, weighted: bool) -> None:
    """8 × 1 = 1 × 8 = 3 × 3, whose last batch is smaller; chat or plain text, both are packed rows."""
    rows = [{**r, **({"weights": [0.25 * (i % 4) for i in range(len(r["labels"]))]} if weighted else {})} for r in ROWS]
    plain = {"optim": "sgd", "warmup_steps": 0, "learning_rate": 0.1, "num_train_epochs": 2}
    first, *others = (
        trained(
            tiny, tmp_path, rows, per_device_train_batch_size=size, gradient_accumulation_steps=accumulated, **plain
        )
        for size, accumulated in ((8, 1), (1, 8), (3, 3))
    )
    assert losses(first)[1] < losses(first)[0]
    for other in others:
        assert losses(other) == pytest.approx(losses(first), rel=1e-5)
        torch.testing.assert_close(weights_of(other), weights_of(first), atol=1e-6, rtol=1e-5)


def test_the_logged_loss_is_the_mean_over_trained_tokens(tiny: Path, tmp_path: Path) -> None:
    trainer = trained(tiny, tmp_path, ROWS, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
    with torch.no_grad():
        assert losses(trainer) == pytest.approx([model(**padded(ROWS, pad=0)).loss.item()], rel=1e-5)


@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize("weighted", [False, True])
def test_evaluation_does_not_depend_on_the_batch_size(tiny: Path, tmp_path: Path, size: int, weighted: bool) -> None:
    rows = [{**r, **({"weights": [1.0] * len(r["labels"])} if weighted else {})} for r in ROWS]
    trainer = trained(tiny, tmp_path, rows, max_steps=1, learning_rate=0.0, per_device_eval_batch_size=size)
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = model(**padded(ROWS, pad=0)).loss.item()
    assert trainer.evaluate(trainer.train_dataset)["eval_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("cut", [(8, 1), (2, 4)])
def test_weights_reach_the_gradient(tiny: Path, tmp_path: Path, cut: tuple[int, int]) -> None:
    rows = [{**r, "weights": [0.25 * (i % 4) for i in range(len(r["labels"]))]} for r in ROWS]
    trainer = trained(
        tiny, tmp_path, rows, per_device_train_batch_size=cut[0], gradient_accumulation_steps=cut[1],
        optim="sgd", warmup_steps=0,
    )  # fmt: skip
    by_hand = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    batch = packed(rows)
    weights, labels = batch.pop("weights")[:, 1:], batch["labels"][:, 1:]
    logits = by_hand(**batch, use_cache=False).logits[:, :-1]
    nll = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none", ignore_index=IGNORED)
    loss = (nll * weights).sum() / (weights * (labels != IGNORED)).sum()
    loss.backward()
    assert losses(trainer) == pytest.approx([loss.item()], rel=1e-5)
    stepped = torch.cat([(p - 1e-2 * p.grad).detach().flatten() for p in by_hand.parameters()])
    torch.testing.assert_close(weights_of(trainer), stepped, atol=1e-6, rtol=1e-5)


def test_any_trainer_reads_the_shards(tiny: Path, tmp_path: Path) -> None:
    """transformers' own Trainer on `load_from_disk`, unpacked rows, a padding collator: no qtrain in sight."""
    single = [row([length]) for length in (7, 20, 4, 11)]
    dataset = load_from_disk(str(write(tmp_path / "shards", single)))["train"]
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "run"), max_steps=2, report_to="none", save_strategy="no", disable_tqdm=True,
        remove_unused_columns=False, dataloader_pin_memory=False, logging_steps=1,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    trainer = Trainer(model, arguments, data_collator=lambda rows: padded(rows, pad=0), train_dataset=dataset)
    trainer.train()
    assert len(losses(trainer)) == 2


def test_shards_that_would_teach_nonsense_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "shards", [row([4])], unfilled_placeholders=3, unfilled=["author", "name"])
    with pytest.raises(QdataError, match=r"unfilled in 3 rows \(\{\{author\}\}, \{\{name\}\}\).*\[data\] placeholders"):
        open_shards(path)
    with pytest.raises(QdataError, match="no complete shards here"):
        open_shards(tmp_path / "nowhere")


def test_evaluation_without_rows_is_refused() -> None:
    with pytest.raises(QdataError, match=r"give \[data\] validation or val"):
        args.make(Train(arguments={"eval_strategy": "steps"}), rows=8, validation=False)


def test_arguments_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(QdataError, match=r"\[train\]: TRL does not take these"):
        args.make(Train(arguments={"eval_strategy": "sometimes"}), rows=8, validation=True)


def test_both_names_of_activation_checkpointing_are_taken() -> None:
    assert args.make(Train(), rows=8, validation=False).activation_checkpointing is True
    given = Train(arguments={"gradient_checkpointing": False})
    assert args.make(given, rows=8, validation=False).activation_checkpointing is False
