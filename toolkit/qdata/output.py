"""What a command left behind, to be asked about: a file of rows with its ledger beside it, a shard folder, or a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from qdata.errors import QdataError
from qdata.paths import from_here
from qdata.rows import provenance
from qdata.schema import LEDGER
from qdata.tokens import saved, shards


@dataclass(frozen=True)
class Output:
    """An output and its papers; `folder` is where manifest.json and ledger.parquet lie."""

    path: Path
    folder: Path
    manifest: dict[str, Any]

    @property
    def is_shards(self) -> bool:
        """Tokens, and not rows of a dialect."""
        return "splits" in self.manifest

    def ledger(self) -> pl.LazyFrame:
        """A line for every input row (LEDGER)."""
        return pl.scan_parquet(self.folder / "ledger.parquet", glob=False)

    def dropped(self) -> pl.LazyFrame:
        """The rows that were dropped (CONVERSATION), with the reason in `drop`."""
        if not self.is_shards:
            return pl.scan_parquet(self.folder / "dropped.parquet", glob=False)
        every = pl.scan_parquet(self.folder / "conversations.parquet", glob=False)
        gone = self.ledger().filter(pl.col("action") == "dropped").select("row", why=_WHY)
        return every.drop("think").join(gone, on="row").with_columns(drop=pl.coalesce("drop", "why")).drop("why")


_WHY = pl.concat_str("step", "reason", separator=".")  # as CONVERSATION's `drop` has it


def find(path: Path) -> Output:
    """The output at `path`: a file, the folder .qdata beside it, a shard folder, or a run (its shards are meant).

    Raises QdataError where nothing of ours lies there.
    """
    if path.is_dir() and path.name.endswith(".qdata"):
        path = path.with_name(path.name.removesuffix(".qdata"))
    beside = provenance.sidecar(path)
    if path.is_file() or (not path.exists() and beside.is_dir()):
        if not provenance.is_ours(beside):
            raise QdataError(f"{path}: no ledger of ours beside it ({beside.name}/); wanted what a qdata command wrote")
        return _opened(path, beside)
    if papers := saved.papers_of(path):
        folder = saved.shards_of(papers)
        if folder is None:
            raise QdataError(f"{path}: its shards ({papers.shards}) are not here; name the shard folder")
        path = folder
    if not (path / "ledger.parquet").is_file():
        raise QdataError(f"{path}: no ledger.parquet in it; wanted what `qdata render` wrote")
    return _opened(path, path)


def _opened(path: Path, folder: Path) -> Output:
    found = Output(path, folder, shards.read_manifest(folder / "manifest.json"))
    try:
        columns = found.ledger().collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise QdataError(f"{folder / 'ledger.parquet'}: not the ledger that was written: {error}") from None
    if columns != LEDGER:
        raise QdataError(
            f"{folder / 'ledger.parquet'}: its columns are {', '.join(columns)}; wanted {', '.join(LEDGER)}. Was it "
            f"written by another version? Make {path} again"
        )
    return found


def before(output: Output) -> Iterator[Output]:
    """The outputs that this one was made of, where they still lie near it, are unchanged, and are ours.

    The manifest names them by content, not by path: they are looked for beside the output and in the working folder.
    """
    above = output.path.resolve().parents
    near = dict.fromkeys(map(from_here, [*above[:2], Path(), Path("data")]))
    for made in filter(None, (one.get("made_by") for one in output.manifest["inputs"])):
        for folder in near:
            found = provenance.manifest_beside(folder / made["name"]) if (folder / made["name"]).is_file() else None
            if found and found["output"]["sha256"] == made["sha256"]:
                yield find(folder / made["name"])
                break
