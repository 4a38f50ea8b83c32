"""What is trained changes and nothing else does; what is saved says the same when it is loaded, merged or not."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from rich.console import Console
from tests.train.shards import row, write
from transformers import AutoModelForCausalLM

from qdata.errors import QdataError
from qtrain import arguments as args
from qtrain import model as models
from qtrain import recipe as recipes
from qtrain import train as road
from qtrain import tuning
from qtrain.data import open_shards, packed
from qtrain.recipe import Freeze, Lora, Model, Train
from qtrain.sft import ShardTrainer
from qtrain.start import Start

ROWS = [row([7, 3]), row([20]), row([4]), row([11, 2, 6]), row([9]), row([15, 5]), row([8]), row([6, 6])]
IDS = [5, 9, 77, 120]
PLAIN = {"max_steps": 3, "learning_rate": 1e-2, "logging_steps": 1, "save_strategy": "no", "seed": 3}


def trained(tiny: Path, tmp_path: Path, train: Train, model: Model | None = None, **arguments: Any) -> Any:
    """A trainer after three steps on `ROWS`; `.before` holds the weights it began with, `.seal` finishes an adapter."""
    shards = open_shards(write(tmp_path / f"shards{len(list(tmp_path.iterdir()))}", ROWS, tiny))
    train = dataclasses.replace(train, arguments={**PLAIN, **arguments})
    start = Start(tiny, str(tiny), None, train)  # type: ignore[arg-type]
    made = args.make(train, rows=len(ROWS), validation=False)
    made.output_dir = str(tmp_path / "run")
    models.quiet()
    weights = tuning.load(start, model or Model(name=str(tiny)), made, print)
    tokenizer = road.tokenizer_of(shards, weights, start)
    shards = dataclasses.replace(shards, manifest={"template": {"stop": "<|im_end|>"}})
    trainer = road.trainer_of(weights, train, made, shards, tokenizer, print)
    trainer.seal = tuning.Sealer(trainer.model, train.lora) if train.tuning in recipes.ADAPTERS else None
    trainer.before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    return trainer


def changed(trainer: Any) -> set[str]:
    now = dict(trainer.model.named_parameters())
    return {name for name, before in trainer.before.items() if not torch.equal(before, now[name].detach())}


def saved(trainer: Any, base: Path, folder: Path) -> Path:
    """The adapter as a run leaves it."""
    trainer.save_model(str(folder))
    trainer.seal(folder)
    models.name_base(folder, str(base))
    return folder


def logits(model: Any, ids: list[int] = IDS) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([ids]), use_cache=False).logits.float()


# --- freeze


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        (Freeze(train=(r"layers.1",)), r"model\.layers\.1\."),
        (Freeze(train=("q_proj", "norm")), r"q_proj|model\.norm\."),
        (Freeze(freeze=("embed_tokens", "layers.[0-9]")), r"model\.norm\."),
        (Freeze(train=("lm_head",)), r"embed_tokens"),  # tied: one weight, two names
        (Freeze(freeze=("lm_head",)), r"layers|model\.norm"),
    ],
    ids=str,
)
def test_freeze_trains_exactly_what_it_says(tiny: Path, tmp_path: Path, spec: Freeze, wanted: str) -> None:
    trainer = trained(tiny, tmp_path, Train(tuning="freeze", freeze=spec))
    assert changed(trainer) == {name for name in trainer.before if re.search(wanted, name)}


def test_a_layer_is_not_its_tenfold() -> None:
    model = torch.nn.ModuleDict({"layers": torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(25))})
    tuning.freeze(model, Freeze(train=("layers.2",)), print)
    assert tuning.trained(model) == "2 tensors: layers.2.weight, layers.2.bias"
    tuning.freeze(model, Freeze(train=("layers.2[0-3]",)), print)
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert names == {f"layers.{i}.{part}" for i in (20, 21, 22, 23) for part in ("weight", "bias")}
    assert tuning.trained(model).startswith("8 tensors: layers.20.weight, ") and "… layers.23.bias" in tuning.trained(
        model
    )


def test_patterns_that_fit_nothing_are_told(tiny: Path) -> None:
    model = models.load(tiny)
    for spec, told in (
        (Freeze(train=("q_prj",)), r"'q_prj' matches no module. Did you mean 'q_proj'"),
        (Freeze(freeze=("layers.7",)), "matches no module"),
        (Freeze(freeze=("model",)), "is every weight: use tuning = full"),
        (Freeze(train=("(",)), "no regular expression"),
    ):
        with pytest.raises(QdataError, match=told):
            tuning.freeze(model, spec, print)
    said: list[str] = []
    tuning.freeze(model, Freeze(train=("lm_head",)), said.append)
    assert said == [
        "one weight under two names, model.embed_tokens.weight and lm_head.weight: trained, or frozen, together"
    ]


# --- lora


@pytest.fixture(scope="session")
def untied(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny` with an output layer of its own."""
    folder = tmp_path_factory.mktemp("models") / "untied"
    shutil.copytree(tiny, folder)
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config))
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    weight = model.lm_head.weight.detach().clone()
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(weight)
    model.save_pretrained(folder)
    return folder


LORAS = [
    Lora(r=4),
    Lora(r=4, target_modules=("q_proj", "down_proj"), use_rslora=True),
    Lora(r=4, target_modules=r".*\.1\.mlp\.(up|down)_proj"),
    Lora(r=4, use_dora=True, init_lora_weights="gaussian"),
    Lora(r=4, init_lora_weights="pissa"),
    Lora(r=4, init_lora_weights="pissa_niter_4", use_rslora=True),
    Lora(r=4, init_lora_weights="olora"),
]


def kind(lora: Lora) -> str:
    return f"{lora.init_lora_weights}-{lora.target_modules}-{'rs' * lora.use_rslora}{'dora' * lora.use_dora}"


@pytest.mark.parametrize("lora", LORAS, ids=kind)
def test_adapters_change_alone_and_merge_as_they_speak(tiny: Path, tmp_path: Path, lora: Lora) -> None:
    trainer = trained(tiny, tmp_path, Train(tuning="lora", lora=lora))
    moved = changed(trainer)
    assert moved and all("lora_" in name for name in moved)
    live = logits(trainer.model)
    folder = saved(trainer, tiny, tmp_path / "adapter")
    torch.testing.assert_close(logits(models.for_inference(folder)), live, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits(models.load(folder)), live, atol=1e-5, rtol=1e-5)
    assert (live - logits(models.load(tiny))).abs().max() > 1e-3, "the adapter did nothing"


@pytest.mark.parametrize("start", [True, "pissa", "pissa_niter_4", "olora"])
def test_a_saved_adapter_can_be_trained_on(tiny: Path, tmp_path: Path, start: bool | str) -> None:
    train = Train(tuning="lora", lora=Lora(r=4, init_lora_weights=start))
    trainer = trained(tiny, tmp_path, train)
    live = logits(trainer.model)
    folder = saved(trainer, tiny, tmp_path / "adapter")
    again = trained(tiny, tmp_path, train, max_steps=1)
    assert not torch.allclose(logits(again.model), live, atol=1e-3)
    again.seal.restore(folder)
    assert torch.equal(logits(again.model), live), "bit for bit"
    if start is not True:
        again.seal.first = {name: tensor + 1e-3 for name, tensor in again.seal.first.items()}
        with pytest.raises(QdataError, match=f"{start} splits the base otherwise on this machine"):
            again.seal.restore(folder)


@pytest.mark.parametrize(
    "how", [{}, {"use_dora": True, "use_rslora": True}, {"init_lora_weights": "pissa"}, {"init_lora_weights": "olora"}],
    ids=str,
)  # fmt: skip
def test_modules_trained_whole_are_saved_with_an_adapter(untied: Path, tmp_path: Path, how: dict[str, Any]) -> None:
    lora = Lora(r=4, modules_to_save=("lm_head", "norm"), **how)
    trainer = trained(untied, tmp_path, Train(tuning="lora", lora=lora))
    assert any("modules_to_save" in name and "lm_head" in name for name in changed(trainer))
    live = logits(trainer.model)
    folder = saved(trainer, untied, tmp_path / "adapter")
    torch.testing.assert_close(logits(models.for_inference(folder)), live, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits(models.load(folder)), live, atol=1e-5, rtol=1e-5)


def test_an_adapter_on_an_adapter_stands_on_both(tiny: Path, tmp_path: Path) -> None:
    first = saved(trained(tiny, tmp_path, Train(tuning="lora")), tiny, tmp_path / "first")
    trainer = trained_from(first, tiny, tmp_path, Train(tuning="lora"))
    live = logits(trainer.model)
    second = saved(trainer, first, tmp_path / "second")
    torch.testing.assert_close(logits(models.load(second)), live, atol=1e-5, rtol=1e-5)


def trained_from(folder: Path, tiny: Path, tmp_path: Path, train: Train) -> Any:
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tiny / file, folder / file)
    return trained(folder, tmp_path, train)


@pytest.mark.parametrize(
    ("lora", "told"),
    [
        (Lora(target_modules=("q_proj", "vproj")), "no module is called 'vproj'. Did you mean 'v_proj'"),
        (
            Lora(target_modules="q_proj"),
            r"'q_proj' matches no layer. A text is a regular expression.*Did you mean 'q_proj'",
        ),
        (Lora(target_modules=".*(_proj"), "no regular expression"),
        (Lora(target_modules=("lm_head",)), "train it whole: modules_to_save"),
        (Lora(modules_to_save=("lm_head",)), "one weight .*which no adapter can save"),
        (Lora(modules_to_save=("embed_token",)), "no module is called 'embed_token'. Did you mean 'embed_tokens'"),
    ],
    ids=lambda case: str(case)[:40],
)
def test_patterns_of_adapters_are_checked_against_the_model(tiny: Path, lora: Lora, told: str) -> None:
    with pytest.raises(QdataError, match=told):
        tuning.peft_config(lora, models.load(tiny))


def test_our_lora_is_pefts() -> None:
    assert {f.name for f in dataclasses.fields(Lora)} <= {f.name for f in dataclasses.fields(LoraConfig)}


def test_a_base_in_bfloat16_has_adapters_in_float32(tiny: Path, tmp_path: Path) -> None:
    trainer = trained(tiny, tmp_path, Train(tuning="lora"), Model(name=str(tiny), dtype="bfloat16"))
    kinds = {(p.requires_grad, p.dtype) for p in trainer.model.parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}
    assert all("lora_" in name for name in changed(trainer))


# --- qlora


def test_qlora_learns_over_a_base_of_four_bits(tiny: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    trainer = trained(tiny, tmp_path, Train(tuning="qlora", lora=Lora(r=4)), max_steps=15)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] - 0.1
    assert all("lora_" in name for name in changed(trainer))
    assert {p.dtype for p in trainer.model.parameters() if p.requires_grad} == {torch.float32}
    assert {type(m).__name__ for n, m in trainer.model.named_modules() if n.endswith("base_layer")} == {"Linear4bit"}
    adapter, every = models.parameters(trainer.model)
    assert every - adapter == models.parameters(models.load(tiny))[1]
    quantised = logits(trainer.model)
    trainer.model.train()(**packed(ROWS), use_cache=False).loss.backward()
    assert all(p.grad.any() for name, p in trainer.model.named_parameters() if "lora_B" in name), "after an evaluation"
    folder = saved(trainer, tiny, tmp_path / "adapter")
    merged, unmerged = logits(models.load(folder)), logits(models.for_inference(folder))
    torch.testing.assert_close(merged, unmerged, atol=1e-5, rtol=1e-5)  # both on the base in full precision
    base = logits(models.load(tiny))
    assert (merged - quantised).norm() < (merged - base).norm(), "what was learnt outweighs the quantisation"
    # Merged onto what the four bits stand for it is what was trained: all the difference is the base's rounding.
    torch.testing.assert_close(logits(merged_onto_four_bits(trainer, tiny, folder)), quantised, atol=1e-4, rtol=1e-4)


def merged_onto_four_bits(trainer: Any, tiny: Path, adapter: Path) -> Any:
    """The adapter merged onto the base that was under it in training, dequantised layer by layer."""
    from bitsandbytes.functional import dequantize_4bit
    from peft import PeftModel

    base = models.load(tiny)
    for name, module in trainer.model.named_modules():
        if name.endswith(".base_layer"):
            weight = dequantize_4bit(module.weight.data, module.weight.quant_state)
            plain = base.get_submodule(name.removeprefix("base_model.model.").removesuffix(".base_layer"))
            assert not torch.equal(plain.weight, weight)
            plain.weight.data = weight.float()
    return PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()


def test_without_bitsandbytes_a_sentence_says_what_to_install(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(QdataError, match=r"tuning = qlora wants bitsandbytes: pip install"):
        trained(tiny, tmp_path, Train(tuning="qlora"))
    for optim in ("adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit", "lion_8bit"):
        with pytest.raises(QdataError, match=f"optim = {optim} wants bitsandbytes"):
            args.make(Train(arguments={"optim": optim}), rows=8, validation=False)


def test_an_optimiser_of_eight_bits_trains(tiny: Path, tmp_path: Path) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    trainer = trained(tiny, tmp_path, Train(), optim="adamw_8bit")
    assert isinstance(trainer.optimizer.optimizer, bitsandbytes.optim.AdamW)
    assert len(changed(trainer)) == len(trainer.before)


# --- arguments


def test_noise_on_embeddings_is_trls(tiny: Path, tmp_path: Path) -> None:
    losses = []
    for noise in (None, None, 5.0):
        extra = {} if noise is None else {"neftune_noise_alpha": noise}
        losses.append(trained(tiny, tmp_path, Train(), max_steps=1, **extra).state.log_history[0]["loss"])
    assert losses[0] == losses[1] != losses[2]


def test_the_global_batch_is_one_however_it_is_cut(tiny: Path, tmp_path: Path) -> None:
    """1 × 8 accumulated = 8 × 1, in float32 to 1e-5 of the loss and 1e-6 of a weight after a step of plain SGD."""
    plain = {"max_steps": 1, "optim": "sgd", "max_grad_norm": 0.0, "warmup_steps": 0}
    runs = [
        trained(tiny, tmp_path, Train(global_batch_size=8), per_device_train_batch_size=n, **plain) for n in (1, 2, 8)
    ]
    assert [run.args.gradient_accumulation_steps for run in runs] == [8, 4, 1]
    first = runs[0]
    for run in runs[1:]:
        assert run.state.log_history[0]["loss"] == pytest.approx(first.state.log_history[0]["loss"], rel=1e-5)
        for mine, its in zip(first.model.parameters(), run.model.parameters(), strict=True):
            torch.testing.assert_close(mine, its, atol=1e-6, rtol=1e-5)


def test_batch_keys_that_contradict_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(rows: int, **given: int) -> Any:
        made = args.make(Train(global_batch_size=rows, arguments=given), rows=1000, validation=False)
        return made.per_device_train_batch_size, made.gradient_accumulation_steps

    assert make(16) == (8, 2) and make(7) == (7, 1) and make(22) == (2, 11)
    assert make(16, gradient_accumulation_steps=4) == (4, 4)
    assert make(16, per_device_train_batch_size=2, gradient_accumulation_steps=8) == (2, 8)
    for wrong in (
        {"per_device_train_batch_size": 3},
        {"per_device_train_batch_size": 32},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
        {"gradient_accumulation_steps": 5},
    ):
        with pytest.raises(QdataError, match="global_batch_size = 16, with"):
            make(16, **wrong)
    assert args.batch(16, {}, devices=4) == {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
    with pytest.raises(QdataError, match="global_batch_size = 6, with 4 devices: wanted a multiple of that"):
        args.batch(6, {}, devices=4)


@pytest.mark.parametrize(
    ("step", "rows", "told"),
    [(4, 3000, "will swing"), (4, 1500, None), (32, 100_000, None), (64, 40, "there are 40"), (40, 40, None)],
)
def test_odd_batches_are_told(step: int, rows: int, told: str | None) -> None:
    said: list[str] = []
    args.make(Train(global_batch_size=step), rows=rows, validation=False, say=said.append)
    assert len(said) == bool(told) and (told or "") in "".join(said)


def test_an_older_card_computes_in_float16_without_flash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: including_emulation)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: (7, 5))
    said: list[str] = []
    assert args.precision({"bf16": True}, said.append) == {"bf16": False, "fp16": True}
    assert "this card has no bfloat16" in said[0]
    assert tuning.backend("flash_attention_2") == "sdpa" and tuning.backend("eager") == "eager"
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: True)
    assert args.precision({}, said.append) == {"bf16": True, "fp16": False}
    assert args.precision({"fp16": True}, said.append) == {"bf16": False, "fp16": True}


# --- what a recipe may say


def load(tmp_path: Path, model: str, train: str) -> recipes.TrainRecipe:
    path = tmp_path / "r.toml"
    path.write_text(f'[data]\nsources = ["a.jsonl"]\n[model]\n{model}\n[train]\n{train}\n', encoding="utf-8")
    return recipes.load(path)


NAME = 'name = "m"\n'


@pytest.mark.parametrize(
    ("model", "train", "told"),
    [
        ("", "", "wanted exactly one of name, config_from, from_run, got none"),
        (NAME + 'from_run = "runs/x"', "", "got name and from_run"),
        (NAME + "config = { hidden_size = 8 }", "", "goes with config_from only"),
        ('config_from = "m"', 'tuning = "lora"', "random weights want full or freeze"),
        (NAME + 'dtype = "bfloat16"', "learning_rate = 1e-5", "a learning rate of 5e-05 or more, and it is 1e-05"),
        (NAME + 'dtype = "bfloat16"', 'stage = "dpo"', "and it is 1e-06"),
        (NAME + 'dtype = "float16"', "", "float16 weights cannot be trained"),
        (NAME + 'attn_implementation = "paged|sdpa"', "", "'paged|sdpa' is not known to keep the neighbours of"),
        (NAME, 'tuning = "qlora"\nlora = { init_lora_weights = "pissa" }', "does not go with qlora"),
        (NAME, 'tuning = "lora"\nlora = { init_lora_weights = "pissa", use_dora = true }', "does not go with use_dora"),
        (NAME, 'tuning = "lora"\nlora = { init_lora_weights = "pisa" }', "Did you mean 'pissa'"),
        (NAME, 'tuning = "lora"\nlora = { rank_pattern = { a = 1 } }', "train.lora.rank_pattern: no such key"),
        (NAME, 'tuning = "freeze"', "wants exactly one of train"),
        (NAME, 'freeze = { train = ["lm_head"] }', 'does nothing with tuning = full; set tuning = "freeze"'),
        (NAME, "beta = 0.2", "train.beta: no such key"),
        (NAME, 'stage = "dpo"\nneftune_nois_alpha = 1', "Did you mean 'neftune_noise_alpha'"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(tmp_path: Path, model: str, train: str, told: str) -> None:
    with pytest.raises(QdataError) as caught:
        load(tmp_path, model, train)
    assert told in str(caught.value)


def test_what_can_be_meant_is_taken(tmp_path: Path) -> None:
    stand_in = load(
        tmp_path, NAME, 'tuning = "freeze"\nfreeze.train = ["x"]\n[stand_in]\n[stand_in.train]\ntuning = "full"'
    )
    assert (stand_in.train.tuning, stand_in.stand_in_train.tuning) == ("freeze", "full")
    load(tmp_path, NAME + 'dtype = "bfloat16"', "learning_rate = 1e-4")
    load(tmp_path, NAME + 'dtype = "bfloat16"', 'tuning = "lora"\nlearning_rate = 1e-5')
    dpo = load(tmp_path, NAME, 'stage = "dpo"\nbeta = 0.2\nloss_type = ["sigmoid"]\nprecompute_ref_log_probs = true')
    assert dpo.train.arguments["beta"] == 0.2


# --- from scratch, from a run


def go(*overrides: str) -> tuple[Path, str]:
    out = io.StringIO()
    report = road.train(recipes.load(Path("small.toml"), overrides), Path("runs"), Console(file=out, width=200))
    return Path(report["run"]), out.getvalue()


def from_scratch(tiny: Path, **config: int) -> None:
    text = Path("small.toml").read_text(encoding="utf-8").replace("\nname =", "\nconfig_from =")
    table = ", ".join(f"{key} = {value}" for key, value in config.items())
    text = text.replace("[train]\n", f"config = {{ {table} }}\n[train]\n").replace(
        "[data]\n", f'[data]\ntokenizer = "{tiny}"\n'
    )
    Path("small.toml").write_text(text, encoding="utf-8")


def test_random_weights_in_the_shape_of_a_config_then_a_second_stage(project: Path, tiny: Path) -> None:
    shape = shutil.copytree(tiny, project / "shape", ignore=lambda *_: {"model.safetensors"})
    from_scratch(tiny, num_hidden_layers=3, hidden_size=16)
    frozen = ("train.max_steps=1", f"model.config_from={shape}", "train.tuning=freeze", 'train.freeze.train=["norm"]')
    runs = [go(*frozen, f"train.seed={seed}")[0] for seed in (1, 1, 2)]
    one, same, other = (models.load(run / "final") for run in runs)
    assert (one.config.num_hidden_layers, one.config.hidden_size) == (3, 16)
    weights = [model.model.embed_tokens.weight for model in (one, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])

    text = Path("small.toml").read_text(encoding="utf-8")
    Path("next.toml").write_text(re.sub(r"(?s)\[model\].*\[train\]", '[model]\nfrom_run = "runs/small"\n[train]', text))
    out = io.StringIO()
    chained = recipes.load(Path("next.toml"), ("train.tuning=lora", "train.max_steps=1"))
    report = road.train(chained, Path("runs"), Console(file=out, width=200))
    adapter = json.loads((Path(report["model"]) / "adapter_config.json").read_text(encoding="utf-8"))
    assert adapter["base_model_name_or_path"] == (runs[2] / "final").as_posix(), "the newest run"
    third = recipes.load(Path("next.toml"), ("model.from_run=runs/next", "train.max_steps=1"))
    report = road.train(third, Path("runs"), Console(file=out, width=200))
    assert (Path(report["model"]) / "model.safetensors").is_file(), "whole weights, on the merged adapter"
    with pytest.raises(QdataError, match="no such run or model folder"):
        road.train(recipes.load(Path("next.toml"), ("model.from_run=runs/nxt",)), Path("runs"), Console(file=out))


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"hiden_size": 8}, "qwen2 has no such key. Did you mean 'hidden_size'"),
        ({"hidden_size": 34}, r"hidden_size \(34\) must be a multiple of num_attention_heads \(4\)"),
        ({"num_key_value_heads": 3}, r"num_attention_heads \(4\) must be a multiple of num_key_value_heads \(3\)"),
        ({"hidden_size": 20}, r"head_dim \(5\) must be even"),
        ({"vocab_size": 100}, r"has \d+ ids, the model only 100: give \[model\] config.vocab_size"),
    ],
    ids=str,
)
def test_shapes_that_no_model_has_are_refused(project: Path, tiny: Path, config: dict[str, int], told: str) -> None:
    from_scratch(tiny, **config)
    with pytest.raises(QdataError, match=told):
        go()
    assert not Path("runs").exists()


def test_rows_of_another_kind_are_refused(tmp_path: Path) -> None:
    from qtrain.data import fits

    shards = open_shards(write(tmp_path / "shards", ROWS))
    fits(shards, "sft")
    with pytest.raises(
        QdataError, match=r"rows of kind chat, and \[train\] stage = dpo wants preference; they are for stage = sft"
    ):
        fits(shards, "dpo")
    fits(open_shards(write(tmp_path / "text", ROWS, kind="text")), "pt")


def test_plain_text_takes_the_road_of_conversations(tiny: Path, tmp_path: Path) -> None:
    trainers = [trained(tiny, tmp_path, Train(stage=stage), max_steps=1) for stage in ("sft", "pt")]
    assert {(type(trainer), trainer.data_collator) for trainer in trainers} == {(ShardTrainer, packed)}
    assert trainers[0].state.log_history[0]["loss"] == trainers[1].state.log_history[0]["loss"]


def test_pure_bfloat16_is_pure(tiny: Path, tmp_path: Path) -> None:
    trainer = trained(tiny, tmp_path, Train(), Model(name=str(tiny), dtype="bfloat16"))
    assert {p.dtype for p in trainer.model.parameters()} == {torch.bfloat16}
    assert len(changed(trainer)) == len(trainer.before)
