"""Rows → conversations and rows → rows: how many a second, and in how much memory.

    QDATA_REAL_DATA=… python benchmarks/read.py [--times 1 10 40] [--only TEXT] [--huge]

The 52,002 alpaca rows as JSON lines, as one JSON array and as Parquet, `--times` over with distinct texts; each read is
a process of its own with an empty cache, its own imports apart, the start of its workers included. `→ conversations`
are frames with row ids and content hashes, after the default steps; `kept in the cache` also writes them. `floor` is
`polars.read_ndjson` of the same lines, which makes columns and no conversations. `--huge` converts
10,000,000 rows and tells the memory only.

Writes benchmarks/results/read.json: medians of `--repeat` runs; the greatest resident size of a process (`mib`) and of
all at once (`mib_of_all`, looked at ten times a second; what processes share is counted in each). It can be measured in
portions: with `--only`, cases whose name holds TEXT; those that are not measured keep the figures they had.
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
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
HUGE = 10_000_000

READ = """
import json, sys, time
from pathlib import Path
import qdata.pipeline as pipeline
from qdata.recipe import DataRecipe, Source
from qdata.part import conversations, process
from qdata.engine import local
from qdata.paths import cache_dir
def loaded(work):
    return conversations(work)[0].height
def cached(work):
    return process(work).rows
if __name__ == "__main__":
    recipe = DataRecipe(sources=(Source(path=sys.argv[1]),))
    start = time.perf_counter()
    _, works = pipeline.works_of(recipe, Path(), cache_dir(), None)
    rows = sum(local.run({"loaded": loaded, "cached": cached}[sys.argv[3]], works, int(sys.argv[2])))
    seconds = time.perf_counter() - start
    print(json.dumps({"rows": rows, "seconds": seconds}))
"""
CONVERT = """
import json, sys, time
from pathlib import Path
from qdata.convert import convert
from qdata.recipe import Source
if __name__ == "__main__":
    start = time.perf_counter()
    made = convert([Source(path=sys.argv[1])], "messages", Path(sys.argv[3]), workers=int(sys.argv[2]))
    seconds = time.perf_counter() - start
    print(json.dumps({"rows": made.manifest["rows"]["in"], "seconds": seconds}))
"""
FLOOR = """
import json, sys, time, polars
start = time.perf_counter()
rows = polars.read_ndjson(sys.argv[1], infer_schema_length=None).height
print(json.dumps({"rows": rows, "seconds": time.perf_counter() - start}))
"""
MEASURED = """
import re, resource, runpy, sys
from pathlib import Path
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
own = int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])  # ru_maxrss knows the parent's too
print(max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) // 1024)
"""


def run(script: str, folder: Path, *arguments: str) -> dict[str, Any]:
    """What a script prints of itself, and the greatest resident size of it or a worker and of all of them, in MiB."""
    cold = {**os.environ, "QDATA_CACHE_DIR": str(folder / "cache")}
    file = folder / "script.py"
    file.write_text(script, encoding="utf-8")
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        cold["QDATA_CACHE_DIR"] = cache
        command = [sys.executable, "-c", MEASURED, str(file), *arguments]
        of_all = 0
        with (folder / "stdout").open("w+") as out, (folder / "stderr").open("w+") as err:
            running = subprocess.Popen(command, env=cold, stdout=out, stderr=err, text=True)
            while running.poll() is None:
                of_all = max(of_all, sum(map(resident, family(running.pid))))
                time.sleep(0.1)
    if running.returncode:
        sys.exit(f"{arguments}: {(folder / 'stderr').read_text()[-2000:]}")
    said, peak = (folder / "stdout").read_text().splitlines()[-2:]
    return {**json.loads(said), "mib": int(peak), "mib_of_all": of_all >> 20}


def family(pid: int) -> Iterator[int]:
    """A process and all that it and its threads have started."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in children.read_text().split():
                yield from family(int(child))


def resident(pid: int) -> int:
    """The bytes a process has in memory; 0 where it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--times", type=int, nargs="*", default=[1, 10, 40])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", metavar="TEXT")
    parser.add_argument("--huge", action="store_true")
    arguments = parser.parse_args()
    if "QDATA_REAL_DATA" not in os.environ:
        sys.exit("QDATA_REAL_DATA is not set; this needs alpaca/alpaca_data.json")
    rows = json.loads((Path(os.environ["QDATA_REAL_DATA"]) / "alpaca/alpaca_data.json").read_text(encoding="utf-8"))
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    result: dict[str, Any] = {"machine": machine, "repeat": arguments.repeat, "workers": arguments.workers}
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for times in arguments.times:
            files = written(rows, times, folder)
            workers = str(arguments.workers)
            cases = {f"{kind} → conversations": (READ, [str(file), workers, "loaded"]) for kind, file in files.items()}
            cases["jsonl → conversations, kept in the cache"] = (READ, [str(files["jsonl"]), workers, "cached"])
            cases["jsonl → jsonl"] = (CONVERT, [str(files["jsonl"]), workers, "OUT"])
            cases["floor: polars.read_ndjson"] = (FLOOR, [str(files["jsonl"])])
            for name, (script, given) in cases.items():
                if arguments.only not in name:
                    continue
                many = []
                for number in range(arguments.repeat):
                    out = str(folder / f"out{times}-{number}.jsonl")
                    many.append(run(script, folder, *(out if one == "OUT" else one for one in given)))
                measured[f"{name}, ×{times}"] = told(many)
        if arguments.huge:
            file = written(rows, -(-HUGE // len(rows)), folder, kinds=("jsonl",), most=HUGE)["jsonl"]
            many = [run(CONVERT, folder, str(file), str(arguments.workers), str(folder / "huge.jsonl"))]
            told_of = told(many)  # once, and in no silence: the memory is what counts
            measured["jsonl → jsonl, 10,000,000 rows"] = {k: told_of[k] for k in ("rows", "mib", "mib_of_all")}
    target = HERE / "results" / "read.json"
    known = json.loads(target.read_text(encoding="utf-8")) if target.is_file() else {}
    result["cases"] = known["cases"] if result.items() <= known.items() else {}
    result["cases"] |= measured
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    print(target.read_text(encoding="utf-8"))


def told(many: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows, median seconds, rows a second, greatest MiB of one process and of all."""
    seconds = statistics.median(one["seconds"] for one in many)
    rows = many[0]["rows"]
    return {
        "rows": rows,
        "seconds": round(seconds, 3),
        "rows_a_second": round(rows / seconds),
        **{name: max(one[name] for one in many) for name in ("mib", "mib_of_all")},
    }


def written(
    rows: list[dict[str, str]], times: int, folder: Path, kinds: tuple[str, ...] = ("jsonl", "json", "parquet"),
    most: int | None = None,
) -> dict[str, Path]:  # fmt: skip
    """The rows `times` over, each copy with its number in the question, in files of each kind."""
    import polars as pl

    files = {kind: folder / f"alpaca{times}.{kind}" for kind in kinds}
    count = 0
    with files["jsonl"].open("w", encoding="utf-8") as lines:
        for copy in range(times):
            for row in rows[: None if most is None else max(0, most - count)]:
                count += 1
                one = row if copy == 0 else row | {"instruction": f"{row['instruction']} ({copy})"}
                lines.write(json.dumps(one, ensure_ascii=False) + "\n")
    if "json" in kinds:
        with files["jsonl"].open(encoding="utf-8") as lines, files["json"].open("w", encoding="utf-8") as array:
            array.writelines(("," if number else "[") + line for number, line in enumerate(lines))
            array.write("]\n")
    if "parquet" in kinds:
        pl.read_ndjson(files["jsonl"], infer_schema_length=None).write_parquet(files["parquet"])
    return files


if __name__ == "__main__":
    main()
