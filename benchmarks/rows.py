"""The rows that every tool is given, in each layout that some tool wants, written to a folder.

`messages`: OpenAI's, with `reasoning_content`, `tool_calls` and `train`. `swift`: as ms-swift documents it, reasoning
in the content as `<think>…</think>`, a message of its own for a tool call, tools as JSON text, `loss` for `train`.
`sharegpt` and `alpaca`: as LLaMA-Factory reads them.
A set is taken as published where it is published in one of them (`native`).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]
NASTY = Path(__file__).with_name("nasty.jsonl")


@dataclass(frozen=True)
class Rows:
    """A data set: what it is called, its rows as published (`native`) and in the OpenAI layout."""

    name: str
    about: str
    models: tuple[str, ...]
    native: str
    read: Callable[[Path], Iterable[Row]]
    limit: int
    reasoning: bool = False


def _lines(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def _alpaca(data: Path) -> list[Row]:
    rows: list[Row] = json.loads((data / "alpaca" / "alpaca_data.json").read_text(encoding="utf-8"))
    return random.Random(0).sample(rows, len(rows))


def _tool_calls(data: Path) -> list[Row]:
    path = data / "llamafactory" / "glaive_toolcall_en_demo.json"
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))
    return rows


def _reasoning(data: Path) -> Iterable[Row]:
    """`content` as a list of reasoning, text and tool calls → OpenAI messages."""
    for row in _lines(data / "llamafactory" / "reason_tool_use_demo_50.jsonl"):
        messages = []
        for m in row["messages"]:
            parts = [(part["type"], part["value"]) for part in m["content"]]
            message: Row = {"role": m["role"], "content": "".join(value for kind, value in parts if kind == "text")}
            reasoning = [value for kind, value in parts if kind == "reasoning"]
            calls = [json.loads(value) for kind, value in parts if kind == "tool_call"]
            if reasoning:
                message["reasoning_content"] = reasoning[0]
            if calls:
                message["tool_calls"] = [{"type": "function", "function": call} for call in calls]
            messages.append(message)
        yield {"messages": messages, "tools": json.loads(row["tools"])}


SETS = (
    Rows("alpaca", "alpaca, single turn, English", ("qwen2_5",), "alpaca", _alpaca, 2000),
    Rows(
        "sharegpt_zh",
        "ShareGPT, multi-turn, mostly Chinese",
        ("qwen2_5", "qwen3"),
        "sharegpt",
        lambda data: _lines(data / "multiturn" / "sharegpt_zh_1K_format.jsonl"),
        300,
    ),
    Rows("tool_calls", "glaive tool calls, multi-turn", ("qwen2_5",), "sharegpt", _tool_calls, 300),
    Rows("reasoning_tools", "reasoning and tool calls", ("qwen3",), "messages", _reasoning, 50, reasoning=True),
    Rows(
        "nasty",
        "hard cases written for this (`benchmarks/nasty.jsonl`)",
        ("qwen2_5", "qwen3"),
        "messages",
        lambda _: _lines(NASTY),
        100,
        reasoning=True,
    ),
)


def messages(row: Row) -> Row:
    """Any of the layouts → OpenAI messages."""
    if "messages" in row:
        return row
    if "instruction" in row:
        question = row["instruction"] + ("\n" + row["input"] if row["input"] else "")
        return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": row["output"]}]}
    roles = {"human": "user", "gpt": "assistant", "observation": "tool", "system": "system"}
    out = []
    for turn in row["conversations"]:
        if turn["from"] == "function_call":
            call = {"type": "function", "function": json.loads(turn["value"])}
            out.append({"role": "assistant", "content": "", "tool_calls": [call]})
        else:
            out.append({"role": roles[turn["from"]], "content": turn["value"]})
    tools = [t if "function" in t else {"type": "function", "function": t} for t in json.loads(row.get("tools", "[]"))]
    return {"messages": out, "tools": tools} if tools else {"messages": out}


def _swift(row: Row) -> Row:
    out: list[Row] = []
    for m in row["messages"]:
        loss = {"loss": m["train"]} if "train" in m else {}
        calls = m.get("tool_calls") or []
        if not calls or _with_think(m):
            role = "tool_response" if m["role"] == "tool" else m["role"]
            out.append({"role": role, "content": _with_think(m)} | loss)
        for call in calls:
            text = json.dumps(call["function"], ensure_ascii=False)
            out.append({"role": "tool_call", "content": text} | loss)
    tools = {"tools": json.dumps(row["tools"], ensure_ascii=False)} if row.get("tools") else {}
    return {"messages": out} | tools


def _with_think(message: Row) -> str:
    reasoning = message.get("reasoning_content")
    return (f"<think>\n{reasoning}\n</think>\n\n" if reasoning else "") + str(message["content"])


def _sharegpt(row: Row) -> Row:
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    turns: list[Row] = []
    for m in row["messages"]:
        if m["role"] == "tool":
            if turns[-1]["from"] == "observation":  # as LLaMA-Factory joins the answers to parallel calls
                turns[-1]["value"] += "\n</tool_response>\n<tool_response>\n" + m["content"]
            else:
                turns.append({"from": "observation", "value": m["content"]})
        elif m.get("tool_calls"):
            calls = json.dumps([call["function"] for call in m["tool_calls"]], ensure_ascii=False)
            if m["content"]:  # the one way it takes text before a call
                calls = f"\n<tool_call>\n{calls}\n</tool_call>"
            turns.append({"from": "function_call", "value": _with_think(m) + calls})
        else:
            turns.append({"from": names[m["role"]], "value": _with_think(m)})
    return {"conversations": turns, "tools": json.dumps(row["tools"], ensure_ascii=False) if row.get("tools") else ""}


def write(rows: Rows, data: Path, folder: Path, model: str, key: Callable[[Row], str], limit: int | None) -> list[Row]:
    """Writes every layout of a set to a folder; returns its rows in the OpenAI layout.

    Rows are known by their first user text in the outputs: one that comes again is left out, as are rows with
    separate reasoning for a model without.
    """
    native, plain, seen = [], [], set()
    for row in rows.read(data):
        converted = messages(row)
        thinks = any(m.get("reasoning_content") for m in converted["messages"])
        if (thinks and model == "qwen2_5") or key(converted) in seen:
            continue
        seen.add(key(converted))
        native.append(row)
        plain.append(converted)
        if len(plain) == min(limit or rows.limit, rows.limit):
            break
    layouts = {
        "messages": plain,
        "swift": [_swift(row) for row in plain],
        "sharegpt": [_sharegpt(row) for row in plain],
        rows.native: native,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, many in layouts.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in many)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return plain
