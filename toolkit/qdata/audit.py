"""A ledger asked: its sums, which must close, by whatever one wants to count by; and its rows, one by one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from qdata import schema, texts
from qdata.errors import QdataError, did_you_mean
from qdata.output import Output
from qdata.paths import whole
from qdata.rows import source
from qdata.tokens import shards

_DROPPED = pl.col("action") == "dropped"
_EDITED = pl.col("action") == "edited"
_PLACED = pl.col("index").is_not_null()
_FILE = pl.col("row").str.replace(r"#\d+$", "")
_WHY = pl.concat_str("step", "reason", separator=".")

# What a ledger is counted by; null is a value too, so that every sum closes.
BY = {
    "reason": pl.when(_DROPPED).then(_WHY).when(_EDITED).then("step"),
    "step": pl.col("step"),
    "action": pl.col("action"),
    "source": _FILE.str.split("/").list.first(),
    "file": _FILE,
    "survivor": pl.col("by"),
}
COUNTS = {"in": pl.len(), "kept": (~_DROPPED).sum(), "edited": _EDITED.sum(), "dropped": _DROPPED.sum()}
WRITTEN = (".csv", ".parquet", ".jsonl")


def counts(output: Output, by: str) -> pl.DataFrame:
    """`by`, and how many rows came in, were kept (of which edited) and dropped; the most rows first."""
    grouped = output.ledger().group_by(BY[by].alias(by)).agg(**{n: e.cast(pl.Int64) for n, e in COUNTS.items()})
    return grouped.sort("in", by, descending=[True, False], nulls_last=True).collect(engine="streaming")


def check(output: Output, *, places: bool = True) -> dict[str, int]:
    """The sums of a ledger: in, kept, edited, dropped.

    Raises QdataError with all that does not close: a row twice, a count that the manifest tells otherwise, a kept row
    without a place; with `places`, for which the whole output is read, also a place without a row.
    """
    book = output.ledger()
    known = pl.col("action").is_in(["kept", "edited", "dropped"])
    facts = book.select(
        **COUNTS,
        rows=pl.col("row").n_unique(),
        unknown=(~known | known.is_null()).sum(),
        unplaced=(~_DROPPED & ~_PLACED).sum(),
        misplaced=(_DROPPED & _PLACED).sum(),
        unexplained=(_DROPPED & _WHY.is_null()).sum(),
    ).collect(engine="streaming")
    one = facts.row(0, named=True)
    sums = {name: int(one[name]) for name in COUNTS}
    wrong = [
        f"{one[name]:,} {what}"
        for name, what in _FAULTS.items()
        if one[name]
    ]  # fmt: skip
    if one["rows"] != one["in"]:
        wrong.append(f"{one['in']:,} lines, and {one['rows']:,} different rows: every row has one line")
    if sums["in"] != sums["kept"] + sums["dropped"]:
        wrong.append(f"{sums['in']:,} in, and {sums['kept']:,} kept + {sums['dropped']:,} dropped")
    wrong += _unlike_the_manifest(output, sums)
    wrong += _unlike_the_output(output) if places else []
    if wrong:
        raise QdataError(
            "\n  ".join([f"{output.folder / 'ledger.parquet'}: the ledger does not close:", *wrong])
            + "\nIt, its manifest or its output was changed since they were written; make them again."
        )
    return sums


_FAULTS = {
    "unknown": "rows are neither kept, edited nor dropped",
    "unplaced": "kept rows have no place in the output",
    "misplaced": "dropped rows have a place in the output",
    "unexplained": "dropped rows have no reason",
}


def _unlike_the_manifest(output: Output, sums: dict[str, int]) -> Iterator[str]:
    said = output.manifest["rows"]
    for name in ("in", "kept", "edited"):
        if sums[name] != said[name]:
            yield f"{sums[name]:,} {name}, and the manifest says {said[name]:,}"
    found = counts(output, "reason").filter(pl.col("dropped") > 0)
    reasons = dict(found.select(pl.col("reason").fill_null("null"), "dropped").iter_rows())
    for why in sorted(reasons.keys() | said["dropped"].keys()):
        if (is_ := reasons.get(why, 0)) != (was := said["dropped"].get(why, 0)):
            yield f"{is_:,} dropped by {why}, and the manifest says {was:,}"


def _unlike_the_output(output: Output) -> Iterator[str]:
    """What the ledger says of places, held against what lies there."""
    placed = output.ledger().filter(_PLACED)
    if output.is_shards:
        there, mine = _rows_in_shards(output), placed.select("row").collect()
        if len(lost := mine.join(there, on="row", how="anti")):
            yield f"{len(lost):,} rows have a place in the ledger and none in the shards: {lost['row'][0]} …"
        if len(more := there.join(mine, on="row", how="anti")):
            yield f"{len(more):,} rows are in the shards and have no place in the ledger: {more['row'][0]} …"
        return
    if not output.path.is_file():
        yield f"{output.path}: its rows are gone, and cannot be counted"
        return
    places = placed.select(
        many=pl.len(), different=pl.col("index").n_unique(), low=pl.col("index").min(), high=pl.col("index").max()
    )
    many, different, low, high = places.collect(engine="streaming").row(0)
    if different != many or (many and (low, high) != (0, many - 1)):
        yield f"{many:,} rows have {different:,} different places from {low} to {high}; wanted each place once"
    if (count := _rows_in_file(output.path)) != many:
        yield f"{many:,} rows have a place in {output.path.name}, which has {count:,}"


def _rows_in_file(path: Path) -> int:
    read = (source.read(part) for part in source.parts_of(path, "", ""))
    return sum(len(one.rows) + len(one.bad) for one in read)


def _rows_in_shards(output: Output) -> pl.DataFrame:
    batches = (batch for split in output.manifest["splits"] for batch in shards.read_split(output.folder, split))
    ids = [pl.DataFrame(batch.select(["rows"])).explode("rows").unique(maintain_order=True) for batch in batches]
    return pl.concat(ids).unique(maintain_order=True).select(row="rows")


def chosen(output: Output, action: str | None, reason: str | None) -> pl.LazyFrame:
    """The lines of a ledger with this action and for this reason: STEP.REASON, or STEP, which may also have edited.

    Raises QdataError where no row of the ledger has the reason.
    """
    book = output.ledger()
    if action is not None:
        book = book.filter(pl.col("action") == action)
    if reason is None:
        return book
    steps = pl.col("step").str.split(",")
    names = output.ledger().select(names=pl.concat_list(steps, pl.when(_DROPPED).then(_WHY)).explode()).unique()
    known = names.collect(engine="streaming")["names"].drop_nulls().to_list()
    if reason not in known:
        raise QdataError(f"--reason {reason}: no row was edited or dropped so.{did_you_mean(reason, known)}")
    return book.filter((_DROPPED & _WHY.eq(reason)) | steps.list.contains(reason))


def examples(output: Output, lines: pl.LazyFrame, many: int) -> pl.DataFrame:
    """The first lines (LEDGER), with what the rows say (`said`; null where the text is not here any more)."""
    found = lines.head(many).collect()
    return found.join(texts.said(output, found), on="row", how="left", maintain_order="left")


def write(output: Output, lines: pl.LazyFrame, file: Path, *, replace: bool) -> None:
    """Lines of a ledger into a file .csv, .parquet or .jsonl; `before` of a dropped row is what it said.

    Rows that were only kept have neither `before` nor `after`: they stand in the output as they were. Raises QdataError
    for another ending, and for a file that is there already unless `replace`.
    """
    refuse_name(file)
    gone = output.dropped().select("row", said=schema.canonical_json())
    out = lines.join(gone, on="row", how="left", maintain_order="left")
    before = pl.when(_DROPPED).then(pl.coalesce("said", "before")).otherwise("before")
    out = out.with_columns(before=before).drop("said")
    with whole(file, replace=replace) as partial:
        if file.suffix == ".csv":
            out.sink_csv(partial)
        elif file.suffix == ".parquet":
            out.sink_parquet(partial)
        else:
            out.sink_ndjson(partial)


def refuse_name(file: Path) -> None:
    """Raises QdataError for a file that cannot be written."""
    if file.suffix not in WRITTEN:
        raise QdataError(f"-o {file}: wanted a name ending in {', '.join(WRITTEN)}")
    if file.is_dir():
        raise QdataError(f"-o {file}: there is a folder of that name")
