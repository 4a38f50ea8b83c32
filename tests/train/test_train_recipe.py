"""A recipe is checked whole before anything heavy happens; muice.toml is the original run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from qdata.errors import QdataError
from qtrain import recipe as recipes
from qtrain import run

MUICE = Path(__file__).parents[2] / "recipes" / "muice.toml"
MINIMAL = '[data]\nsources = ["a.jsonl"]\n[model]\nname = "m"\n'


def load(tmp_path: Path, text: str, *overrides: str) -> recipes.TrainRecipe:
    path = tmp_path / "r.toml"
    path.write_text(text, encoding="utf-8")
    return recipes.load(path, overrides)


def test_all_mistakes_of_all_tables_are_told_at_once(tmp_path: Path) -> None:
    text = """
    [data]
    sauces = ["a.jsonl"]
    [model]
    nmae = "m"
    [train]
    learning_rat = 1e-5
    max_length = 1024
    num_train_epochs = "five"
    tuning = "lorra"
    lora = { rank = 8 }
    [stand_in]
    hidden_size = 190
    vocab_size = 100_000
    [stand_in.train]
    packing = true
    [trian]
    """
    with pytest.raises(QdataError) as caught:
        load(tmp_path, text)
    told = str(caught.value)
    for wanted in (
        "12 mistakes",
        "trian: no such table. Did you mean 'train'?",
        "data.sauces: no such key. Did you mean 'sources'?",
        "model.nmae: no such key. Did you mean 'name'?",
        "model: wanted exactly one of name, config_from, from_run, got none",
        "train.learning_rat: no such key. Did you mean 'learning_rate'",
        "train.max_length: not taken here: answers are never cut; [data] max_length drops longer rows",
        "train.num_train_epochs: wanted a number, got 'five'",
        "train.tuning: 'lorra' is not one of 'full', 'lora'",
        "train.lora.rank: no such key",
        "stand_in.hidden_size: must be a multiple of 2 × num_attention_heads",
        "stand_in.vocab_size: wanted 300 to 8000",
        "stand_in.train.packing: not taken here: shards are packed once, by [data] pack",
    ):
        assert wanted in told


def test_only_the_stand_in_changes_training(tmp_path: Path) -> None:
    text = MINIMAL + "[train]\nlearning_rate = 1e-5\nseed = 7\n[stand_in]\n[stand_in.train]\nlearning_rate = 2e-3\n"
    loaded = load(tmp_path, text)
    assert loaded.train.arguments == {"learning_rate": 1e-5, "seed": 7}
    assert loaded.stand_in_train.arguments == {"learning_rate": 2e-3, "seed": 7}
    with pytest.raises(QdataError, match=r"model\.train: no such key"):
        load(tmp_path, MINIMAL + "[model.train]\nlearning_rate = 1\n")


def test_overrides_are_checked_like_the_file(tmp_path: Path) -> None:
    assert load(tmp_path, MINIMAL, "train.learning_rate=2e-5").train.arguments == {"learning_rate": 2e-5}
    assert load(tmp_path, MINIMAL, "train.lora.r=4").train.lora.r == 4
    with pytest.raises(QdataError, match="Did you mean 'warmup_steps'"):
        load(tmp_path, MINIMAL, "train.warmup_step=1")
    with pytest.raises(QdataError, match="a value below 1 is a ratio"):
        load(tmp_path, MINIMAL, "train.warmup_ratio=0.1")


def test_every_refused_key_is_one_somebody_could_write() -> None:
    """A refusal of a key TRL does not know any more would only hide the did-you-mean."""
    from trl import SFTConfig

    gone = {"warmup_ratio", "group_by_length", "logging_dir"}  # of earlier versions, still in every tutorial
    assert {key for key in recipes.REFUSED if key not in SFTConfig.__dataclass_fields__} == gone


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        # docs/recipes.md, part 1, the ms-swift run
        ("model.name", "Qwen/Qwen2-1.5B-Instruct"),
        ("train.tuning", "full"),
        ("train.arguments.num_train_epochs", 5),
        ("train.arguments.learning_rate", 1e-5),
        ("train.arguments.warmup_steps", 0.05),
        ("train.arguments.per_device_train_batch_size", 1),
        ("train.arguments.gradient_accumulation_steps", 4),
        ("data.max_length", 40960),
        ("train.arguments.eval_strategy", "steps"),
        ("train.arguments.save_strategy", "steps"),
        ("train.arguments.eval_steps", 20),
        ("train.arguments.save_steps", 50),
        ("train.arguments.save_total_limit", 5),
        ("train.arguments.logging_steps", 5),
        ("train.arguments.bf16", True),
        ("data.default_system", "你是一个名为沐雪的可爱AI女孩子"),
        ("data.placeholders.name", "沐雪"),
        ("data.template", "qwen2"),
    ],
)
def test_muice_is_the_original_run(address: str, wanted: Any) -> None:
    value: Any = recipes.load(MUICE)
    for part in address.split("."):
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    assert value == wanted


def test_muice_trains_four_files_and_holds_a_fifth_apart() -> None:
    """Each file of the original once, and none twice to please the demo."""
    data = recipes.load(MUICE).data
    files = [file for source in data.sources for file in source.files]
    assert files == ["train.jsonl", "ruozhiba.jsonl", "self_cognition.jsonl", "wikihow.jsonl"]
    assert [file for source in data.validation for file in source.files] == ["validation.jsonl"]
    assert {source.path for source in (*data.sources, *data.validation)} == {"muice"}


def test_a_recipe_survives_being_written_down(tmp_path: Path) -> None:
    loaded = recipes.load(MUICE, ["train.seed=3", 'data.steps=[{step="x", words=["a", "\\u007f\\n"]}]'])
    again = load(tmp_path, run.as_toml(loaded.table))
    assert again.table == loaded.table
    assert again.data == loaded.data


@pytest.mark.parametrize(("name", "epochs"), [("meissa-system", 1), ("meissa-roleplay", 2)])
def test_meissas_stages_are_as_they_were(name: str, epochs: int) -> None:
    """The hyper-parameters of the original run: adapters on a base of 4 bits, which FSDP shares out among the GPUs."""
    loaded = recipes.load(MUICE.with_name(f"{name}.toml"))
    assert loaded.model.name == "Qwen/Qwen2.5-14B-Instruct"
    lora = loaded.train.lora
    assert (loaded.train.tuning, lora.r, lora.lora_alpha, lora.target_modules) == ("qlora", 32, 64, "all-linear")
    assert loaded.train.sharding == "fsdp"
    wanted = {"num_train_epochs": epochs, "learning_rate": 1e-5, "lr_scheduler_type": "cosine", "warmup_steps": 0.1}
    wanted |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 16, "max_grad_norm": 1.0, "fp16": True}
    assert {key: loaded.train.arguments[key] for key in wanted} == wanted
    assert loaded.data.val and loaded.stand_in is not None and loaded.stand_in_train.tuning == "full"
    (step,) = loaded.data.steps
    assert step["text"] == loaded.data.default_system


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("learning_rate = -1e-4", "train.learning_rate: wanted a number above 0, got -0.0001"),
        ("learning_rate = 0", "train.learning_rate: wanted a number above 0, got 0"),
        ("num_train_epochs = 0", "train.num_train_epochs: wanted a number above 0"),
        ("max_steps = 0", "train.max_steps: wanted the number of optimiser steps, or -1"),
        ("global_batch_size = -8", "train.global_batch_size: wanted a number above 0"),
        ("weight_decay = -0.1", "train.weight_decay: wanted 0 or more"),
        ("fp16 = true\nbf16 = true", "train.fp16: bf16 = true is given as well"),
    ],
)
def test_what_trl_takes_and_nobody_means(tmp_path: Path, keys: str, told: str) -> None:
    """Said of the recipe, on any machine, before rows are rendered."""
    with pytest.raises(QdataError, match=re.escape(told)):
        load(tmp_path, f"{MINIMAL}[train]\n{keys}\n")
