"""The independent proof that training equals serving.

Nothing of render.py or tokenize.py is used here. From the conversations, the tokenizer and the template that lie in
the shard folder, each prompt is built the way a server builds it (transformers renders the turns so far with
`add_generation_prompt`, the whole text is tokenised in one go); then each trained stretch of each sequence must stand
directly behind exactly those ids, and be exactly the ids of the answer and its stop token.
"""

from __future__ import annotations

import dataclasses
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

from qdata.paths import file_sha256
from qdata.tokens import shards
from qdata.tokens.serving import Served, Server, answers, candidates, conversation_of, reasoning_of

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
    parsed_by_servers: int = 0  # sequences whose data holds control tokens as text, trained as text

    def fail(self, kind: str, case: str) -> None:
        """Counts a failure; the first ones are kept in words."""
        self.failures[kind] += 1
        if len(self.cases) < KEPT_FAILURES:
            self.cases.append(f"{kind}: {case}")

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {**dataclasses.asdict(self), "failures": dict(self.failures), "ok": not self.failures}


def verify(directory: Path, *, sample: int | None = None, seed: int = 0, console: Console | None = None) -> Result:
    """Checks every sequence of every split (or `sample` rows of each, drawn by `seed`).

    Raises QdataError when the folder is no shard folder, or transformers is not installed.
    """
    manifest = shards.manifest_of(directory)
    result = Result()
    _files(directory, manifest, result)
    if result.failures["missing file"]:
        return result
    server = Server(directory / "tokenizer", manifest["template"]["stop"])
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
    """The files are there, and are the ones the manifest speaks of."""
    made = [shard["name"] for split in manifest["splits"].values() for shard in split["shards"]]
    made += ["tokenizer/chat_template.jinja", "tokenizer/tokenizer.json", "ledger.parquet", "conversations.parquet"]
    for name in made:
        if not (directory / name).is_file():
            result.fail("missing file", name)
    if result.failures:
        return
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
    texts = pl.scan_parquet(directory / "conversations.parquet", glob=False).select(
        "row", "messages", "tools", "drop", "think"
    )
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


def _row(row: _Row, manifest: dict[str, Any], server: Server, seen: set[tuple[str, int]], result: Result) -> None:
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
        _sequence(ids, labels != shards.IGNORED, conversation, manifest, server, seen, result)


def _sequence(
    ids: Ids,
    trained: Any,
    row: dict[str, Any],
    manifest: dict[str, Any],
    server: Server,
    seen: set[tuple[str, int]],
    result: Result,
) -> None:
    """One sequence: each trained stretch is an answer behind its own serving prompt, and the text is the template's."""
    name, (messages, tools) = row["row"], conversation_of(row)
    result.trained_tokens += int(trained.sum())
    stretches = _stretches(trained)
    if not stretches:
        result.fail("untrained", f"{name}: nothing is trained")
        return
    _vendor(name, messages, ids, manifest, server, result)
    if manifest["specials"] == "text" and server.forged(messages, tools):
        result.parsed_by_servers += 1  # a server would read other ids: that is why these are text here
        _as_text(name, ids, trained, row, manifest, server, seen, result)
    elif manifest["loss"] == "whole":
        _whole(ids, trained, row, manifest, server, seen, result)
    else:
        last = [_stretch(ids, start, stop, row, manifest, server, seen, result) for start, stop in stretches][-1]
        if last is not None and not _ends_well(ids[stretches[-1][1] :], last, messages, tools, manifest, server):
            result.fail("text", f"{name}: what follows the last answer is not of the template")


def _stretch(
    ids: Ids,
    start: int,
    stop: int,
    row: dict[str, Any],
    manifest: dict[str, Any],
    server: Server,
    seen: set[tuple[str, int]],
    result: Result,
) -> Served | None:
    """One trained stretch: exactly an answer and its stop token, behind exactly what a server sees before it."""
    name, said = row["row"], ids[start:stop].tolist()
    read = server.tokenizer.decode(ids[:start])  # texts first: rendering is cheap, tokenising a long prompt is not
    match: Served | None = None
    for one in candidates(row, manifest, server, seen):
        if _nfc(one.prompt) != read:
            continue
        match = match or one
        # Two turns may have one prompt (a part of a conversation that repeats itself): the answer tells them apart.
        if server.ids(one.answer) == said:
            match = one
            break
    if match is None or server.ids(match.prompt) != ids[:start].tolist():
        result.fail("prompt", f"{name}: token {start}: no serving prompt ends here; {_around(ids, start, server)}")
        return None
    answer = server.ids(match.answer)
    if said != answer and not _cut(said, answer, manifest):
        result.fail("answer", f"{name}: {_side_by_side(match.turn, answer, said, server)}")
    elif len(said) < 2 and said == answer:
        result.fail("empty turn", f"{name}: message {match.turn} trains nothing but the stop token")
    seen.add((name, match.turn))
    result.answers += 1
    return match


def _ends_well(
    tail: Ids, last: Served, messages: list[dict[str, Any]], tools: Any, manifest: dict[str, Any], server: Server
) -> bool:
    """What stands behind the last answer, untrained, is what the template writes there, or nothing."""
    if not len(tail):
        return True
    text = server.tokenizer.decode(tail)
    if manifest["too_long"] == "split":  # a part of the conversation: it ends somewhere in the middle of the whole
        return bool(text.strip() == "")
    return _nfc(server.text(messages, tools, prompt=False)).startswith(_nfc(last.prompt + last.answer) + text)


def _whole(
    ids: Ids,
    trained: Any,
    row: dict[str, Any],
    manifest: dict[str, Any],
    server: Server,
    seen: set[tuple[str, int]],
    result: Result,
) -> None:
    """Under `whole` every token is trained, but for a history that another sample of the conversation has trained."""
    messages, tools = conversation_of(row)
    text, whole = server.tokenizer.decode(ids), _nfc(server.text(messages, tools, prompt=False))
    first = int(np.argmax(trained))
    history = server.tokenizer.decode(ids[:first])
    prompts = (_nfc(s.prompt) for s in candidates(row, manifest, server, seen)) if first else iter(())
    if not trained[first:].all() or (first and history not in prompts):
        result.fail("untrained", f"{row['row']}: token {first}: not trained, under loss = whole")
    if not whole.startswith(text) and not first and text not in whole and manifest["think"] == "none":
        result.fail("text", f"{row['row']}: the tokens do not read as the template's text")


def _cut(said: list[int], answer: list[int], manifest: dict[str, Any]) -> bool:
    """Whether an answer was cut at max_length, as `too_long = truncate` says it may be."""
    return manifest["too_long"] == "truncate" and bool(said) and answer[: len(said)] == said


def _as_text(
    name: str, ids: Ids, trained: Any, row: dict[str, Any], manifest: dict[str, Any], server: Server,
    seen: set[tuple[str, int]], result: Result,
) -> None:  # fmt: skip
    """Where data holds control tokens: the tokens read as the same text, and only the template's are real ones."""
    messages, tools = conversation_of(row)
    turns = [i for i in answers(messages) if (name, i) not in seen]
    for start, stop in _stretches(trained):
        read, said = (server.tokenizer.decode(part) for part in (ids[:start], ids[start:stop]))
        for turn in turns:
            thinking = {"keep": bool(reasoning_of(messages[turn])), "none": None, "empty_masked": False}
            mode = thinking.get(row["think"], True)
            if read == _nfc(server.text(messages[:turn], tools, prompt=True, thinking=mode)):
                seen.add((name, turn))
                result.answers += 1
                break
        else:
            if manifest["loss"] != "whole" and manifest["too_long"] != "split":
                result.fail(
                    "prompt", f"{name}: token {start}: reads as no serving prompt; {_around(ids, start, server)}"
                )
        if manifest["loss"] != "whole" and not said.endswith(server.stop) and manifest["too_long"] != "truncate":
            result.fail("answer", f"{name}: token {stop}: an answer without its stop token")
    bare = [{**m, "content": "".join(c for c in m["content"] if c not in "<|>")} for m in messages]
    ends = server.tokenizer.convert_tokens_to_ids(server.stop)
    if int((ids == ends).sum()) > server.text(bare, None, prompt=False).count(server.stop):
        result.fail("forged turn", f"{name}: more {server.stop} tokens than the template writes")


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _vendor(
    name: str, messages: list[dict[str, Any]], ids: Ids, manifest: dict[str, Any], server: Server, result: Result
) -> None:
    """No vendor's identity in a system prompt that the data did not ask for, no placeholder in what is trained."""
    if messages[0]["role"] == "system" or manifest["template"]["default_system"] in _VENDOR:
        return
    system = server.tokenizer.decode(ids[:64])
    for text in _VENDOR:
        if text in system:
            result.fail("vendor identity", f"{name}: {text!r} in the system prompt; the template's default is another")


_VENDOR = ("You are Qwen, created by Alibaba Cloud. You are a helpful assistant.", "You are a helpful assistant.")


def _side_by_side(turn: int, answer: list[int], said: list[int], server: Server) -> str:
    """Both token rows from a little before the first difference."""
    pairs = zip(answer, said, strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(answer), len(said)))
    lines = [f"message {turn} is not trained as answer + stop token, from token {at} of the answer on:"]
    for title, row in (("served ", answer), ("trained", said)):
        part = row[max(0, at - 3) : at + 6]
        shown = " ".join(f"{i}:{server.tokenizer.decode([i])!r}" for i in part) or "(nothing)"
        lines.append(f"      {title} {shown}")
    return "\n".join(lines)


def _stretches(trained: Any) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], trained.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _around(ids: Ids, at: int, server: Server) -> str:
    before, after = (server.tokenizer.decode(part) for part in (ids[max(0, at - 8) : at], ids[at : at + 8]))
    return f"…{before!r} | {after!r}…"


def _ledger(directory: Path, result: Result) -> None:
    """Every row of the conversations has one line, and kept lines name a place that exists."""
    book = pl.read_parquet(directory / "ledger.parquet", glob=False)
    rows = pl.read_parquet(directory / "conversations.parquet", glob=False, columns=["row"])["row"]
    if book.height != rows.len() or not book["row"].equals(rows, check_names=False):
        result.fail("ledger", f"{book.height:,} lines for {rows.len():,} rows, or in another order")
    lost = book.filter((pl.col("action") != "dropped") & pl.col("shard").is_null())
    for name in lost["row"].head(5):
        result.fail("ledger", f"{name} is said to be kept, but went to no shard")


def _complete(
    directory: Path, manifest: dict[str, Any], server: Server, seen: set[tuple[str, int]], result: Result
) -> None:
    """Each answer that should be trained was met exactly once (`seen` takes each only once)."""
    if manifest["loss"] == "whole":
        return
    kept = pl.read_parquet(directory / "ledger.parquet", glob=False).filter(pl.col("action") != "dropped").select("row")
    texts = pl.read_parquet(
        directory / "conversations.parquet", glob=False, columns=["row", "messages", "tools", "think"]
    )
    for row in texts.join(kept, on="row", how="semi").iter_rows(named=True):
        messages, tools = conversation_of(row)
        turns = answers(messages)
        missing = [t for t in (turns if manifest["loss"] == "assistant" else turns[-1:]) if (row["row"], t) not in seen]
        if not missing or not manifest["expand"]:
            continue
        # Turns of one sample go together when it is too long: the last missing one tells its length.
        served = server.served(messages, tools, missing[-1], row["think"])
        length = len(server.ids(served.prompt)) + len(server.ids(served.answer))
        if not manifest["max_length"] or length <= manifest["max_length"]:
            result.fail("not trained", f"{row['row']}: message {missing[-1]} is in no shard")


def report(result: Result, console: Console) -> None:
    """The verdict for a person."""
    console.print(
        f"{result.sequences:,} sequences, {result.answers:,} answers, {result.trained_tokens:,} trained tokens",
        highlight=False,
    )
    if result.parsed_by_servers:
        console.print(
            f"{result.parsed_by_servers:,} sequences hold control tokens as text, trained as text; a server that does "
            f"not guard against it would parse them",
            style="yellow",
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
