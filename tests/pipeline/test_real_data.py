"""The road on real files, against the published tokenizer and its own chat template."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner
from tests.tokens.test_shards import IGNORED, read

from qdata.cli import main

Row = dict[str, Any]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands write below the current directory."""
    monkeypatch.chdir(tmp_path)


def qdata(*words: str | Path) -> None:
    """Runs a command of qdata; its output is in the error if it fails."""
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"


def rendered(output: str, *words: str | Path) -> dict[str, Any]:
    """The manifest of `qdata render`."""
    qdata("render", *words, "-o", output)
    manifest: dict[str, Any] = json.loads(Path(output, "manifest.json").read_text(encoding="utf-8"))
    told = manifest["rows"]
    assert told["in"] == told["kept"] + sum(told["dropped"].values())
    return manifest


def alpaca(real_data: Path) -> list[Row]:
    """The 52,002 rows."""
    rows: list[Row] = json.loads((real_data / "alpaca/alpaca_data.json").read_text(encoding="utf-8"))
    return rows


def test_ids_are_those_of_the_vendors_chat_template(real_data: Path, real_tokenizers: Path) -> None:
    """1,000 random alpaca rows, id for id; exactly the answer and its stop token are trained."""
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(real_tokenizers / "qwen2_5")
    assert theirs.chat_template
    rows = random.Random(2).sample([row for row in alpaca(real_data) if row["output"].strip()], 1000)
    Path("data").mkdir()
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    Path("data/alpaca.jsonl").write_text(text, encoding="utf-8")
    rendered("out", "data/alpaca.jsonl", "--template", "qwen2_5", "--tokenizer", real_tokenizers / "qwen2_5")
    got = read(Path("out"))
    assert [row["rows"] for row in got] == [[f"data/alpaca.jsonl#{n + 1}"] for n in range(1000)]
    stop, newline = (theirs(text, add_special_tokens=False)["input_ids"] for text in ("<|im_end|>", "\n"))
    assert len(stop) == len(newline) == 1
    for row, ours in zip(rows, got, strict=True):
        question = row["instruction"] + ("\n" + row["input"] if row["input"] else "")
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": row["output"]}]
        wanted = theirs.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]
        assert ours["input_ids"] == wanted
        answer = theirs(row["output"], add_special_tokens=False)["input_ids"] + stop
        before = len(wanted) - len(answer) - len(newline)
        assert ours["labels"] == [IGNORED] * before + answer + [IGNORED]


REAL = {
    "llamafactory/identity.json": (91, {}, 91),
    "muice/muice_messages.jsonl": (3502, {}, 3502),
    "multiturn/sharegpt_zh_1K_format.jsonl": (1000, {"complete.no_answer": 1}, None),
}


@pytest.mark.parametrize("template", ["qwen2", "qwen2_5"])
@pytest.mark.parametrize("name", REAL)
def test_real_files_are_rendered_and_proven(name: str, template: str, real_data: Path, real_tokenizers: Path) -> None:
    """Through the commands; a sample of the rows is verified, every sum closes."""
    rows, dropped, samples = REAL[name]
    options = ["--template", template, "--tokenizer", real_tokenizers / "qwen2_5"]
    manifest = rendered("out", real_data / name, *options)
    assert manifest["rows"]["in"] == rows
    assert manifest["rows"]["dropped"] == dropped
    facts = manifest["splits"]["train"]
    assert facts["conversations"] == manifest["rows"]["kept"] == rows - sum(dropped.values())
    assert facts["samples"] == samples or samples is None
    open_ones = _braces(real_data) if "identity" in name else 0
    assert manifest["unfilled_placeholders"] == open_ones
    if open_ones:  # trained like this, the model would say it literally: the proof does not let it pass
        with pytest.raises(AssertionError, match="placeholder"):
            qdata("verify", "out", "--sample", "10")
        return
    qdata("verify", "out", "--sample", "10")


def _braces(real_data: Path) -> int:
    """How many of the identity rows leave a name or an author open."""
    rows = json.loads((real_data / "llamafactory/identity.json").read_text(encoding="utf-8"))
    return sum("{{name}}" in str(row) or "{{author}}" in str(row) for row in rows)


def test_identity_rows_are_filled(real_data: Path, real_tokenizers: Path) -> None:
    """With a name and an author none is left open, and they stand in the tokens."""
    options = ["--tokenizer", real_tokenizers / "qwen2_5", "--persona", "name=沐雪", "author=Moemu"]
    manifest = rendered("out", real_data / "llamafactory/identity.json", *options)
    assert (manifest["unfilled_placeholders"], manifest["rows"]["edited"]) == (0, _braces(real_data))
    texts = pl.read_parquet("out/conversations.parquet")["messages"].to_list()
    assert not any("{{" in m["content"] for one in texts for m in one)
    assert sum("沐雪" in one[-1]["content"] for one in texts) > 60
    qdata("verify", "out", "--sample", "20")


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--pack", "2048", "--val", "0.02"]], ids=["plain", "packed"])
def test_all_of_alpaca_is_rendered(options: list[str], real_data: Path, real_tokenizers: Path) -> None:
    """52,002 rows in, 28 dropped because their answer is empty; a sample is proven."""
    source = real_data / "alpaca/alpaca_data.json"
    manifest = rendered("out", source, "--tokenizer", real_tokenizers / "qwen2_5", *options)
    assert manifest["rows"] == {"in": 52002, "kept": 51974, "edited": 0, "dropped": {"complete.empty_answer": 28}}
    facts = manifest["splits"]
    assert sum(split["samples"] for split in facts.values()) == 51974
    if options:
        assert facts["train"]["fill"] > 0.996
        assert abs(facts["validation"]["conversations"] - 1039) < 30  # exact duplicates stay together
    book = pl.read_parquet("out/ledger.parquet")
    dropped = set(book.filter(pl.col("action") == "dropped")["row"])
    blank = {f"alpaca/alpaca_data.json#{n}" for n, row in enumerate(alpaca(real_data), 1) if not row["output"].strip()}
    assert dropped == blank
    qdata("verify", "out", "--sample", "200")


@pytest.mark.slow
def test_a_whole_real_file_is_proven(real_data: Path, real_tokenizers: Path) -> None:
    """Every row of the multi-turn and of the Muice file, packed."""
    for name in ("multiturn/sharegpt_zh_1K_format.jsonl", "muice/muice_messages.jsonl"):
        options = ["--tokenizer", real_tokenizers / "qwen2_5", "--max-length", "4096", "--pack", "4096", "--overwrite"]
        rendered("out", real_data / name, *options)
        qdata("verify", "out")


def test_pairs_become_alpaca_with_all_their_columns(real_data: Path) -> None:
    """Prompt, response and the nested `pragmatic_styles`, number for number."""
    source = real_data / "muice/muice_pairs.jsonl"
    qdata("convert", source, "--to", "alpaca", "-o", "out.jsonl")
    before, after = (
        [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        for file in (source, Path("out.jsonl"))
    )
    assert len(after) == 3502
    for old, new in zip(before, after, strict=True):
        assert list(new) == ["instruction", "input", "output", "system", "history", "pragmatic_styles"]
        assert (new["instruction"], new["output"]) == (old["prompt"], old["response"])
        assert (new["input"], new["system"], new["history"]) == ("", "", [])
        assert repr(new["pragmatic_styles"]) == repr(old["pragmatic_styles"])


def test_a_plain_trainer_trains_on_the_folder(real_data: Path, real_tokenizers: Path, tmp_path: Path) -> None:
    """transformers' own Trainer and collator, `load_from_disk`, two steps: nothing of ours is needed for it."""
    torch = pytest.importorskip("torch")
    from datasets import load_from_disk
    from transformers import (
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        Qwen2Config,
        Qwen2ForCausalLM,
        Trainer,
        TrainingArguments,
    )

    rendered("out", real_data / "muice/muice_messages.jsonl", "--tokenizer", real_tokenizers / "qwen2_5", "--val", "4")
    shards = load_from_disk("out")
    tokenizer = AutoTokenizer.from_pretrained("out/tokenizer")
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=151_936, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    before = model.model.layers[0].mlp.up_proj.weight.detach().clone()
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "run"), max_steps=2, per_device_train_batch_size=4, learning_rate=1e-2, use_cpu=True,
        report_to="none", save_strategy="no", logging_steps=1, disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=shards["train"],
        eval_dataset=shards["validation"],
        data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED),
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 2
    assert all(8 < loss < 14 for loss in losses)  # about ln(151936) = 11.9 for random weights
    assert not torch.equal(before, model.model.layers[0].mlp.up_proj.weight)
    assert 8 < trainer.evaluate()["eval_loss"] < 14
