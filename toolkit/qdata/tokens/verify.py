"""The independent proof that training equals serving, of shards, and of models that were trained on them.

Nothing of render.py or tokenize.py is used here, not even by way of others. The conversations, the tokenizer and the
template that lie in a shard folder are what serving.py builds prompts from, and proof_*.py hold the tokens of each
kind of rows against them. Of a saved model it is proven that it would be served with that very tokenizer and template,
and would stop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
import pyarrow as pa
from rich.console import Console
from rich.progress import track

from qdata.errors import QdataError
from qdata.paths import file_sha256
from qdata.tokens import proof_answers, proof_chat, proof_text, saved, shards
from qdata.tokens.proof import Result
from qdata.tokens.serving import Server

SHOWN = 6  # cases in the report for a person


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
        told = f"{found}: not the shards that {papers.folder} was trained on, made again since: no proof of it"
        result.fail("other shards", told)
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
    server = Server(served_by, manifest["template"]["stop"])
    result.kind = manifest.get("kind", "chat")
    prover = _PROVERS[result.kind](server, manifest, result)
    total = sum(min(split["rows"], sample or split["rows"]) for split in manifest["splits"].values())
    rows = _rows(directory, manifest, prover.columns, sample, seed)
    quiet = console or Console(quiet=True)
    for row, where, conversations in track(rows, "verifying", total, console=quiet, transient=True):
        prover.row(row, where, conversations)
    _ledger(directory, manifest, result)
    prover.close(directory, complete=sample is None)


class _Prover(Protocol):
    """What holds the rows of one kind against their source."""

    @property
    def columns(self) -> Sequence[str]:
        """The columns of conversations.parquet that `row` needs."""

    def row(self, row: pa.RecordBatch, where: str, conversations: Mapping[str, Any]) -> None:
        """Looks at a row of a shard (a batch of one)."""

    def close(self, directory: Path, *, complete: bool) -> None:
        """After the last row; `complete`: all rows were looked at."""


_PROVERS: dict[str, Callable[[Server, Mapping[str, Any], Result], _Prover]] = {
    "chat": proof_chat.Chats,
    "text": proof_text.Documents,
    "preference": proof_answers.Pairs,
    "judged": proof_answers.Judged,
}


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


def _rows(
    directory: Path, manifest: dict[str, Any], columns: Sequence[str], sample: int | None, seed: int
) -> Iterator[tuple[pa.RecordBatch, str, dict[str, Any]]]:
    """Each row that is looked at (a batch of one), its place, and by id the conversations that may be in it."""
    texts = pl.scan_parquet(directory / "conversations.parquet", glob=False).select("row", "drop", *columns)
    for split, facts in manifest["splits"].items():
        chosen = None
        if sample is not None and sample < facts["rows"]:
            chosen = set(np.random.default_rng(seed).choice(facts["rows"], sample, replace=False).tolist())
        for rows in _together(shards.read_split(directory, split), chosen):
            names = {name for _, row in rows for name in row["rows"][0].as_py()}
            found = texts.filter(pl.col("row").is_in(list(names))).collect()
            conversations = {one["row"]: one for one in found.iter_rows(named=True)}
            for number, row in rows:
                yield row, f"{split} row {number}", conversations


def _together(batches: Iterator[pa.RecordBatch], chosen: set[int] | None) -> Iterator[list[tuple[int, pa.RecordBatch]]]:
    """Rows with their numbers: those of a batch, or all that are `chosen`, for which the texts are scanned once."""
    first = 0
    drawn: list[tuple[int, pa.RecordBatch]] = []
    for batch in batches:
        if chosen is None:
            yield [(first + i, batch.slice(i, 1)) for i in range(batch.num_rows)]
        else:
            here = sorted(number for number in chosen if first <= number < first + batch.num_rows)
            drawn += [(number, batch.slice(number - first, 1)) for number in here]
        first += batch.num_rows
    if drawn:
        yield drawn


def _ledger(directory: Path, manifest: dict[str, Any], result: Result) -> None:
    """Every row of the conversations has one line, kept lines name a place that exists, and the sums close."""
    book = pl.read_parquet(directory / "ledger.parquet", glob=False)
    rows = pl.read_parquet(directory / "conversations.parquet", glob=False, columns=["row"])["row"]
    if book.height != rows.len() or not book["row"].equals(rows, check_names=False):
        result.fail("ledger", f"{book.height:,} lines for {rows.len():,} rows, or in another order")
    told, dropped = manifest["rows"], int((book["action"] == "dropped").sum())
    if (told["in"], told["kept"], sum(told["dropped"].values())) != (book.height, book.height - dropped, dropped):
        result.fail("ledger", f"{book.height:,} lines, {dropped:,} of them dropped; the manifest says {told}")
    lost = book.filter((pl.col("action") != "dropped") & pl.col("shard").is_null())
    for name in lost["row"].head(5):
        result.fail("ledger", f"{name} is said to be kept, but went to no shard")


def report(result: Result, console: Console) -> None:
    """The verdict for a person."""
    for model in result.models:
        console.print(f"{model}: its template, tokenizer and stop tokens", markup=False, highlight=False)
    if result.sequences:
        found = f"{result.answers:,} {_UNITS[result.kind]}, " if result.kind in _UNITS else ""
        told = f"{result.sequences:,} {_SEQUENCES[result.kind]}, {found}{result.trained_tokens:,} trained tokens"
        console.print(told, highlight=False)
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
        wrong = "shards are not their texts" if result.kind == "text" else "training is not serving"
        console.print(f"[bold red]{wrong}:[/] {counts}", highlight=False)
    elif result.sequences:
        console.print(_PROVEN[result.kind], highlight=False)
    else:
        console.print("[bold green]saved as it was trained[/]: template, tokenizer and stop agree", highlight=False)


_SEQUENCES = {"chat": "sequences", "text": "sequences", "preference": "pairs", "judged": "judged answers"}
_UNITS = {"chat": "answers", "text": "documents", "preference": "answers"}
_SERVED = "[bold green]training equals serving[/]: every prompt, answer and stop token agrees"
_PROVEN = {
    "chat": _SERVED,
    "preference": _SERVED,
    "judged": _SERVED,
    "text": "[bold green]the tokens are the texts[/]: every document and its end, whole and once",
}
