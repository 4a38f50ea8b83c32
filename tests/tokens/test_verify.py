"""The independent proof: it passes what is served as trained, and every planted fault is caught."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from rich.console import Console
from tests.tokens.test_render import MINI_QWEN3
from tests.tokens.test_shards import CONVERSATIONS, IGNORED, read, said, small_tokenizer, write_rows
from tokenizers import Tokenizer

from qdata import pipeline, schema
from qdata.errors import QdataError
from qdata.recipe import DataRecipe, Source
from qdata.tokens import paint, verify
from qdata.tokens.proof import Result

pytest.importorskip("transformers")

Row = dict[str, Any]
MULTI = [
    *CONVERSATIONS,
    [{"role": "system", "content": "Be brief."}, *said("one", "1", "two", "2\n", "three", " 3")],
    [*said("do not", "wrong"), *said("again", "right")],
    said("a", "\n\nfirst", "b", "\nsecond", "c", "third"),
    said("e\u0301 👩‍👩‍👧‍👦", "👍🏽 <think>x</think> <|im_end|"),
]
MULTI[7][1]["train"] = False


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small tokenizer's folder."""
    return small_tokenizer(tmp_path_factory.mktemp("small"))


def built(folder: Path, tokenizer: Path, rows: list[list[Row]] = MULTI, **options: Any) -> Path:
    """Shards of the rows."""
    file = write_rows(folder / "data/rows.jsonl", rows)
    recipe = DataRecipe(sources=(Source(path=str(file)),), tokenizer=str(tokenizer), **options)
    pipeline.build(recipe, folder / "out")
    return folder / "out"


def rewrite(folder: Path, change: Callable[[list[Row]], None], split: str = "train") -> None:
    """Changes the rows of a split's only shard, and tells the manifest its new hash: from outside all looks well."""
    rows = read(folder, split)
    change(rows)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    (shard,) = manifest["splits"][split]["shards"]
    with pa.OSFile(str(folder / shard["name"]), "wb") as file, pa.ipc.new_stream(file, schema.TOKENS) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema.TOKENS))
    shard["sha256"] = hashlib.sha256((folder / shard["name"]).read_bytes()).hexdigest()
    shard["rows"] = manifest["splits"][split]["rows"] = len(rows)
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def resigned(folder: Path) -> Path:
    """The manifest told the hashes of changed files: from outside all looks well."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    for name in manifest["files"]:
        manifest["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def trained(row: Row) -> list[int]:
    """Where a row is trained."""
    return [at for at, label in enumerate(row["labels"]) if label != IGNORED]


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "qwen2_5": {"template": "qwen2_5"},
    "packed": {"pack": 300},
    "last": {"loss": "last"},
    "whole": {"loss": "whole"},
    "max_length": {"max_length": 120},
    "default system": {"default_system": "You are Muxue.\n", "val": 0.4},
    "all": {"template": "qwen2_5", "pack": 256, "max_length": 256, "val": 2, "loss": "last", "seed": 5},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_good_shards_pass(name: str, tmp_path: Path, small: Path) -> None:
    """Every sequence is looked at and every answer met, whatever view over the tokens was asked for."""
    folder = built(tmp_path, small, **OPTIONS[name])
    result = verify.verify(folder)
    assert (dict(result.failures), result.cases) == ({}, [])
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert result.sequences == sum(s["samples"] for s in manifest["splits"].values())
    assert result.trained_tokens == sum(s["trained_tokens"] for s in manifest["splits"].values())
    answers = sum(m["role"] == "assistant" and m.get("train") is not False for row in MULTI for m in row) - 1
    if name in ("plain", "qwen2_5", "packed", "default system"):
        assert result.answers == answers  # but for the row whose answer is blank


@pytest.mark.parametrize("name", ["qwen2", "qwen2_5"])
def test_good_shards_of_the_real_vocabulary_pass(name: str, tmp_path: Path, qwen2: Path) -> None:
    """With Qwen's own tokenizer, where newlines really merge."""
    folder = built(tmp_path, qwen2, template=name, pack=256)
    result = verify.verify(folder)
    assert (dict(result.failures), result.cases) == ({}, [])


def test_tools_and_calls_pass(tmp_path: Path, small: Path) -> None:
    """Calls without a text, several results in a row, tool schemas with nested JSON."""
    call = {"type": "function", "function": {"name": "f", "arguments": {"city": "北京", "z": [1, None]}}}
    messages = [
        *said("weather?"),
        {"role": "assistant", "tool_calls": [call, call]},
        {"role": "tool", "content": "sunny"},
        {"role": "tool", "content": "rainy"},
        {"role": "assistant", "content": "Both.\n", "tool_calls": [call]},
        {"role": "tool", "content": ""},
        {"role": "assistant", "content": "Done."},
    ]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "z": 1, "a": "<é>"}}}]
    file = tmp_path / "data/rows.jsonl"
    file.parent.mkdir()
    file.write_text(json.dumps({"messages": messages, "tools": tools}, ensure_ascii=False) + "\n", encoding="utf-8")
    recipe = DataRecipe(sources=(Source(path=str(file)),), tokenizer=str(small), template="qwen2_5")
    pipeline.build(recipe, tmp_path / "out")
    result = verify.verify(tmp_path / "out")
    assert (result.answers, result.cases) == (3, [])


def test_expanded_conversations_pass(tmp_path: Path, small: Path) -> None:
    """A template that strips earlier reasoning gives a sample per turn; each is what a server sees at that turn."""
    (tmp_path / "mini.jinja").write_text(MINI_QWEN3, encoding="utf-8")
    reasoned = said("one", "1", "two", "2", "three", "3")
    reasoned[1]["reasoning_content"] = "count"
    reasoned[3]["reasoning_content"] = "count on"
    folder = built(tmp_path, small, [reasoned, *CONVERSATIONS], template=str(tmp_path / "mini.jinja"))
    result = verify.verify(folder)
    assert (dict(result.failures), result.cases) == ({}, [])


def test_an_answer_that_went_with_a_long_sample_is_no_fault(tmp_path: Path, small: Path) -> None:
    """Of a conversation cut in two, the longer sample may be dropped for its length while the shorter stays."""
    folder = built(tmp_path, small, [said("hi", "\nso", "x", "y", "z", "long " * 60)], max_length=110)
    assert read(folder)
    result = verify.verify(folder)
    assert (dict(result.failures), result.cases) == ({}, [])


def test_a_conversation_that_the_model_opens_is_no_crash(tmp_path: Path, small: Path) -> None:
    """It begins with an answer; transformers refuses to render a prompt of no messages."""
    opened = [{"role": "assistant", "content": "I begin."}, *said("and", "I go on.")]
    result = verify.verify(built(tmp_path, small, [opened, *CONVERSATIONS]))
    assert (dict(result.failures), result.cases) == ({}, [])


def test_a_row_without_trained_turns_is_no_fault(tmp_path: Path, small: Path) -> None:
    """Nothing of it can be trained, so it is in no shard and counted as dropped."""
    silent = said("q", "a")
    silent[1]["train"] = False
    result = verify.verify(built(tmp_path, small, [silent, *CONVERSATIONS]))
    assert (dict(result.failures), result.cases) == ({}, [])


# Planted faults. Each changes the first row that holds a simple conversation: two trained stretches or one.


def newline_after_the_stop(rows: list[Row]) -> None:
    """What peers train."""
    at = trained(rows[0])[-1] + 1
    rows[0]["labels"][at] = rows[0]["input_ids"][at]


def stop_untrained(rows: list[Row]) -> None:
    """The model would never end."""
    rows[0]["labels"][trained(rows[0])[-1]] = IGNORED


def first_token_untrained(rows: list[Row]) -> None:
    """The answer begins too late."""
    rows[0]["labels"][trained(rows[0])[0]] = IGNORED


def middle_token_untrained(rows: list[Row]) -> None:
    """A hole."""
    rows[0]["labels"][trained(rows[0])[2]] = IGNORED


def prompt_id_changed(rows: list[Row]) -> None:
    """One id the server would not have."""
    at = trained(rows[0])[0] - 8
    rows[0]["input_ids"][at] = (rows[0]["input_ids"][at] + 1) % 256


def answer_id_changed(rows: list[Row]) -> None:
    """One id the conversation does not say, in ids and labels alike."""
    at = trained(rows[0])[1]
    rows[0]["input_ids"][at] = rows[0]["labels"][at] = (rows[0]["input_ids"][at] + 1) % 256


def generation_prompt_trained(rows: list[Row]) -> None:
    """The newline before the answer, as TRL's assistant-only masks have it."""
    at = trained(rows[0])[0] - 1
    rows[0]["labels"][at] = rows[0]["input_ids"][at]


def everything_trained(rows: list[Row]) -> None:
    """No mask at all."""
    rows[0]["labels"] = list(rows[0]["input_ids"])


def nothing_trained(rows: list[Row]) -> None:
    """A row without a gradient."""
    rows[0]["labels"] = [IGNORED] * len(rows[0]["labels"])


def other_label(rows: list[Row]) -> None:
    """A label that is neither -100 nor its token."""
    at = trained(rows[0])[1]
    rows[0]["labels"][at] = (rows[0]["input_ids"][at] + 1) % 256


def shifted_labels(rows: list[Row]) -> None:
    """Shifted already, as some trainers want them."""
    rows[0]["labels"] = [*rows[0]["labels"][1:], IGNORED]


def twice(rows: list[Row]) -> None:
    """A sequence that is trained twice."""
    rows.append(rows[0])


def missing(rows: list[Row]) -> None:
    """A sequence that is trained never."""
    del rows[0]


def swapped_names(rows: list[Row]) -> None:
    """The ids of one row under the name of another."""
    rows[0]["rows"], rows[1]["rows"] = rows[1]["rows"], rows[0]["rows"]


def unknown_name(rows: list[Row]) -> None:
    """A row nobody knows."""
    rows[0]["rows"] = ["data/rows.jsonl#999"]


def dropped_name(rows: list[Row]) -> None:
    """A row that was dropped, in the shards all the same."""
    rows[0]["rows"] = ["data/rows.jsonl#5"]


def padding(rows: list[Row]) -> None:
    """Padding, trained: `<|endoftext|>` stands before `<|im_start|>` in the vocabulary."""
    for column in ("input_ids", "labels"):
        rows[0][column] += [rows[0]["input_ids"][0] - 1]
    rows[0]["seq_lengths"][-1] += 1


def padding_after_the_stop(rows: list[Row]) -> None:
    """Padding behind the last turn, trained with it, as where labels are a copy of padded ids."""
    row = rows[0]
    at, pad = trained(row)[-1] + 1, rows[0]["input_ids"][0] - 1
    row["input_ids"][at], row["labels"][at] = pad, pad


def wrong_lengths(rows: list[Row]) -> None:
    """Sequence lengths that do not add up."""
    rows[0]["seq_lengths"][-1] += 1


def truncated(rows: list[Row]) -> None:
    """An answer cut short."""
    for column in ("input_ids", "labels"):
        rows[0][column] = rows[0][column][:-3]
    rows[0]["seq_lengths"][-1] -= 3


FAULTS: dict[Callable[[list[Row]], None], str] = {
    newline_after_the_stop: "answer",
    stop_untrained: "answer",
    first_token_untrained: "prompt",
    middle_token_untrained: "answer",
    prompt_id_changed: "prompt",
    answer_id_changed: "answer",
    generation_prompt_trained: "prompt",
    everything_trained: "prompt",
    nothing_trained: "untrained",
    other_label: "labels",
    shifted_labels: "labels",
    twice: "prompt",
    missing: "not trained",
    swapped_names: "prompt",
    unknown_name: "dropped row",
    dropped_name: "dropped row",
    padding: "padding",
    padding_after_the_stop: "padding",
    wrong_lengths: "lengths",
    truncated: "answer",
}


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory, small: Path) -> Path:
    """Good shards to be spoilt."""
    folder = built(tmp_path_factory.mktemp("good"), small)
    assert not verify.verify(folder).failures
    return folder


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.__name__))
def test_a_planted_fault_is_caught(fault: Callable[[list[Row]], None], good: Path, tmp_path: Path) -> None:
    """By its own name, although every hash in the manifest is right."""
    folder = Path(shutil.copytree(good, tmp_path / "spoilt"))
    rewrite(folder, lambda rows: None)
    assert not verify.verify(folder).failures
    rewrite(folder, fault)
    result = verify.verify(folder)
    assert "changed file" not in result.failures
    assert FAULTS[fault] in result.failures
    assert any(case.startswith(FAULTS[fault]) for case in result.cases)


@pytest.mark.parametrize(("trained_part", "kind"), [(False, "prompt"), (True, "answer")], ids=["prompt", "answer"])
def test_other_ids_for_the_same_text_are_caught(
    trained_part: bool, kind: str, good: Path, small: Path, tmp_path: Path
) -> None:
    """Text that reads the same is not enough: a server has other ids, as where a newline merges with what it ends."""
    folder = Path(shutil.copytree(good, tmp_path / "spoilt"))
    vocabulary = json.loads((small / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    token = {number: text for text, number in vocabulary.items()}

    def halve(rows: list[Row]) -> None:
        row = rows[0]
        for at, one in enumerate(row["input_ids"][: trained(row)[-1]]):
            text = token.get(one, "")
            cuts = [(text[:n], text[n:]) for n in range(1, len(text)) if {text[:n], text[n:]} <= vocabulary.keys()]
            if cuts and (row["labels"][at] != IGNORED) == trained_part:
                halves = [vocabulary[half] for half in cuts[0]]
                row["input_ids"][at : at + 1] = halves
                row["labels"][at : at + 1] = halves if trained_part else [IGNORED] * 2
                row["seq_lengths"][-1] += 1
                return
        raise AssertionError("no token to halve")

    rewrite(folder, halve)
    assert kind in verify.verify(folder).failures


def test_an_untrained_turn_that_is_trained_is_caught(tmp_path: Path, small: Path) -> None:
    """`train: false` is a promise."""
    messages = said("do not", "wrong", "again", "right")
    folder = built(tmp_path, small, [messages])
    rewrite(folder, lambda rows: None)
    texts = pl.read_parquet(folder / "conversations.parquet")
    marked = [[m | {"train": False if at == 1 else m["train"]} for at, m in enumerate(texts["messages"][0].to_list())]]
    texts.with_columns(messages=pl.Series(marked, dtype=schema.MESSAGES)).write_parquet(
        folder / "conversations.parquet"
    )
    assert set(verify.verify(resigned(folder)).failures) == {"prompt"}


def test_under_last_an_earlier_answer_that_is_trained_is_caught(tmp_path: Path, small: Path) -> None:
    """With `loss = last`, nothing but the last answer may have labels."""
    folder = built(tmp_path, small, [said("one", "1", "two", "2")], loss="last")
    every = built(tmp_path / "every", small, [said("one", "1", "two", "2")])
    (labels,) = [row["labels"] for row in read(every)]
    rewrite(folder, lambda rows: rows[0].update(labels=labels))
    assert verify.verify(folder).failures


def test_under_whole_a_token_that_is_not_trained_is_caught(tmp_path: Path, small: Path) -> None:
    """With `loss = whole`, everything has a label."""
    folder = built(tmp_path, small, [said("one", "1", "two", "2")], loss="whole")

    def change(rows: list[Row]) -> None:
        rows[0]["labels"][3:30] = [IGNORED] * 27

    rewrite(folder, change)
    assert verify.verify(folder).failures


def test_a_blank_answer_is_caught(tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that trains nothing but its stop token, had the last step not dropped it."""
    monkeypatch.setattr(pipeline, "local_steps", lambda *_: ())
    folder = built(tmp_path, small, [said("say nothing", ""), said("x", "y")])
    assert set(verify.verify(folder).failures) == {"empty turn"}


def test_changed_files_are_caught(good: Path, tmp_path: Path) -> None:
    """A shard's bytes, the template that would be served, the tokenizer."""
    for number, name in enumerate(("train/data-00000-of-00001.arrow", "tokenizer/chat_template.jinja")):
        folder = Path(shutil.copytree(good, tmp_path / str(number)))
        file = folder / name
        if name.endswith("jinja"):
            file.write_text(file.read_text(encoding="utf-8") + " ", encoding="utf-8")
        else:
            file.write_bytes(file.read_bytes() + b"\0" * 8)
        result = verify.verify(folder)
        assert result.failures["changed file"] == 1
        assert name in result.cases[0]
    folder = Path(shutil.copytree(good, tmp_path / "tokenizer"))
    file = folder / "tokenizer/tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8"))) + "\n", encoding="utf-8")
    assert verify.verify(folder).failures["changed file"] == 1


def test_a_template_with_another_default_is_caught(good: Path, tmp_path: Path) -> None:
    """Even if the manifest were told its hash: the prompts are no longer those of the server."""
    folder = Path(shutil.copytree(good, tmp_path / "spoilt"))
    file = folder / "tokenizer/chat_template.jinja"
    source = file.read_text(encoding="utf-8").replace("You are a helpful assistant.", "You are Muxue.")
    file.write_text(source, encoding="utf-8")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["template"]["sha256"] = hashlib.sha256(source.encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert verify.verify(folder).failures["prompt"] > 3


def test_a_ledger_that_does_not_close_is_caught(good: Path, tmp_path: Path) -> None:
    """A line too few, lines in another order, a kept line that went nowhere."""
    for number, spoil in enumerate(
        (
            lambda book: book[1:],
            lambda book: book.reverse(),
            lambda book: book.with_columns(shard=pl.lit(None, pl.String)),
        )
    ):
        folder = Path(shutil.copytree(good, tmp_path / str(number)))
        spoil(pl.read_parquet(folder / "ledger.parquet")).write_parquet(folder / "ledger.parquet")
        assert "changed file" in verify.verify(folder).failures
        assert set(verify.verify(resigned(folder)).failures) == {"ledger"}


def test_a_folder_may_have_any_name(good: Path, tmp_path: Path) -> None:
    """Brackets and stars in a path are no pattern."""
    folder = Path(shutil.copytree(good, tmp_path / "old [1] *"))
    assert not verify.verify(folder).failures
    dropped = pl.read_parquet(good / "ledger.parquet").filter(pl.col("action") == "dropped")["row"][0]
    with pytest.raises(QdataError, match="was dropped"):
        paint.row_of(folder, "train", dropped)


@pytest.mark.parametrize("name", ["train/data-00000-of-00001.arrow", "tokenizer/chat_template.jinja", "ledger.parquet"])
def test_a_file_that_is_gone_is_told(name: str, good: Path, tmp_path: Path) -> None:
    """As a failure or as one message; never as a traceback."""
    folder = Path(shutil.copytree(good, tmp_path / "spoilt"))
    (folder / name).unlink()
    try:
        assert verify.verify(folder).failures
    except QdataError as error:
        assert Path(name).name in str(error)


def test_a_sample_looks_at_so_many_rows(good: Path) -> None:
    """Drawn by the seed; what was not looked at is not said to be missing."""
    one = verify.verify(good, sample=3)
    assert (one.sequences, dict(one.failures)) == (3, {})
    assert verify.verify(good, sample=3).as_dict() == one.as_dict()
    seen = {verify.verify(good, sample=3, seed=seed).trained_tokens for seed in range(6)}
    assert len(seen) > 1
    assert verify.verify(good, sample=10_000).sequences == verify.verify(good).sequences


def test_the_report_says_the_verdict() -> None:
    """In one line that is hard to misread, with the first cases."""
    for result, wanted in (
        (Result(sequences=3, answers=2), "training equals serving"),
        (
            Result(failures=Counter({"prompt": 2}), cases=["prompt: r#1: [x] token 3"]),
            "training is not serving: prompt 2",
        ),
    ):
        out = io.StringIO()
        verify.report(result, Console(file=out, width=200))
        assert wanted in out.getvalue()
        assert all(case in out.getvalue() for case in result.cases)
        assert result.as_dict()["ok"] is not result.failures


def imported_by(module: str) -> set[str]:
    """Every module of ours that importing `module` brings along, itself left out."""
    code = f"import sys, {module}; print(*(m for m in sys.modules if m.startswith('qdata.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split()) - {module}


def test_it_uses_nothing_that_it_checks() -> None:
    """Neither render nor tokenize nor our template nor the pipeline, not even by way of others."""
    loaded = imported_by("qdata.tokens.verify")
    assert {"qdata.tokens.shards", "qdata.tokens.serving", "qdata.tokens.proof"} <= loaded, "the reader works"
    names = ("render", "tokenize", "thinking", "template", "injection", "probe", "split", "fit")
    made_by = {f"qdata.tokens.{name}" for name in names} | {"qdata.part", "qdata.pipeline", "qdata.assemble"}
    assert "qdata.tokens.render" in imported_by("qdata.tokens.tokenize")
    assert not loaded & made_by


def test_a_later_import_is_seen_too() -> None:
    """Imports inside functions of the proof's own modules name none of the roads that it checks."""
    for name in ("verify", "proof", "serving", "saved"):
        tree = ast.parse((Path(verify.__file__).parent / f"{name}.py").read_text(encoding="utf-8"))
        named = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert named and not named & {"qdata.tokens.render", "qdata.tokens.tokenize", "qdata.tokens.template"}


def test_a_placeholder_nobody_filled_is_caught(tmp_path: Path, small: Path) -> None:
    """By its row and line; braces that are no placeholder pass."""
    asked = [
        said("who", "I am {{ name }}."),
        said("who", "Made by <AUTHOR>."),
        said("jinja?", "Write {{ loop.index }}."),
    ]
    result = verify.verify(built(tmp_path, small, asked))
    assert dict(result.failures) == {"placeholder": 2}
    assert "data/rows.jsonl#1 (line 1; train row " in result.cases[0] + result.cases[1]


def test_a_vendors_identity_is_caught(tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where neither the default nor the data says it; its own template's default, and the data's own word, may."""
    assert not verify.verify(built(tmp_path / "own", small, [said("a", "b")], template="qwen2_5")).failures
    sent = [{"role": "system", "content": "You are Qwen, created by Alibaba Cloud."}, *said("a", "b")]
    result = verify.verify(built(tmp_path / "data", small, [sent], default_system="You are Muxue."))
    assert (dict(result.failures), result.vendor_prompts) == ({}, 1)
    folder = built(tmp_path / "spoilt", small, [said("a", "b")], template="qwen2_5")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["template"]["default_system"] = "You are Muxue."
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert dict(verify.verify(folder).failures) == {"vendor identity": 1}


def test_another_default_system_prompt_is_caught(tmp_path: Path, small: Path) -> None:
    """Rows of one default under the template of another: each prompt differs, and both token rows are shown."""
    ours = built(tmp_path / "ours", small, default_system="You are Muxue.")
    theirs = built(tmp_path / "theirs", small)
    (shard,) = json.loads((ours / "manifest.json").read_text(encoding="utf-8"))["splits"]["train"]["shards"]
    shutil.copyfile(theirs / shard["name"], ours / shard["name"])
    rewrite(ours, lambda rows: None)
    result = verify.verify(ours)
    assert result.failures["prompt"] > 3
    (served, trained_row) = next(case for case in result.cases if case.startswith("prompt")).splitlines()[1:]
    assert "Mux" in served.replace("' ", "").replace("'", "") or served != trained_row
    assert served.lstrip().startswith("served ") and trained_row.lstrip().startswith("trained")


def test_history_with_its_reasoning_left_in_is_caught(tmp_path: Path, small: Path) -> None:
    """Qwen3's servers strip earlier reasoning; a sample that keeps it trains on a prompt nobody will send."""
    chat = said("one", "1", "two", "2")
    chat[1]["reasoning_content"] = "count"
    folder = built(tmp_path, small, [chat], template="qwen3")
    assert not verify.verify(folder).failures
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer/tokenizer.json"))

    def leave(rows: list[Row]) -> None:
        (row,) = [one for one in rows if "two" in tokenizer.decode(one["input_ids"], skip_special_tokens=False)]
        start = trained(row)[0]
        prompt = tokenizer.decode(row["input_ids"][:start], skip_special_tokens=False)
        thought = prompt.replace("assistant\n1", "assistant\n<think>\ncount\n</think>\n\n1")
        assert thought != prompt
        ids = tokenizer.encode(thought, add_special_tokens=False).ids
        row["labels"] = [IGNORED] * len(ids) + row["labels"][start:]
        row["input_ids"] = ids + row["input_ids"][start:]
        row["seq_lengths"] = [len(row["labels"])]

    rewrite(folder, leave)
    result = verify.verify(folder)
    assert result.failures["prompt"] == 1
    served, left_in = result.cases[0].splitlines()[1:]
    assert "'<' " in left_in and "'<' " not in served


def test_weights_that_are_not_the_messages_are_caught(tmp_path: Path, small: Path) -> None:
    """A message's weight reaches each of its tokens."""
    rows = [said("a", "b", "c", "d")]
    rows[0][1]["weight"] = 0.25
    folder = built(tmp_path, small, rows)
    assert not verify.verify(folder).failures
    texts = pl.read_parquet(folder / "conversations.parquet")
    messages = [{**m, "weight": 0.5 if m["weight"] else None} for m in texts["messages"][0].to_list()]
    texts = texts.with_columns(messages=pl.Series([messages], dtype=schema.MESSAGES))
    texts.write_parquet(folder / "conversations.parquet")
    assert dict(verify.verify(resigned(folder)).failures) == {"weight": 1}


def test_without_expansion_a_turn_that_could_stand_there_is_missed(tmp_path: Path, small: Path) -> None:
    """`expand = false` excuses turns whose prompts disagree with the sample, and no others."""
    folder = built(tmp_path, small, [said("one", "1", "two", "2")], expand=False)
    assert not verify.verify(folder).failures

    def silence(rows: list[Row]) -> None:
        at = trained(rows[0])[:2]
        for one in at:
            rows[0]["labels"][one] = IGNORED

    rewrite(folder, silence)
    assert "not trained" in verify.verify(folder).failures
