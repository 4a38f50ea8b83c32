"""Which weights a run starts from: the stand-in only where a hub id is truly out of reach, and nobody minds."""

from __future__ import annotations

import dataclasses
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from rich.console import Console

from qdata.errors import QdataError
from qtrain import model as models
from qtrain import recipe as recipes
from qtrain import start
from qtrain.recipe import StandIn

HUB_ID = "Qwen/Qwen2-1.5B-Instruct"


def answer(kind: type[HfHubHTTPError], status: int) -> HfHubHTTPError:
    response: Any = SimpleNamespace(status_code=status, headers={}, request=None)
    return kind(f"{status}", response=response)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Makes the hub answer with an error; the cache is empty."""

    def nothing(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("not cached")

    def fails(error: BaseException) -> None:
        def model_info(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr(HfApi, "model_info", model_info)

    monkeypatch.setattr("huggingface_hub.snapshot_download", nothing)
    return fails


@pytest.fixture
def recipe(project: Path) -> recipes.TrainRecipe:
    loaded = recipes.load(project / "small.toml", [f"model.name={HUB_ID}"])
    stand_in = StandIn(hidden_size=32, num_hidden_layers=1, vocab_size=350)
    return dataclasses.replace(loaded, stand_in=stand_in)


def decide(recipe: recipes.TrainRecipe, **how: Any) -> start.Start:
    return start.decide(recipe, Console(file=io.StringIO()), **how)


OUT_OF_REACH = [answer(RepositoryNotFoundError, 404), HTTPError("no route"), OfflineModeIsEnabled("offline")]
IN_THE_WAY = [
    answer(GatedRepoError, 403),
    answer(RepositoryNotFoundError, 401),
    answer(HfHubHTTPError, 403),
    answer(HfHubHTTPError, 503),
]


@pytest.mark.parametrize("error", OUT_OF_REACH, ids=repr)
def test_a_hub_id_out_of_reach_is_stood_in_for(hub: Any, recipe: Any, error: BaseException) -> None:
    hub(error)
    out = io.StringIO()
    begun = start.decide(recipe, Console(file=out))
    assert begun.stand_in and "STAND-IN" in out.getvalue()
    assert begun.train is recipe.stand_in_train
    assert (begun.folder / "config.json").is_file() and begun.data.tokenizer == str(begun.folder)


@pytest.mark.parametrize("error", IN_THE_WAY, ids=repr)
def test_a_hub_that_says_no_is_not(hub: Any, recipe: Any, error: BaseException) -> None:
    hub(error)
    with pytest.raises(QdataError, match=rf"{HUB_ID}: the hub answered \d"):
        decide(recipe)


def test_strict_refuses(hub: Any, recipe: Any) -> None:
    hub(OUT_OF_REACH[0])
    with pytest.raises(QdataError, match="--strict trains no stand-in"):
        decide(recipe, strict=True)


def test_a_machine_with_a_gpu_refuses(hub: Any, recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hub(OUT_OF_REACH[0])
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with pytest.raises(QdataError, match="With a GPU no stand-in"):
        decide(recipe)


def test_a_recipe_without_one_refuses(hub: Any, recipe: Any) -> None:
    hub(OUT_OF_REACH[0])
    with pytest.raises(QdataError, match=r"no \[stand_in\]"):
        decide(dataclasses.replace(recipe, stand_in=None))


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/model", "models/qwen/mine", "~/nowhere"])
def test_a_local_path_is_never_stood_in_for(hub: Any, recipe: Any, name: str) -> None:
    hub(OUT_OF_REACH[0])
    named = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, name=name))
    with pytest.raises(QdataError, match="not a model folder"):
        decide(named)


def test_a_local_folder_is_taken_with_its_tokenizer(recipe: Any, tiny: Path) -> None:
    named = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, name=str(tiny)))
    begun = decide(named, strict=True)
    assert (begun.folder, begun.stand_in, begun.data.tokenizer) == (tiny, None, str(tiny))
    assert begun.train is recipe.train


def test_what_was_exported_from_a_rehearsal_is_one(recipe: Any, tiny: Path, tmp_path: Path) -> None:
    """Named as a model, too: else the second of two stages would pass for the real thing."""
    folder = shutil.copytree(tiny, tmp_path / "exported")
    (folder / "manifest.json").write_text('{"stand_in_reason": "no hub"}', encoding="utf-8")
    named = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, name=str(folder)))
    begun = decide(named)
    assert (begun.folder, begun.stand_in) == (folder, "no hub") and begun.train is recipe.stand_in_train
    with pytest.raises(QdataError, match="was trained from a stand-in: no hub"):
        decide(named, strict=True)


def test_a_cached_model_is_taken_without_asking_the_hub(
    monkeypatch: pytest.MonkeyPatch, hub: Any, recipe: Any, tiny: Path, tmp_path: Path
) -> None:
    hub(AssertionError("asked the hub"))
    snapshot = shutil.copytree(tiny, tmp_path / "snapshot")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(snapshot))
    assert decide(recipe).folder == snapshot
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(AssertionError, match="asked the hub"):
        decide(recipe)  # a tokenizer alone is no model


def test_the_same_rows_make_the_same_stand_in(tiny: Path, tmp_path: Path) -> None:
    from tests.train.conftest import SMALL, texts

    from qtrain import stand_in

    again = stand_in.build(SMALL, texts(), tmp_path / "again")
    for file in tiny.iterdir():
        assert file.read_bytes() == (again / file.name).read_bytes(), file.name


def test_the_stand_ins_tokenizer_keeps_its_ids(tiny: Path) -> None:
    """transformers rebuilds Qwen tokenizers from their parts; ours must come out of that unchanged."""
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    plain, loaded = Tokenizer.from_file(str(tiny / "tokenizer.json")), AutoTokenizer.from_pretrained(tiny)
    text = "<|im_start|>user\nWho's é there? 你是谁 12345\n\n  x<|im_end|>\n<|endoftext|>"
    assert loaded.encode(text) == plain.encode(text).ids
    assert loaded.decode(loaded.encode(text)) == text
    assert (loaded.eos_token, loaded.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert models.is_local(str(tiny))
