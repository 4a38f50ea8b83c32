"""The independent proof that training equals serving, of shards, and of models that were trained on them.

Nothing of render.py or tokenize.py is used here, not even by way of others. The conversations, the tokenizer and the
template that lie in a shard folder are what serving.py builds prompts from, and proof.py holds the tokens against them.
Of a saved model it is proven that it would be served with that very tokenizer and template, and would stop.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console
from rich.progress import track

from qdata.errors import QdataError
from qdata.paths import file_sha256
from qdata.tokens import saved, shards
from qdata.tokens.proof import Proof, Result, Tokens
from qdata.tokens.serving import Server

SHOWN = 6  # cases in the report for a person
_LINES = (".jsonl", ".ndjson")


def verify(
    path: Path,
    *,
    sample: int | None = None,
    seed: int = 0,
    shard_folder: Path | None = None,
    served_by: Path | None = None,
    console: Console | None = None,
) -> Result:
    """Checks shards, a run, or an exported model: every row, or `sample` rows of each split, drawn by `seed`.

    Of a run or a model the saved files are checked, and then the rows of its shards, served with what was saved.
    `shard_folder` says where these are; by default where the run noted them. `served_by` is a folder with the tokenizer
    and template of another server, which shards are then held against instead of their own. Raises QdataError when
    `path` is none of the three, or transformers is not installed.
    """
    result = Result()
    papers = saved.papers_of(path)
    if papers is None:
        _shards(path, served_by or path / "tokenizer", sample, seed, console, result)
        return result
    models = saved.models_in(papers.folder)
    for model in models:
        result.models.append(str(model))
        saved.check(model, papers.data, result)
    found = shard_folder or saved.shards_of(papers)
    if found is None:
        result.notes.append(
            f"the shards it was trained on are not here ({papers.shards or 'no place was noted'}): its files were "
            f"compared with the manifest, no row was looked at; say where they are with --shards"
        )
    elif shards.manifest_of(found)["fingerprint"] != papers.data["fingerprint"]:
        result.fail("other shards", f"{found}: not the shards that {papers.folder} was trained on")
    elif not result.failures:
        _shards(found, served_by or models[-1], sample, seed, console, result)
    return result


def _shards(
    directory: Path, served_by: Path, sample: int | None, seed: int, console: Console | None, result: Result
) -> None:
    manifest = shards.manifest_of(directory)
    _files(directory, manifest, result)
    if result.failures["missing file"]:
        return
    try:
        _prove(directory, served_by, manifest, sample, seed, console, result)
    except QdataError:
        raise
    except Exception as error:  # whatever cannot be read or rendered is not proven: a failure like any other
        result.fail("unreadable", f"{directory}: {type(error).__name__}: {str(error)[:300]}")


def _prove(
    directory: Path,
    served_by: Path,
    manifest: dict[str, Any],
    sample: int | None,
    seed: int,
    console: Console | None,
    result: Result,
) -> None:
    proof = Proof(Server(served_by, manifest["template"]["stop"]), manifest, result)
    total = sum(min(split["rows"], sample or split["rows"]) for split in manifest["splits"].values())
    rows = _rows(directory, manifest, sample, seed, result)
    quiet = console or Console(quiet=True)
    for sequences in track(rows, "verifying", total, console=quiet, transient=True):
        for tokens, conversation in sequences:
            try:
                proof.sequence(tokens, conversation)
            except Exception as error:  # a template may refuse a row in its own words
                result.fail("unreadable", f"{tokens.place}: {type(error).__name__}: {str(error)[:300]}")
    _ledger(directory, result)
    if sample is None:
        _complete(directory, manifest, proof)


def _files(directory: Path, manifest: dict[str, Any], result: Result) -> None:
    """The files are there, and are the ones the manifest speaks of."""
    expected = {shard["name"]: shard["sha256"] for split in manifest["splits"].values() for shard in split["shards"]}
    expected |= manifest["files"]
    for name in expected:
        if not (directory / name).is_file():
            result.fail("missing file", f"{directory / name}")
    if result.failures:
        return
    for name, sha256 in expected.items():
        if file_sha256(directory / name) != sha256:
            result.fail("changed file", f"{directory / name} is not the one that the manifest speaks of")


Found = list[tuple[Tokens, dict[str, Any]]]


def _rows(directory: Path, manifest: dict[str, Any], sample: int | None, seed: int, result: Result) -> Iterator[Found]:
    """The sequences of each row that is looked at, with their conversations."""
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
                yield _sequences(batch.slice(i, 1), f"{split} row {first + i}", manifest["pack"], conversations, result)
            first += batch.num_rows


def _sequences(row: Any, where: str, pack: int | None, conversations: dict[str, Any], result: Result) -> Found:
    """A row of a shard (a batch of one) cut into its sequences."""
    ids, labels = (row[column][0].values.to_numpy() for column in ("input_ids", "labels"))
    weights = row["weights"][0].values.to_numpy() if "weights" in row.schema.names else None
    lengths, names = row["seq_lengths"][0].as_py(), row["rows"][0].as_py()
    if sum(lengths) != len(ids) or len(ids) != len(labels) or len(lengths) != len(names):
        told = f"seq_lengths {lengths} for {len(ids)} ids, {len(labels)} labels, {len(names)} row ids"
        result.fail("lengths", f"{where}: {told}")
        return []
    if pack and len(ids) > pack:
        result.fail("lengths", f"{where}: {len(ids)} tokens in a row of {pack}")
    out, start = [], 0
    for name, length in zip(names, lengths, strict=True):
        part = slice(start, start := start + length)
        place = _place(name, where)
        conversation = conversations.get(name)
        if conversation is None or conversation["drop"] is not None:
            result.sequences += 1
            result.fail("dropped row", f"{place}: not among the kept conversations")
            continue
        out.append((Tokens(place, ids[part], labels[part], None if weights is None else weights[part]), conversation))
    return out


def _place(row: str, where: str = "") -> str:
    """`muice/train.jsonl#812 (line 812; train row 3)`: the id of a row, in words, and where it went."""
    file, _, ordinal = row.rpartition("#")
    plain = re.sub(r"\.(gz|zst|bz2|xz)$", "", file)
    told = [f"{'line' if plain.endswith(_LINES) else 'row'} {ordinal}", *([where] if where else [])]
    return f"{row} ({'; '.join(told)})"


def _ledger(directory: Path, result: Result) -> None:
    """Every row of the conversations has one line, and kept lines name a place that exists."""
    book = pl.read_parquet(directory / "ledger.parquet", glob=False)
    rows = pl.read_parquet(directory / "conversations.parquet", glob=False, columns=["row"])["row"]
    if book.height != rows.len() or not book["row"].equals(rows, check_names=False):
        result.fail("ledger", f"{book.height:,} lines for {rows.len():,} rows, or in another order")
    lost = book.filter((pl.col("action") != "dropped") & pl.col("shard").is_null())
    for name in lost["row"].head(5):
        result.fail("ledger", f"{name} is said to be kept, but went to no shard")


def _complete(directory: Path, manifest: dict[str, Any], proof: Proof) -> None:
    """Each answer that should be trained was met exactly once (a proof takes each only once), or had a reason."""
    kept = pl.read_parquet(directory / "ledger.parquet", glob=False).filter(pl.col("action") != "dropped").select("row")
    texts = pl.read_parquet(
        directory / "conversations.parquet", glob=False, columns=["row", "messages", "tools", "think"]
    )
    server, limit = proof.server, manifest["max_length"]
    for row in texts.join(kept, on="row", how="semi").iter_rows(named=True):
        if ("prompt", row["row"]) in proof.told:
            continue  # it is there, and was told to be wrong
        chat = proof.conversation(row)
        missing = [turn for turn in chat.wanted if not proof.met(chat.row, turn)]
        if not manifest["expand"]:
            there = [chat.served(turn) for turn in chat.wanted if proof.met(chat.row, turn)]
            missing = [turn for turn in missing if _would_go_with(chat.served(turn), there)]
        if not missing:
            continue
        # Turns of one sample go together when it is too long: the last missing one tells its length.
        served = chat.served(missing[-1])
        if not limit or len(server.ids(served.prompt)) + len(server.ids(served.answer)) <= limit:
            proof.fail("not trained", f"{_place(chat.row)}: message {missing[-1]} is in no shard")


def _would_go_with(one: Any, there: list[Any]) -> bool:
    """Whether a turn could stand in the one sample with the turns that are there."""
    texts = sorted([*there, one], key=lambda served: served.turn)
    return all(after.prompt.startswith(before.prompt + before.answer) for before, after in itertools.pairwise(texts))


def report(result: Result, console: Console) -> None:
    """The verdict for a person."""
    for model in result.models:
        console.print(f"{model}: its template, tokenizer and stop tokens", markup=False, highlight=False)
    if result.sequences:
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
    if result.vendor_prompts:
        told = f"{result.vendor_prompts:,} sequences have a system message of their own that names the vendor"
        console.print(told, style="yellow", highlight=False)
    for note in result.notes:
        console.print(note, style="yellow", markup=False, highlight=False)
    for case in result.cases[:SHOWN]:
        console.print(f"  {case}", style="red", markup=False, highlight=False)
    if len(result.cases) > SHOWN:
        console.print(f"  … {len(result.cases) - SHOWN} more are told with --json", style="red", highlight=False)
    if result.failures:
        counts = ", ".join(f"{kind} {count:,}" for kind, count in result.failures.items())
        console.print(f"[bold red]training is not serving:[/] {counts}", highlight=False)
    elif result.sequences:
        console.print(
            "[bold green]training equals serving[/]: every prompt, answer and stop token agrees", highlight=False
        )
    else:
        console.print("[bold green]saved as it was trained[/]: template, tokenizer and stop agree", highlight=False)
