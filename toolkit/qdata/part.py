"""One part's road, from bytes to token table: what a worker runs.

The results lie in the cache, under a key of all that made them.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa

from qdata import schema
from qdata.paths import whole
from qdata.rows import ledger, load, provenance
from qdata.rows.source import Bad, Part
from qdata.rows.steps.placeholders import unfilled
from qdata.tokens.template import Template

Step = Callable[[pl.LazyFrame], pl.LazyFrame]


@functools.cache
def code_sha256() -> str:
    """Of this package's source: an edited step must not meet the results of the old one."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Work:
    """A part and everything that decides what becomes of it."""

    part: Part
    split: str  # train | validation
    dialect: str
    rename: Mapping[str, str]
    steps: tuple[Step, ...]
    skip_bad: bool
    cache: Path
    template: Template | None = None  # None: conversations only, nothing is rendered
    tokenizer: Path | None = None
    tokenizer_sha256: str = ""
    code: str = field(default_factory=code_sha256)

    @property
    def key(self) -> str:
        """Same key, same result: whatever changes the outcome is in it."""
        part = self.part
        facts = [
            [part.source, part.relative, part.container, part.first, part.sha256, provenance.key(part.path)],
            [self.dialect, dict(self.rename), self.skip_bad, self.code],
            [step_facts(step) for step in self.steps],
            [self.template.sha256, self.template.stop, self.tokenizer_sha256] if self.template else None,
        ]
        return hashlib.sha256(json.dumps(facts, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


class Done(NamedTuple):
    """Where a part's results lie, and what is told of it. With `bad` rows that must not be skipped there are none."""

    work: Work
    directory: Path
    bad: list[Bad]
    kept: int  # conversations that were not dropped
    by_shape: int
    by_row: int
    unfilled: list[str]  # placeholders nobody filled, in kept rows
    unfilled_rows: int

    def conversations(self) -> pl.DataFrame:
        """All rows of the part in the CONVERSATION schema; dropped ones have a reason in `drop`."""
        return pl.read_parquet(self.directory / "conversations.parquet")

    def edits(self) -> pl.DataFrame:
        """What the steps changed."""
        return pl.read_parquet(self.directory / "edits.parquet")

    def tokens(self) -> pa.Table:
        """The token table, memory-mapped."""
        with pa.memory_map(str(self.directory / "tokens.arrow")) as file:
            return pa.ipc.open_file(file).read_all()


def step_facts(step: Any) -> list[Any]:
    """A step's name and settings, for keys and manifests."""
    return [type(step).__module__.rsplit(".", 1)[-1], dataclasses.asdict(step)]


def process(work: Work) -> Done:
    """Takes a part all the way, or finds that it was taken already."""
    directory = work.cache / "parts" / work.key[:2] / work.key
    if (directory / "facts.json").is_file():
        facts = json.loads((directory / "facts.json").read_text(encoding="utf-8"))
        return Done(work, directory, [], **facts)
    loaded = load.load(work.part, work.dialect, work.rename)
    if loaded.bad and not work.skip_bad:
        return Done(work, directory, loaded.bad, 0, 0, 0, [], 0)
    frame = pl.concat([loaded.frame, load.unreadable(work.part, loaded.bad)], how="diagonal_relaxed")
    frame, edits = _stepped(schema.with_content_hash(provenance.restore(frame, work.part)), work.steps)
    kept = frame.filter(pl.col("drop").is_null())
    open_ones = unfilled(kept.lazy()).collect()
    facts = {
        "kept": kept.height,
        "by_shape": 0,
        "by_row": 0,
        "unfilled": sorted(set(open_ones["found"].explode().to_list())),
        "unfilled_rows": open_ones.height,
    }
    directory.parent.mkdir(parents=True, exist_ok=True)
    with whole(directory, replace=True) as partial:
        partial.mkdir()
        frame.write_parquet(partial / "conversations.parquet", compression="zstd", compression_level=1)
        edits.write_parquet(partial / "edits.parquet")
        if work.template and work.tokenizer:
            facts |= _tokens(kept, work.template, work.tokenizer, partial / "tokens.arrow")
        (partial / "facts.json").write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")
    return Done(work, directory, [], **facts)


def _stepped(frame: pl.DataFrame, steps: tuple[Step, ...]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The frame after all steps, and what they changed. A step may add or change columns, never rows."""
    edits = [pl.DataFrame(schema=ledger.EDITS)]
    for step in steps:
        after = step(frame.lazy()).collect()
        if after.height != frame.height:
            raise AssertionError(f"{type(step).__name__} changed the number of rows; a filter writes `drop` instead")
        if getattr(step, "edits", False):
            after = schema.with_content_hash(after)
            edits.append(ledger.edits_between(_said(frame), _said(after), step_facts(step)[0]))
        frame = after
    return frame, pl.concat(edits)


def _said(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select("row", hash="content_hash", text=schema.canonical_json())


def _tokens(kept: pl.DataFrame, template: Template, tokenizer: Path, file: Path) -> dict[str, int]:
    from qdata.tokens.render import render
    from qdata.tokens.tokenize import load_encoder, tokenize

    rendered = render(template, kept)
    table = tokenize(rendered.pieces, load_encoder(tokenizer))
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return {"by_shape": rendered.by_shape, "by_row": rendered.by_row}
