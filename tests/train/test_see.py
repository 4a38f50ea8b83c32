"""What a person sees of a run: pictures, trackers, samples, the dashboard, `qtrain why`."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console
from tests.train.shards import pairs

from qdata.errors import QdataError
from qtrain import chat, plot, samples, steps, trackers
from qtrain import recipe as recipes
from qtrain.callbacks import Dashboard
from qtrain.cli import main
from qtrain.data import open_shards, row_ids
from qtrain.recipe import Eval
from qtrain.train import train

SOURCES = (
    'data.sources=[{path="rows.jsonl", name="one"}, {path="more.jsonl", name="two"}]',
    'data.validation=[{path="held.jsonl", name="one"}, {path="other.jsonl", name="two"}]',
)
ASKED = ('eval.prompts=["你是谁", "good night"]', "eval.max_new_tokens=6")
DROPOUT = ("train.tuning=lora", "train.lora.lora_dropout=0.5", "train.learning_rate=5e-2")  # draws random numbers


def go(*overrides: str) -> tuple[Path, str]:
    out = io.StringIO()
    report = train(recipes.load(Path("small.toml"), overrides), Path("runs"), Console(file=out, width=200))
    return Path(report["run"]), out.getvalue()


def ask(*arguments: str) -> Any:
    return CliRunner().invoke(main, list(arguments))


def weights(run: Path, name: str) -> bytes:
    return (run / "final" / name).read_bytes()


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_a_run_is_seen_and_asked(project: Path) -> None:
    for name in ("more.jsonl", "other.jsonl"):
        Path(name).write_text("".join(Path("rows.jsonl").read_text("utf-8").splitlines(True)[2:4]), "utf-8")
    folder, said = go(*SOURCES, *ASKED)
    assert "eval by source: one " in said and "memory" in said and "GiB" in said

    log = lines(folder / "log.jsonl")
    assert all({"eval_loss/one", "eval_loss/two"} <= set(entry) for entry in log if "eval_loss" in entry)
    assert {key for entry in log if "loss" in entry for key in entry if key.startswith("loss/")} == {
        "loss/one", "loss/two",
    }  # fmt: skip
    result = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["result"]
    assert result["eval_loss/two"] == log[-1]["eval_loss/two"]

    # TensorBoard's own reader finds what the log says, in the run's folder.
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    for tag, key in (("train/loss", "loss"), ("train/loss/one", "loss/one"), ("eval/loss/two", "eval_loss/two")):
        wanted = {entry["step"]: entry[key] for entry in log if key in entry}
        assert {one.step: one.value for one in events.Scalars(tag)} == pytest.approx(wanted, rel=1e-5)

    asked = lines(folder / "samples.jsonl")
    assert [(one["step"], one["prompt"]) for one in asked] == [(s, p) for s in (2, 4) for p in ("你是谁", "good night")]
    answers = chat.ask({"answer": chat.load(folder / "final")}, ["你是谁", "good night"], None, 6)
    assert [one["answer"] for one in asked[2:]] == [one["answer"] for one in answers], "not what qtrain chat says"
    assert "good night" in said and "repeated" in said

    report = json.loads(ask("why", str(folder), "--step", "3", "--json").stdout)
    entry = lines(folder / "steps.jsonl")[2]
    assert (report["loss"], report["spike"], list(report["around"])) == (entry["loss"], False, ["1", "2", "3", "4"])
    assert sum(row["tokens"] for row in report["rows"]) == entry["tokens"]
    assert sum(row["trained"] for row in report["rows"]) == entry["trained"]
    assert [row["loss"] for row in report["rows"]] == sorted(entry["losses"], reverse=True)
    assert sorted(row["shard_row"] for row in report["rows"]) == sorted(entry["rows"])
    from qdata.tokens import paint

    for row in report["rows"]:
        assert paint.row_of(Path(report["shards"]), "train", row["row"])[0] == row["shard_row"]
    shown = ask("why", "runs/small", "--step", "3")
    assert shown.exit_code == 0 and f"qdata show {report['shards']} --row" in shown.stdout
    assert "no step 9; it has 1 to 4" in ask("why", str(folder), "--step", "9").stderr
    refused = ask("why", str(folder), "--step", "3", "--shards", str(folder))
    assert refused.exit_code == 2 and "Traceback" not in refused.output

    go("train.max_steps=1")  # builds other shards in the same place
    assert "built anew since" in ask("why", str(folder), "--step", "3").stderr


def test_a_run_on_pairs_is_seen_too(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of each step with loss and margin, each source's loss, and the worst pair where a loss stands out."""
    monkeypatch.setattr(steps, "is_spike", lambda loss, before: len(before) == 2)
    folder, said = go(*pairs(), *ASKED, "train.learning_rate=1e-2")
    entries = lines(folder / "steps.jsonl")
    assert [entry["step"] for entry in entries] == [1, 2, 3, 4]
    ids = row_ids(open_shards(Path("data/shards/small")), entries[2]["rows"])
    worst = max(zip(entries[2]["losses"], ids, strict=True))[1]
    assert f"its worst rows: {worst} (" in said.split("spike at step 3")[1]
    log = lines(folder / "log.jsonl")
    for entry, logged in zip(entries, (one for one in log if "rewards/margins" in one and "loss" in one), strict=True):
        assert entry["loss"] == pytest.approx(logged["loss"], rel=1e-4)
        assert sum(entry["margins"]) / len(entry["margins"]) == pytest.approx(logged["rewards/margins"], abs=1e-4)
        for name, (total, count) in entry["sources"].items():
            assert logged[f"loss/{name}"] == pytest.approx(total / count, rel=1e-5)
    assert "margin" in said and "in order" in said and "eval_loss/held" in {key for one in log for key in one}

    report = json.loads(ask("why", str(folder), "--step", "3", "--json").stdout)
    assert [row["loss"] for row in report["rows"]] == sorted(entries[2]["losses"], reverse=True)
    assert sorted(row["margin"] for row in report["rows"]) == sorted(entries[2]["margins"])
    assert (sum(row["tokens"] for row in report["rows"]), sum(row["trained"] for row in report["rows"])) == (
        entries[2]["tokens"], entries[2]["trained"],
    )  # fmt: skip
    shown = ask("why", str(folder), "--step", "3").stdout
    assert "margin" in shown and worst in shown and f"--row '{worst}'" in shown
    from qdata.cli import main as qdata

    painted = CliRunner().invoke(qdata, ["show", report["shards"], "--row", worst])
    assert painted.exit_code == 0, painted.output


@pytest.mark.parametrize(("tuning", "file"), [((), "model.safetensors"), (DROPOUT, "adapter_model.safetensors")])
def test_asking_does_not_disturb_training(project: Path, tuning: tuple[str, ...], file: str) -> None:
    """Bit for bit, with dropout too."""
    silent, _ = go(*tuning)
    asked, _ = go(*tuning, *ASKED)
    assert weights(silent, file) == weights(asked, file)
    assert (asked / "samples.jsonl").is_file() and not (silent / "samples.jsonl").exists()


def test_modes_and_random_numbers_are_as_before() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout())
    model[0].eval()
    before = torch.random.get_rng_state()
    with pytest.raises(ZeroDivisionError), samples.undisturbed(model):
        assert not model.training
        torch.rand(3)
        raise ZeroDivisionError
    assert [module.training for module in model.modules()] == [True, False, True]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_after_pretraining_the_text_goes_on(project: Path, tiny: Path) -> None:
    """No template, no system message: the ids given to the model are those of the bare text."""
    given: list[list[int]] = []
    loaded = chat.Chat(tiny, chat.models.for_inference(tiny), chat.load(tiny).tokenizer)
    generate = loaded.model.generate

    def spied(**how: Any) -> Any:
        given.append(how["input_ids"][0].tolist())
        return generate(**how)

    loaded.model.generate = spied
    asked = Eval(prompts=("good night",), system="unused", max_new_tokens=3)
    state = SimpleNamespace(global_step=7, is_world_process_zero=True)
    args = SimpleNamespace(bf16=False, fp16=False)
    callback = samples.Samples(project, asked, loaded.tokenizer, Console(file=io.StringIO()), raw=True)
    callback.on_evaluate(args, state, None, model=loaded.model)
    callback.on_train_end(args, state, None, model=loaded.model)  # the same step: not asked twice
    assert given == [loaded.tokenizer("good night", add_special_tokens=False)["input_ids"]]
    (entry,) = lines(project / "samples.jsonl")
    assert (entry["step"], entry["prompt"]) == (7, "good night")
    again = samples.Samples(project, asked, loaded.tokenizer, Console(file=io.StringIO()), raw=True)
    again.on_train_begin(args, state, None)
    again.on_train_end(args, state, None, model=loaded.model)
    assert len(lines(project / "samples.jsonl")) == 1, "asked again at the step it goes on from"
    state.global_step = 5
    callback.on_train_begin(args, state, None)
    assert lines(project / "samples.jsonl") == [], "a run that goes on from step 5 has not answered at step 7"


def run_with(folder: Path, losses: dict[int, float], trained: int) -> Path:
    folder.mkdir(parents=True)
    (folder / "recipe.toml").touch()
    log = [{"step": step, "loss": loss} for step, loss in losses.items()]
    (folder / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in log), encoding="utf-8")
    done = [{"step": step, "trained": trained} for step in range(1, max(losses) + 1)]
    (folder / "steps.jsonl").write_text("".join(json.dumps(one) + "\n" for one in done), encoding="utf-8")
    return folder


def test_runs_in_one_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a = run_with(tmp_path / "a" / "20260101-000000", {2: 3.0, 4: 2.0}, trained=10)
    b = run_with(tmp_path / "b" / "20260101-000000", {1: 3.0, 2: 1.0}, trained=40)
    drawn: list[tuple[str, list[float]]] = []
    original = plot._train

    def spied(axes: Any, line: plot.Line, *style: Any) -> None:
        drawn.append((line.name, list(plot._curve(line, "loss")[0])))
        original(axes, line, *style)

    monkeypatch.setattr(plot, "_train", spied)
    shown = ask("plot", str(a), str(tmp_path / "b"), "-o", str(tmp_path / "new" / "x.png"), "--name", "first")
    assert shown.exit_code == 0, shown.output
    assert drawn == [("first", [2, 4]), ("b/20260101-000000", [1, 2])] and "first: loss 2.000" in shown.stdout
    assert (tmp_path / "new" / "x.png").read_bytes().startswith(b"\x89PNG")
    drawn.clear()
    assert ask("plot", str(a), str(b), "-o", str(tmp_path / "x.png"), "--x", "tokens").exit_code == 0
    assert [at for _, at in drawn] == [[20, 40], [40, 80]]
    for arguments, told in (
        (("plot", str(a), "-o", "x.pdf"), "ends in .png"),
        (("plot", str(tmp_path / "c"), "-o", "x.png"), "no such run"),
        (("plot", str(a), "-o", "x.png", "--name", "1", "--name", "2"), "2 names for 1 runs"),
        (("why", str(tmp_path), "--step", "1"), "no run in it"),
    ):
        refused = ask(*arguments)
        assert (refused.exit_code, told in refused.stderr) == (2, True), refused.stderr


def test_a_log_of_several_lives_is_drawn_once() -> None:
    first = [{"step": s, "loss": 1.0} for s in (5, 10, 15)]
    first.insert(2, {"step": 10, "eval_loss": 1.0})
    second = [{"step": 10, "loss": 2.0}, {"step": 15, "loss": 2.0}, {"step": 15, "train_loss": 1.5}]
    assert [(e["step"], plot._kind(e)) for e in plot.once(first + second)] == [
        (5, "loss"), (10, "eval_loss"), (10, "loss"), (15, "loss"), (15, ""),
    ]  # fmt: skip
    assert plot.curve(plot.once(first + second), "loss")[1] == [1.0, 2.0, 2.0]
    uninterrupted = [*first, {"step": 15, "eval_loss": 0.5}]
    assert plot.once(uninterrupted) == uninterrupted


def test_trackers_are_transformers_names(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    assert set(trackers._NAMES) <= set(INTEGRATION_TO_CALLBACK)
    assert trackers.chosen({}) == ["tensorboard"] == trackers.chosen({"report_to": ["tensorboard"]})
    assert trackers.chosen({"report_to": "none"}) == []
    with pytest.raises(QdataError, match=r"'swanlap' is not known.*Did you mean 'swanlab'"):
        trackers.chosen({"report_to": ["tensorboard", "swanlap"]})
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    assert trackers.chosen({}) == []
    with pytest.raises(QdataError, match=r"report_to = swanlab: its package is not installed. `pip install swanlab`"):
        trackers.chosen({"report_to": "swanlab"})


def test_swanlab_is_begun_in_the_runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before transformers' callback, which cannot. (Tried with swanlab 0.10.3; here a stand-in for the package.)"""
    begun: list[dict[str, str]] = []
    monkeypatch.setitem(sys.modules, "swanlab", SimpleNamespace(init=lambda **how: begun.append(how)))
    for name in ("SWANLAB_LOG_DIR", "SWANLAB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    trainer = SimpleNamespace(
        args=SimpleNamespace(report_to=["swanlab"]), is_world_process_zero=lambda: True,
        callback_handler=SimpleNamespace(callbacks=[]),
    )  # fmt: skip
    trackers.settle(trainer, tmp_path, "muice")
    assert begun == [{"project": "muice", "name": tmp_path.name, "log_dir": str(tmp_path / "swanlab")}]

    def refuses(**_: Any) -> None:
        raise RuntimeError("no login.")

    monkeypatch.setitem(sys.modules, "swanlab", SimpleNamespace(init=refuses))
    with pytest.raises(QdataError, match=r"SwanLab does not begin: no login\. Log in with .*SWANLAB_MODE"):
        trackers.settle(trainer, tmp_path, "muice")


def test_a_tracker_that_is_missing_stops_before_a_run_is_made(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    refused = ask("small.toml", "--set", "train.report_to=wandb")
    assert refused.exit_code == 2 and "`pip install wandb`" in refused.stderr and not Path("runs").exists()


def test_the_dashboard_on_a_terminal() -> None:
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True)
    state = SimpleNamespace(global_step=0, max_steps=10, num_input_tokens_seen=0)
    logs = {"loss": 2.5, "learning_rate": 1e-4, "loss/zh": 2.75, "loss/en": 2.25}
    with Dashboard(console) as board:
        board.on_train_begin(None, state, None)
        state.global_step, state.num_input_tokens_seen = 5, 1000
        board.on_step_end(None, state, None)
        board.on_log(None, state, None, logs)
        board.on_log(None, state, None, {"eval_loss": 2.125, "eval_loss/en": 2.0})
    shown = out.getvalue()
    assert "\x1b[?25h" in shown, "the cursor is back"
    last = Console(file=(plain := io.StringIO()), width=100)
    last.print(board.table())
    for wanted in ("5/10", "2.500", "2.125", "1.0e-04", "GiB", "tokens/s"):
        assert wanted in plain.getvalue() and wanted in shown
    table = [line.split() for line in plain.getvalue().splitlines()]
    assert ["zh", "2.750", "–"] in table and ["en", "2.250", "2.000"] in table
