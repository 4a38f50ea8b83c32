"""One part's road, from bytes to token table: what a worker runs.

The results lie in the cache, under a key of all that made them.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa

from qdata import cache, decide, plugin, schema
from qdata.decide import GlobalStep
from qdata.errors import RefusedRowsError
from qdata.paths import whole
from qdata.rows import formats, kinds, ledger, load, provenance
from qdata.rows.draw import Draw
from qdata.rows.parts import Bad, Part
from qdata.rows.steps.placeholders import unfilled

if TYPE_CHECKING:  # jinja2 and more, which who makes no tokens need not load
    from qdata.tokens.encoder import Encoder
    from qdata.tokens.kind import Kind, Rendering

Step = Callable[[pl.LazyFrame], pl.LazyFrame]
NAMED = 5  # rows that were set aside, by name; the others are counted


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
    cache: Path
    rendering: Rendering | None = None  # None: rows only, no tokens
    character: str | None = None  # who answers, where the rows are talks of characters
    draw: Draw | None = None  # None: every row
    global_steps: tuple[GlobalStep, ...] = ()  # sketched here, decided where all parts are
    code: str = field(default_factory=code_sha256)

    @property
    def key(self) -> str:
        """Same key, same result: whatever changes the outcome is in it."""
        part = self.part
        facts = [
            [part.source, part.relative, part.container, part.start, part.stop, part.first, part.sha256],
            provenance.key(part.path),
            [self.dialect, dict(self.rename), self.character, self.code],
            [step_facts(step) for step in self.steps],
            [step_facts(step) for step in self.global_steps],
            self.rendering.facts if self.rendering else None,
            [self.draw.seed, self.draw.limit] if self.draw else None,
        ]
        return hashlib.sha256(json.dumps(facts, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Read(ABC):
    """Where a part's results lie, and what became of its rows."""

    work: Work
    directory: Path
    rows: int  # all of the part
    kept: int  # conversations that were not dropped
    aside: list[tuple[int | str, str]]  # the first rows that were set aside: ordinal or row id, and why
    unreadable: int  # rows that were set aside because they could not be read
    refused: int  # rows that were set aside because the template cannot render them
    scores: list[str]  # the fields of `score` that its rows have

    @abstractmethod
    def ids(self) -> pl.Series:
        """The ids of all rows."""


@dataclass(frozen=True)
class Done(Read):
    """A part whose rows are conversations, and tokens where it was to be rendered."""

    by_shape: int
    by_row: int
    unfilled: list[str]  # placeholders nobody filled, in kept rows
    unfilled_rows: int
    controls: int  # kept rows that held control tokens as text
    emptied: int  # answers of kept rows that were reasoning only, which the thinking policy removed
    checked: int  # texts that the fast encoder and `tokenizers` both encoded, alike

    def ids(self) -> pl.Series:
        """The ids of all rows."""
        return self.conversations(columns=["row"])["row"]

    def conversations(self, columns: list[str] | None = None) -> pl.DataFrame:
        """All rows of the part in the CONVERSATION schema; dropped ones have a reason in `drop`."""
        return pl.read_parquet(self.directory / "conversations.parquet", columns=columns, glob=False)

    def edits(self) -> pl.DataFrame:
        """What the steps changed."""
        return pl.read_parquet(self.directory / "edits.parquet", glob=False)

    def tokens(self) -> pa.Table:
        """The token table, memory-mapped."""
        with pa.memory_map(str(self.directory / "tokens.arrow")) as file:
            return pa.ipc.open_file(file).read_all()


def step_facts(step: Any) -> list[Any]:
    """A step's name and settings, for keys and manifests."""
    return [type(step).__module__.rsplit(".", 1)[-1], dataclasses.asdict(step)]


def process(work: Work) -> Done:
    """Takes a part all the way, or finds that it was taken already.

    Rows that cannot be read or rendered are dropped with their reason; whether that is allowed is not decided here.
    """
    directory = cache.part_folder(work.cache, work.key)
    if known := cache.finished(directory):
        return Done(work, directory, **known)
    if work.rendering:
        _encoder(work.rendering).warm()  # while the rows are read
    frame, edits, bad = conversations(work)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with whole(directory, replace=True) as partial:
        partial.mkdir()
        rendered = dict.fromkeys(("by_shape", "by_row", "controls", "emptied", "checked"), 0)
        refused: dict[str, str] = {}
        if work.rendering:
            frame, rendered, refused = _rendered(frame, work, work.rendering, partial / "tokens.arrow")
        kept = frame.filter(pl.col("drop").is_null())
        open_ones = unfilled(kept.lazy()).collect()
        both = itertools.zip_longest(((b.ordinal, b.reason) for b in bad), refused.items())  # some of each are named
        aside = [one for pair in both for one in pair if one]
        facts: dict[str, Any] = {
            "rows": frame.height,
            "kept": kept.height,
            "aside": aside[:NAMED],
            "unreadable": len(bad),
            "refused": len(refused),
            "scores": schema.score_fields(frame),
            "unfilled": sorted(set(open_ones["found"].explode().to_list())),
            "unfilled_rows": open_ones.height,
            **rendered,
        }
        frame.write_parquet(partial / "conversations.parquet", compression="zstd", compression_level=1)
        edits.write_parquet(partial / "edits.parquet")
        decide.write_sketches(kept, work.global_steps, partial)
        cache.finish(partial, facts)
    return Done(work, directory, **facts)


def conversations(work: Work) -> tuple[pl.DataFrame, pl.DataFrame, list[Bad]]:
    """All rows of a part after its steps (CONVERSATION), what the steps changed (EDITS), and what cannot be read.

    The latter are among the rows, dropped with their reason.
    """
    loaded = load.load(work.part, work.dialect, work.rename, work.character)
    drawn = work.draw(loaded.frame, work.part) if work.draw else loaded.frame
    hashed = [schema.with_content_hash(drawn), load.unreadable(work.part, loaded.bad)]
    frame = provenance.restore(pl.concat(hashed, how="diagonal_relaxed"), work.part)
    out = pl.col("drop").is_not_null()  # before any step: not drawn, or unreadable
    stepped, edits = _stepped(frame.filter(~out), work.steps)
    return pl.concat([stepped, frame.filter(out)], how="diagonal_relaxed"), edits, sorted(loaded.bad)


def _rendered(
    frame: pl.DataFrame, work: Work, how: Rendering, file: Path
) -> tuple[pl.DataFrame, dict[str, int], dict[str, str]]:
    """Writes the token table of the rows that are kept; those that cannot be rendered are dropped, and told why."""
    refused: dict[str, str] = {}
    kind = kind_of(work.dialect)
    while True:
        try:
            facts = _tokens(frame.filter(pl.col("drop").is_null()), how, kind, file)
        except RefusedRowsError as error:
            refused |= error.rows
            reasons = {row: "render." + re.split(r"[:,\"']|\s\d", why)[0].strip() for row, why in error.rows.items()}
            told = pl.col("row").replace_strict(reasons, default=None, return_dtype=pl.String)
            frame = frame.with_columns(drop=pl.coalesce("drop", told))
        else:
            return frame, facts, refused


def _stepped(frame: pl.DataFrame, steps: tuple[Step, ...]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The frame after all steps, and what they changed. A step may add or change columns, never rows."""
    edits = [pl.DataFrame(schema=ledger.EDITS)]
    for step in steps:
        after = step(frame.lazy()).collect()
        if after.height != frame.height:
            raise AssertionError(f"{type(step).__name__} changed the number of rows; a filter writes `drop` instead")
        if getattr(step, "edits", False):
            changed = ledger.changed(frame, after)  # few rows, mostly; the others keep their hash
            old, new = frame.filter(changed), schema.with_content_hash(after.filter(changed))
            edits.append(ledger.edits_between(_said(old), _said(new), step_facts(step)[0]))
            after = after.with_columns(after["content_hash"].scatter(changed.arg_true(), new["content_hash"]))
        frame = after
    return frame, pl.concat(edits)


def _said(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select("row", hash="content_hash", text=schema.canonical_json())


def kind_of(dialect: str) -> Kind:
    """What the rows of a dialect are, and how tokens are made of them."""
    return kind_named(kinds.kind(plugin.find(formats, dialect)))


def kind_named(name: str) -> Kind:
    """A kind of rows by its name in tokens/kinds/."""
    from qdata.tokens import kinds as token_kinds

    made: Kind = plugin.find(token_kinds, name)()
    return made


def _tokens(kept: pl.DataFrame, how: Rendering, kind: Kind, file: Path) -> dict[str, int]:
    encoder = _encoder(how)
    before = encoder.checked
    made = kind.make(kept, how, encoder)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, made.table.schema) as writer:
        writer.write_table(made.table)
    return made.counts | {"checked": encoder.checked - before}


def _encoder(how: Rendering) -> Encoder:
    from qdata.tokens.encoder import load_encoder

    return load_encoder(how.tokenizer, how.engine)
