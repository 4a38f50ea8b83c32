"""Rows that a command of ours wrote keep the ids of the rows they came from.

Beside an output FILE lies FILE.qdata/ with a manifest and a ledger. When FILE is read again, and is still the file
that was written, its rows get back their first ids and sources: one row can be followed through any number of files.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from qdata.errors import QdataError
from qdata.paths import file_sha256
from qdata.rows.parts import Part


def sidecar(path: Path) -> Path:
    """The folder that tells where the rows of `path` came from."""
    return path.with_name(path.name + ".qdata")


def is_ours(folder: Path) -> bool:
    """Whether a folder was made by a command of ours, beside a file of rows."""
    return _manifest(folder) is not None


def _manifest(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        said = found["command"] and found["to"] and found["output"]["sha256"] and isinstance(found["inputs"], list)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # somebody else's, whatever it is
    return found if said and (folder / "ledger.parquet").is_file() else None


def manifest_beside(path: Path) -> dict[str, Any] | None:
    """The manifest beside a file, or None where there is none of ours or the file was edited since."""
    manifest = _manifest(sidecar(path))
    return manifest if manifest and manifest["output"]["sha256"] == _sha256(path, _stamp(path)) else None


def _stamp(path: Path) -> tuple[int, int]:
    """Makes caches notice a changed file."""
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


@functools.cache
def _sha256(path: Path, _: tuple[int, int]) -> str:
    return file_sha256(path)


@functools.cache
def _origins(path: Path, _: tuple[int, int]) -> pl.DataFrame | None:
    """`ordinal`, `first_row` and `first_source` of a file's rows."""
    if manifest_beside(path) is None:
        return None
    book = pl.read_parquet(sidecar(path) / "ledger.parquet", glob=False).filter(pl.col("action") != "dropped")
    source = pl.col("row").str.split("/").list.first()  # a source's name holds no slash
    return book.select(ordinal=pl.col("index") + 1, first_row="row", first_source=source)


def _origins_of(path: Path) -> pl.DataFrame | None:
    return _origins(path, _stamp(path))


def key(path: Path) -> str | None:
    """What a cache key must hold of this: another origin means other row ids."""
    return None if _origins_of(path) is None else file_sha256(sidecar(path) / "ledger.parquet")


def restore(frame: pl.DataFrame, part: Part) -> pl.DataFrame:
    """`frame` with the first ids and sources of its rows, where the file says where they came from."""
    origins = _origins_of(part.path)
    if origins is None:
        return frame
    ordinal = pl.col("row").str.extract(r"#(\d+)$").cast(pl.Int64)
    joined = frame.with_columns(ordinal=ordinal).join(origins, on="ordinal", how="left", maintain_order="left")
    return joined.with_columns(row=pl.coalesce("first_row", "row"), source=pl.coalesce("first_source", "source")).drop(
        "ordinal", "first_row", "first_source"
    )


def refuse_twice(parts: Sequence[tuple[Part, Callable[[], pl.Series]]]) -> None:
    """Raises QdataError where two rows have one id: a file beside what was made from it, or two of one origin.

    `parts`: with each what gives the ids of its rows. Edits and places are told by row id, so it must be one row's.
    """
    paths = [part.path for part, _ in parts]
    places = [(part.source, part.relative, part.first) for part, _ in parts]
    files = {(part.source, part.relative, part.path) for part, _ in parts}
    as_read = all(_origins_of(path) is None for path in dict.fromkeys(paths))
    if as_read and len(set(places)) == len(places) and len({file[:2] for file in files}) == len(files):
        return  # ids are made of place and ordinal: of ten million rows none need be looked at
    every = pl.concat([pl.DataFrame({"row": ids(), "part": i}, schema=_IDS) for i, (_, ids) in enumerate(parts)])
    twice = every.filter(pl.col("row").is_duplicated()).head(1)
    if twice.is_empty():
        return
    row = twice["row"][0]
    both = list(dict.fromkeys(paths[i] for i in every.filter(pl.col("row") == row)["part"]))
    made = next((path for path in reversed(both) if sidecar(path).is_dir()), both[-1])
    raise QdataError(
        f"{row}: this row is in {' and in '.join(map(str, both))}; it would be trained twice under one id. "
        f"Name only one of them; or, if they are different rows, remove {sidecar(made)}, which holds their old ids."
    )


_IDS = pl.Schema({"row": pl.String, "part": pl.Int64})
