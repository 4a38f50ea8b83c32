"""What the drivers share: jobs in JSON, outputs of ids and labels in JSON lines. Runs in any virtual environment.

A job holds `model` (folder with config and tokenizer, no weights), `template` (qwen2_5 or qwen3), `data` (folder with
the rows in every layout), `native` (the layout the set is published in), `reasoning` (whether its rows hold any),
`options` (of the variant), `work` (a scratch folder) and `out`. One process does all jobs of a tool: importing a
trainer takes longer than preparing these rows.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

Job = dict[str, Any]


def rows(job: Job, layout: str) -> list[dict[str, Any]]:
    """The job's rows in a layout."""
    lines = (Path(job["data"]) / f"{layout}.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def run(prepare: Callable[[Job], tuple[Iterable[Any], str]], *packages: str) -> None:
    """Does the jobs named on the command line.

    `prepare` gives the examples (`input_ids`, `labels`) and the options it used. The first line of an output holds
    these and the packages' versions, or the error.
    """
    head: dict[str, Any] = {"versions": {package: version(package) for package in packages}}
    for job in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        Path(job["work"]).mkdir(parents=True, exist_ok=True)
        out = Path(job["out"])
        try:
            examples, used = prepare(job)
            lines = [{"input_ids": list(e["input_ids"]), "labels": list(e["labels"])} for e in examples]
        except Exception as error:  # whatever it is, the other jobs are done
            traceback.print_exc()
            out.write_text(json.dumps(head | {"missing": f"{type(error).__name__}: {error}"}) + "\n", encoding="utf-8")
            continue
        out.write_text("".join(json.dumps(line) + "\n" for line in [head | {"used": used}, *lines]), encoding="utf-8")
