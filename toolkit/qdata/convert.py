"""Rows of one dialect to rows of another, with a ledger beside the file."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from rich.console import Console

from qdata import manifest, pipeline, plugin, schema
from qdata.engine import local
from qdata.errors import QdataError
from qdata.part import Done, Work, code_sha256, process
from qdata.paths import cache_dir, file_sha256, name_of, whole
from qdata.recipe import Source
from qdata.rows import exact, formats, kinds, ledger, provenance
from qdata.rows import source as containers
from qdata.rows.columns import struct_fields
from qdata.tokens.shards import write_json


class Converted(NamedTuple):
    """The manifest, and a look at the way: per input file its dialect and a row, and the first row written."""

    manifest: dict[str, Any]
    inputs: list[pipeline.Found]
    sample: dict[str, Any] | None


def convert(
    sources: Sequence[Source],
    to: str,
    output: Path,
    *,
    base: Path = Path(),
    replace: bool = False,
    skip_bad: bool = False,
    strict: bool = False,
    lossy: bool = False,
    workers: int = 1,
    seed: int = 0,
    console: Console | None = None,
) -> Converted:
    """Writes all rows of the sources to `output` in the dialect `to`; its name says in which container.

    Columns nobody knows come back out. Rows that `to` cannot express are refused, or with `skip_bad` set aside in the
    ledger; with `lossy` they are written without what is in the way, and the ledger says what was left out. `seed`
    decides which rows are drawn where a source has `max_samples`. Beside the file lies OUTPUT.qdata/ with manifest,
    ledger and dropped rows. Nothing is written on an error.
    """
    form = plugin.find(formats, to)
    containers.refuse_name(output.name)
    _refuse_foreign(output, replace)
    with whole(output, replace=replace) as partial, whole(provenance.sidecar(output), replace=True) as beside:
        inputs = pipeline.find(sources, base)
        pipeline.refuse_samples(inputs, strict)
        works = [
            Work(
                part,
                "train",
                f.detection.format,
                f.input.rename,
                (),
                skip_bad,
                cache_dir(),
                character=f.input.character,
                draw=drawn,
            )
            for f, parts, drawn in pipeline.parts_of(inputs, seed)
            for part in parts
        ]
        done = list(pipeline.progress(local.run(process, works, workers), len(works), "reading", console))
        pipeline.refuse_bad(done)
        left_out: list[kinds.Reduced] | None = [] if lossy else None
        rows, first = _write(form, to, done, partial, output.name, skip_bad, left_out)
        beside.mkdir()
        book = _book(rows, output.name, left_out or [])
        ledger.write(book, beside / "ledger.parquet")
        dropped = rows.filter(pl.col("drop").is_not_null())
        dropped.drop("index").write_parquet(beside / "dropped.parquet")
        facts = {
            "command": "convert",
            "code_sha256": code_sha256(),
            "versions": manifest.versions(),
            "sample": any(found.samples for found in inputs),
            "inputs": manifest.inputs_of(inputs, done),
            "to": to,
            "seed": seed,
            "rows": ledger.sums(book),
            "left_out": dict(Counter(one.left_out for one in left_out or []).most_common()),
            "output": {"name": output.name, "sha256": file_sha256(partial)},
        }
        write_json(beside / "manifest.json", facts)
    return Converted(facts, inputs, first)


def _write(
    form: Any,
    to: str,
    done: Sequence[Done],
    file: Path,
    name: str,
    skip_bad: bool,
    left_out: list[kinds.Reduced] | None,
) -> tuple[pl.DataFrame, dict[str, Any] | None]:
    """Writes the rows part by part; returns all rows (CONVERSATION + index in the output), and the first written."""
    frames, first, written = [], None, itertools.count()
    with containers.sink(file, name, form.columns) as write:
        for one in done:
            frame = one.conversations()
            drops = frame["drop"].to_list()
            places: list[int | None] = [None] * len(drops)
            lost: list[tuple[str, str]] = []
            for at, (conversation, out) in enumerate(_rows(form, frame, left_out)):
                if isinstance(out, str):
                    drops[at] = f"convert.{to} cannot express {out}"
                    lost.append((conversation["row"], out))
                elif out is not None:
                    places[at] = next(written)
                    write(out)
                    first = first or out
            if lost and not skip_bad:
                raise QdataError(_refusal(to, lost, left_out is not None))
            frames.append(frame.with_columns(pl.Series("drop", drops, pl.String), pl.Series("index", places, pl.Int64)))
        if first is None:
            raise QdataError("no row is left to write; with --skip-bad all were set aside")
    return pl.concat(frames, how="diagonal_relaxed"), first


def _rows(
    form: Any, frame: pl.DataFrame, left_out: list[kinds.Reduced] | None
) -> Iterator[tuple[dict[str, Any], dict[str, Any] | str | None]]:
    """Each conversation with its row in the dialect, or with what would be lost, or with None if it was dropped.

    Where `left_out` is a list, rows that would lose something are reduced and noted there.
    """
    for conversation in frame.iter_rows(named=True):
        if conversation["drop"] is not None:
            yield conversation, None
        elif (loss := kinds.loses(form, conversation)) is None:
            yield conversation, _with_the_rest(form, conversation)
        elif left_out is None or (less := kinds.reduced(form, conversation)) is None:
            yield conversation, loss
        else:
            out = _with_the_rest(form, less.conversation)
            if not isinstance(out, str):
                left_out.append(less)
            yield conversation, out


def _with_the_rest(form: Any, conversation: dict[str, Any]) -> dict[str, Any] | str:
    """The row in the dialect, with the score that came with it and every column nobody knew back in their places.

    Or, where such a column has the name of one that is written, in words what would be lost.
    """
    out: dict[str, Any] = form.write(conversation)
    lists = {name: out[name] for name, dtype in form.columns.items() if name in out and struct_fields(dtype)}
    if (score := conversation["score"]) and (given := score["given"]) is not None:
        out["score"] = int(given) if given.is_integer() and abs(given) < 2**63 else given
    if conversation["extra"] is None:
        return out
    extra = exact.loads(conversation["extra"].encode())
    unread = {key for key in extra if key in form.columns and key not in out}
    for key, value in extra.items():
        turns = _turns_of(key, lists)
        name = _free_name(key, extra.keys() | out.keys()) if key in unread else key
        pairs = list(zip(turns, value, strict=True)) if _is_of_turns(key, value, turns) else [(out, {name: value})]
        for place, rest in pairs:
            if clash := next((k for k, v in rest.items() if k in place and not _same(place[k], v)), None):
                whose = "a turn's own" if place is not out else "a column"
                return f"{whose} {clash!r}, whose name it writes itself; rename it in the input"
            place |= rest
    return out


def _free_name(name: str, taken: Set[str]) -> str:
    """A name for a column that nobody read, under which nobody reads it in the output either."""
    while name in taken:
        name += "[]"
    return name


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


def _refusal(to: str, lost: list[tuple[str, str]], lossy: bool) -> str:
    shown = [f"{row}: {to} cannot express {what}" for row, what in lost[:5]]
    more = [f"… and {len(lost) - 5} more"] if len(lost) > 5 else []
    other = "Mend them" if to == "messages" else "Choose another --to (messages expresses every conversation)"
    if any(kinds.is_of_other_kind(what) for _, what in lost):
        other = "Choose another --to (`qdata formats` lists them)"
    less = (
        ""
        if lossy or not any(kinds.can_be_left_out(what) for _, what in lost)
        else " leave out what is in the way with --lossy,"
    )
    return "\n".join([*shown, *more, f"{other},{less} or set these rows aside with --skip-bad."])


def _refuse_foreign(output: Path, replace: bool) -> None:
    """Only a file gives way to a file, and only a folder that we made beside it to another one of ours."""
    if replace and output.is_dir():
        raise QdataError(f"-o {output}: there is a folder of that name, and --overwrite replaces files only")
    beside = provenance.sidecar(output)
    if beside.exists() and not (beside.is_dir() and (provenance.is_ours(beside) or not any(beside.iterdir()))):
        raise QdataError(
            f"{beside}: the ledger of {output} would lie here, and what is here is not ours; choose another -o"
        )


def _book(rows: pl.DataFrame, name: str, left_out: Sequence[kinds.Reduced]) -> pl.DataFrame:
    placed = rows.filter(pl.col("index").is_not_null()).select("row", "index", shard=pl.lit(name))
    less = pl.DataFrame([one.conversation for one in left_out], schema=schema.CONVERSATION).select(
        "row", step=pl.lit("convert"), after=schema.canonical_json()
    )
    said = rows.join(less.select("row"), on="row", how="semi").select("row", before=schema.canonical_json())
    edits = less.join(said, on="row", how="left", maintain_order="left").select(*ledger.EDITS)
    book = ledger.ledger(rows.select("row", "content_hash", "drop"), edits, placed)
    words = {one.conversation["row"]: f"left out: {one.left_out}" for one in left_out}
    return book.with_columns(reason=pl.coalesce("reason", pl.col("row").replace_strict(words, default=None)))


def default_output(inputs: Sequence[Source], to: str) -> Path:
    """`data/NAME.TO.jsonl`. Raises QdataError when several inputs leave no single name."""
    names = {name_of(s.path) for s in inputs}
    if len(names) != 1:
        raise QdataError("several inputs: name the output with -o FILE.jsonl")
    return Path("data") / f"{names.pop()}.{to}.jsonl"
