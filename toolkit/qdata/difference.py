"""Two files or outputs held side by side: rows of only one, rows that say something else, counts. Any dialects.

Only row ids and hashes of all rows are in memory; texts are read again, of those that are shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from qdata import changes, history, part, pipeline, texts
from qdata import output as outputs
from qdata.output import Output
from qdata.part import Work
from qdata.paths import cache_dir
from qdata.recipe import Source
from qdata.rows import provenance

_ROWS = pl.Schema({"row": pl.String, "hash": pl.String, "part": pl.Int64})


@dataclass(frozen=True)
class Side:
    """One of the two: its rows by id and content, in order, and what reads the texts of one part again."""

    path: str
    rows: pl.DataFrame  # _ROWS
    unread: int  # rows that cannot be read, which are not compared
    outputs: list[Output]  # that know where the rows came from
    origins: dict[str, str]  # of files that are nobody's output: name in row ids → sha256 of the first part
    texts: Callable[[pl.DataFrame], pl.DataFrame]  # some of `rows` → SAID (texts.py)

    def knows(self, other: Side) -> bool:
        """Whether equal row ids mean the same row: both have rows of one file, and of the same bytes."""
        shared = _files_of(self) & _files_of(other)
        mine, theirs = _hashes(self), _hashes(other)
        for name in shared:
            a, b = mine.get(name), theirs.get(name)
            if (a and b and a.isdisjoint(b)) or (not (a and b) and name in {*self.origins, *other.origins}):
                return False
        return bool(shared)


def side(path: str, **how: Any) -> Side:
    """Opens a file, folder, glob or catalogue name of rows; or shards, or a run, whose kept rows are meant.

    `how`: fields of the Source. Raises QdataError where it cannot be read.
    """
    folder = Path(path)
    if folder.is_dir() and ((folder / "manifest.json").is_file() or folder.name.endswith(".qdata")):
        found = outputs.find(folder)
        return _of_shards(path, found) if found.is_shards else _of_rows(path, [Source(path=str(found.path), **how)])
    return _of_rows(path, [Source(path=path, **how)])


def _of_shards(path: str, found: Output) -> Side:
    every = pl.scan_parquet(found.folder / "conversations.parquet", glob=False)
    kept = every.join(found.ledger().filter(pl.col("action") == "dropped"), on="row", how="anti")
    rows = kept.select("row", hash="content_hash", part=pl.lit(0)).collect(engine="streaming")

    def said(some: pl.DataFrame) -> pl.DataFrame:
        return texts.narrow(every.filter(pl.col("row").is_in(some["row"].implode())))

    return Side(path, rows.match_to_schema(_ROWS, integer_cast="upcast"), 0, history.lineage(found), {}, said)


def _of_rows(path: str, sources: list[Source]) -> Side:
    works = [
        Work(one, "train", found.detection.format, found.input.rename, (), cache_dir(), character=found.input.character)
        for found, one, _ in pipeline.parts_of(pipeline.find(sources), 0)
    ]
    narrow, unread = [pl.DataFrame(schema=_ROWS)], 0
    for number, work in enumerate(works):
        rows = _read(work).select("row", "drop", hash="content_hash", part=pl.lit(number, pl.Int64))
        narrow.append(rows.filter(pl.col("drop").is_null()).drop("drop"))
        unread += len(rows) - len(narrow[-1])

    def said(some: pl.DataFrame) -> pl.DataFrame:
        frames = [pl.DataFrame(schema=texts.SAID)]
        for number in some["part"].unique().sort():
            wanted = some.filter(part=number)["row"]
            frames.append(texts.narrow(_read(works[number]).lazy().filter(pl.col("row").is_in(wanted.implode()))))
        return pl.concat(frames)

    files = list({work.part.path: work.part for work in reversed(works)}.values())  # of each the first part
    ours = {one.path: outputs.find(one.path) for one in files if provenance.manifest_beside(one.path)}
    origins = {f"{one.source}/{one.relative}": one.sha256 for one in files if one.path not in ours}
    known = [earlier for one in ours.values() for earlier in history.lineage(one)]
    return Side(path, pl.concat(narrow), unread, known, origins, said)


def _read(work: Work) -> pl.DataFrame:
    return part.conversations(work)[0]


def _files_of(one: Side) -> set[str]:
    return set(one.rows.select(pl.col("row").str.replace(r"#\d+$", "").unique())["row"].to_list())


def _hashes(one: Side) -> dict[str, set[str]]:
    """What is known of the files that rows came from: name in row ids → hashes of the first part."""
    known: dict[str, set[str]] = {name: {sha256} for name, sha256 in one.origins.items()}
    for found in (found for output in one.outputs for found in output.manifest["inputs"] if found["parts"]):
        known.setdefault(f"{found['source']}/{found['relative']}", set()).add(found["parts"][0]["sha256"])
    return known


@dataclass(frozen=True)
class Difference:
    """Rows of only one side, and those of both that were changed; `part` of each side says where its text is."""

    a: Side
    b: Side
    by: str  # row (ids) or content (hashes)
    only_a: pl.DataFrame  # _ROWS
    only_b: pl.DataFrame
    changed: pl.DataFrame  # row, part (of a), part_b
    same: int

    @property
    def differs(self) -> bool:
        """Whether there is any difference."""
        return bool(len(self.only_a) or len(self.only_b) or len(self.changed))

    def samples(self, many: int) -> dict[str, list[dict[str, Any]]]:
        """The first rows of each kind: `row` and `said`, or the `diff` as changes.lines tells it."""
        shown = self.changed.head(many)
        before, after = _said(self.a, shown), _said(self.b, shown.with_columns(part="part_b"))
        diffs = [{"row": r, "diff": list(changes.lines(before[r], after[r]))} for r in shown["row"]]
        return {"only_a": _listed(self.a, self.only_a.head(many)), "only_b": _listed(self.b, self.only_b.head(many)),
                "changed": diffs}  # fmt: skip


def _listed(one: Side, rows: pl.DataFrame) -> list[dict[str, Any]]:
    said = _said(one, rows)
    return [{"row": row, "said": said[row]} for row in rows["row"]]


def _said(one: Side, rows: pl.DataFrame) -> dict[str, str]:
    return dict(one.texts(rows).select("row", "said").iter_rows()) if len(rows) else {}


def difference(a: Side, b: Side) -> Difference:
    """Rows are matched by id where both sides know that these are the same rows', else by what they say.

    By content a row that stands twice in one and once in the other is once in both and once in only one.
    """
    unique = all(one.rows["row"].n_unique() == len(one.rows) for one in (a, b))
    mine, theirs = a.rows, b.rows
    by, key = ("row", ["row"]) if unique and a.knows(b) else ("content", ["hash", "nth"])
    if by == "content":
        mine, theirs = (rows.with_columns(nth=pl.int_range(pl.len()).over("hash")) for rows in (mine, theirs))
    both = mine.join(theirs, on=key, how="inner", suffix="_b", maintain_order="left")
    changed = both.filter(pl.col("hash") != pl.col("hash_b")) if by == "row" else both.clear()
    only_a, only_b = (x.join(y, on=key, how="anti", maintain_order="left") for x, y in ((mine, theirs), (theirs, mine)))
    return Difference(a, b, by, only_a, only_b, changed, len(both) - len(changed))
