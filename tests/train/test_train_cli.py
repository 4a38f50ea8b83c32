"""The command line: fast help, errors without traceback, the exact commands of the README."""

from __future__ import annotations

import doctest
import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import qtrain
from qtrain.cli import main


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from qtrain.cli import main; main(['--help'], standalone_mode=False);"
        "heavy = {'torch', 'transformers', 'trl', 'peft', 'datasets', 'matplotlib', 'polars'} & set(sys.modules);"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "qtrain recipes/muice.toml" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere.toml"], "nowhere.toml: no such recipe"),
        (["small.toml", "--set", "train.learning_rat=1"], "Did you mean 'learning_rate'"),
        (["small.toml", "--set", "nonsense"], "wanted table.key=value"),
        (["chat", "runs/nothing"], "no such run or model folder"),
        (["export", "runs/nothing", "-o", "out"], "no such run or model folder"),
        (["chatt", "x"], "no command is called 'chatt'. Did you mean 'chat'"),
        (["chat", "runs/nothing", "--json"], "go with --ask"),
        (["."], ".: wanted a recipe, such as small.toml"),
        (["small"], "small: wanted a recipe, such as small.toml"),
        (["small.toml", "--output", "rows.jsonl"], "no run can be made there"),
        (["small.toml", "--output", "rows.jsonl/deep"], "rows.jsonl is a file"),
    ],
)
def test_errors_are_one_message_and_exit_2(project: Path, arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2 and told in result.stderr
    assert "Traceback" not in result.output
    assert not Path("runs").exists() and not Path("out").exists()


def test_what_is_plain_is_told_before_shards_are_made(project: Path) -> None:
    """And shards that are right do not give way to wrong ones."""
    run_of = lambda *words: CliRunner().invoke(main, ["small.toml", "--set", "train.max_steps=1", *words])  # noqa: E731
    done = run_of("--set", "train.global_batch_size=7")
    assert done.exit_code == 2 and "global_batch_size = 7, with per_device_train_batch_size = 2" in done.stderr
    assert not Path("data").exists()
    assert run_of("--set", "data.validation=[]").stderr.count("eval_strategy wants validation rows") == 1
    assert not Path("data").exists()
    assert "is missing, building it" in run_of().output
    before = Path("data/shards/small/manifest.json").read_bytes()
    done = run_of("--set", "train.stage=dpo")
    assert done.exit_code == 2 and "rows of kind chat" in done.stderr
    assert Path("data/shards/small/manifest.json").read_bytes() == before
    assert "is stale, its rows or how they are made changed" in run_of("--set", "data.max_length=60").output


def test_rows_that_fell_are_told(project: Path) -> None:
    """And no model card of TRL's lies about, which names neither base nor data."""
    done = CliRunner().invoke(main, ["small.toml", "--set", "train.max_steps=1", "--set", "data.max_length=50"])
    assert done.exit_code == 0 and " rows: max_length.too_long " in done.output and "(max_length 50)" in done.output
    assert not list(Path("runs").rglob("README.md"))


def test_a_recipe_is_enough(project: Path) -> None:
    result = CliRunner().invoke(main, ["small.toml", "--set", "train.max_steps=1", "--output", "mine", "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert Path(report["run"]).parent == Path("mine/small") and report["result"]["steps"] == 1
    asked = CliRunner().invoke(main, ["chat", "mine/small", "--ask", "hi", "--max-new-tokens", "2", "--json"])
    assert json.loads(asked.stdout)["answers"][0]["question"] == "hi"
    talked = CliRunner().invoke(main, ["chat", "mine/small", "--max-new-tokens", "2"], input="hi\n/new\n/exit\n")
    assert talked.exit_code == 0 and "it ›" in talked.output


@pytest.mark.parametrize("name", [m.name for m in pkgutil.iter_modules(qtrain.__path__) if m.name != "__main__"])
def test_docstring_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(f"qtrain.{name}")).failed == 0
