"""A model shared out among processes is the model one process trains; where it cannot be shared out, that is said."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.train.test_processes import losses, qtrain, sets
from transformers import AutoModelForCausalLM, TrainingArguments
from trl import SFTConfig

from qdata.errors import QdataError
from qtrain import arguments as args
from qtrain import checkpoint, sharding, steps, tuning
from qtrain import recipe as recipes

# Six rows by two of two processes: an epoch's last step is smaller, and one process has nothing in it.
RUN = ("train.max_steps=6", "train.per_device_train_batch_size=1", "train.save_steps=2", "train.eval_steps=3",
       "train.per_device_eval_batch_size=1", "train.learning_rate=1e-2",
       'eval.prompts=["who are you"]', "eval.max_new_tokens=6")  # fmt: skip
CPU = pytest.mark.skipif(torch.cuda.is_available(), reason="shares out over gloo, on a CPU")


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this process were one of a group."""
    monkeypatch.setattr("qtrain.processes.alone", lambda: False)


def shared(name: str | None, **given: Any) -> tuple[dict[str, Any], str]:
    said: list[str] = []
    sharding.share_out(name, given, said.append)
    return given, " ".join(said)


def test_one_process_keeps_the_whole_model() -> None:
    for name in sharding.names():
        given, said = shared(name, seed=3)
        assert (
            given == {"seed": 3} and f"sharding {name} is left out: this is one process" in said and "--gpus N" in said
        )
    assert shared(None, fsdp=True, fsdp_config={"version": 2})[0] == {}
    assert shared(None, seed=3) == ({"seed": 3}, "")


@pytest.mark.usefixtures("group")
def test_deepspeed_wants_gpus_and_to_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qtrain.sharding.has_gpu", lambda: False)
    given, said = shared("zero2")
    assert given == {} and "DeepSpeed wants GPUs; on a CPU each process keeps the whole model" in said
    monkeypatch.setattr("qtrain.sharding.has_gpu", lambda: True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(QdataError, match="zero3 wants DeepSpeed: pip install deepspeed; or take fsdp"):
        shared("zero3")


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("name", sharding.names())
def test_a_file_is_what_transformers_takes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file of recipes/sharding/: keys of [train], as those read them who will; that is unverified is said."""
    monkeypatch.setattr("qtrain.sharding.has_gpu", lambda: True)
    table = sharding.read_toml(sharding.shipped(sharding.FOLDER) / f"{name}.toml")
    assert table and set(table) <= set(sharding.KEYS)
    if "deepspeed" in table and find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed")
    given, said = shared(name)
    assert "unverified on GPUs" in said and given == table
    made = SFTConfig(output_dir=str(tmp_path), use_cpu=True, activation_checkpointing=False, **given)
    sharding.settle(made)
    if "fsdp_config" in table:
        assert made.fsdp_plugin_args["fsdp_version"] == 2 and "FULL" in made.fsdp_plugin_args["state_dict_type"]
        assert bool(made.fsdp_plugin_args.get("cpu_offload")) == bool(table["fsdp_config"].get("cpu_offload"))


def test_the_keys_of_fsdp_are_those_transformers_reads() -> None:
    source = inspect.getsource(TrainingArguments._process_fsdp_args)
    assert [key for key in sharding.FSDP_KEYS if f'"{key}"' not in source] == []


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"reshard_after_foward": True}, r"fsdp_config.reshard_after_foward: no such key of FSDP2. Did you mean 'resh"),
        ({"version": 1}, "fsdp_config.version: FSDP1 is deprecated"),
        ({"state_dict_type": "SHARDED_STATE_DICT"}, "checkpoints and final/ are whole models here"),
        ({"activation_checkpointing": True}, "FSDP's own saves adapters empty"),
        ({"state_dict_type": "FULL"}, "fsdp_config: accelerate does not take it: .*FULL"),
    ],
)
def test_what_fsdp_would_do_wrong_is_refused(config: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(QdataError, match=told):
        given, _ = shared(None, fsdp=True, fsdp_config=config)
        sharding.settle(SFTConfig(output_dir=str(tmp_path), use_cpu=True, activation_checkpointing=False, **given))


def test_a_recipe_names_one_way(project: Path) -> None:
    for overrides, told in (
        (["train.sharding=fdsp"], "train.sharding: 'fdsp' is not one of fsdp,"),
        (["train.sharding=zero2", "train.fsdp=true"], "train.sharding: it is a file of such keys, and fsdp is given"),
        (["train.fsdp=true", 'train.deepspeed="a.json"'], "train.fsdp: deepspeed is given as well"),
    ):
        with pytest.raises(QdataError, match=told):
            recipes.load(Path("small.toml"), overrides)


def test_transformers_does_not_write_into_the_recipe(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fills its tables up in place, and a run that goes on would find its recipe changed."""
    monkeypatch.setattr("qtrain.processes.alone", lambda: False)
    monkeypatch.setattr("qtrain.sharding._over_gloo", lambda *_: None)
    train = recipes.load(Path("small.toml"), ["train.fsdp=true", "train.fsdp_config={version=2}"]).train
    args.make(train, rows=8, validation=True)
    assert train.arguments["fsdp_config"] == {"version": 2}


def same_weights(first: Path, second: Path, within: float) -> None:
    name = next(file.name for file in (first / "final").glob("*model.safetensors"))
    expected, got = (load_file(run / "final" / name) for run in (first, second))
    assert expected.keys() == got.keys(), "a tied head is written once"
    for key, tensor in expected.items():
        # Attention does not see a key's bias: its gradient is rounding alone, which Adam brings to full size.
        if not key.endswith("k_proj.bias"):
            assert (got[key] - tensor).norm() <= within * tensor.norm(), key


def compare(first: Path, second: Path) -> None:
    """The same run but for rounding: weights, logged losses, the rows of each step, answers on the way."""
    same_weights(first, second, 1e-5)
    assert [key for key, _ in losses(second)] == [key for key, _ in losses(first)]
    assert [x for _, x in losses(second)] == pytest.approx([x for _, x in losses(first)], rel=1e-5)
    one, two = (steps.read(run / steps.FILE) for run in (first, second))
    assert [sorted(step["rows"]) for step in two] == [sorted(step["rows"]) for step in one]
    for ours, theirs in zip(two, one, strict=True):
        assert ours["sources"].keys() == theirs["sources"].keys()
        for source, sums in theirs["sources"].items():
            assert ours["sources"][source] == pytest.approx(sums, rel=1e-5)
    assert (second / "samples.jsonl").read_text("utf-8") == (first / "samples.jsonl").read_text("utf-8")


@CPU
@pytest.mark.slow
@pytest.mark.parametrize("way", ["full", "lora", "qlora"])
def test_fsdp_over_gloo_is_one_process(project: Path, way: str) -> None:
    """FSDP2 on two processes: every number within 1e-5, final/ is a whole model, a stopped run goes on to the byte."""
    words = sets(*RUN, f"train.tuning={way}")
    one = qtrain("small.toml", "--output", "one", *words, *sets("train.gradient_accumulation_steps=4"))
    assert one.returncode == 0, one.stderr
    words = ["small.toml", "--output", "two", "--processes", "2", *words]
    words += sets("train.gradient_accumulation_steps=2", "train.sharding=fsdp")
    two = qtrain(*words)
    assert two.returncode == 0, two.stderr
    assert "sharding fsdp: among 2 processes" in two.stderr
    (first,), (second,) = Path("one/small").iterdir(), Path("two/small").iterdir()
    compare(first, second)
    count = "trainable parameters: "
    assert [out.partition(count)[2].splitlines()[0] for out in (one.stderr, two.stderr)].count(
        one.stderr.partition(count)[2].splitlines()[0]
    ) == 2, "4-bit weights are counted alike, whatever they are stored in"
    if way == "full":
        AutoModelForCausalLM.from_pretrained(second / "final")

    weights = next((second / "final").glob("*model.safetensors"))
    before = weights.read_bytes()
    for gone in ("final", "checkpoint-6"):
        (second / gone).rename(project / gone)
    again = qtrain(*words)
    assert again.returncode == 0 and "goes on at step 4 of 6" in " ".join(again.stderr.split()), again.stderr
    assert weights.read_bytes() == before


@CPU
@pytest.mark.slow
def test_fsdp_keeps_the_best_and_freezes(project: Path) -> None:
    """Early stopping loads a checkpoint back into shared-out weights, some of which are frozen."""
    words = (*RUN[:3], "train.eval_steps=2", "train.learning_rate=1e-1", "train.tuning=freeze",
             'train.freeze={train=["layers.1"]}', "train.early_stopping_patience=1", "train.max_steps=40")  # fmt: skip
    done = qtrain("small.toml", "--processes", "2", "--json", *sets(*words, "train.sharding=fsdp"))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)["result"]
    (run,) = Path("runs/small").iterdir()
    best, final = (
        load_file(run / place / "model.safetensors") for place in (f"checkpoint-{result['best_step']}", "final")
    )
    assert result["best_step"] < result["steps"] and all(torch.equal(best[key], final[key]) for key in final)
    assert checkpoint.flaw(run / "final") is None


@CPU
@pytest.mark.slow
def test_fsdp_of_one_process_is_no_fsdp(project: Path) -> None:
    """torchrun with one process, as on a machine with one GPU: to the byte."""
    assert qtrain("small.toml", "--output", "one").returncode == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=1", "--standalone"]
    words = ["-m", "qtrain", "small.toml", "--output", "alone", *sets("train.sharding=fsdp")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launcher, *words], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "sharding fsdp: among 1 process" in done.stderr, done.stderr
    (first,), (second,) = Path("one/small").iterdir(), Path("alone/small").iterdir()
    same_weights(first, second, 0.0)


@CPU
@pytest.mark.slow
@pytest.mark.skipif(find_spec("deepspeed") is None, reason="deepspeed is not installed")
@pytest.mark.parametrize(("name", "way"), [("zero2", "full"), ("zero2", "lora"), ("zero3", "full")])
def test_deepspeed_over_gloo_is_one_process(project: Path, name: str, way: str) -> None:
    words = sets(*RUN, f"train.tuning={way}")
    one = qtrain("small.toml", "--output", "one", *words, *sets("train.gradient_accumulation_steps=4"))
    assert one.returncode == 0, one.stderr
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    launcher += ["-m", "tests.train.zero_on_cpu", "small.toml", "--output", "two", *words]
    launcher += sets("train.gradient_accumulation_steps=2", f"train.sharding={name}")
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (environment.get("PYTHONPATH"), root)))
    two = subprocess.run(launcher, capture_output=True, text=True, env=environment)
    assert two.returncode == 0, two.stderr
    (first,), (second,) = Path("one/small").iterdir(), Path("two/small").iterdir()
    compare(first, second)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.slow
@pytest.mark.parametrize("way", ["full", "qlora"])
def test_fsdp_of_one_gpu(project: Path, way: str) -> None:
    """What can be run of FSDP over NCCL where there is one GPU: it starts, trains, saves and goes on."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=1", "--standalone"]
    words = ["-m", "qtrain", "small.toml", *sets("train.sharding=fsdp", f"train.tuning={way}")]
    done = subprocess.run([*launcher, *words], capture_output=True, text=True)
    assert done.returncode == 0 and "sharding fsdp: among 1 process" in done.stderr, done.stderr


def test_the_bits_of_qlora_are_stored_as_what_is_gathered(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FSDP casts floats to the autocast's type as it gathers them; what is stored as that type stays as it is."""
    from types import SimpleNamespace

    from qtrain.start import Start

    pytest.importorskip("bitsandbytes")
    seen: dict[str, Any] = {}
    monkeypatch.setattr("qtrain.model.load", lambda *_, **how: seen.update(how) or torch.nn.Linear(1, 1))
    train = recipes.Train(tuning="qlora")
    start: Any = Start(tiny, "m", SimpleNamespace(), train)  # type: ignore[arg-type]
    for bf16, fsdp, wanted in ((True, True, "bfloat16"), (False, True, "float32"), (True, None, "uint8")):
        how: Any = SimpleNamespace(bf16=bf16, fp16=False, fsdp=fsdp, deepspeed=None)
        tuning.load(start, recipes.Model(name="m", dtype="float32"), how, print)
        assert str(seen["quantization_config"].bnb_4bit_quant_storage) == f"torch.{wanted}"
