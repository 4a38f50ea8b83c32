"""TOKENS shards: a folder that `datasets.load_from_disk` opens as it is, so that any trainer can read it.

OUT/train/data-00000-of-00002.arrow …   Arrow streams; also validation/ where rows were held out
OUT/dataset_dict.json, OUT/train/{dataset_info,state}.json
OUT/tokenizer/                          tokenizer files, with the chat template as it is to be served
OUT/conversations.parquet               what the rows say, kept and dropped alike
OUT/ledger.parquet, OUT/manifest.json   written last
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from qdata.arrays import to_arrow
from qdata.errors import QdataError
from qdata.paths import file_sha256
from qdata.tokens.layout import IGNORED as IGNORED
from qdata.tokens.layout import Layout
from qdata.tokens.pack import Bins
from qdata.tokens.samples import Ints, Samples

SHARD_TOKENS = 1 << 26  # 256 MiB of ids: far from the 2^31 elements that list<int32> offsets can address
BATCH_ROWS = 10_000
_DTYPES = {"float": "float32"}  # Arrow's name → the one datasets uses


class Shard(NamedTuple):
    """One Arrow file that was written."""

    name: str  # relative to the output folder
    rows: int
    tokens: int
    trained_tokens: int
    sha256: str


def write_split(
    samples: Samples, bins: Bins, rows: pa.Array, sources: pa.Array, folder: Path, split: str, layout: Layout
) -> tuple[list[Shard], pl.DataFrame]:
    """Writes `folder/split/` and returns its shards, and where each conversation went (conversation, shard, index).

    `rows` and `sources` are the row ids and sources of all conversations. Each bin becomes one row, with the
    columns of `layout`.
    """
    (folder / split).mkdir(parents=True)
    ordered = samples.take(bins.order)
    columns = layout.schema(ordered)
    trained_length = ordered.trained_length
    bin_tokens = np.add.reduceat(ordered.length, bins.offsets[:-1])
    cuts = _cuts(bin_tokens, SHARD_TOKENS)
    shards, places = [], []
    for number, (start, stop) in enumerate(itertools.pairwise(cuts)):
        name = f"{split}/data-{number:05d}-of-{len(cuts) - 1:05d}.arrow"
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, columns) as writer:
            for batch_start in range(start, stop, BATCH_ROWS):
                batch_stop = min(batch_start + BATCH_ROWS, stop)
                offsets = bins.offsets[batch_start : batch_stop + 1]
                writer.write_batch(_batch(ordered, offsets, rows, sources, layout, columns))
        inside = slice(bins.offsets[start], bins.offsets[stop])
        trained = int(trained_length[inside].sum())
        tokens = int(bin_tokens[start:stop].sum())
        shards.append(Shard(name, stop - start, tokens, trained, file_sha256(folder / name)))
        where = np.repeat(np.arange(stop - start), np.diff(bins.offsets[start : stop + 1]))
        places.append(
            pl.DataFrame({"conversation": ordered.conversation[inside], "index": where}).with_columns(
                shard=pl.lit(name), index=pl.col("index").cast(pl.Int64)
            )
        )
    _describe(folder / split, split, shards, columns)
    return shards, pl.concat(places)


def _cuts(sizes: Ints, limit: int) -> list[int]:
    """Row numbers at which a new file begins, so that no file holds more than about `limit` tokens."""
    number = (np.cumsum(sizes) - 1) // limit
    return [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(sizes)]


def _batch(
    samples: Samples, offsets: Ints, rows: pa.Array, sources: pa.Array, layout: Layout, columns: pa.Schema
) -> pa.RecordBatch:
    part = samples.take(np.arange(offsets[0], offsets[-1]))
    sequences = offsets - offsets[0]
    of_row, which = to_arrow(sequences.astype(np.int32)), to_arrow(part.conversation)
    made = layout.columns(part, sequences)
    made |= {n: pa.ListArray.from_arrays(of_row, c.take(which)) for n, c in (("rows", rows), ("sources", sources))}
    return pa.record_batch([made[name] for name in columns.names], schema=columns)


def _describe(folder: Path, split: str, shards: list[Shard], columns: pa.Schema) -> None:
    """The two JSON files `datasets` wants beside the Arrow files."""
    features = {field.name: _feature(field.type) for field in columns}
    state: dict[str, Any] = {
        "_data_files": [{"filename": Path(shard.name).name} for shard in shards],
        "_fingerprint": hashlib.sha256("".join(s.sha256 for s in shards).encode()).hexdigest()[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": split,
    }
    write_json(folder / "dataset_info.json", {"features": features})
    write_json(folder / "state.json", state)


def _feature(dtype: pa.DataType) -> dict[str, Any]:
    if pa.types.is_list(dtype):
        return {"feature": _feature(dtype.value_type), "_type": "List"}
    return {"dtype": _DTYPES.get(str(dtype), str(dtype)), "_type": "Value"}


def write_json(path: Path, value: Any) -> None:
    """Readable JSON with a newline at its end."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def manifest_of(directory: Path) -> dict[str, Any]:
    """The manifest of a shard folder. Raises QdataError when the folder is not one, or was not finished."""
    file = directory / "manifest.json"
    if not file.is_file():
        raise QdataError(f"{directory}: no manifest.json in it; wanted a folder written by `qdata render`")
    manifest = read_manifest(file)
    if "splits" not in manifest:
        raise QdataError(f"{directory}: written by `qdata {manifest.get('command')}`; wanted shards of `qdata render`")
    return manifest


def read_manifest(file: Path) -> dict[str, Any]:
    """The object in a manifest.json. Raises QdataError when it is none."""
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise QdataError(f"{file}: not the manifest that was written: {error}") from None
    if not isinstance(manifest, dict):
        raise QdataError(f"{file}: not the manifest that was written; wanted a JSON object")
    return manifest


def read_split(directory: Path, split: str) -> Iterator[pa.RecordBatch]:
    """The batches of one split, memory-mapped, in order."""
    for shard in manifest_of(directory)["splits"][split]["shards"]:
        with pa.memory_map(str(directory / shard["name"])) as file, pa.ipc.open_stream(file) as stream:
            yield from stream
