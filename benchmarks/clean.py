"""Does the preset sft-en find what people found in alpaca, leave the rest alone, and what does each step cost?

    python benchmarks/clean.py --data DATA

DATA holds alpaca/alpaca_data.json and alpaca/alpaca_fix_ground_truth.jsonl: the rows that a curated release changed or
removed, with what it made of them. It changed far fewer rows than have the defects, so precision against the list is
low by right; the rows of each step that are not listed are counted, and can be read in the ledger. Writes
results/clean.json.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from qdata import pipeline, plugin, preset, stepping
from qdata.convert import convert
from qdata.part import Work, conversations
from qdata.paths import cache_dir
from qdata.recipe import Source
from qdata.rows import steps as folder_of_steps
from qdata.rows.steps.system_pool import _Choice as Choice

RESULT = Path(__file__).parent / "results" / "clean.json"
ALPACA, TRUTH = "alpaca/alpaca_data.json", "alpaca/alpaca_fix_ground_truth.jsonl"
Row = dict[str, Any]
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

# What the list says of a row: its class, by what people made of it, not by what our rules look for.
CLASSES: dict[str, tuple[str, Callable[[Row], bool]]] = {
    "no_input": (
        "placeholder_input",
        lambda g: "input" in g.get("fields_changed", ()) and not g["after"]["input"] and not _links(g["before"]),
    ),
    "url_input": ("placeholder_input", lambda g: _links(g["before"])),
    "merged_instructions": (
        "merged_instructions",
        lambda g: "after" in g and _is_merged(g["before"]) and not _is_merged(g["after"]),
    ),
    "empty_output": ("empty_turn", lambda g: not g["before"]["output"].strip()),
    "na_output": (
        "empty_turn",
        lambda g: re.match(r"(?i)\W*(n/?a|no ?(in|out)put)\b", g["before"]["output"]) is not None,
    ),
}


def _links(row: Row) -> bool:
    return re.search(r"https?://|www\.", row["input"]) is not None


def _is_merged(row: Row) -> bool:
    return "Instruction:" in row["output"]


def score(data: Path, work: Path) -> dict[str, Any]:
    """Recall of each class, precision against the list, and what was done to rows that are not listed."""
    rows = json.loads((data / ALPACA).read_text(encoding="utf-8"))
    listed = [json.loads(line) for line in (data / TRUTH).read_text(encoding="utf-8").splitlines()]
    known = [one for one in listed if one["status"] != "unknown_split_boundary"]
    made = tuple(stepping.steps_of(preset.load("sft-en").steps, "sft-en"))
    sources = [Source(path=str(data / ALPACA))]
    convert(sources, None, work / "plain.jsonl")
    cleaned = convert(sources, None, work / "clean.jsonl", steps=made)
    book = pl.read_parquet(work / "clean.jsonl.qdata" / "ledger.parquet")
    index = book["row"].str.extract(r"#(\d+)$").cast(pl.Int64) - 1  # the ordinal counts from 1
    touched = {
        at: set(step.split(","))
        for at, action, step in zip(index, book["action"], book["step"], strict=True)
        if action != "kept"
    }
    classes = {}
    for name, (step, belongs) in CLASSES.items():
        mine = [one["orig_index"] for one in known if belongs(one)]
        missed = [at for at in mine if step not in touched.get(at, ()) and not _dropped(book, at)]
        classes[name] = _counts(len(mine), missed)
    control = [at for at, row in enumerate(rows) if any(map(_CONTROL.search, row.values()))]
    classes["control_characters"] = _counts(len(control), [at for at in control if at not in touched])
    names = {one["orig_index"] for one in listed}
    unlisted = [at for at in touched if at not in names]
    by_step = {name: _precision(name, touched, names) for name, _ in cleaned.manifest["steps"]}
    return {
        "rows": cleaned.manifest["rows"],
        "classes": classes,
        "steps": {name: counts for name, counts in by_step.items() if counts["touched"]},
        "unlisted_touched": len(unlisted),
        "unlisted_touched_share": round(len(unlisted) / (len(rows) - len(names)), 5),
        "untouched": len(rows) - len(touched),
        "untouched_not_identical": _not_identical(work, book),
    }


def _dropped(book: pl.DataFrame, at: int) -> bool:
    """Whether a row is gone, for whatever reason: it has several defects, and the first step that sees one drops it."""
    return bool(book["action"][at] == "dropped")


def _counts(total: int, missed: list[int]) -> dict[str, Any]:
    return {"listed": total, "recall": round(1 - len(missed) / total, 4), "missed": missed}


def _precision(step: str, touched: dict[int, set[str]], names: set[int]) -> dict[str, Any]:
    mine = [at for at, steps in touched.items() if step in steps]
    found = sum(at in names for at in mine)
    return {"touched": len(mine), "listed": found, "precision": round(found / len(mine), 4) if mine else None}


def _not_identical(work: Path, book: pl.DataFrame) -> int:
    """Rows that no step touched and that are not byte for byte what they are without any step."""
    plain = (work / "plain.jsonl").read_bytes().split(b"\n")
    clean = (work / "clean.jsonl").read_bytes().split(b"\n")
    same = book.with_row_index("at").filter(pl.col("action") == "kept")
    return sum(plain[at] != clean[index] for at, index in same.select("at", "index").iter_rows())


NEEDED: dict[str, dict[str, Any]] = {  # settings of steps that have no default for them
    "filter": {"where": "turns >= 2 and answer.chars > 10"},
    "identity": {"name": "Muxue", "author": "Moemu"},
    "placeholders": {"values": {"name": "Muxue", "author": "Moemu"}},
    "system_card": {"card": {"name": "Mia", "description": "{{char}} likes tea."}},
    "system_pool": {"texts": (Choice("Be kind."), Choice("Be brief."))},
    "system_set": {"text": "Be kind."},
    "word_list": {"words": ("forbidden", "违禁")},
}


def costs(data: Path) -> dict[str, float]:
    """CPU seconds that each step of the folder takes for alpaca's 52,002 rows, under its defaults or NEEDED."""
    (found,) = pipeline.find([Source(path=str(data / ALPACA))])
    parts = pipeline.parts_of([found], 0)
    frame = pl.concat([conversations(Work(part, "train", "alpaca", {}, (), cache_dir()))[0] for _, part, _ in parts])
    out = {}
    for name in plugin.names(folder_of_steps):
        step = plugin.find(folder_of_steps, name)(**NEEDED.get(name, {}))
        step(frame.head(100).lazy()).collect()  # libraries and models are loaded by then
        begun = time.process_time()
        step(frame.lazy()).collect()
        out[name] = round(time.process_time() - begun, 2)
    return dict(sorted(out.items(), key=lambda one: -one[1]))


def main() -> None:
    """Writes the result, and prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    with tempfile.TemporaryDirectory() as folder:
        result = score(data, Path(folder)) | {"cpu_seconds_per_step": costs(data)}
    RESULT.write_text(json.dumps(result, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, ensure_ascii=False, indent=2))


if __name__ == "__main__":
    main()
