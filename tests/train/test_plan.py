"""`qtrain plan`: parameters, activations and steps are those of the real thing; every recipe is planned."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from tests.train import shards
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen3Config

from qtrain import arguments as args
from qtrain import memory, plan_report, plan_rows, plan_shape, shapes, tuning
from qtrain import model as models
from qtrain.cli import main
from qtrain.data import open_shards, packed
from qtrain.recipe import Freeze, Lora, Train
from qtrain.sft import ShardTrainer

ROOT = Path(__file__).parents[2]
SMALL = {"vocab_size": 400, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3}
CONFIGS = {
    "tied": Qwen2Config(**SMALL, num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=True),
    "grouped": Qwen2Config(**SMALL, num_attention_heads=8, num_key_value_heads=2, tie_word_embeddings=False),
    "qwen3": Qwen3Config(**SMALL, num_attention_heads=4, num_key_value_heads=2, head_dim=32, tie_word_embeddings=False),
}
TUNED = {
    "full": Train(),
    "lora": Train(tuning="lora"),
    "two layers": Train(tuning="lora", lora=Lora(target_modules=("q_proj", "v_proj"), r=4)),
    "dora": Train(tuning="lora", lora=Lora(use_dora=True)),
    "pissa": Train(tuning="lora", lora=Lora(init_lora_weights="pissa")),
    "freeze": Train(tuning="freeze", freeze=Freeze(freeze=("embed_tokens", "layers.0"))),
}
# Billions of parameters as the model cards state them, without head where it is tied to the embeddings.
CARDS = {
    "Qwen/Qwen2.5-0.5B": 0.49, "Qwen/Qwen2-1.5B-Instruct": 1.54, "Qwen/Qwen2.5-3B": 3.09, "Qwen/Qwen2.5-7B": 7.61,
    "Qwen/Qwen2.5-14B-Instruct": 14.7, "Qwen/Qwen2.5-32B": 32.5, "Qwen/Qwen2.5-72B": 72.7, "Qwen/Qwen3-0.6B": 0.6,
    "Qwen/Qwen3-1.7B": 1.7, "Qwen/Qwen3-4B": 4.0, "Qwen/Qwen3-8B": 8.2, "Qwen/Qwen3-14B": 14.8, "Qwen/Qwen3-32B": 32.8,
}  # fmt: skip


def tuned(model: Any, train: Train) -> Any:
    """The model as training has it, with numbers in it."""
    if train.tuning == "freeze":
        tuning.freeze(model, train.freeze, lambda _: None)
    if train.tuning == "lora":
        from peft import get_peft_model

        model = get_peft_model(model, tuning.peft_config(train.lora, model))
    return model


def shape_of(config: Any, train: Train) -> plan_shape.Shape:
    return plan_shape.shape(plan_shape.on_meta(config, train, "sdpa", torch.float32))


@pytest.mark.parametrize("how", TUNED)
@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_by_configuration_are_those_of_the_built_model(name: str, how: str) -> None:
    models.quiet()
    shape = shape_of(CONFIGS[name], TUNED[how])
    built = tuned(AutoModelForCausalLM.from_config(CONFIGS[name]), TUNED[how])
    assert (shape.trained, shape.parameters) == models.parameters(built)
    assert sum(shape.modules.values()) == shape.parameters
    assert shape.weights == sum(p.nbytes for p in built.parameters())
    assert shape.tied == CONFIGS[name].tie_word_embeddings and shape.dense


def test_weights_of_4_bits_are_counted_as_bitsandbytes_lays_them(tiny: Path) -> None:
    pytest.importorskip("bitsandbytes")
    from qtrain.recipe import Model
    from qtrain.start import Start

    train = Train(tuning="qlora")
    arguments = args.make(train, rows=8, validation=False)
    model = tuning.load(Start(tiny, "tiny", None, train), Model(name=str(tiny)), arguments, lambda _: None)  # type: ignore[arg-type]
    held = sum(p.nbytes for p in model.parameters())
    for p in model.parameters():
        if hasattr(p, "quant_state"):
            held += p.quant_state.absmax.nbytes + p.quant_state.state2.absmax.nbytes
    bare = plan_shape.shape(plan_shape.on_meta(model.config, Train(), "sdpa", torch.float32), quantised=True)
    assert bare.weights == pytest.approx(held, rel=0.01)


@pytest.mark.parametrize("name", CARDS)
def test_published_shapes_sum_to_what_the_cards_state(name: str) -> None:
    assert shape_of(shapes.config(name), Train()).parameters / 1e9 == pytest.approx(CARDS[name], rel=0.015)


@pytest.mark.parametrize("lengths", [[96], [40, 56]], ids=["one", "several"])
@pytest.mark.parametrize("how", ["full", "freeze"])
@pytest.mark.parametrize("name", CONFIGS)
def test_saved_activations_are_counted_byte_for_byte(name: str, how: str, lengths: list[int]) -> None:
    """What autograd really keeps of the backbone's forward, by storage, against the formula."""
    built = AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation="sdpa").train()
    model = tuned(built, TUNED[how])
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    batch = packed([shards.row(lengths)])
    labels = batch.pop("labels")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.base_model(**batch, use_cache=False)
    measured = sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in weights)
    tokens, several = labels.numel(), len(lengths) > 1
    work = memory.Work(memory.Batch(1, tokens, several), checkpointing=False)
    counted = memory._kept(plan_shape.shape(model), work)
    # What the head keeps, and the mask of which every layer has a copy of its own, are counted and not seen here; the
    # embeddings' ids, where they are trained, and the final norm's scale are seen and not counted.
    seen = tokens * ((8 if how == "full" else 0) + 4)
    assert measured - seen == counted - 4 * tokens * 64 - several * tokens**2


@pytest.mark.parametrize(
    ("rows", "batch", "accumulated", "more"),
    [
        (10, 3, 2, {}),
        (10, 3, 2, {"dataloader_drop_last": True}),
        (7, 8, 4, {"num_train_epochs": 2.5}),
        (9, 1, 4, {"max_steps": 5}),
    ],
)
def test_steps_are_those_the_trainer_counts(
    tiny: Path, tmp_path: Path, rows: int, batch: int, accumulated: int, more: dict[str, Any]
) -> None:
    from transformers import AutoTokenizer

    held = open_shards(shards.write(tmp_path / "s", [shards.row([8], i) for i in range(rows)], tiny))
    given = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulated, **more}
    arguments = args.make(Train(arguments=given), rows=rows, validation=False)
    arguments.output_dir = str(tmp_path / "out")
    trainer = ShardTrainer(
        model=models.load(tiny), args=arguments, data_collator=packed, train_dataset=held.train,
        processing_class=AutoTokenizer.from_pretrained(tiny),
    )  # fmt: skip
    counted = trainer.set_initial_training_values(arguments, trainer.get_train_dataloader())
    steps = plan_rows.schedule(arguments, rows)
    assert (steps["per_epoch"], steps["total"], steps["global_batch"]) == (counted[1], counted[6], counted[4])


def test_rows_are_counted_by_columns(tiny: Path, tmp_path: Path) -> None:
    made = [shards.row([5, 9], 1), shards.row([12], 2)]
    counted = plan_rows.count(open_shards(shards.write(tmp_path / "s", made, tiny)).train)
    assert counted.tokens.tolist() == [14, 12] and counted.conversations.tolist() == [2, 1]
    assert counted.trained == sum(label != -100 for row in made for label in row["labels"])
    assert counted.largest(2) == memory.Batch(1, 26, True)


def test_pairs_are_batched_as_trl_pads_them(tiny: Path) -> None:
    from datasets import Dataset
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    pairs = [{"prompt_ids": [1] * p, "chosen_ids": [2] * c, "rejected_ids": [3] * r} for p, c, r in
             ((5, 9, 4), (3, 3, 12), (7, 1, 1))]  # fmt: skip
    counted = plan_rows.count(Dataset.from_list(pairs))
    padded = DataCollatorForPreference(pad_token_id=0)(pairs)
    largest = counted.largest(3)
    assert (largest.rows, largest.length) == padded["input_ids"].shape and largest.masked
    assert counted.tokens.sum() == padded["attention_mask"].sum() and counted.trained == padded["completion_mask"].sum()


def planned(*arguments: str, recipe: str = "small.toml") -> dict[str, Any]:
    result = CliRunner().invoke(main, ["plan", recipe, *arguments, "--json"])
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    assert plan_report.lines(report)
    return report


def test_a_plan_without_a_probe_says_what_is_odd(project: Path) -> None:
    over = ("train.max_steps=3", "train.warmup_steps=5", "train.eval_steps=4", "train.gradient_accumulation_steps=8")
    report = planned("--no-probe", *(word for one in over for word in ("--set", one)))
    told = " ".join(report["models"][0]["odd"])
    for part in ("a step sees 16 rows, and there are 8", "warmup_steps makes 5", "eval_steps is 4", "3 steps, few"):
        assert part in told
    assert "probe" not in report and not Path("runs").exists()
    memory_of = report["models"][0]["memory"]
    assert memory_of["total"] == sum(v for k, v in memory_of.items() if k not in ("total", "moment"))


def test_a_probe_measures_and_keeps_nothing(project: Path) -> None:
    report = planned()
    found = report["probe"]
    assert found["peak"] > 0 and found["seconds_per_step"] >= 0 and found["tokens_per_second"] > 0
    assert not Path("runs").exists() and {p.name for p in Path("data").iterdir()} == {"shards"}


def test_several_gpus_share_a_step_and_sharding_is_not_modelled(project: Path) -> None:
    whole = ("--no-probe", "--set", "train.global_batch_size=8")
    one, two = planned(*whole)["models"][0], planned(*whole, "--gpus", "2", "--set", "train.fsdp=true")
    steps = two["models"][0]["steps"]
    assert steps["global_batch"] == one["steps"]["global_batch"] == 8
    assert two["models"][0]["work"]["accumulated"] * 2 == one["work"]["accumulated"]
    assert two["models"][0]["memory"]["buffers"] > one["memory"]["buffers"]
    assert any("sharding over GPUs is not modelled" in told for told in two["odd"])


def test_parts_follow_what_is_asked_of_them() -> None:
    shape, batch = shape_of(shapes.config("Qwen/Qwen2.5-0.5B"), Train()), memory.Batch(1, 2048, True)
    plain = memory.Work(batch, checkpointing=False)

    def at(**changes: Any) -> memory.Parts:
        return memory.peak(shape, memory.Work(**{**vars(plain), **changes}))[1]

    assert at(checkpointing=True).activations < at().activations / 5
    assert at(optimizer="adamw_bnb_8bit").optimizer < at().optimizer / 2
    assert at(reference="copy").reference == shape.weights and at(reference="base").reference == 0
    states = memory._states(shape, "adamw_bnb_8bit")
    body = shape.parameters - shape.embedding_trained
    assert states == 2 * (4 * shape.embedding_trained + body + 4 * body // 256)
    assert at(gpu=True, devices=2).total == at(gpu=True).total + shape.trained_weights


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_is_planned_at_full_size_and_as_its_stand_in(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    models.quiet()
    report = planned("--no-probe", recipe=str(recipe))
    if len(report["models"]) < 2:
        pytest.skip("the model is in the cache")
    full, small = report["models"]
    assert small["model"] == "stand-in" and full["elsewhere"] is not None
    assert full["parameters"]["all"] > 400 * small["parameters"]["all"]
    assert full["memory"]["weights"] > 10**9 * (0.9 if "lora" in full["tuning"] else 1.9)
    assert (full["memory"]["reference"] > 0) == ("dpo" in recipe.stem)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["full, packed", "lora, unpacked, checkpointing", "dpo full", "full, 8-bit Adam"])
def test_the_plan_is_within_15_percent_of_what_a_run_holds(case: str) -> None:
    """A few of the cases of benchmarks/plan.py, which has the whole grid: each a real run in a process of its own."""
    words = [sys.executable, str(ROOT / "benchmarks" / "plan.py"), "--exactly", case]
    done = subprocess.run(words, capture_output=True, text=True)
    assert "1 of 1 within 15%" in done.stdout, done.stdout + done.stderr
