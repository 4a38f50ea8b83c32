"""Which row is meant: a row id, an ending of one, a file as it lies on the disk, or a place in an output."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from qdata import history
from qdata import output as outputs
from qdata.errors import QdataError, did_you_mean
from qdata.output import Output
from qdata.rows import provenance, source


class Meant(NamedTuple):
    """A row id, and the output in whose place it was found, where it was named so."""

    row: str
    at: Output | None


def place_of(word: str) -> tuple[str, int]:
    """FILE#ORDINAL taken apart. Raises QdataError for anything else."""
    file, _, number = word.rpartition("#")
    if not Path(file).name or not number.isdecimal():
        raise QdataError(f"{word}: no row id; wanted FILE#ORDINAL, such as alpaca/alpaca_data.json#564")
    return file, int(number)


def meant(word: str, known: Sequence[Output]) -> Meant:
    """The row that `FILE#ORDINAL` names among the rows of these outputs.

    A FILE that one of our commands wrote means the row that stands in that place of it, from 1; any other is the file
    that rows came from, by as much of its path as tells it. Raises QdataError with near misses where there is no such
    row, or where several files are meant.
    """
    file, ordinal = place_of(word)
    path = Path(file)
    if path.is_file() and provenance.is_ours(provenance.sidecar(path)):
        return _at(outputs.find(path), ordinal)
    on_disk = path.is_file()
    found = [one for one in _origins(known, ordinal) if _one_ends_with_the_other(one, path.as_posix())]
    found = [file] if file in found else found
    places = [] if on_disk or found == [file] else [one for one in known if _is_called(one, path)]
    if len(found) + len(places) > 1:
        listed = ", ".join([f"{one}#{ordinal}" for one in found] + [f"{one.path}#{ordinal}" for one in places])
        raise QdataError(f"{word}: several files are called so; name one of {listed}")
    if places:
        return _at(places[0], ordinal)
    if not found and on_disk:
        found = [one for one in _origins(known, ordinal) if _was_read_from(one, path, known)]
    if not found:
        raise _unknown(word, known)
    return Meant(f"{found[0]}#{ordinal}", None)


def _unknown(word: str, known: Sequence[Output]) -> QdataError:
    """What there is instead of a row that nobody knows."""
    file, ordinal = place_of(word)
    path, origins = Path(file), _origins(known)
    mine = [one for one in origins if one == file or _one_ends_with_the_other(one, path.as_posix())]
    lost = {one["sha256"]: one for output in known for one in history.missing(output)}
    there = "".join(
        f" It may have been dropped earlier, when `qdata {one['command']}` wrote {one['name']} "
        f"(sha256 {one['sha256'][:12]}…), which is not found as it was."
        for one in lost.values()
    )
    if mine:
        return QdataError(f"{mine[0]}#{ordinal}: no such row. {_ordinals(mine[0], known)}.{there}")
    asked = ", ".join(str(one.path) for one in known)
    names = [*origins, *(one.rpartition("/")[2] for one in origins)]
    names += [one.path.as_posix() for one in known if not one.is_shards]
    near = did_you_mean(file, names)
    listed = ", ".join(origins[:_NAMED]) + (f" and {len(origins) - _NAMED:,} more" if len(origins) > _NAMED else "")
    more = near if near.startswith(" Did") else ""
    return QdataError(f"{word}: no row in {asked} came from {file}; they came from {listed}.{more}{there}")


_NAMED = 5


def _at(output: Output, ordinal: int) -> Meant:
    """The row in a place of a file we wrote."""
    if output.path.is_file() and provenance.manifest_beside(output.path) is None:
        raise QdataError(
            f"{output.path}: edited since `qdata {output.manifest['command']}` wrote it, so other rows may stand in "
            f"its places now; name the row by its id"
        )
    found = output.ledger().filter(pl.col("index") == ordinal - 1).select("row").collect()["row"]
    if found.is_empty():
        kept = output.manifest["rows"]["kept"]
        raise QdataError(f"{output.path}#{ordinal}: no such row; it has {kept:,}, from {output.path}#1")
    return Meant(str(found[0]), output)


def _origins(known: Sequence[Output], ordinal: int | None = None) -> list[str]:
    """The files that rows came from, as they stand in row ids; only those with a row of this ordinal."""
    rows = [one.ledger().select("row") for one in known]
    if ordinal is not None:
        rows = [one.filter(pl.col("row").str.ends_with(f"#{ordinal}")) for one in rows]
    files = [one.select(file=pl.col("row").str.replace(r"#\d+$", "")).unique() for one in rows]
    return pl.concat(files).unique().sort("file").collect(engine="streaming")["file"].to_list()


def _one_ends_with_the_other(origin: str, path: str) -> bool:
    return origin.endswith(f"/{path}") or path.endswith(f"/{origin}")


def _is_called(output: Output, path: Path) -> bool:
    """Whether an output is a file of rows whose path ends so."""
    return not output.is_shards and output.path.resolve().parts[-len(path.parts) :] == path.parts


def _was_read_from(origin: str, path: Path, known: Sequence[Output]) -> bool:
    """Whether rows of `origin` came from that very file, under whatever name: told by its bytes."""
    inputs = [one for output in known for one in output.manifest["inputs"]]
    hashes = {one["parts"][0]["sha256"] for one in inputs if f"{one['source']}/{one['relative']}" == origin}
    return bool(hashes) and next(source.parts_of(path, "", "")).sha256 in hashes


def _ordinals(origin: str, known: Sequence[Output]) -> str:
    """Which rows of a file there are."""
    number = pl.col("row").str.extract(r"#(\d+)$").cast(pl.Int64)
    mine = pl.col("row").str.replace(r"#\d+$", "") == origin
    books = [one.ledger().filter(mine).select(number.alias("n")).collect(engine="streaming") for one in known]
    numbers = pl.concat(books)["n"].unique().sort()
    return f"Of {origin} there are {len(numbers):,} rows, from #{numbers[0]} to #{numbers[-1]}"
