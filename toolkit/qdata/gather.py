"""Parts whose rows are written → one file, its ledger and its dropped rows: the end of `convert`.

Never more than one part is in memory. What global steps decided is carried out here: a row that fell is left out, and
its ledger line names the row it fell to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow.parquet as pq

from qdata import decide, schema
from qdata.errors import QdataError
from qdata.rows import exact, ledger, scores
from qdata.written import LEFT_OUT, Row, Written


class Gathered(NamedTuple):
    """The parts in order, and what became of all their rows."""

    done: list[Written]
    sums: dict[str, Any]  # as ledger.sums tells them
    left_out: dict[str, int]  # what was left out of rows, and of how many
    first: Row | None  # the first row, as it was written
    scores: dict[str, dict[str, Any]]  # as scores.summary tells them, of the rows that were written


def gather(
    parts: Iterable[Written], decisions: pl.DataFrame | None, sink: Callable[[bytes], object], beside: Path, name: str
) -> Gathered:
    """The rows of all parts into `sink`, one behind the other; ledger.parquet and dropped.parquet into `beside`.

    `decisions`: as decide.decide makes them. `name`: the file the rows go to, for the ledger.
    """
    done, sums, left_out = list[Written](), list[dict[str, Any]](), Counter[str]()
    first: Row | None = None
    written = 0
    writer: pq.ParquetWriter | None = None
    for one in parts:
        done.append(one)
        book = one.book() if decisions is None else _settled(one.book(), decisions)
        lines = one.lines() if decisions is None else _left(one, book, decisions)
        sink(lines)
        if first is None and lines:
            first = exact.loads(lines[: lines.index(b"\n")])
        placed = pl.col("index").is_not_null()
        sums.append(ledger.sums(book))
        reasons = book.filter(placed)["reason"].drop_nulls()
        left_out.update(why.removeprefix(LEFT_OUT) for why in reasons.to_list() if why.startswith(LEFT_OUT))
        table = book.with_columns(shard=pl.when(placed).then(pl.lit(name)), index=pl.col("index") + written).to_arrow()
        written += len(book) - book["index"].null_count()
        writer = writer or pq.ParquetWriter(beside / "ledger.parquet", table.schema, compression="zstd")
        writer.write_table(table)
    if writer:
        writer.close()
    _write_dropped(done, decisions, beside / "dropped.parquet")
    told = scores.summary(_scores(done, decisions))
    return Gathered(done, ledger.total(sums), dict(left_out.most_common()), first, told)


def _scores(done: Sequence[Written], decisions: pl.DataFrame | None) -> pl.DataFrame:
    """A column for each score of the rows that were written, in order."""
    frames = [one.row_scores() for one in done if one.scores != ["given"]]
    made = pl.concat(frames, how="diagonal") if frames else pl.DataFrame(schema={"row": pl.String})
    if decisions is not None:
        fell = decisions.filter(pl.col("drop").is_not_null())
        found = decisions.drop("by", "drop")
        made = made.drop(found.columns[1:], strict=False)
        made = made.join(fell, on="row", how="anti")
        if found.width > 1:
            made = made.join(found.join(fell, on="row", how="anti"), on="row", how="full", coalesce=True)
    return made.drop("row", "given", strict=False)


def _settled(book: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
    """A part's ledger after global steps: rows that fell are dropped, the others move up."""
    fallen = decisions.select("row", "drop", fell_to="by").filter(pl.col("drop").is_not_null())
    joined = book.join(fallen, on="row", how="left", maintain_order="left")
    fell = pl.col("drop").is_not_null()
    stays = pl.col("index").is_not_null() & ~fell
    reason = pl.col("drop").str.splitn(".", 2).struct
    return joined.with_columns(
        action=pl.when(fell).then(pl.lit("dropped")).otherwise("action"),
        step=pl.when(fell).then(reason.field("field_0")).otherwise("step"),
        reason=pl.when(fell).then(reason.field("field_1")).otherwise("reason"),
        index=pl.when(stays).then(stays.cum_sum().cast(pl.Int64) - 1),
        by=pl.coalesce("fell_to", "by"),
    ).select(book.columns)


def _left(one: Written, book: pl.DataFrame, decisions: pl.DataFrame) -> bytes:
    """The lines of a part that stay, with the scores that were decided."""
    rows = one.book().filter(pl.col("index").is_not_null())["row"]
    lines = one.lines().split(b"\n")[:-1]
    stays = rows.is_in(book.filter(pl.col("index").is_not_null())["row"].implode())
    if not stays.all():
        lines = [line for line, is_left in zip(lines, stays.to_list(), strict=True) if is_left]
        rows = rows.filter(stays)
    names = [column for column in decisions.columns if column not in ("row", "drop", "by")]
    if names:
        found = rows.to_frame("row").join(decisions, on="row", how="left", maintain_order="left")
        more = found.select(names).to_dicts()
        lines = [_with_more(line, add, row) for line, add, row in zip(lines, more, rows.to_list(), strict=True)]
    return b"".join(line + b"\n" for line in lines)


def _with_more(line: bytes, more: dict[str, Any], row: str) -> bytes:
    try:
        return exact.dumps(scores.with_more(exact.loads(line), more))
    except ValueError as error:
        raise QdataError(f"{row}: {error}") from None


def _write_dropped(done: Sequence[Written], decisions: pl.DataFrame | None, file: Path) -> None:
    """The rows that were not written (CONVERSATION), all with the same fields in `score`."""
    extra = [c for c in decisions.columns if c not in ("row", "drop", "by")] if decisions is not None else []
    fields = list(dict.fromkeys([name for one in done for name in one.scores] + extra))
    writer: pq.ParquetWriter | None = None
    for one in done:
        frames = [one.dropped()]
        if decisions is not None:
            frames.append(decide.apply(one.conversations(), decisions).filter(pl.col("drop").is_not_null()))
        table = pl.concat(schema.with_score_fields(frame, fields) for frame in frames).to_arrow()
        writer = writer or pq.ParquetWriter(file, table.schema, compression="zstd")
        writer.write_table(table)
    if writer:
        writer.close()
