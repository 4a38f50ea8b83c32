"""Six steps of cleaning over 520,000 rows: `qdata clean` with one and two workers beside data-juicer, in one run.

    python benchmarks/clean_peer.py --data DATA --home PEERS

DATA holds alpaca/alpaca_data.json, PEERS the environment `data-juicer` (see benchmarks/peers/setup.sh); without it the
peer is printed as missing. The rows are mixed from alpaca's sentences by a seed: 80 % of their own, 10 % exact copies,
10 % copies with some words replaced. They are written as texts, which both tools clean, and as alpaca's instruction,
input and output, which are conversations to us and nothing that data-juicer reads.

Both repair encodings with all that ftfy does, make spaces plain, and drop what is too short or long, has too many
special characters, repeats itself, or has too few or many words; the limits are the same. Ours also writes a ledger
with the text before and after, and the dropped rows. The tools take turns, each run a process of its own with empty
caches. Memory is the PSS of all its processes together, looked at every 0.2 s. `load` is the machine's load average
when a run began. Rows on which the tools disagree are given to data-juicer alone once more, to see which operator drops
them. Writes results/clean_peer.json.

What they disagree on in the committed result, by its samples: we call every character special that is no letter, and
data-juicer those of a list that has no █, ℃, ⁴ or ∠, but has π; a number is a word to us; and a zero-width space, which
it makes a plain one, is none to our whitespace (control_characters takes it away). Conversations are judged turn by
turn, so that more of them fall.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

RESULT = Path(__file__).parent / "results" / "clean_peer.json"
PEER = "data-juicer, np 2"
STEPS = (
    "fix_text everything=true",
    "whitespace spaces=true ends=true trailing=false blank_lines=-1",
    "length min_text=20 max_text=20000",
    "special_characters max=0.25",
    "character_repetition n=10 max=0.5",
    "length min_words=5 max_words=10000",
)
OPERATORS: list[dict[str, dict[str, Any]]] = [
    {"fix_unicode_mapper": {}},
    {"whitespace_normalization_mapper": {}},
    {"text_length_filter": {"min_len": 20, "max_len": 20000}},
    {"special_characters_filter": {"min_ratio": 0.0, "max_ratio": 0.25}},
    {"character_repetition_filter": {"rep_len": 10, "min_ratio": 0.0, "max_ratio": 0.5}},
    {"words_num_filter": {"lang": "en", "tokenization": False, "min_num": 5, "max_num": 10000}},
]
# A question is no text of its own, and a short one is none to drop: alpaca's limits are those of the answers.
IN_TURNS = {"length min_text=20 max_text=20000": "length min_answer=20 max_answer=20000"}
OURS = {f"qdata, {what}, {n} worker{'s' * (n > 1)}": (layout, n)
        for what, layout in (("texts", "text"), ("conversations", "alpaca")) for n in (1, 2)}  # fmt: skip
SHOWN = 5
Row = dict[str, Any]


class Ran(NamedTuple):
    """What one run took: seconds by the clock and of the processors, and the most memory, in MiB."""

    seconds: float
    cpu: float
    mib: int
    load: float
    said: str


def rows(alpaca: list[dict[str, str]], count: int) -> list[dict[str, str]]:
    """The rows, shuffled; the same ones every time."""
    draw = random.Random(0)
    sentences = [s for row in alpaca for s in re.split(r"(?<=[.!?])\s+|\n+", row["output"]) if len(s) > 15]
    words = [word for row in alpaca[:5000] for word in row["output"].split() if word.isalpha()]

    def mixed() -> dict[str, str]:
        like, said = draw.choice(alpaca), [draw.choice(sentences)]
        while sum(map(len, said)) + len(said) <= len(like["output"]):
            said.append(draw.choice(sentences))
        instruction = f"{draw.choice(alpaca)['instruction']} {draw.choice(words)}"
        given = like["input"] if draw.random() < 0.4 else ""
        return {"instruction": instruction, "input": given, "output": " ".join(said)}

    def nearly(row: dict[str, str], share: float) -> dict[str, str]:
        said = row["output"].split(" ")
        for at in draw.sample(range(len(said)), max(1, int(share * len(said)))):
            said[at] = draw.choice(words)
        return row | {"output": " ".join(said)}

    own = [mixed() for _ in range(count * 8 // 10)]
    copies = [draw.choice(own) for _ in range(count // 10)]
    near = [nearly(draw.choice(own), (0.02, 0.05, 0.1, 0.2)[k % 4]) for k in range(count - len(own) - len(copies))]
    made = [*own, *copies, *near]
    draw.shuffle(made)
    return made


def write(made: Iterable[dict[str, str]], folder: Path) -> None:
    """The rows with a number in both layouts, text.jsonl and alpaca.jsonl."""
    folder.mkdir()
    texts, turns = ((folder / f"{layout}.jsonl").open("w", encoding="utf-8") for layout in ("text", "alpaca"))
    with texts, turns:
        for number, row in enumerate(made):
            whole = "\n".join(part for part in row.values() if part)
            texts.write(json.dumps({"id": number, "text": whole}, ensure_ascii=False) + "\n")
            turns.write(json.dumps({"id": number} | row, ensure_ascii=False) + "\n")


def ran(command: list[str], environment: dict[str, str]) -> Ran:
    """Runs a command to its end. Raises RuntimeError with its last words where it fails."""
    load, begun = os.getloadavg()[0], time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, env=os.environ | environment, stdout=said, stderr=subprocess.STDOUT)
        peak, done = [0], threading.Event()
        watch = threading.Thread(target=_watch, args=(process.pid, peak, done))
        watch.start()
        _, status, usage = os.wait4(process.pid, 0)  # with all its children that it waited for
        seconds = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        done.set()
        watch.join()
        said.seek(0)
        words = said.read().decode(errors="replace")
    if process.returncode:
        raise RuntimeError(words[-2000:])
    return Ran(round(seconds, 2), round(usage.ru_utime + usage.ru_stime, 2), peak[0] // 1024, round(load, 1), words)


def _watch(root: int, peak: list[int], done: threading.Event) -> None:
    while not done.wait(0.2):
        peak[0] = max(peak[0], sum(map(_pss, _tree(root))))


def _tree(root: int) -> Iterator[int]:
    """A process and all that descend from it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _text(entry / "stat")):
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found = [root]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return iter(found)


def _pss(process: int) -> int:
    """KiB of a process, what it shares with others divided by who shares it."""
    found = re.search(r"^Pss:\s+(\d+)", _text(Path(f"/proc/{process}/smaps_rollup")), re.MULTILINE)
    return int(found[1]) if found else 0


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:  # it has ended meanwhile
        return ""


def ours(file: Path, out: Path, workers: int) -> Ran:
    """`qdata clean` of a file into the folder `out`."""
    shutil.rmtree(out, ignore_errors=True)
    steps = STEPS if file.stem == "text" else [IN_TURNS.get(step, step) for step in STEPS]
    words = chain.from_iterable(["--step", *step.split()] for step in steps)
    command = [sys.executable, "-m", "qdata.cli", "clean", str(file), "-o", str(out / "clean.jsonl"), *words]
    with tempfile.TemporaryDirectory(dir=file.parent) as cache:
        return ran([*command, "--workers", str(workers), "--samples", "0"], {"QDATA_CACHE_DIR": cache})


def juiced(program: Path, file: Path, out: Path) -> Ran:
    """data-juicer's run of the same file."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    settings = {"project_name": "clean", "dataset_path": str(file), "export_path": str(out / "clean.jsonl"), "np": 2}
    settings |= {"use_cache": False, "open_tracer": False, "text_keys": "text", "process": OPERATORS}
    (out / "recipe.yaml").write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    home = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(out / "hf"), "DATA_JUICER_CACHE_HOME": str(out / "cache")}
    return ran([str(program), "--config", str(out / "recipe.yaml")], home)


def measured(folder: Path, program: Path | None, repeat: int, peer_repeat: int) -> dict[str, Any]:
    """All tools on the rows of a folder, in turns."""
    runs: dict[str, list[Ran]] = {name: [] for name in ([PEER] if program else []) + list(OURS)}
    for number in range(max(repeat, peer_repeat)):
        for name, many in runs.items():
            if number >= (peer_repeat if name == PEER else repeat):
                continue
            if name == PEER and program:
                many.append(juiced(program, folder / "text.jsonl", folder / PEER))
            else:
                layout, workers = OURS[name]
                many.append(ours(folder / f"{layout}.jsonl", folder / name, workers))
            print(f"{folder.name}: {name}: {many[-1][:4]}", flush=True)
    out = {name: _told(many) for name, many in runs.items()}
    for name in OURS:
        facts = json.loads((_beside(folder / name) / "manifest.json").read_text(encoding="utf-8"))
        out[name]["rows"] = facts["rows"]
        if program:
            out[name]["times data-juicer"] = round(out[PEER]["seconds"] / out[name]["seconds"], 2)
    same = {layout: _same([folder / name for name in OURS if OURS[name][0] == layout]) for layout in ("text", "alpaca")}
    result: dict[str, Any] = {"tools": out, "same bytes from 1 and 2 workers": same}
    if program:
        left = _left(runs[PEER][-1].said)
        out[PEER]["rows"] = {"in": left[0], "kept": left[-1], "dropped": _fell(left)}
        result["disagreement"] = _disagreement(folder, program)
    return result


def _told(many: list[Ran]) -> Row:
    """Medians, and each run."""
    return {
        "runs": len(many),
        "seconds": round(statistics.median(one.seconds for one in many), 2),
        "cpu_seconds": round(statistics.median(one.cpu for one in many), 2),
        "peak_mib": max(one.mib for one in many),
        "each": [{"seconds": one.seconds, "cpu_seconds": one.cpu, "load": one.load} for one in many],
    }


def _beside(out: Path) -> Path:
    return out / "clean.jsonl.qdata"


def _same(outs: list[Path]) -> dict[str, bool]:
    """Of each file that was written, whether it is byte for byte the same in all folders."""
    files = ("clean.jsonl", "clean.jsonl.qdata/ledger.parquet", "clean.jsonl.qdata/dropped.parquet")
    return {file: len({sha256((out / file).read_bytes()).digest() for out in outs}) == 1 for file in files}


def _left(said: str) -> list[int]:
    """How many rows data-juicer says it had, and had left after each operator; first those that went in."""
    total = re.search(r"fix_unicode_mapper_process[^|]*\|[^|]*\|\s*\d+/(\d+)", said)
    found = re.findall(r"OP \[\w+\] Done in [\d.]+s\. Left (\d+) samples", said)
    return [int(total[1]) if total else int(found[0]), *map(int, found)]


def _fell(left: list[int]) -> dict[str, int]:
    """What each operator dropped."""
    names = [name for operator in OPERATORS for name in operator]
    return {name: a - b for name, a, b in zip(names, left, left[1:], strict=False) if a != b}


def _disagreement(folder: Path, program: Path) -> Row:
    """The texts that one tool keeps and the other drops, by reason, and those that both keep but write differently."""
    out = folder / "qdata, texts, 2 workers"
    wanted = pl.Schema({"id": pl.Int64, "text": pl.String})
    given, mine, theirs = (
        pl.read_ndjson(file, schema=wanted)
        for file in (folder / "text.jsonl", out / "clean.jsonl", folder / PEER / "clean.jsonl")
    )
    book = pl.read_parquet(_beside(out) / "ledger.parquet").with_row_index("id").cast({"id": pl.Int64})
    only_mine, only_theirs = mine.join(theirs, on="id", how="anti"), theirs.join(mine, on="id", how="anti")
    by_us = only_theirs.join(book, on="id").group_by("step", "reason").len().sort("len", descending=True)
    both = mine.join(theirs, on="id", suffix="_of_peer").filter(pl.col("text") != pl.col("text_of_peer"))
    alone = folder / "alone.jsonl"
    given.join(only_mine, on="id", how="semi").write_ndjson(alone)
    by_peer = _fell(_left(juiced(program, alone, folder / "alone").said)) if len(only_mine) else {}
    return {
        "dropped by qdata only": {f"{step}.{reason}": count for step, reason, count in by_us.iter_rows()},
        "dropped by data-juicer only": by_peer,
        "kept by both with another text": len(both),
        "samples": {
            "dropped by qdata only": only_theirs.head(SHOWN).to_dicts(),
            "dropped by data-juicer only": only_mine.head(SHOWN).to_dicts(),
            "kept by both with another text": both.head(SHOWN).to_dicts(),
        },
    }


def main() -> None:
    """Makes the rows, measures, compares, writes and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--home", type=Path, required=True, help="folder of the peers' environments")
    parser.add_argument("--rows", type=int, nargs="+", default=[104_000, 520_000])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument(
        "--peer-repeat", type=int, nargs="+", default=[3, 1], help="runs of data-juicer, for each --rows"
    )
    parser.add_argument("--note", default="", help="how the figures were taken, for who reads them")
    given = parser.parse_args()
    program = given.home / "data-juicer" / "bin" / "dj-process"
    peer = program if program.exists() else None
    alpaca = json.loads((given.data / "alpaca/alpaca_data.json").read_text(encoding="utf-8"))
    result: Row = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "peer": f"data-juicer {_version(program)}" if peer else f"missing: no {program.name} under --home",
        "note": given.note,
        "memory": "PSS of the whole process tree, every 0.2 s, the greatest of all runs",
        "steps": {"qdata": STEPS, "data-juicer": OPERATORS},
        "rows": {},
    }
    with tempfile.TemporaryDirectory() as made:
        for count, times in zip(given.rows, given.peer_repeat, strict=True):
            folder = Path(made) / str(count)
            write(rows(alpaca, count), folder)
            result["rows"][f"{count:,}"] = measured(folder, peer, given.repeat, times)
            RESULT.write_text(json.dumps(result, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    print(RESULT.read_text(encoding="utf-8"))


def _version(program: Path) -> str:
    asked = "import importlib.metadata as m; print(m.version('py-data-juicer'))"
    command = [str(program.with_name("python")), "-c", asked]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
