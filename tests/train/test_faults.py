"""What goes wrong is one sentence and exit code 2, and nothing half-written is left behind."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from tests.train.shards import row, write

from qdata.errors import QdataError
from qtrain import checkpoint, faults, processes
from qtrain import stand_in as stand_ins
from qtrain.cli import main
from qtrain.data import IGNORED, open_shards, row_ids
from qtrain.recipe import StandIn
from qtrain.sft import ShardTrainer


def go(*overrides: str, words: tuple[str, ...] = ()) -> Result:
    return CliRunner().invoke(main, ["small.toml", *(w for one in overrides for w in ("--set", one)), *words])


def told(result: Result) -> str:
    """The one error sentence; there is no traceback."""
    assert result.exit_code == 2 and "Traceback" not in result.output, result.output
    return " ".join(result.stderr.split("error:")[-1].split())


def the_run() -> Path:
    (run,) = Path("runs/small").iterdir()
    return run


WRITERS = {
    "torch's": ("torch.save", RuntimeError("[enforce fail] . PytorchStreamWriter failed writing file data/3")),
    "the system's": ("torch.save", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))),
    "safetensors'": ("transformers.modeling_utils.safe_save_file", RuntimeError("I/O error: No space left on device")),
    "ours": ("qtrain.checkpoint.seal", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))),
}


@pytest.mark.parametrize("whose", WRITERS)
def test_a_full_disk(project: Path, monkeypatch: pytest.MonkeyPatch, whose: str) -> None:
    """While checkpoint-4 is written: checkpoint-2 stays whole, and with room again the run goes on."""
    place, error = WRITERS[whose]
    module, name = place.rsplit(".", 1)
    writer = getattr(__import__(module, fromlist=[name]), name)

    def fills(*things: Any, **more: Any) -> Any:
        if any("checkpoint-4" in str(thing) for thing in (*things, *more.values())):
            raise error
        return writer(*things, **more)

    monkeypatch.setattr(place, fills)
    said = told(go("train.save_total_limit=1"))
    assert "checkpoint-4: the disk is full:" in said and "were to be written" in said and "--resume" in said
    run = the_run()
    assert [p.name for p in checkpoint.all_of(run)] == ["checkpoint-2"]
    assert checkpoint.flaw(run / "checkpoint-2") is None and not (run / checkpoint.STAGING).exists()
    monkeypatch.undo()
    os.chdir(project)
    assert faults.full_disk(ValueError("no"), run, 1, 0) is None


def test_how_much_is_missing(tmp_path: Path) -> None:
    full = faults.full_disk(OSError(errno.ENOSPC, "full"), tmp_path, 5 * 10**9, 2 * 10**9)
    assert "5.0 GB were to be written, 2.0 GB were free, 3.0 GB too few" in str(full)


def test_a_loss_that_is_no_number(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compute = ShardTrainer.compute_loss

    def sick(self: Any, *arguments: Any, **more: Any) -> Any:
        loss = compute(self, *arguments, **more)
        return loss * float("nan") if self.model.training and self.state.global_step == 2 else loss

    monkeypatch.setattr(ShardTrainer, "compute_loss", sick)
    said = told(go())
    assert "step 3: the loss is nan at learning rate 5.00e-04; its batch held the rows " in said
    assert (
        said.count("rows.jsonl#") == 2
        and "Try a lower learning_rate" in said
        and [p.name for p in checkpoint.all_of(the_run())] == ["checkpoint-2"]
    )


def test_the_rows_named_are_those_of_the_batch(tiny: Path, tmp_path: Path) -> None:
    from tests.train.test_loss import ROWS, trained

    seen: list[tuple[list[int], Any]] = []

    class Spy(ShardTrainer):
        def training_step(self, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
            ids = inputs["input_ids"][0].tolist()
            loss = super().training_step(model, inputs, *rest, **more)
            seen.append((self._indices(), ids))
            return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.train.test_loss.ShardTrainer", Spy)
        trained(
            tiny, tmp_path, ROWS, per_device_train_batch_size=3, num_train_epochs=2, train_sampling_strategy="random"
        )
    assert len(seen) == 6 and sorted(i for indices, _ in seen[:3] for i in indices) == list(range(8))
    for indices, ids in seen:
        assert [token for index in indices for token in ROWS[index]["input_ids"]] == ids


def test_a_gradient_that_is_no_number(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelerate.Accelerator.clip_grad_norm_", lambda *_, **__: torch.tensor(float("inf")))
    assert "step 1: the gradient's norm is inf" in told(go())


def test_no_memory_left(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(ShardTrainer, "compute_loss", full)
    said = told(go("train.eval_strategy=no"))
    assert "step 1: the GPU's memory does not suffice for a batch of" in said and "tokens (2 rows)" in said
    for way in ("per_device_train_batch_size", "[data] max_length and pack", 'tuning = "lora" or "qlora"'):
        assert way in said
    assert "activation_checkpointing" not in said, "it is on already"


def test_more_gpus_than_there_are(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        assert "--gpus 2: this machine has no GPU; --processes 2 trains on its CPU" in told(go(words=("--gpus", "2")))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    for words in (("--gpus", "2"), ("--processes", "2")):
        assert "2 processes want a GPU each, and this machine has 1 GPU" in told(go(words=words))
    processes.refuse_too_many(1, True)
    assert not Path("runs").exists()


def test_shards_with_nothing_to_train(tiny: Path, tmp_path: Path) -> None:
    masked = {**row([7]), "labels": [IGNORED] * 7}
    with pytest.raises(QdataError, match="no token of its rows is trained"):
        open_shards(write(tmp_path / "masked", [masked, masked], tiny))
    assert len(open_shards(write(tmp_path / "one", [masked, row([4])], tiny)).train) == 2
    assert row_ids(open_shards(tmp_path / "one"), [1, 0]) == ["train#1", "train#0"]


def test_rows_of_which_none_is_left(project: Path) -> None:
    said = told(go("data.max_length=3"))
    assert "nothing is left to train: 10 max_length.too_long" in said and not Path("runs").exists()


def test_shards_of_another_tokenizer(project: Path, tiny: Path, tmp_path: Path) -> None:
    """As many ids, other words behind them."""
    from tests.train.conftest import SMALL

    texts = ["quite other words, quite other pieces, quite another tokenizer " * 9]
    other = stand_ins.build(StandIn(**{**vars(SMALL), "vocab_size": 365}), texts, tmp_path / "other")
    said = told(go(f"data.tokenizer={other}"))
    assert "made with another tokenizer than the model's: id " in said and not Path("runs").exists()


def test_another_order_of_rows_is_refused(project: Path) -> None:
    assert "wanted random or sequential" in told(go("train.train_sampling_strategy=group_by_length"))


def test_no_memory_for_the_model(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is loaded, and while it is moved to the GPU."""

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    for place in ("qtrain.tuning.load", "qtrain.train.ShardTrainer"):
        with monkeypatch.context() as patch:
            patch.setattr(place, full)
            said = told(go())
        assert "the GPU's memory does not suffice for its weights (full). Try tuning = " in said
        assert 'sharding = "fsdp" with --gpus N' in said


def test_more_processes_of_torchrun_than_gpus(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert "2 processes want a GPU each, and this machine has 1 GPU" in told(go())


def test_validation_rows_of_which_no_token_counts(tiny: Path, tmp_path: Path) -> None:
    """Their loss would be 0 of 0."""
    masked = {**row([7]), "labels": [IGNORED] * 7}
    path = write(tmp_path / "held", [row([4])], tiny, validation=[masked])
    with pytest.raises(QdataError, match="no token of its validation rows is trained"):
        open_shards(path)
