"""The whole road on a model of two layers: recipe → shards → run → chat → export → a fresh process."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from qdata.errors import QdataError
from qdata.tokens import verify
from qtrain import chat, export, run
from qtrain import model as models
from qtrain import recipe as recipes
from qtrain.train import train

LORA = ("train.tuning=lora", "train.lora.r=4", "train.lora.lora_alpha=64", "train.learning_rate=5e-2")


def go(*overrides: str, **how: Any) -> tuple[Path, str]:
    out = io.StringIO()
    report = train(recipes.load(Path("small.toml"), overrides), Path("runs"), Console(file=out, width=200), **how)
    return Path(report["run"]), out.getvalue()


def logits(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits.float()


FRESH = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
torch.set_num_threads(1)
folder, ids = sys.argv[1], list(map(int, sys.argv[3].split()))
model = AutoModelForCausalLM.from_pretrained(folder).eval()
tokenizer = AutoTokenizer.from_pretrained(folder)
prompt = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], add_generation_prompt=True, tokenize=False)
assert "You are Muxue." in prompt, prompt
assert tokenizer.convert_tokens_to_ids("<|im_end|>") in model.generation_config.eos_token_id
with torch.no_grad():
    torch.save(model(input_ids=torch.tensor([ids]), use_cache=False).logits, sys.argv[2])
"""


def reloaded(folder: Path, ids: list[int], tmp_path: Path) -> torch.Tensor:
    """The logits a process computes that knows nothing but transformers and the folder."""
    saved = tmp_path / "logits.pt"
    command = [sys.executable, "-c", FRESH, str(folder), str(saved), " ".join(map(str, ids))]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return torch.load(saved)


def test_full_tuning_from_recipe_to_fresh_process(project: Path) -> None:
    folder, said = go()
    assert "trainable parameters:" in said and "(100.00%)" in said
    for place in ("final", "checkpoint-2", "checkpoint-4"):
        names = {file.name for file in (folder / place).iterdir()}
        assert names >= {"model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
                         "recipe.toml", "manifest.json"}  # fmt: skip
        for name in ("tokenizer.json", "chat_template.jinja"):
            assert (folder / place / name).read_bytes() == Path("data/shards/small/tokenizer", name).read_bytes()
    assert "You are Muxue." in (folder / "final/chat_template.jinja").read_text(encoding="utf-8")
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")

    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["stand_in"], manifest["sample"], manifest["result"]["steps"]) == (False, False, 4)
    assert manifest["arguments"]["bf16"] is False and manifest["versions"]["trl"]
    assert manifest["data"]["inputs"] and not (folder / "base").exists()
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [entry["step"] for entry in log if "loss" in entry] == [1, 2, 3, 4]
    assert len([entry for entry in log if "eval_loss" in entry]) == 3

    ids = [5, 9, 77, 120]
    expected = logits(models.for_inference(folder / "final"), ids)
    report = export.export(Path("runs/small"), Path("out"), max_shard_size="60KB")
    assert sum(name.endswith(".safetensors") for name in report["files"]) > 1
    torch.testing.assert_close(reloaded(Path("out"), ids, project), expected, atol=1e-6, rtol=1e-5)
    with pytest.raises(QdataError, match="overwrites nothing"):
        export.export(Path("runs/small"), Path("out"))
    assert "verified as saved: 10 answers" in said
    for saved, count in ((folder, 3), (Path("runs/small"), 3), (Path("out"), 1)):
        proof = verify.verify(saved)
        assert (proof.failures, len(proof.models), proof.answers) == ({}, count, 10)

    again, said = go()
    assert again != folder and "up to date" in said
    assert json.loads((again / "manifest.json").read_text())["result"]["loss"] == manifest["result"]["loss"]


def test_a_model_that_is_not_saved_as_it_was_trained_is_told(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last thing a run does is to look at what it saved."""
    complete = run.complete

    def careless(saved: Path, *papers: Any) -> None:
        complete(saved, *papers)
        file = saved / "chat_template.jinja"
        file.write_text(file.read_text(encoding="utf-8").replace("Muxue", "Qwen"), encoding="utf-8")

    monkeypatch.setattr(run, "complete", careless)
    with pytest.raises(QdataError, match=r"final.*changed file: .*chat_template.jinja"):
        go("train.max_steps=1")


def test_a_base_models_end_of_text_is_not_the_end_of_its_answers(project: Path, tiny: Path) -> None:
    """Its tokenizer calls <|endoftext|> its end, and it was trained to end turns: what is saved ends them."""
    base = Path(shutil.copytree(tiny, project / "base"))
    for name, key, value in (
        ("tokenizer_config.json", "eos_token", "<|endoftext|>"),
        ("generation_config.json", "eos_token_id", 364),
        ("config.json", "eos_token_id", 364),
    ):
        config = json.loads((base / name).read_text(encoding="utf-8"))
        assert key in config
        (base / name).write_text(json.dumps(config | {key: value}), encoding="utf-8")
    folder, _ = go("train.max_steps=1", f"model.name={base}")
    ends = json.loads((folder / "final/generation_config.json").read_text(encoding="utf-8"))["eos_token_id"]
    tokenizer = json.loads((folder / "final/tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    names = {token["id"]: token["content"] for token in tokenizer}
    assert {names[one] for one in ends} == {"<|im_end|>", "<|endoftext|>"}
    export.export(folder, Path("out"))
    assert not verify.verify(Path("out")).failures


def test_lora_merged_is_unmerged(project: Path, tiny: Path) -> None:
    folder, said = go(*LORA)
    assert "lora" in said and "(100.00%)" not in said
    assert (folder / "final/adapter_model.safetensors").is_file()
    ids = [5, 9, 77, 120]
    unmerged = logits(models.for_inference(folder / "final"), ids)
    merged = logits(models.load(folder / "final").eval(), ids)
    torch.testing.assert_close(merged, unmerged, atol=1e-5, rtol=1e-5)
    assert (unmerged - logits(models.for_inference(tiny), ids)).abs().max() > 1e-3, "the adapter did nothing"
    export.export(folder, Path("out"))
    assert not Path("out/adapter_config.json").exists()
    torch.testing.assert_close(reloaded(Path("out"), ids, project), merged, atol=1e-6, rtol=1e-5)


def test_a_stand_ins_adapter_finds_its_base_in_the_run(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_reach(name: str) -> Path:
        raise models.OutOfReachError("test")

    monkeypatch.setattr(models, "find", out_of_reach)
    text = Path("small.toml").read_text(encoding="utf-8")
    size = "hidden_size = 32\nnum_hidden_layers = 1\nvocab_size = 350"
    Path("small.toml").write_text(f"{text}\n[stand_in]\n{size}\n[stand_in.train]\nmax_steps = 1\n", encoding="utf-8")
    folder, _ = go("model.name=Qwen/Qwen2-1.5B-Instruct", *LORA)
    manifest = json.loads((folder / "final/manifest.json").read_text(encoding="utf-8"))
    assert manifest["stand_in"] is True and manifest["result"]["steps"] == 1
    adapter = json.loads((folder / "final/adapter_config.json").read_text(encoding="utf-8"))
    assert adapter["base_model_name_or_path"] == "../base", "never the real model, never a path of this machine"
    moved = folder.rename(project / "elsewhere")
    after = chat.load(moved)
    rows = chat.ask({"before": chat.before(after), "after": after}, ["hi"], None, 3)
    assert set(rows[0]) == {"question", "before", "after"}


def test_chat_sends_no_system_message_of_its_own(project: Path) -> None:
    go("train.max_steps=1")
    talking = chat.load(Path("runs/small"))
    asked = [{"role": "user", "content": "hi"}]
    assert chat.opening(None) == []
    end = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert talking.prompt(asked) == "<|im_start|>system\nYou are Muxue.<|im_end|>\n" + end
    other = talking.prompt([*chat.opening("Be brief."), *asked])
    assert other == "<|im_start|>system\nBe brief.<|im_end|>\n" + end
    pieces: list[str] = []
    said = talking.answer(asked, 8, pieces.append)
    assert "".join(pieces) == said == talking.answer(asked, 8)


def test_what_is_for_testing_is_named_as_left_out(project: Path) -> None:
    """Beside the recipe, wherever that lies; also where the shards are up to date."""
    (project / "elsewhere/set").mkdir(parents=True)
    recipe = Path("small.toml").rename("elsewhere/small.toml")
    for name in ("train", "test"):
        shutil.copy("rows.jsonl", f"elsewhere/set/{name}.jsonl")
    shutil.copy("held.jsonl", "elsewhere/held.jsonl")
    for _ in range(2):
        out = io.StringIO()
        loaded = recipes.load(recipe, ['data.sources=["set"]', "train.max_steps=1"])
        train(loaded, Path("runs"), Console(file=out, width=200))
        assert "not read: elsewhere/set/test.jsonl (1 file for testing; name it to read it" in " ".join(
            out.getvalue().split()
        )


def test_placeholders_nobody_filled_stop_the_run(project: Path) -> None:
    with pytest.raises(QdataError, match=r"\{\{author\}\}"):
        go('data.placeholders={name="Muxue"}')
    assert not Path("runs").exists()


def test_a_tokenizer_too_large_for_the_model_is_refused(project: Path, tmp_path: Path) -> None:
    from tests.train.conftest import SMALL

    from qtrain import stand_in

    texts = ["".join(chr(0x4E00 + i) for i in range(3000))]
    larger = stand_in.build(recipes.StandIn(**{**vars(SMALL), "vocab_size": 1000}), texts, tmp_path / "larger")
    with pytest.raises(QdataError, match="not its tokenizer"):
        go(f"data.tokenizer={larger}")
    assert not Path("runs").exists()


def test_where_a_model_is_found(tmp_path: Path) -> None:
    for stamp in ("20260101-000000", "20260101-000000-2", "20260101-000000-10"):
        for place in ("final", "checkpoint-5", "checkpoint-20"):
            (tmp_path / "r" / stamp / place).mkdir(parents=True)
            (tmp_path / "r" / stamp / place / "config.json").touch()
        (tmp_path / "r" / stamp / "recipe.toml").touch()
    newest = tmp_path / "r" / "20260101-000000-10"
    assert run.model_in(tmp_path / "r") == run.model_in(newest) == newest / "final"
    assert run.model_in(tmp_path / "r" / "checkpoint-5") == newest / "checkpoint-5"
    assert run.model_in(newest / "checkpoint-20") == newest / "checkpoint-20"
    (newest / "final" / "config.json").unlink()
    assert run.model_in(newest) == newest / "checkpoint-20", "a crashed run has its last checkpoint"
    with pytest.raises(QdataError, match="no such run or model folder"):
        run.model_in(tmp_path / "nothing")
    with pytest.raises(QdataError, match="no model in it"):
        run.model_in(tmp_path)


def test_rows_that_cannot_be_read_follow_strict(project: Path) -> None:
    """Set aside and told, when the shards are made and when they are used; --strict refuses them by name, made or not.

    No run's folder is made by a refusal, and the shards that were there stay.
    """
    with Path("rows.jsonl").open("a", encoding="utf-8") as file:
        file.write("{broken\n")
    refusal = r"^rows.jsonl, line 9: not valid JSON.*\nMend the row, or leave --strict out"
    with pytest.raises(QdataError, match=refusal):
        go("train.max_steps=1", strict=True)
    assert not Path("data/shards/small").exists() and not Path("runs").exists()
    _, said = go("train.max_steps=1")
    assert "rows.jsonl, line 9: not valid JSON" in said
    assert "1 row (of 11) was set aside; it is in the ledger with its reason. --strict refuses it instead." in said
    made = Path("data/shards/small/manifest.json").read_bytes()
    with pytest.raises(QdataError, match=refusal):
        go("train.max_steps=1", strict=True)
    assert Path("data/shards/small/manifest.json").read_bytes() == made
    assert len(list(Path("runs/small").iterdir())) == 1
    _, said = go("train.max_steps=1")
    assert "up to date" in said and "rows set aside, with their reason in data/shards/small/ledger.parquet: 1" in said
