"""Training equals serving? `qdata render` beside the peers that install, on the same rows, by one law (`law.py`).

    QDATA_REAL_DATA=… QDATA_TOKENIZERS=… python benchmarks/serving.py --home DIR --docs

Each tool prepares each data set in a process of its own, in its own virtual environment under DIR (made by
`benchmarks/peers/setup.sh`), through a small driver in `benchmarks/peers/`; ids and labels of its output are counted
here. A peer that is missing or fails is printed as missing with the last line of its reason. Writes
benchmarks/results/serving.json, and with `--docs` the tables of docs/peers.md from that file.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tables
from law import Law, Turn, score
from transformers import AutoTokenizer

import rows

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "serving.json"
DOCS = HERE.parent / "docs" / "peers.md"
Job = dict[str, Any]
ARCHITECTURE = {"qwen2_5": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}


@dataclass(frozen=True)
class Tool:
    """A tool and one way to call it; `venv` is its folder under the peers' home, None our own interpreter."""

    name: str
    driver: str
    venv: str | None
    options: dict[str, str | bool | list[str]] = field(default_factory=dict)
    only: tuple[str, ...] = ()  # "model/set"; all if empty


NASTY = ("qwen2_5/nasty", "qwen3/nasty")
TOOLS = (
    Tool("qdata render", "qdata", None),
    Tool("qdata render --specials keep", "qdata", None, {"more": ["--specials", "keep"]}, NASTY),
    Tool("datasets.map by hand", "hand", "trl"),
    Tool("TRL assistant_only_loss", "trl", "trl", {"loss": "assistant"}),
    Tool("TRL prompt-completion", "trl", "trl", {"loss": "completion"}),
    Tool("LLaMA-Factory", "llamafactory", "llamafactory"),
    Tool(
        "LLaMA-Factory, qwen3_nothink",
        "llamafactory",
        "llamafactory",
        {"template": "qwen3_nothink"},
        ("qwen3/sharegpt_zh",),
    ),
    Tool(
        "LLaMA-Factory, mask_history",
        "llamafactory",
        "llamafactory",
        {"mask_history": True},
        ("qwen3/sharegpt_zh", "qwen3/reasoning_tools"),
    ),
    Tool("ms-swift", "swift", "swift"),
    Tool(
        "ms-swift, last_round",
        "swift",
        "swift",
        {"loss_scale": "last_round"},
        ("qwen3/sharegpt_zh", "qwen3/reasoning_tools"),
    ),
    Tool("Axolotl", "axolotl", "axolotl"),
)


def model_folder(tokenizers: Path, folder: Path, template: str) -> Path:
    """A model as the tools want to see one: the real tokenizer with its chat template, a tiny config, no weights."""
    shutil.copytree(tokenizers / template, folder, dirs_exist_ok=True, copy_function=shutil.copyfile)
    config = {
        "architectures": [ARCHITECTURE[template]],
        "model_type": ARCHITECTURE[template].removesuffix("ForCausalLM").lower(),
        "vocab_size": 151936,
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 4,
        "max_position_embeddings": 131072,
        "eos_token_id": 151645,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def run(driver: str, python: Path, jobs: list[Job], work: Path) -> None:
    """The jobs of a tool that have no output yet, in one process. One that leaves none gets one that says why."""
    jobs = [job for job in jobs if not Path(job["out"]).exists()]
    if not jobs:
        return
    work.mkdir(parents=True, exist_ok=True)
    (work / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "AXOLOTL_DO_NOT_TRACK": "1"}
    caches = {"HF_HOME": str(work / "hf"), "MODELSCOPE_CACHE": str(work / "ms"), "QDATA_CACHE_DIR": str(work / "q")}
    quiet = {"CUDA_VISIBLE_DEVICES": "", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "DISABLE_VERSION_CHECK": "1"}
    reason = "no virtual environment of this name"
    if python.exists():
        command = [str(python), str(HERE / "peers" / f"drive_{driver}.py"), str(work / "jobs.json")]
        with (work / "log.txt").open("w", encoding="utf-8") as log:
            environment = {**os.environ, **offline, **caches, **quiet}
            code = subprocess.run(command, env=environment, stdout=log, stderr=log, cwd=work, check=False).returncode
        lines = (work / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"exit code {code}"
    for job in jobs:
        if not Path(job["out"]).exists():
            Path(job["work"]).mkdir(parents=True, exist_ok=True)
            Path(job["out"]).write_text(json.dumps({"missing": reason}) + "\n", encoding="utf-8")


def measured(law: Law, turns: dict[str, list[Turn]], job: Job) -> dict[str, Any]:
    """What a tool did to a data set: options, versions and counts, or why it is missing."""
    with Path(job["out"]).open(encoding="utf-8") as lines:
        head: dict[str, Any] = json.loads(lines.readline())
        if "missing" in head:
            return head | {"missing": head["missing"].splitlines()[-1][:300]}
        examples = map(json.loads, lines)
        return head | asdict(score(law, turns, ((e["input_ids"], e["labels"]) for e in examples)))


def main() -> None:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    home = os.environ.get("BENCH_HOME")
    parser.add_argument("--home", type=Path, default=Path(home or "peers"), help="folder of the peers' environments")
    parser.add_argument("--rows", type=int, help="at most so many rows of each data set")
    parser.add_argument("--only", action="append", default=[], help="only tools whose driver is this; may be repeated")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the result is written")
    parser.add_argument(
        "--work",
        type=Path,
        help="scratch folder to keep; outputs that lie there are taken",
    )
    parser.add_argument("--docs", action="store_true", help="write the tables of docs/peers.md from the result")
    parser.add_argument("--no-run", action="store_true", help="take the result as it is on disk")
    arguments = parser.parse_args()
    if not arguments.no_run:
        with tempfile.TemporaryDirectory() as scratch:
            result = compare(arguments, (arguments.work or Path(scratch) / "work").resolve())
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    result = json.loads(arguments.json.read_text(encoding="utf-8"))
    print(tables.shares(result))
    if arguments.docs:
        DOCS.write_text(tables.fill(DOCS.read_text(encoding="utf-8"), result), encoding="utf-8")


def compare(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Every tool on every data set and model."""
    try:
        data, tokenizers = Path(os.environ["QDATA_REAL_DATA"]), Path(os.environ["QDATA_TOKENIZERS"])
    except KeyError as error:
        sys.exit(f"{error} is not set; this needs the data sets and the qwen2_5 and qwen3 tokenizers")
    tools = [tool for tool in TOOLS if not arguments.only or tool.driver in arguments.only]
    laws, columns, jobs = {}, [], {}
    for template in ARCHITECTURE:
        model = model_folder(tokenizers, work / "models" / template, template)
        law = laws[template] = Law(AutoTokenizer.from_pretrained(model))
        for chosen in rows.SETS:
            if template not in chosen.models:
                continue
            place = f"{template}/{chosen.name}"
            folder = work / "data" / place
            plain = rows.write(chosen, data, folder, template, law.row_key, arguments.rows)
            columns.append((chosen, template, plain))
            for tool in tools:
                if not tool.only or place in tool.only:
                    scratch = work / "out" / tool.name / place
                    jobs[tool.name, place] = {
                        "model": str(model),
                        "template": template,
                        "data": str(folder),
                        "native": chosen.native,
                        "reasoning": chosen.reasoning,
                        "options": tool.options,
                        "work": str(scratch),
                        "out": str(scratch / "out.jsonl"),
                    }
    for driver, venv in dict.fromkeys((tool.driver, tool.venv) for tool in tools):
        print(driver, "…", file=sys.stderr, flush=True)
        own = [job for tool in tools if tool.driver == driver for (name, _), job in jobs.items() if name == tool.name]
        python = arguments.home / venv / "bin" / "python" if venv else Path(sys.executable)
        run(driver, python, own, work / "runs" / driver)
    result: dict[str, Any] = {"date": datetime.date.today().isoformat(), "transformers": version("transformers")}
    result |= {"tools": [tool.name for tool in tools], "columns": []}
    for chosen, template, plain in columns:
        turns = laws[template].turns(plain)
        by_tool = {
            name: measured(laws[template], turns, job)
            for (name, place), job in jobs.items()
            if place == f"{template}/{chosen.name}"
        }
        if chosen.name != "nasty":  # no text of data sets that are not ours
            for counts in by_tool.values():
                counts.pop("examples", None)
        column = {"model": template, "set": chosen.name, "about": chosen.about, "rows": len(plain), "tools": by_tool}
        result["columns"].append(column)
    return result


if __name__ == "__main__":
    main()
