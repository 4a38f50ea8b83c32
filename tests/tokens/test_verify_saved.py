"""Verify of a run or an export: what is saved is what was trained, and every planted fault is caught."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tokens.test_shards import small_tokenizer
from tests.tokens.test_verify import built, rewrite

from qdata.errors import QdataError
from qdata.tokens import verify

pytest.importorskip("transformers")


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards that a run was trained on."""
    folder = tmp_path_factory.mktemp("saved")
    return built(folder, small_tokenizer(tmp_path_factory.mktemp("tokenizer")), default_system="You are Muxue.")


@pytest.fixture
def run(shards: Path, tmp_path: Path) -> Path:
    """A run as qtrain leaves it, weights apart: two checkpoints and the final model."""
    folder = tmp_path / "runs/muice/20260101-000000"
    manifest = json.loads((shards / "manifest.json").read_text(encoding="utf-8"))
    papers = json.dumps({"data": manifest, "shards": str(shards)})
    stop = json.loads((shards / "tokenizer/tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    (ends,) = [token["id"] for token in stop if token["content"] == "<|im_end|>"]
    for name in ("checkpoint-20", "checkpoint-100", "final"):
        shutil.copytree(shards / "tokenizer", folder / name)
        (folder / name / "config.json").write_text(json.dumps({"vocab_size": 1000}), encoding="utf-8")
        (folder / name / "generation_config.json").write_text(json.dumps({"eos_token_id": [ends]}), encoding="utf-8")
        (folder / name / "model.safetensors").touch()
        (folder / name / "manifest.json").write_text(papers, encoding="utf-8")
    (folder / "manifest.json").write_text(papers, encoding="utf-8")
    return folder


def edit(file: Path, **changes: Any) -> None:
    """Some keys of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def test_a_run_passes_with_its_rows(run: Path, shards: Path) -> None:
    """All its models, then every row; named by its folder, by its recipe's, or as one model."""
    rows = verify.verify(shards)
    for path, models in ((run, 3), (run.parent, 3), (run / "final", 1), (run / "checkpoint-20", 1)):
        result = verify.verify(path)
        assert (dict(result.failures), result.cases, result.notes) == ({}, [], [])
        assert (len(result.models), result.sequences, result.answers) == (models, rows.sequences, rows.answers)
    assert result.models == [str(run / "checkpoint-20")]
    assert [Path(one).name for one in verify.verify(run).models] == ["checkpoint-20", "checkpoint-100", "final"]


def test_shards_that_are_gone_are_told(run: Path, shards: Path, tmp_path: Path) -> None:
    """The files are still compared; that no row was looked at is said; --shards says where they are now."""
    for papers in run.rglob("manifest.json"):
        edit(papers, shards="data/shards/gone")
    result = verify.verify(run)
    assert (dict(result.failures), result.sequences) == ({}, 0)
    assert "data/shards/gone" in result.notes[0]
    assert verify.verify(run, shard_folder=shards).sequences > 0
    moved = Path(shutil.copytree(shards, tmp_path / "data/shards/gone"))
    assert verify.verify(run).sequences > 0, "beside a folder above the run"
    edit(moved / "manifest.json", fingerprint="other")
    assert dict(verify.verify(run).failures) == {"other shards": 1}


def edited_template(model: Path) -> None:
    """Edited after rendering."""
    file = model / "chat_template.jinja"
    file.write_text(file.read_text(encoding="utf-8").replace("Muxue", "Qwen"), encoding="utf-8")


def other_tokenizer(model: Path) -> None:
    """Saved again from memory: not the same bytes."""
    file = model / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8"))), encoding="utf-8")


def second_template(model: Path) -> None:
    """Which of two a server takes depends on the server."""
    edit(model / "tokenizer_config.json", chat_template="{{ messages[0].content }}")


def never_stops(model: Path) -> None:
    """A base model's end of text: the answers were trained to end otherwise."""
    edit(model / "generation_config.json", eos_token_id=0)


def too_few_rows(model: Path) -> None:
    """Ids without an embedding."""
    edit(model / "config.json", vocab_size=10)


def no_weights(model: Path) -> None:
    """Nothing to serve."""
    (model / "model.safetensors").unlink()


def half_the_weights(model: Path) -> None:
    """One of two files."""
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def no_template(model: Path) -> None:
    """The server would guess."""
    (model / "chat_template.jinja").unlink()


FAULTS: dict[Callable[[Path], None], str] = {
    edited_template: "changed file",
    other_tokenizer: "changed file",
    second_template: "two templates",
    never_stops: "stop token",
    too_few_rows: "vocabulary",
    no_weights: "missing file",
    half_the_weights: "missing file",
    no_template: "missing file",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.__name__))
@pytest.mark.parametrize("name", ["checkpoint-20", "final"])
def test_a_planted_fault_is_caught(fault: Callable[[Path], None], name: str, run: Path) -> None:
    """In the final model as in a checkpoint; the case names the folder."""
    fault(run / name)
    result = verify.verify(run)
    assert FAULTS[fault] in result.failures
    assert set(result.failures) <= {FAULTS[fault], "changed file"}
    assert str(run / name) in result.cases[0]


def test_rows_that_the_saved_model_would_not_be_served_are_caught(run: Path, shards: Path, tmp_path: Path) -> None:
    """All hashes agree, and a row is wrong."""
    spoilt = Path(shutil.copytree(shards, tmp_path / "spoilt"))
    rewrite(spoilt, lambda rows: rows.append(rows[0]))
    assert "prompt" in verify.verify(run, shard_folder=spoilt).failures


def test_an_adapter_passes(run: Path) -> None:
    """It has no configuration of its own: its base says when to stop."""
    final = run / "final"
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        (final / name).unlink()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (final / name).write_text("{}", encoding="utf-8")
    assert not verify.verify(run).failures


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "no manifest.json"), ({"command": "convert"}, "neither of shards nor of a run"), ({"data": {}}, "neither")],
)
def test_other_folders_are_refused(content: Any, said: str, tmp_path: Path) -> None:
    """With what was wanted."""
    if content is not None:
        (tmp_path / "manifest.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(QdataError, match=said):
        verify.verify(tmp_path)


def test_a_run_without_a_model_is_refused(run: Path) -> None:
    """It was stopped before its first checkpoint."""
    for model in ("final", "checkpoint-20", "checkpoint-100"):
        shutil.rmtree(run / model)
    with pytest.raises(QdataError, match="no model in it yet"):
        verify.verify(run)
