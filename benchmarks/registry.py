"""Do we read through a dataset_info.json what LLaMA-Factory reads? Row for row, by its own converter.

    python benchmarks/registry.py --python LLAMA_FACTORY_ENV/bin/python --data DATA

DATA holds the files of LLaMA-Factory's own `data/` in llamafactory/, and the other public sets that EXTRA names. Every
entry of which we can read the rows and whose file is there is compared; so are entries of our own, for columns and
tags that those do not use. Every difference must have a reason that is known. Writes results/registry.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl

from qdata import pipeline
from qdata.convert import convert
from qdata.part import process
from qdata.recipe import DataRecipe, Source
from qdata.rows import register, registry

RESULT = Path(__file__).parent / "results" / "registry.json"
QUIET = {"HF_HUB_OFFLINE": "1", "DISABLE_VERSION_CHECK": "1", "CUDA_VISIBLE_DEVICES": ""}
OPENAI_TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
OPENAI_TAGS |= {"system_tag": "system", "observation_tag": "tool", "function_tag": "function"}
EXTRA: dict[str, dict[str, Any]] = {
    "alpaca": {"file_name": "alpaca/alpaca_data.json"},
    "alpaca_no_query": {
        "file_name": "alpaca/alpaca_data.json",
        "columns": {"prompt": "instruction", "response": "output"},
    },
    "alpaca_swapped": {
        "file_name": "alpaca/alpaca_data.json",
        "columns": {"prompt": "output", "query": "input", "response": "instruction"},
    },
    "muice_pairs": {
        "file_name": "muice/muice_pairs.jsonl",
        "columns": {"prompt": "prompt", "response": "response"},
    },
    "ruozhiba": {"file_name": "ruozhiba/original_qa.json"},
    "sharegpt_zh": {"file_name": "multiturn/sharegpt_zh_1K_format.jsonl", "formatting": "sharegpt"},
    "openai_tools": {
        "file_name": "toolcall/openai_format/stock_toolcall_training.jsonl",
        "formatting": "openai",
        "columns": {"messages": "messages", "tools": "tools"},
        "tags": {k: v for k, v in OPENAI_TAGS.items() if k != "function_tag"},
    },
}
MADE_TAGS = {"role_tag": "who", "content_tag": "what", "user_tag": "Kunde", "assistant_tag": "Bot"}
MADE_TAGS |= {"observation_tag": "Werkzeug", "function_tag": "Ruf", "system_tag": "Regel"}
PAIR = {"good": "chosen", "bad": "rejected"}
MADE = {
    "made_tags": {
        "file_name": "tags.jsonl",
        "formatting": "sharegpt",
        "columns": {"messages": "talk", "system": "rule", "tools": "functions"},
        "tags": MADE_TAGS,
    },
    "made_openai": {
        "file_name": "openai.jsonl",
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {k: v for k, v in OPENAI_TAGS.items() if k not in ("observation_tag", "function_tag")},
    },
    "made_pairs": {
        "file_name": "pairs.jsonl",
        "formatting": "sharegpt",
        "ranking": True,
        "columns": {"messages": "talk", "system": "rule", "chosen": "good", "rejected": "bad"},
        "tags": MADE_TAGS,
    },
    "made_answers": {
        "file_name": "answers.jsonl",
        "ranking": True,
        "columns": {"prompt": "q", "query": "more", "history": "before", "chosen": "better", "rejected": "worse"},
    },
    "made_judged": {
        "file_name": "judged.jsonl",
        "columns": {"prompt": "q", "query": "more", "response": "a", "system": "rule", "kto_tag": "good"},
    },
    "made_history": {
        "file_name": "history.jsonl",
        "columns": {"prompt": "q", "query": "more", "response": "a", "system": "rule", "history": "before"},
    },
}


def main() -> None:
    """Compares and writes the result; exits with 1 where a difference has no reason."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--python", required=True, help="of the environment LLaMA-Factory is installed in")
    options.add_argument("--data", required=True, type=Path)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["QDATA_CACHE_DIR"] = str(Path(scratch) / "cache")
        result = compare(given.python, given.data, Path(scratch))
    RESULT.write_text(json.dumps(result, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    for name, counts in result["entries"].items():
        print(f"{name:28} {counts}")
    sys.exit(any("unexplained" in reason for counts in result["entries"].values() for reason in counts))


def compare(python: str, data: Path, scratch: Path) -> dict[str, Any]:
    """Of each entry how many rows are the same, and how many differ for which reason."""
    everything = json.loads((data / "llamafactory" / registry.NAME).read_text(encoding="utf-8"))
    table = {name: e | {"file_name": f"llamafactory/{e['file_name']}"} for name, e in everything.items() if _local(e)}
    table |= EXTRA
    made(data, scratch)
    table = {name: entry | {"file_name": str(data / entry["file_name"])} for name, entry in table.items()}
    table |= {name: entry | {"file_name": str(scratch / entry["file_name"])} for name, entry in MADE.items()}
    table |= written(data, scratch)
    file = scratch / registry.NAME
    file.write_text(json.dumps(table), encoding="utf-8")
    entries = registry.read(file)
    names = [n for n, e in entries.items() if not e.unsupported and Path(table[n]["file_name"]).exists()]
    driver = Path(__file__).parent / "peers" / "registry_llamafactory.py"
    out = scratch / "theirs"
    out.mkdir()
    words = [python, str(driver), str(scratch), str(out), *names]
    done = subprocess.run(words, env=os.environ | QUIET, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if done.returncode:
        sys.exit(done.stderr.decode()[-4000:])
    found = {}
    for name in names:
        theirs = [json.loads(line) for line in (out / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        mine = ours(f"{file}:{name}")
        reasons = Counter(why(a, b) for a, b in zip(mine, theirs, strict=True))
        found[name] = {"rows": len(mine), **dict(sorted(reasons.items()))}
    not_read = {name: e.unsupported for name, e in entries.items() if e.unsupported and name in everything}
    versions = json.loads((out / "versions.json").read_text(encoding="utf-8"))
    return {"versions": versions, "reasons": REASONS, "entries": found, "not_read": not_read}


def _local(entry: dict[str, Any]) -> bool:
    return "file_name" in entry


def made(data: Path, scratch: Path) -> None:
    """Real rows under other names: tool calls with odd tags, and exchanges with system, history and a blank query."""
    names = {"human": "Kunde", "gpt": "Bot", "observation": "Werkzeug", "function_call": "Ruf", "system": "Regel"}
    rows = json.loads((data / "llamafactory" / "glaive_toolcall_zh_demo.json").read_text(encoding="utf-8"))
    talks = [
        {
            "talk": [{"who": "Regel", "what": f"第{i}条"}] * (i % 3 == 0)
            + [{"who": names[t["from"]], "what": t["value"], "from": "web"} for t in row["conversations"]],
            "rule": f"规则{i}" if i % 2 else "",
            "functions": row["tools"],
        }
        for i, row in enumerate(rows)
    ]
    chats = [
        {"messages": [{"role": "user", "content": row["instruction"]}, {"role": "assistant", "content": row["output"]}]}
        for row in json.loads((data / "alpaca" / "alpaca_data.json").read_text(encoding="utf-8"))[:2000]
    ]
    for i, chat in enumerate(chats):
        chat["messages"] = [{"role": "system", "content": f"规则{i}"}] * (i % 2) + chat["messages"] * (1 + i % 3)
    rows = json.loads((data / "llamafactory" / "alpaca_zh_demo.json").read_text(encoding="utf-8"))
    pasts = [
        {
            "q": row["instruction"],
            "more": row["input"],
            "a": row["output"],
            "rule": "" if i % 2 else f"规则{i}",
            "before": [[f"问{i}", f"答{n}"] for n in range(i % 4)],
        }
        for i, row in enumerate(rows)
    ]
    pairs = [
        {
            "talk": [{"who": names[t["from"]], "what": t["value"]} for t in row["conversations"]],
            **{ours: {"who": "Bot", "what": row[theirs]["value"]} for ours, theirs in PAIR.items()},
            "rule": f"规则{i}" * (i % 2),
        }
        for i, row in enumerate(json.loads((data / "llamafactory" / "dpo_zh_demo.json").read_text(encoding="utf-8")))
    ]
    judged = [row | {"good": i % 3 == 0, "label": "x"} for i, row in enumerate(pasts)]
    answers = [row | {"better": row["a"], "worse": f"答{i}"} for i, row in enumerate(pasts)]
    for name, lines in (
        ("pairs", pairs),
        ("judged", judged),
        ("answers", answers),
        ("tags", talks),
        ("openai", chats),
        ("history", pasts),
    ):
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (scratch / f"{name}.jsonl").write_text(text, encoding="utf-8")


def written(data: Path, scratch: Path) -> dict[str, Any]:
    """Files of ours, with the entries that `qdata catalog --dataset-info` writes for them."""
    table = {}
    kinds = {"identity": ("messages", "alpaca", "sharegpt", "pairs"), "glaive_toolcall_zh_demo": ("sharegpt",)}
    for name, dialects in kinds.items():
        for dialect in dialects:
            file = scratch / f"written_{name}_{dialect}.jsonl"
            convert([Source(path=f"{data}/llamafactory/{registry.NAME}:{name}")], dialect, file)
            rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
            entry = register.entry_of(file, dialect, rows, scratch)
            table[file.stem] = entry | {"file_name": str(file)}
    return table


def ours(source: str) -> list[dict[str, Any]]:
    """Our conversations in the shape of that converter's rows, in the order of the file."""
    recipe = DataRecipe(sources=(Source(path=source),))
    _, works = pipeline.works_of(recipe, Path(), Path(os.environ["QDATA_CACHE_DIR"]), None)
    frame = pl.concat([process(work).conversations() for work in works], how="diagonal_relaxed")
    frame = frame.sort(pl.col("row").str.extract(r"#(\d+)$").cast(pl.Int64), maintain_order=True)
    return [_converted(row) for row in frame.iter_rows(named=True)]


def _converted(row: dict[str, Any]) -> dict[str, Any]:
    messages = row["messages"] or []
    system = messages[0]["content"] if messages and messages[0]["role"] == "system" else ""
    said = [*messages[bool(system) :], *(row["chosen"] or []), *(row["rejected"] or [])]
    turns = [
        {"role": "function", "content": m["tool_calls"]}
        if m["tool_calls"]
        else {"role": {"tool": "observation"}.get(m["role"], m["role"]), "content": m["content"]}
        for m in said
    ]
    if row["label"] is not None:  # there the answer that nobody gave is an empty one, after a good and before a bad one
        turns.insert(len(turns) - (not row["label"]), {"role": "assistant", "content": ""})
    if row["text"] is not None:
        turns = [{"role": "user", "content": row["text"]}]
    return {"turns": turns, "system": system, "tools": row["tools"] or "", "read": row["drop"]}


REASONS = {
    "same": "turns, system prompt and tools are equal",
    "skipped there": (
        "LLaMA-Factory throws away, with a line in its log, what does not alternate or ends on a question; "
        "we keep it for the steps to judge"
    ),
    "two system prompts": (
        "the row has a system column and a system message: LLaMA-Factory forgets the column, we keep both"
    ),
    "words added there": (
        "LLaMA-Factory's openai converter appends `detailed thinking off`, or a newline, to the system prompt"
    ),
    "null keys there": (
        "LLaMA-Factory gets each tool's schema padded with the keys of other tools, as null; ours are JSON text"
    ),
    "newline here": (
        "the question is empty and the query is not: LLaMA-Factory writes the query alone, we write it on a new line"
    ),
    "unreadable here": "the row has no answer (null); we set it aside with that reason",
    "unexplained": "nobody knows why; this must not occur",
}


def why(mine: dict[str, Any], theirs: dict[str, Any]) -> str:
    """The keys of REASONS that are true of a row."""
    if (mine["read"] or "").startswith("read."):
        return "unreadable here"
    their_turns = theirs["prompt"] + theirs["response"]
    turns, system = mine["turns"], mine["system"]
    if not their_turns:
        return "skipped there" if _is_odd(turns) else "unexplained"
    if turns and turns[0]["role"] == "system":
        same = [_plain(t) for t in turns[1:]] == [_plain(t) for t in their_turns]
        return "two system prompts" if same and turns[0]["content"] == theirs["system"] else "unexplained"
    found = []
    if (mine_tools := _json(mine["tools"])) != (their_tools := _json(theirs["tools"] or "")):
        found.append("null keys there" if mine_tools == _without_nulls(their_tools) else "unexplained")
    if [_plain(t) for t in turns] != [_plain(t) for t in their_turns]:
        stripped = [_plain(t | {"content": (t["content"] or "").removeprefix("\n")}) for t in turns]
        found.append("newline here" if stripped == [_plain(t) for t in their_turns] else "unexplained")
    if system != (theirs["system"] or ""):
        added = (theirs["system"] or "").removeprefix(system).strip()
        found.append("words added there" if added in ("", "detailed thinking off") else "unexplained")
    return " + ".join(sorted(found)) or "same"


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return [_without_nulls(v) for v in value] if isinstance(value, list) else value


def _is_odd(turns: list[dict[str, Any]]) -> bool:
    kinds = [t["role"] in ("assistant", "function") for t in turns]
    return len(turns) % 2 == 1 or kinds[0] or not kinds[-1] or any(a == b for a, b in pairwise(kinds))


def _plain(turn: dict[str, Any]) -> tuple[str, Any]:
    """Calls as JSON: one alone, or a list of one, mean the same."""
    if turn["role"] != "function":
        return turn["role"], turn["content"]
    calls = _json(turn["content"])
    called = [call.get("function", call) for call in (calls if isinstance(calls, list) else [calls])]
    return turn["role"], called


def _json(text: Any) -> Any:
    return json.loads(text) if isinstance(text, str) and text else text


if __name__ == "__main__":
    main()
