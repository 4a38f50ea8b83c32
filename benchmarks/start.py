"""How long a run takes to its first step, whatever the data; and what share of its time a trainer waits for rows.

    python benchmarks/start.py [--rows 10000 100000 1000000] [--repeated 10 100] [--only first|wait]

First step: rows of about 60 tokens go through `qdata render` and a run of `qtrain` on a model of two layers, in a fresh
process; what is told are the seconds of each part of the road up to the moment the first optimiser step begins, and
from `model loaded` to it. `--repeated N` adds shards whose index names the files of the largest set N times: the rows a
memory map shows are then N times as many, and no disk is needed; the files that are proven stay those of the set.
Waiting: the time spent in fetching and collating batches, of a run's time in its steps, packed at 2048, one row a step,
on a stand-in as in the recipes (2 M parameters) and on one of 25 M; the first step is left out.

Writes benchmarks/results/start.json; what is not measured keeps its figures.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "start.json"
SHAPES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64},
    "stand-in, 2 M": {"hidden_size": 192, "num_hidden_layers": 4, "intermediate_size": 512},
    "25 M": {"hidden_size": 512, "num_hidden_layers": 8, "intermediate_size": 1376},
}
WORDS = ("the", "river", "crossed", "a", "town", "where", "nobody", "had", "ever", "counted", "lanterns", "before")
RECIPE = """
[data]
sources = ["rows.jsonl"]
template = "qwen2"
default_system = "You are a helpful assistant."
{pack}
[model]
name = "model"
[train]
max_steps = {steps}
per_device_train_batch_size = 1
activation_checkpointing = false
save_strategy = "no"
logging_steps = 1
"""


def write_rows(rows: int, file: Path) -> None:
    """Conversations of one turn, all different."""
    with file.open("w", encoding="utf-8") as out:
        for n in range(rows):
            said = [" ".join(WORDS[(n * k + j) % len(WORDS)] for j in range(9)) for k in (3, 5, 7)]
            turns = [
                {"role": "user", "content": f"{n}: {said[0]}?"},
                {"role": "assistant", "content": f"{said[1]}. {said[2]} {n}."},
            ]
            out.write(json.dumps({"messages": turns}) + "\n")


def build_model(name: str, folder: Path) -> None:
    """A stand-in of this shape, with a vocabulary of its own."""
    from qtrain import stand_in
    from qtrain.recipe import StandIn

    wanted = StandIn(num_attention_heads=4, num_key_value_heads=2, vocab_size=4000, **SHAPES[name])
    stand_in.build(wanted, [*WORDS, *map(str, range(3000))], folder)


def run(recipe: Path) -> dict[str, Any]:
    """In a process of its own: the road of this recipe in the current directory, until its steps are over."""
    from rich.console import Console
    from transformers import Trainer, TrainerCallback

    from qdata import pipeline
    from qtrain import model as models
    from qtrain import prepare, tuning
    from qtrain import recipe as recipes
    from qtrain import train as road

    seconds: dict[str, float] = {}
    marks: dict[str, float] = {}

    def timed(owner: Any, name: str, told: str) -> None:
        inner = getattr(owner, name)

        def outer(*args: Any, **how: Any) -> Any:
            began = time.perf_counter()
            try:
                return inner(*args, **how)
            finally:
                marks[told] = time.perf_counter()
                seconds[told] = seconds.get(told, 0.0) + marks[told] - began

        setattr(owner, name, outer)

    timed(pipeline, "current", "shards are current?")
    timed(prepare, "open_shards", "open shards")
    timed(prepare, "prove", "prove 16 rows")
    timed(tuning, "load", "load the model")
    timed(road, "_trainer", "make the trainer")
    timed(Trainer, "get_batch_samples", "wait for rows")

    class Over(BaseException):
        pass

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 0:
                marks["first step"] = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 1:
                marks["steps from"], seconds["wait for rows"] = time.perf_counter(), 0.0
            if state.global_step == state.max_steps:
                marks["steps to"] = time.perf_counter()
                raise Over

    made = road.trainer_of

    def watched(*args: Any) -> Any:
        trainer = made(*args)
        trainer.add_callback(Clock())
        return trainer

    road.trainer_of = watched
    began = time.perf_counter()
    with suppress(Over):
        road.train(recipes.load(recipe), Path("runs"), Console(file=io.StringIO()))
    steps = int(recipe.read_text(encoding="utf-8").split("max_steps = ")[1].split()[0])
    out: dict[str, Any] = {
        "rows": len(prepare.open_shards(Path("data/shards") / recipe.stem).train),
        "seconds_to_first_step": round(marks["first step"] - began, 2),
        "seconds_from_model_loaded": round(marks["first step"] - marks["load the model"], 2),
        "parts": {name: round(value, 2) for name, value in seconds.items() if name != "wait for rows"},
    }
    if steps > 1:
        whole = marks["steps to"] - marks["steps from"]
        out["ms_per_step"] = round(1000 * whole / (steps - 1), 1)
        out["ms_waiting_per_step"] = round(1000 * seconds["wait for rows"] / (steps - 1), 3)
        out["share_waiting"] = round(seconds["wait for rows"] / whole, 5)
        loaded = models.load(Path("model"))
        out["parameters"] = sum(p.numel() for p in loaded.parameters())
    return out


def elsewhere(recipe: str) -> dict[str, Any]:
    """`run` in a fresh process."""
    done = subprocess.run([sys.executable, __file__, "--child", recipe], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return dict(json.loads(done.stdout.splitlines()[-1]))


def shards_of(stem: str, pack: int | None, steps: int) -> None:
    """The recipe `stem`.toml and its shards, in the current directory."""
    from qdata import pipeline
    from qtrain import recipe as recipes
    from qtrain import start

    text = RECIPE.format(pack=f"pack = {pack}" if pack else "", steps=steps)
    Path(f"{stem}.toml").write_text(text, encoding="utf-8")
    recipe = recipes.load(Path(f"{stem}.toml"))
    from rich.console import Console

    data = start.decide(recipe, Console(quiet=True)).data
    pipeline.build(data, Path("data/shards") / stem, base=recipe.base, replace=True)


def repeat(stem: str, times: int) -> None:
    """Let the index of the shards name each file `times` over instead of once; the manifest agrees to that."""
    folder = Path("data/shards") / stem
    file = folder / "train" / "state.json"
    state = json.loads(file.read_text(encoding="utf-8"))
    names = list(dict.fromkeys(one["filename"] for one in state["_data_files"]))
    state["_data_files"] = [{"filename": name} for name in names * times]
    file.write_text(json.dumps(state), encoding="utf-8")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"]["train/state.json"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def first_step(rows: list[int], repeated: list[int]) -> list[dict[str, Any]]:
    """One entry for each number of rows, unpacked and packed."""
    out = []
    for number in rows:
        write_rows(number, Path("rows.jsonl"))
        for stem, pack in (("plain", None), ("packed", 2048)):
            shards_of(stem, pack, steps=1)
            out.append({"conversations": number, "packed": pack, **elsewhere(f"{stem}.toml")})
            print(json.dumps(out[-1]), flush=True)
            for times in repeated if number == max(rows) else ():
                repeat(stem, times)
                entry = {"conversations": number * times, "packed": pack, "repeated": times}
                out.append({**entry, **elsewhere(f"{stem}.toml")})
                print(json.dumps(out[-1]), flush=True)
            shutil.rmtree(Path("data/shards") / stem)
    return out


def waiting() -> list[dict[str, Any]]:
    """One entry for each model."""
    out = []
    write_rows(20_000, Path("rows.jsonl"))
    for name, steps in (("stand-in, 2 M", 12), ("25 M", 4)):
        shutil.rmtree("model")
        build_model(name, Path("model"))
        shards_of("packed", 2048, steps)
        out.append({"model": name, **elsewhere("packed.toml")})
        print(json.dumps(out[-1]), flush=True)
    return out


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--repeated", type=int, nargs="*", default=[10, 100])
    parser.add_argument("--only", choices=("first", "wait"))
    parser.add_argument("--child", type=Path)
    given = parser.parse_args()
    if given.child is not None:
        print(json.dumps(run(given.child)))
        return
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["QDATA_CACHE_DIR"] = str(Path(folder) / "cache")
        build_model("tiny", Path("model"))
        if given.only != "wait":
            results["first_step"] = first_step(given.rows, given.repeated)
        if given.only != "first":
            results["waiting"] = waiting()
    results["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, no GPU, load {os.getloadavg()[1]:.0f}"
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
