"""What must hold of any input at all: used by run.py (atheris) and by tests/rows/test_any_input.py (hypothesis).

Only QdataError may come out, and it names the file. Every line, item or row of a container is a row or is told of as
bad, counted here by other code than the readers'. What is read is the same however the file is cut; and what is
written says, read again, the same as before.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from qdata import plugin, schema
from qdata.errors import QdataError
from qdata.part import Work
from qdata.rows import formats, ledger, source
from qdata.rows.containers._head import BOM
from qdata.rows.detect import detect, knows
from qdata.rows.load import load
from qdata.rows.parts import Bad, Part, Rows
from qdata.written import Writing, Written, write

MANY = 4  # parts; more are not loaded one by one, it would take the time of many other inputs


class ViolationError(AssertionError):
    """An input of which one of the promises does not hold. `which`: the promise, for findings that are the same."""

    def __init__(self, which: str, told: str = "") -> None:
        super().__init__(f"{which}: {told}")
        self.which = which


def hold(true: bool, which: str, told: object = "") -> None:
    """Raises ViolationError where a promise does not hold."""
    if not true:
        raise ViolationError(which, str(told)[:2000])


@dataclass(frozen=True)
class Choice:
    """What to do with a file beside reading it; what names a dialect or an ending is a number to pick one with."""

    size: int = 1  # of the small parts, in bytes
    dialect: int = 0  # one that is read in although nothing says that the file speaks it
    to: int = 0  # one to write in
    ending: int = 0  # of the file that is written
    lossy: bool = False
    documents: str | None = None
    rename: Mapping[str, str] | None = None


def check(path: Path, work: Path, choice: Choice, *, deep: bool) -> str:
    """All promises of a file. How far it came, in a word: refused, read, detected, loaded, written.

    `deep`: its rows are loaded and written too, which takes ten times as long as reading them.
    """
    whole = _parts(path, source.PART_BYTES, choice)
    small = _parts(path, choice.size, choice)
    hold((whole is None) == (small is None), "refused or read by the size of parts", (whole, small))
    if whole is None or small is None:
        return "refused"
    rows = _rows_of(whole)
    _same_rows(rows, _rows_of(small))
    _counted(whole[0], rows)
    far, spoken = "read", _detected(path, choice)
    if spoken:
        far = "detected"
    if not deep:
        return far
    names = plugin.names(formats)
    claimed = [name for name in names if any(plugin.find(formats, name).claims(row) for row in rows.rows[:20])]
    at = choice.dialect % max(1, len(claimed))
    tried = dict.fromkeys([*spoken, *claimed[at : at + 2], names[choice.dialect % len(names)]])
    if loaded := [name for name in tried if loads(path, whole, small, rows, name, choice)]:
        far, name = "loaded", loaded[0]
        to = name if choice.to < 128 else names[choice.to % len(names)]
        kept = [comes_back(part, name, to, work, choice) for part in whole]
        far = "written" if sum(kept) else far
    return far


def _parts(path: Path, size: int, choice: Choice) -> list[Part] | None:
    """The parts, if all of them can be read; None where the file is refused."""
    try:
        parts = list(source.parts_of(path, "s", path.name, size, choice.documents))
        for part in parts:
            source.read(part)
    except QdataError as error:
        _named(error, path)
        return None
    return parts


def _named(error: QdataError, path: Path) -> None:
    hold(str(path) in str(error), "a message that does not name the file", error)
    hold(len(str(error)) < 20_000, "a message nobody reads to its end", error)


def _rows_of(parts: Sequence[Part]) -> Rows:
    found = [source.read(part) for part in parts]
    return Rows(*([item for part in found for item in getattr(part, name)] for name in Rows._fields))


def _same_rows(whole: Rows, small: Rows) -> None:
    hold(whole.ordinals == small.ordinals, "ordinals by the size of parts", (whole.ordinals, small.ordinals))
    hold(json.dumps(whole.rows) == json.dumps(small.rows), "rows by the size of parts", (whole.rows, small.rows))
    told, again = ([(b.ordinal, b.code) for b in rows.bad] for rows in (whole, small))
    hold(told == again, "bad rows by the size of parts", (told, again))
    both = [*whole.ordinals, *(b.ordinal for b in whole.bad)]
    hold(len(set(both)) == len(both), "an ordinal twice", sorted(both))


def _counted(part: Part, rows: Rows) -> None:
    """Rows and bad ones are as many as the container holds, as other code than ours counts them."""
    wanted = COUNTS[part.container](part.bytes_at.read_bytes()) if part.container in COUNTS else None
    hold(wanted in (None, len(rows.rows) + len(rows.bad)), f"rows of {part.container}", (wanted, rows))


def _lines(data: bytes) -> int:
    return sum(bool(line.strip()) for line in data.removeprefix(BOM).split(b"\n"))


def _items(data: bytes) -> int | None:
    try:
        found = json.loads(data.removeprefix(BOM))
    except (ValueError, RecursionError):
        return None
    return len(found) if isinstance(found, list) else 1


def _cells(comma: str) -> Any:
    def count(data: bytes) -> int | None:
        text = io.StringIO(data.removeprefix(BOM).decode("utf-8", "replace"), newline="")
        return max(0, sum(bool(row) for row in csv.reader(text, delimiter=comma)) - 1)

    return count


def _batches(data: bytes) -> int:
    open_any = pa.ipc.open_file if data.startswith(b"ARROW1") else pa.ipc.open_stream
    return int(open_any(data).read_all().num_rows)


COUNTS: dict[str, Any] = {
    "jsonl": _lines,
    "text": _lines,
    "json": _items,
    "csv": _cells(","),
    "tsv": _cells("\t"),
    "parquet": lambda data: pq.read_metadata(io.BytesIO(data)).num_rows,
    "arrow": _batches,
}


def _detected(path: Path, choice: Choice) -> list[str]:
    try:
        head = source.peek(path, "s", path.name, documents=choice.documents, knows=knows)
        found = detect(head.rows, str(path), choice.rename or None)
    except QdataError as error:
        _named(error, path)
        return []
    return [found.format]


def loads(path: Path, whole: Sequence[Part], small: Sequence[Part], rows: Rows, dialect: str, choice: Choice) -> bool:
    """Whether the file can be loaded in a dialect; if so, each row once, and the same however it is cut."""
    frame = _loaded(path, whole, dialect, choice)
    if frame is None:
        return False
    told, bad = frame
    wanted = len(rows.rows) + len(rows.bad)
    hold(told.height + len(bad) == wanted, f"a row that is lost in {dialect}", (rows, told.to_dicts(), bad))
    ids = [*told["row"].to_list(), *(f"s/{path.name}#{b.ordinal}" for b in bad)]
    hold(len(set(ids)) == len(ids), f"a row twice in {dialect}", ids)
    if len(small) <= MANY:
        again = _loaded(path, small, dialect, choice)
        if again is not None:
            hold(told.equals(again[0]), f"{dialect} by the size of parts", (told.to_dicts(), again[0].to_dicts()))
            hold({b.ordinal for b in bad} == {b.ordinal for b in again[1]}, f"bad in {dialect} by the size of parts")
    return True


def _loaded(path: Path, parts: Sequence[Part], dialect: str, choice: Choice) -> tuple[pl.DataFrame, list[Bad]] | None:
    try:
        made = [load(part, dialect, choice.rename) for part in parts]
    except QdataError as error:
        _named(error, path)
        return None
    return pl.concat([one.frame for one in made]), [b for one in made for b in one.bad]


def comes_back(part: Part, dialect: str, to: str, work: Path, choice: Choice) -> int:
    """How many rows of a part could be written; what was written is read as the same conversations."""
    job = Work(part, "train", dialect, choice.rename or {}, (), work / "cache")
    done = write(Writing(job, to, choice.lossy))
    sums = ledger.sums(done.book())
    hold(sums["in"] == sums["kept"] + sum(sums["dropped"].values()) == done.rows, "in = kept + dropped", sums)
    hold(done.book().height == done.rows, "a row that the ledger does not know", sums)
    hold(done.kept + done.dropped().height == done.rows, "a row neither kept nor dropped", sums)
    endings = source.writable()
    ending = endings[choice.ending % len(endings)]
    if done.kept:
        try:
            said = _read_again(done, to, work, ending)
        except QdataError as error:
            hold("a NUL" in str(error), f"written as {to}{ending} and refused", error)
            return 0
        hold(said.height == done.kept, f"rows written as {to}{ending}", (said.height, done.kept))
        wanted = done.book().filter(pl.col("action") != "dropped")["content_hash"].to_list()
        if not choice.lossy:
            where = f"{dialect} → {to}{ending}"
            differs = said.filter(pl.Series(wanted) != said["content_hash"]).head(1).to_dicts()
            hold(not differs, f"another conversation: {where}", (differs, done.lines().decode()))
    return done.kept


def _read_again(done: Written, to: str, work: Path, ending: str) -> pl.DataFrame:
    name = f"out{ending}"
    with source.sink(work / name, name, plugin.find(formats, to).columns) as take:
        take(done.lines())
    frames = []
    for part in source.parts_of(work / name, "s", name):
        loaded = load(part, to)
        hold(not loaded.bad, f"written as {to}{ending} and not read again", (loaded.bad, done.lines().decode()))
        frames.append(loaded.frame)
    return schema.with_content_hash(pl.concat(frames))
