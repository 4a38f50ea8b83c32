"""The independent proof that training equals serving.

Nothing of render.py or tokenize.py is used here. From the conversations, the tokenizer and the template that lie in
the shard folder, each prompt is built the way a server builds it (transformers renders the turns so far with
`add_generation_prompt`, the whole text is tokenised in one go); then each trained stretch of each sequence must stand
directly behind exactly those ids, and be exactly the ids of the answer and its stop token.
"""

from __future__ import annotations

import dataclasses
import json
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
from rich.console import Console
from rich.progress import track

from qdata.errors import QdataError
from qdata.paths import file_sha256
from qdata.tokens import shards

KEPT_FAILURES = 20
Ids = npt.NDArray[np.int32]


@dataclass
class Result:
    """What was looked at, and every kind of thing found wrong, with the first cases spelt out."""

    sequences: int = 0
    answers: int = 0
    trained_tokens: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    cases: list[str] = field(default_factory=list)

    def fail(self, kind: str, case: str) -> None:
        """Counts a failure; the first ones are kept in words."""
        self.failures[kind] += 1
        if len(self.cases) < KEPT_FAILURES:
            self.cases.append(f"{kind}: {case}")

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {**dataclasses.asdict(self), "failures": dict(self.failures), "ok": not self.failures}


class Served(NamedTuple):
    """What a server sees before one answer, and what the model must then say."""

    turn: int
    prompt: list[int]
    answer: list[int]


class _Server:
    """Renders and tokenises as a server does, with what lies in the shard folder."""

    def __init__(self, directory: Path, stop: str) -> None:
        try:
            from transformers import AutoTokenizer
        except ImportError:
            raise QdataError("qdata verify renders with transformers: pip install 'qdata[train]'") from None
        self.tokenizer = AutoTokenizer.from_pretrained(directory / "tokenizer")
        self.template = (directory / "tokenizer" / "chat_template.jinja").read_text(encoding="utf-8")
        self.stop = stop

    def text(self, messages: list[dict[str, Any]], tools: Any, *, prompt: bool) -> str:
        """The rendered text."""
        return str(
            self.tokenizer.apply_chat_template(
                messages, tools=tools, chat_template=self.template, add_generation_prompt=prompt, tokenize=False
            )
        )

    def ids(self, text: str) -> list[int]:
        """The ids of a text, tokenised in one go."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def served(self, messages: list[dict[str, Any]], tools: Any, turn: int) -> Served:
        """The prompt and the answer of one assistant turn."""
        prompt = self.text(messages[:turn], tools, prompt=True)
        said = self.text(messages[: turn + 1], tools, prompt=False)
        answer = said[len(prompt) : said.rindex(self.stop) + len(self.stop)]
        return Served(turn, self.ids(prompt), self.ids(answer))


def verify(directory: Path, *, sample: int | None = None, seed: int = 0, console: Console | None = None) -> Result:
    """Checks every sequence of every split (or `sample` rows of each, drawn by `seed`).

    Raises QdataError when the folder is no shard folder, or transformers is not installed.
    """
    manifest = shards.manifest_of(directory)
    result = Result()
    _files(directory, manifest, result)
    server = _Server(directory, manifest["template"]["stop"])
    seen: set[tuple[str, int]] = set()
    total = sum(split["rows"] for split in manifest["splits"].values())
    rows = _rows(directory, manifest, sample, seed)
    for row in track(
        rows, "verifying", min(total, sample or total), console=console or Console(quiet=True), transient=True
    ):
        _row(row, manifest, server, seen, result)
    _ledger(directory, result)
    if sample is None:
        _complete(directory, manifest, server, seen, result)
    return result


def _files(directory: Path, manifest: dict[str, Any], result: Result) -> None:
    """The files are the ones the manifest speaks of."""
    for split in manifest["splits"].values():
        for shard in split["shards"]:
            if file_sha256(directory / shard["name"]) != shard["sha256"]:
                result.fail("changed file", f"{shard['name']} is not the file that was written")
    for name, key in (("chat_template.jinja", "template"), ("tokenizer.json", "tokenizer")):
        if file_sha256(directory / "tokenizer" / name) != manifest[key]["sha256"]:
            result.fail("changed file", f"tokenizer/{name} is not the one the shards were made with")


class _Row(NamedTuple):
    where: str
    ids: Ids
    labels: Ids
    lengths: list[int]
    rows: list[str]
    conversations: dict[str, dict[str, Any]]


def _rows(directory: Path, manifest: dict[str, Any], sample: int | None, seed: int) -> Iterator[_Row]:
    texts = pl.scan_parquet(directory / "conversations.parquet").select("row", "messages", "tools", "drop")
    for split, facts in manifest["splits"].items():
        chosen = None
        if sample is not None and sample < facts["rows"]:
            chosen = set(np.random.default_rng(seed).choice(facts["rows"], sample, replace=False).tolist())
        first = 0
        for batch in shards.read_split(directory, split):
            wanted = [i for i in range(batch.num_rows) if chosen is None or first + i in chosen]
            names = {name for i in wanted for name in batch["rows"][i].as_py()}
            found = texts.filter(pl.col("row").is_in(list(names))).collect()
            conversations = {one["row"]: one for one in found.iter_rows(named=True)}
            for i in wanted:
                ids, labels = (batch[c][i].values.to_numpy() for c in ("input_ids", "labels"))
                lengths, rows = batch["seq_lengths"][i].as_py(), batch["rows"][i].as_py()
                yield _Row(f"{split} row {first + i}", ids, labels, lengths, rows, conversations)
            first += batch.num_rows


def _row(row: _Row, manifest: dict[str, Any], server: _Server, seen: set[tuple[str, int]], result: Result) -> None:
    if sum(row.lengths) != len(row.ids) or len(row.ids) != len(row.labels):
        result.fail(
            "lengths", f"{row.where}: seq_lengths {row.lengths} for {len(row.ids)} ids, {len(row.labels)} labels"
        )
        return
    if manifest["pack"] and len(row.ids) > manifest["pack"]:
        result.fail("lengths", f"{row.where}: {len(row.ids)} tokens in a row of {manifest['pack']}")
    start = 0
    for name, length in zip(row.rows, row.lengths, strict=True):
        ids, labels = row.ids[start : start + length], row.labels[start : start + length]
        start += length
        result.sequences += 1
        conversation = row.conversations.get(name)
        if conversation is None or conversation["drop"] is not None:
            result.fail("dropped row", f"{row.where}: {name} is not among the kept conversations")
            continue
        if np.any((labels != shards.IGNORED) & (labels != ids)):
            result.fail("labels", f"{row.where}, {name}: a label that is neither -100 nor its token")
        _sequence(ids, labels != shards.IGNORED, conversation, manifest["loss"], server, seen, result)


def _sequence(
    ids: Ids, trained: Any, row: dict[str, Any], loss: str, server: _Server, seen: set[tuple[str, int]], result: Result
) -> None:
    """One sequence: each trained stretch is an answer behind its own serving prompt, and the text is the template's."""
    name, messages, tools = row["row"], _plain(row["messages"]), json.loads(row["tools"]) if row["tools"] else None
    result.trained_tokens += int(trained.sum())
    whole = unicodedata.normalize("NFC", server.text(messages, tools, prompt=False))
    if not whole.startswith(server.tokenizer.decode(ids, skip_special_tokens=False)):
        result.fail("text", f"{name}: the tokens do not read as the template's text")
    if loss == "whole":
        if not trained.any():
            result.fail("untrained", f"{name}: nothing is trained")
        return
    answers = [i for i, m in enumerate(messages) if m["role"] == "assistant" and m.get("train") is not False]
    stretches = _stretches(trained)
    if not stretches:
        result.fail("untrained", f"{name}: nothing is trained")
    for start, stop in stretches:
        before = ids[:start].tolist()
        served = (server.served(messages, tools, turn) for turn in answers if (name, turn) not in seen)
        match = next((s for s in served if s.prompt == before), None)
        if match is None:
            result.fail("prompt", f"{name}: token {start}: no serving prompt ends here; {_around(ids, start, server)}")
        elif match.answer != ids[start:stop].tolist():
            result.fail(
                "answer",
                f"{name}: message {match.turn} is not trained as answer + stop token; {_around(ids, stop, server)}",
            )
        elif len(match.answer) < 2:
            result.fail("empty turn", f"{name}: message {match.turn} trains nothing but the stop token")
        if match:
            seen.add((name, match.turn))
            result.answers += 1


def _stretches(trained: Any) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], trained.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _around(ids: Ids, at: int, server: _Server) -> str:
    before, after = (server.tokenizer.decode(part) for part in (ids[max(0, at - 8) : at], ids[at : at + 8]))
    return f"…{before!r} | {after!r}…"


def _plain(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages as a client sends them."""
    sent = []
    for message in messages:
        one = {"role": message["role"], "content": message["content"] or ""}
        one |= {"reasoning_content": message["reasoning"]} if message["reasoning"] is not None else {}
        one |= {"tool_calls": json.loads(message["tool_calls"])} if message["tool_calls"] is not None else {}
        one |= {key: message[key] for key in ("name", "train") if message[key] is not None}
        sent.append(one)
    return sent


def _ledger(directory: Path, result: Result) -> None:
    """Every row of the conversations has one line, and kept lines name a place that exists."""
    book = pl.read_parquet(directory / "ledger.parquet")
    rows = pl.read_parquet(directory / "conversations.parquet", columns=["row"])["row"]
    if book.height != rows.len() or not book["row"].equals(rows, check_names=False):
        result.fail("ledger", f"{book.height:,} lines for {rows.len():,} rows, or in another order")
    lost = book.filter((pl.col("action") != "dropped") & pl.col("shard").is_null())
    for name in lost["row"].head(5):
        result.fail("ledger", f"{name} is said to be kept, but went to no shard")


def _complete(
    directory: Path, manifest: dict[str, Any], server: _Server, seen: set[tuple[str, int]], result: Result
) -> None:
    """Each answer that should be trained was met exactly once (`seen` takes each only once)."""
    if manifest["loss"] == "whole":
        return
    kept = pl.read_parquet(directory / "ledger.parquet").filter(pl.col("action") != "dropped").select("row")
    texts = pl.read_parquet(directory / "conversations.parquet", columns=["row", "messages", "tools"])
    for row in texts.join(kept, on="row", how="semi").iter_rows(named=True):
        messages = _plain(row["messages"])
        turns = [i for i, m in enumerate(messages) if m["role"] == "assistant" and m.get("train") is not False]
        for turn in turns if manifest["loss"] == "assistant" else turns[-1:]:
            if (row["row"], turn) in seen:
                continue
            tools = json.loads(row["tools"]) if row["tools"] else None
            served = server.served(messages, tools, turn)
            if not manifest["max_length"] or len(served.prompt) + len(served.answer) <= manifest["max_length"]:
                result.fail("not trained", f"{row['row']}: message {turn} is in no shard")


def report(result: Result, console: Console) -> None:
    """The verdict for a person."""
    console.print(
        f"{result.sequences:,} sequences, {result.answers:,} answers, {result.trained_tokens:,} trained tokens",
        highlight=False,
    )
    for case in result.cases:
        console.print(f"  {case}", style="red", markup=False, highlight=False)
    if result.failures:
        counts = ", ".join(f"{kind} {count:,}" for kind, count in result.failures.items())
        console.print(f"[bold red]training is not serving:[/] {counts}", highlight=False)
    else:
        console.print(
            "[bold green]training equals serving[/]: every prompt, answer and stop token agrees", highlight=False
        )
