"""Coverage-guided fuzzing of the readers, with atheris (libFuzzer). Not part of `make test`.

    pip install atheris                                       # a wheel for CPython 3.11 to 3.13 on Linux
    python -m tests.fuzz.run files --seconds 600 --data DATA  # or: dialects, registry, map, recipe, template
    python -m tests.fuzz.run files --input FINDING            # what one input does

From the top of the checkout. DATA, if given, is a folder with files of rows; the first three of each are seeds. What
is wrong is told with its input in `--work` (default: a folder of the system's temporary ones), one of each kind, and
the run goes on. The promises are in oracles.py; what was found and mended, in benchmarks/results/fuzz.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import atheris

os.environ.setdefault("POLARS_MAX_THREADS", "1")

with atheris.instrument_imports(include=["qdata"]):
    from qdata import plugin
    from qdata.rows import containers, formats

    for package in (containers, formats):
        for plugin_name in plugin.names(package):
            plugin.find(package, plugin_name)
    from tests.fuzz import targets

from tests.fuzz.mutate import KEYS, mutated
from tests.fuzz.oracles import ViolationError
from tests.fuzz.seeds import seeds

HANG = 10.0  # seconds of processor time
BODY = {"files": targets.HEAD, "dialects": targets.HEAD}  # where the content of an input begins


class Fuzz:
    """A run: its target, its folder, and what it has found so far."""

    def __init__(self, target: str, work: Path) -> None:
        self.target, self.work = target, work
        self.findings: dict[str, int] = {}
        self.far: Counter[str] = Counter()
        self.slowest, self.began = 0.0, time.monotonic()
        self.folder = work / "now"

    def one(self, data: bytes) -> None:
        """One input."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        os.environ["QDATA_CACHE_DIR"] = str(self.folder / "cache")
        began = time.process_time()
        try:
            self.far[targets.TARGETS[self.target](data, self.folder)] += 1
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of polars is no Exception
            self._found(_kind(error), data, traceback.format_exc())
        spent = time.process_time() - began
        self.slowest = max(self.slowest, spent)
        if spent > HANG:
            self._found("slow", data, f"{spent:.1f} s")
        if sum(self.far.values()) % 200 == 0:
            self.told()

    def _found(self, kind: str, data: bytes, told: str) -> None:
        self.far["finding"] += 1
        place = self.work / "findings" / hashlib.sha256(kind.encode()).hexdigest()[:10]
        known = place.with_suffix(".input")
        if kind not in self.findings or len(data) < known.stat().st_size:
            place.parent.mkdir(parents=True, exist_ok=True)
            known.write_bytes(data)
            place.with_suffix(".txt").write_text(f"{kind}\n\n{told}", encoding="utf-8", errors="backslashreplace")
        if kind not in self.findings:
            print(f"FINDING {kind} → {place}.txt", flush=True)
        self.findings[kind] = self.findings.get(kind, 0) + 1

    def told(self) -> None:
        """Writes what has been done so far."""
        facts: dict[str, Any] = {
            "target": self.target,
            "seconds": round(time.monotonic() - self.began),
            "executions": sum(self.far.values()),
            "how_far": dict(self.far.most_common()),
            "slowest_seconds": round(self.slowest, 2),
            "findings": self.findings,
        }
        (self.work / f"{self.target}.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")


def _kind(error: BaseException) -> str:
    """What findings of one cause have in common: the promise, or the error and the last two places of ours."""
    if isinstance(error, ViolationError):
        return error.which
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "/qdata/" in frame.filename]
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in ours[-2:]]
    return f"{type(error).__name__} at {' '.join(places)}"


def _mutator(target: str) -> Any:
    body = BODY.get(target, 0)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        first, content = data[:body], data[body:]
        if body and rng.random() < 0.2:
            at = rng.randrange(body)
            first = (first[:at] + bytes([rng.randrange(256)]) + first[at + 1 :]).ljust(body, b"\0")
        made = mutated(content, rng) if target in ("files", "dialects", "registry") and rng.random() < 0.7 else None
        if made is None:
            made = atheris.Mutate(content, max(most - body, 1))
        return (first + made)[:most]

    return mutate


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=list(targets.TARGETS))
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "qdata-fuzz")
    parser.add_argument("--input", type=Path, action="append")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    work = given.work.resolve()
    run = Fuzz(given.target, work)
    if given.input:
        for file in given.input:
            run.one(file.read_bytes())
        run.told()
        print((work / f"{given.target}.json").read_text())
        return
    corpus, first = work / f"corpus-{given.target}", work / f"seeds-{given.target}"
    for folder in (corpus, first):
        folder.mkdir(exist_ok=True)
    for seed in seeds(given.target, given.data, work):
        (first / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    words = work / "words.dict"
    plain = [key for key in KEYS if key and key.isascii() and key.isprintable()]
    words.write_text("".join(f'"{key}"\n' for key in plain), encoding="ascii")
    options = [f"-max_total_time={given.seconds}", "-timeout=900", "-rss_limit_mb=6000", "-max_len=12000",
               f"-seed={given.seed}", f"-dict={words}", f"-artifact_prefix={work}/"]  # fmt: skip
    atheris.Setup([sys.argv[0], str(corpus), str(first), *options], run.one, custom_mutator=_mutator(given.target))
    run.began = time.monotonic()
    atheris.Fuzz()


if __name__ == "__main__":
    main()
