"""A part's road to rows of another dialect: what a worker of `convert` runs.

As part.py for tokens: the results lie in the cache, under a key of all that made them. The rows are JSON texts, a line
each, whatever the container they go to; and the ledger of the part knows their places among its own.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa

from qdata import cache, decide, part, plugin, schema
from qdata.paths import whole
from qdata.rows import exact, formats, kinds, ledger, scores
from qdata.rows.columns import struct_fields
from qdata.rows.formats._turns import VERDICTS, verdict_of

Row = dict[str, Any]
LEFT_OUT = "left out: "  # begins the ledger's reason of rows that were written without something


@dataclass(frozen=True)
class Writing:
    """A part on its way to the dialect `to`; with `lossy`, without what that cannot express."""

    work: part.Work
    to: str
    lossy: bool

    @property
    def key(self) -> str:
        """Same key, same result."""
        return hashlib.sha256(json.dumps([self.work.key, self.to, self.lossy]).encode()).hexdigest()


@dataclass(frozen=True)
class Written(part.Read):
    """A part whose rows are written, or were refused."""

    lost: list[tuple[str, str]]  # the first rows that cannot be expressed, and why
    losses: dict[str, int]  # why rows cannot be expressed, and how many
    first: Row | None  # the first row, as it was written

    def ids(self) -> pl.Series:
        """The ids of all rows."""
        return pl.read_parquet(self.directory / "ledger.parquet", columns=["row"], glob=False)["row"]

    def lines(self) -> bytes:
        """The rows that were written: JSON texts, a line each."""
        with pa.CompressedInputStream(str(self.directory / "rows.jsonl.zst"), "zstd") as file:
            return bytes(file.read())

    def conversations(self) -> pl.DataFrame:
        """The rows that were written (CONVERSATION); only where there are global steps."""
        return pl.read_parquet(self.directory / "kept.parquet", glob=False)

    def row_scores(self) -> pl.DataFrame:
        """`row` and a column for each score of the rows that were written; only where some row has scores."""
        return pl.read_parquet(self.directory / "scores.parquet", glob=False)

    def book(self) -> pl.DataFrame:
        """The part's ledger (LEDGER), without a shard and with places that count from its own first row."""
        return pl.read_parquet(self.directory / "ledger.parquet", glob=False)

    def dropped(self) -> pl.DataFrame:
        """The rows that were not written (CONVERSATION)."""
        return pl.read_parquet(self.directory / "dropped.parquet", glob=False)


def write(writing: Writing) -> Written:
    """Takes a part all the way, or finds that it was taken already.

    Rows that cannot be expressed are dropped with the reason; whether that is allowed is not decided here.
    """
    work = writing.work
    directory = cache.part_folder(work.cache, writing.key)
    if known := cache.finished(directory):
        return Written(work, directory, **known)
    frame, edits, bad = part.conversations(work)
    form = plugin.find(formats, writing.to)
    out = _written(form, frame, writing)
    frame = frame.with_columns(drop=pl.coalesce("drop", out.drops))
    book = _book(frame, edits, out)
    facts: Row = {
        "rows": frame.height,
        "kept": len(out.lines),
        "aside": [(b.ordinal, b.reason) for b in bad[: part.NAMED]],
        "unreadable": len(bad),
        "refused": 0,
        "scores": schema.score_fields(frame),
        "lost": out.lost[: part.NAMED],
        "losses": dict(Counter(what for _, what in out.lost)),
        "first": exact.loads(out.lines[0].encode()) if len(out.lines) else None,
    }
    directory.parent.mkdir(parents=True, exist_ok=True)
    with whole(directory, replace=True) as partial:
        partial.mkdir()
        with pa.CompressedOutputStream(str(partial / "rows.jsonl.zst"), "zstd") as file:
            file.write((out.lines + "\n").str.join().item().encode())
        book.write_parquet(partial / "ledger.parquet", compression="zstd", compression_level=1)
        frame.filter(pl.col("drop").is_not_null()).write_parquet(partial / "dropped.parquet")
        kept = frame.filter(pl.col("drop").is_null())
        if facts["scores"] != ["given"]:
            kept.select("row", pl.col("score").struct.unnest()).write_parquet(partial / "scores.parquet")
        if work.global_steps:
            kept.write_parquet(partial / "kept.parquet", compression_level=1)
            decide.write_sketches(kept, work.global_steps, partial)
        cache.finish(partial, facts)
    return Written(work, directory, **facts)


class _Out(NamedTuple):
    """The rows of a part in another dialect."""

    lines: pl.Series  # of the rows that can be expressed
    drops: pl.Series  # of every row of the part: why it cannot be expressed
    lost: list[tuple[str, str]]  # the same, of the rows that cannot: id and what would be lost
    reduced: list[kinds.Reduced]


def _written(form: Any, frame: pl.DataFrame, writing: Writing) -> _Out:
    kept = frame.with_row_index("place").filter(pl.col("drop").is_null())
    lines = _lines(form, kept) if hasattr(form, "lines") else pl.repeat(None, len(kept), dtype=pl.String, eager=True)
    drops = pl.repeat(None, frame.height, dtype=pl.String, eager=True)
    out = _Out(lines, drops, [], [])
    slow = lines.is_null()
    if not slow.any():
        return out
    made = [_written_row(form, one, out, writing) for one in conversations(kept.filter(slow).drop("place"))]
    lines = lines.scatter(slow.arg_true(), pl.Series(made, dtype=pl.String))
    fell = lines.is_null()
    why = [f"convert.{writing.to} cannot express {what}" for _, what in out.lost]
    drops = drops.scatter(kept["place"].filter(fell), pl.Series(why, dtype=pl.String))
    return out._replace(lines=lines.drop_nulls(), drops=drops)


def _lines(form: Any, kept: pl.DataFrame) -> pl.Series:
    """The rows that a dialect writes by columns, with every column nobody knew; null for those it does not.

    An unknown column goes behind those of the dialect as it is, unless it might be one that `_with_the_rest` places:
    some name in quotes, which is also found where it is a value.
    """
    extra = pl.col("extra")
    names = [f'"{name}"' for name in {*form.columns, *VERDICTS, *_of_turns()}]
    apart = (extra.is_null() | (extra.str.starts_with('{"') & ~extra.str.contains_any(names))).fill_null(False)
    asked = kept.select(plain=apart, rest=pl.when(apart).then(extra))
    lines = form.lines(kept.with_columns(extra=pl.when(asked["plain"]).then(None).otherwise(extra)))
    more = pl.concat_str(pl.col("line").str.strip_suffix("}"), pl.lit(","), pl.col("rest").str.strip_prefix("{"))
    both = asked.with_columns(line=lines)
    return both.select(pl.when(pl.col("rest").is_null()).then("line").otherwise(more))["line"]


def _written_row(form: Any, conversation: Row, out: _Out, writing: Writing) -> str | None:
    """The row as JSON text, or None where it cannot be expressed."""
    row: Row | str
    if (loss := kinds.loses(form, conversation)) is None:
        row = _with_the_rest(form, conversation)
    elif not writing.lossy or (less := kinds.reduced(form, conversation)) is None:
        row = loss
    else:
        row = _with_the_rest(form, less.conversation)
        if not isinstance(row, str):
            out.reduced.append(less)
    if isinstance(row, str):
        out.lost.append((conversation["row"], row))
        return None
    return exact.text(row)


def conversations(frame: pl.DataFrame) -> Iterator[Row]:
    """The rows of a CONVERSATION frame as dicts; as `iter_rows(named=True)` at a fifth of its time."""
    columns = [_messages(frame[name]) if frame.schema[name] == schema.MESSAGES else _values(frame[name])
               for name in frame.columns]  # fmt: skip
    names = frame.columns
    return (dict(zip(names, values, strict=False)) for values in zip(*columns, *([range(frame.height)]), strict=False))


def _values(column: pl.Series) -> Any:
    return itertools.repeat(None) if column.null_count() == len(column) else column.to_list()


def _messages(lists: pl.Series) -> Any:
    if lists.null_count() == len(lists):
        return itertools.repeat(None)
    flat = lists.explode(empty_as_null=False, keep_nulls=False).struct
    fields = zip(*(_values(flat.field(f.name)) for f in schema.MESSAGE.fields), strict=False)
    messages = (
        # as dict(zip(names, values)), which takes three times as long
        {"role": a, "content": b, "reasoning": c, "tool_calls": d, "name": e, "train": f, "weight": g}
        for a, b, c, d, e, f, g in fields
    )
    lengths = lists.list.len().to_list()
    return (None if length is None else list(itertools.islice(messages, length)) for length in lengths)


def _with_the_rest(form: Any, conversation: Row) -> Row | str:
    """The row in the dialect, with its scores and every column nobody knew back in their places.

    Or, where such a column has the name of one that is written, in words what would be lost.
    """
    out: Row = form.write(conversation) | scores.written(conversation["score"])
    if conversation["extra"] is None:
        return out
    lists = {name: out[name] for name, dtype in form.columns.items() if name in out and struct_fields(dtype)}
    extra = exact.loads(conversation["extra"].encode())
    unread = {key for key, value in extra.items() if key not in out and _is_read(form, key, value)}
    for key, value in extra.items():
        turns = _turns_of(key, lists)
        name = _free_name(key, extra.keys() | out.keys()) if key in unread else key
        pairs = list(zip(turns, value, strict=True)) if _is_of_turns(key, value, turns) else [(out, {name: value})]
        for place, unnamed in pairs:
            rest = unnamed if place is out else _under_free_names(unnamed, place, form)
            if clash := next((k for k, v in rest.items() if k in place and not _same(place[k], v)), None):
                whose = "a turn's own" if place is not out else "a column"
                return f"{whose} {clash!r}, whose name it writes itself; rename it in the input"
            place |= rest
    return out


def _is_read(form: Any, key: str, value: Any) -> bool:
    """Whether a column would be read under its own name, as part of the row or as a verdict on its answer."""
    if key in form.columns:
        return value is not None and value not in ("", [], {})
    return key in VERDICTS and kinds.kind(form) == "chat" and verdict_of(value) is not None


def _free_name(name: str, taken: Set[str]) -> str:
    """A name for a column that nobody read, under which nobody reads it in the output either."""
    while name in taken:
        name += "[]"
    return name


def _under_free_names(rest: Row, turn: Row, form: Any) -> Row:
    """As `_free_name`, of what nobody read of a turn."""
    known = _fields(form) - turn.keys() - {key for key, value in rest.items() if value is None}
    return {_free_name(k, rest.keys() | turn.keys()) if k in known else k: v for k, v in rest.items()}


@functools.cache
def _fields(form: Any) -> frozenset[str]:
    """What the dialect reads of turns."""
    return frozenset[str]().union(*map(struct_fields, form.columns.values()))


def _turns_of(key: str, lists: dict[str, Any]) -> list[Any]:
    """The turns that what came as `KEY[]` belongs to: those of that column, or where it has another name the first."""
    turns = lists.get(key.removesuffix("[]"), next(iter(lists.values()), []))
    return list(turns.values()) if isinstance(turns, dict) else turns  # MOSS: turn_1 …


def _is_of_turns(key: str, value: Any, turns: list[Any]) -> bool:
    """Whether a column is what nobody knew of single messages, turn by turn, and not just named like that."""
    return (
        key in _of_turns()
        and isinstance(value, list)
        and len(turns) == len(value)
        and all(type(v) is dict for v in value)
    )


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and bool(a == b)


@functools.cache
def _of_turns() -> frozenset[str]:
    """`messages[]`, `conversations[]` …: under these names columns.py keeps the unknown keys of messages."""
    known = [plugin.find(formats, name).columns for name in plugin.names(formats)]
    return frozenset(f"{name}[]" for columns in known for name, dtype in columns.items() if struct_fields(dtype))


def _book(frame: pl.DataFrame, edits: pl.DataFrame, out: _Out) -> pl.DataFrame:
    kept = pl.col("drop").is_null()
    placed = frame.filter(kept).select("row", shard=pl.lit(None, pl.String), index=pl.int_range(pl.len()))
    less = pl.DataFrame([one.conversation for one in out.reduced], schema=frame.schema)
    after = less.select("row", step=pl.lit("convert"), after=schema.canonical_json())
    before = frame.join(less, on="row", how="semi").select("row", before=schema.canonical_json())
    reduced = after.join(before, on="row", how="left", maintain_order="left").select(*ledger.EDITS)
    book = ledger.ledger(frame.select("row", "content_hash", "drop"), pl.concat([edits, reduced]), placed)
    words = {one.conversation["row"]: f"{LEFT_OUT}{one.left_out}" for one in out.reduced}
    return book.with_columns(reason=pl.coalesce("reason", pl.col("row").replace_strict(words, default=None)))
