"""Rows → labelled shards on disk: `qdata render` beside a bare `datasets.map` over the same rows, in one run.

    QDATA_REAL_DATA=… QDATA_TOKENIZERS=… make bench

Each command is a process of its own, run `--repeat` times in alternation; wall seconds (imports included) are medians.
Writes benchmarks/results/render.json with the ratio. `datasets.map` here does what most
home-made scripts do: `apply_chat_template` to text, one batched tokenizer call, labels from the assistant span.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent

BARE_MAP = """
import sys, datasets
from transformers import AutoTokenizer
source, tokenizer, out = sys.argv[1:]
tok = AutoTokenizer.from_pretrained(tokenizer)
start, stop = tok.encode("<|im_start|>assistant\\n"), tok.convert_tokens_to_ids("<|im_end|>")
def batch(rows):
    texts = []
    for i, given, answer in zip(rows["instruction"], rows["input"], rows["output"]):
        user = i + ("\\n" + given if given else "")
        chat = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
        texts.append(tok.apply_chat_template(chat, tokenize=False))
    ids = tok(texts, add_special_tokens=False)["input_ids"]
    labels = []
    for row in ids:
        at = next(i for i in range(len(row)) if row[i : i + len(start)] == start) + len(start)
        end = row.index(stop, at)
        labels.append([-100] * at + row[at : end + 1] + [-100] * (len(row) - end - 1))
    return {"input_ids": ids, "labels": labels}
rows = datasets.load_dataset("json", data_files=source, split="train")
rows.map(batch, batched=True, num_proc=2, remove_columns=rows.column_names).save_to_disk(out)
"""


def measured(command: list[str], environment: dict[str, str]) -> float:
    """Wall seconds of a command."""
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command[:4])} … failed:\n{done.stderr[-2000:]}")
    return time.perf_counter() - start


def main() -> None:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--rows", type=int, default=None, help="only the first N rows; default: all")
    arguments = parser.parse_args()
    try:
        data, tokenizers = Path(os.environ["QDATA_REAL_DATA"]), Path(os.environ["QDATA_TOKENIZERS"])
    except KeyError as error:
        sys.exit(f"{error} is not set; this needs alpaca/alpaca_data.json and a Qwen2.5 tokenizer")
    rows = json.loads((data / "alpaca" / "alpaca_data.json").read_text(encoding="utf-8"))[: arguments.rows]
    tokenizer = str(tokenizers / "qwen2_5")
    runs: dict[str, list[float]] = {"qdata render": [], "qdata render --pack 2048": [], "datasets.map": []}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "alpaca.jsonl"
        source.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        for number in range(arguments.repeat):
            cold = {"QDATA_CACHE_DIR": f"{folder}/cache{number}", "HF_DATASETS_CACHE": f"{folder}/hf{number}"}
            environment = {**os.environ, **cold, "HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
            ours = [sys.executable, "-m", "qdata.cli", "render", str(source), "--template", "qwen2_5"]
            ours += ["--tokenizer", tokenizer, "-o"]
            packed = {**environment, "QDATA_CACHE_DIR": f"{folder}/packed{number}"}
            bare = [sys.executable, "-c", BARE_MAP, str(source), tokenizer, f"{folder}/bare{number}"]
            runs["qdata render"].append(measured([*ours, f"{folder}/ours{number}"], environment))
            runs["qdata render --pack 2048"].append(
                measured([*ours, f"{folder}/packed-out{number}", "--pack", "2048", "--max-length", "2048"], packed)
            )
            runs["datasets.map"].append(measured(bare, environment))
    seconds = {name: statistics.median(many) for name, many in runs.items()}
    result = {
        "rows": len(rows),
        "repeat": arguments.repeat,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "times_faster_than_datasets_map": {
            name: round(seconds["datasets.map"] / value, 2) for name, value in seconds.items()
        },
    }
    target = HERE / "results" / "render.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(target.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
