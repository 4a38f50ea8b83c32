"""What is heard of the batches is what the trainer computes, and listening changes nothing."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from tests.train.shards import padded, row
from tests.train.test_loss import losses, weights_of
from transformers import AutoModelForCausalLM, AutoTokenizer

from qtrain import model as models
from qtrain import steps
from qtrain.arguments import make
from qtrain.data import Shards, open_shards, packed
from qtrain.recipe import Train
from qtrain.sft import ShardTrainer
from qtrain.watch import Heard, Watch

LENGTHS = [[7, 3], [20], [4], [11, 2, 6], [9], [15, 5], [8], [6, 6]]
NAMES = ["a", "b", "b", "c", "a", "c", "b", "a", "a", "b", "c", "a", "c"]  # of each conversation


def rows(weighted: bool = False) -> list[dict[str, Any]]:
    out = []
    for number, lengths in enumerate(LENGTHS):
        one = row(lengths, seed=number)
        at = sum(map(len, LENGTHS[:number]))
        one |= {"rows": [f"r#{at + k}" for k in range(len(lengths))], "sources": NAMES[at : at + len(lengths)]}
        out.append({**one, "weights": [0.25 * (i % 4) for i in range(sum(lengths))]} if weighted else one)
    return out


def shards_of(content: list[dict[str, Any]], tiny: Path, folder: Path) -> Shards:
    from datasets import Dataset, DatasetDict

    DatasetDict({"train": Dataset.from_list(content)}).save_to_disk(str(folder))
    (folder / "manifest.json").write_text(json.dumps({"template": "test"}))
    (folder / "tokenizer").mkdir()
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / "tokenizer" / file).write_bytes((tiny / file).read_bytes())
    return open_shards(folder)


def trainer_on(shards: Shards, tiny: Path, run: Path, *, watched: bool, **arguments: Any) -> ShardTrainer:
    fixed = {"num_train_epochs": 2, "logging_steps": 1, "save_strategy": "no", "learning_rate": 1e-2}
    sft = make(Train(arguments={**fixed, "report_to": "none", **arguments}), rows=len(shards.train), validation=True)
    run.mkdir()
    sft.output_dir = str(run)
    trainer = ShardTrainer(
        model=models.load(tiny),
        args=sft,
        data_collator=packed,
        train_dataset=shards.train,
        eval_dataset=shards.train,
        processing_class=AutoTokenizer.from_pretrained(shards.tokenizer),
    )
    models.quiet()
    if watched:
        trainer.watch = Watch(run, shards, Console(file=io.StringIO()))
        trainer.add_callback(trainer.watch)
    return trainer


@pytest.mark.parametrize("weighted", [False, True])
def test_what_is_heard_is_what_is_trained(tiny: Path, tmp_path: Path, weighted: bool) -> None:
    shards = shards_of(rows(weighted), tiny, tmp_path / "shards")
    how = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "eval_strategy": "epoch"}
    alone = trainer_on(shards, tiny, tmp_path / "alone", watched=False, **how)
    heard = trainer_on(shards, tiny, tmp_path / "heard", watched=True, **how)
    alone.train()
    heard.train()
    assert torch.equal(weights_of(alone), weights_of(heard)) and losses(alone) == losses(heard)

    entries = steps.of(tmp_path / "heard")
    assert [entry["loss"] for entry in entries.values()] == pytest.approx(losses(heard), rel=1e-5)
    for epoch in (1, 3):
        seen = entries[epoch]["rows"] + entries[epoch + 1]["rows"]
        assert sorted(seen) == list(range(8)) and seen != list(range(8))
    for entry, log in zip(entries.values(), [e for e in heard.state.log_history if "loss" in e], strict=True):
        of_source = {key.partition("/")[2]: value for key, value in log.items() if key.startswith("loss/")}
        assert set(of_source) == set(entry["sources"])
        mean = sum(of_source[name] * weight for name, (_, weight) in entry["sources"].items())
        assert mean / sum(weight for _, weight in entry["sources"].values()) == pytest.approx(log["loss"], rel=1e-4)
    assert sum(entries[step]["tokens"] for step in (1, 2)) == sum(map(sum, LENGTHS))


def test_each_conversation_has_its_own_loss(tiny: Path, tmp_path: Path) -> None:
    """Held against the same conversation alone, without packing, by plain transformers."""
    shards = shards_of(rows(), tiny, tmp_path / "shards")
    trainer = trainer_on(
        shards, tiny, tmp_path / "run", watched=True, per_device_train_batch_size=8, max_steps=1, learning_rate=0.0,
    )  # fmt: skip
    trainer.train()
    (entry,) = steps.of(tmp_path / "run").values()
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
    told = iter(entry["losses"])
    nll: dict[str, list[float]] = {name: [0.0, 0.0] for name in "abc"}
    with torch.no_grad():
        for number in entry["rows"]:
            one, start = rows()[number], 0
            for name, length in zip(one["sources"], one["seq_lengths"], strict=True):
                piece = {key: one[key][start : start + length] for key in ("input_ids", "labels")}
                loss = model(**padded([{**piece, "seq_lengths": [length]}], pad=0)).loss.item()
                assert next(told) == pytest.approx(loss, abs=1e-4)
                trained = sum(label != -100 for label in piece["labels"][1:])
                nll[name][0] += loss * trained
                nll[name][1] += trained
                start += length
    metrics = trainer.evaluate()
    for name, (total, trained) in nll.items():
        assert metrics[f"eval_loss/{name}"] == pytest.approx(total / trained, rel=1e-5)


def drive(watch: Watch, values: list[float], first: int = 1, history: list[dict[str, Any]] | None = None) -> None:
    """Steps with these losses, as a trainer would take them."""
    state = SimpleNamespace(global_step=first - 1, is_world_process_zero=True, log_history=history or [])
    watch.on_train_begin(None, state, None)
    for value in values:
        state.global_step += 1
        # Two conversations of rows 0 and 1, the second the worse one.
        costs = torch.tensor([[value * 5, 10.0, 10.0, 12.0], [value * 15, 10.0, 10.0, 12.0]])
        watch.hear(SimpleNamespace(training=True), Heard(torch.tensor([1, 2]), torch.tensor([1, 1]), costs))
        watch.on_step_end(SimpleNamespace(world_size=1), state, None)


def test_a_spike_is_told_with_its_worst_row_and_once(tiny: Path, tmp_path: Path) -> None:
    shards, out = shards_of(rows(), tiny, tmp_path / "shards"), io.StringIO()
    drive(Watch(tmp_path, shards, Console(file=out)), [2.0, 2.1] * 8 + [6.0, 6.0, 2.0])
    assert out.getvalue().splitlines() == [
        "spike at step 17: loss 6.000, the 16 steps before it 2.050 ± 0.050",
        f"  its worst rows: r#3 (9.00), r#2 (3.00) · qtrain why {tmp_path} --step 17",
    ]
    out = io.StringIO()
    drive(Watch(tmp_path, shards, Console(file=out)), [2.0, float("nan")], first=20)
    assert "spike at step 21: loss is no number" in out.getvalue()
    assert [entry["loss"] for entry in steps.read(tmp_path / steps.FILE)][-1] is None


def test_a_run_that_goes_on_has_each_step_once(tiny: Path, tmp_path: Path) -> None:
    """And its log the same sums as if it had not stopped: the file is all that is remembered."""
    shards = shards_of(rows(), tiny, tmp_path / "shards")
    values = [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    uninterrupted = Watch(whole, shards, Console(file=io.StringIO()))
    drive(uninterrupted, values[:2])
    uninterrupted.losses()
    drive(uninterrupted, values[2:], first=3, history=[{"step": 2, "loss": 2.5}])
    drive(Watch(broken, shards, Console(file=io.StringIO())), values[:5])
    with (broken / steps.FILE).open("a", encoding="utf-8") as file:
        file.write('{"step": 6, "lo')  # killed as it wrote
    again = Watch(broken, shards, Console(file=io.StringIO()))
    drive(again, values[3:], first=4, history=[{"step": 2, "loss": 2.5}])
    assert (whole / steps.FILE).read_bytes() == (broken / steps.FILE).read_bytes()
    assert list(again.before) == values
    assert again.losses() == {"loss/b": pytest.approx(sum(values[2:]) / 4)}
