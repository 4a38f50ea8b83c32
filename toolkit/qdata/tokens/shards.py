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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from qdata import schema
from qdata.errors import QdataError
from qdata.paths import file_sha256
from qdata.tokens.pack import Bins
from qdata.tokens.tokenize import gather

SHARD_TOKENS = 1 << 26  # 256 MiB of ids: far from the 2^31 elements that list<int32> offsets can address
BATCH_ROWS = 10_000
IGNORED = -100

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Samples:
    """Token tables of several parts laid end to end, as a view: which samples, their lengths, what is trained.

    `chunk[i]` is the table sample i is in, `start[i]` the place of its first token there; `trained` holds for each
    chunk a boolean per token. Token arrays stay memory-mapped until they are copied into a shard.
    """

    tokens: list[npt.NDArray[np.int32]]
    trained: list[npt.NDArray[np.bool_]]
    chunk: Ints
    start: Ints
    length: Ints
    trained_length: Ints
    conversation: Ints  # number of the conversation in the build

    def take(self, which: Ints) -> Samples:
        """The same view over a selection of samples."""
        fields = (self.chunk, self.start, self.length, self.trained_length, self.conversation)
        return Samples(self.tokens, self.trained, *(f[which] for f in fields))


class Shard(NamedTuple):
    """One Arrow file that was written."""

    name: str  # relative to the output folder
    rows: int
    tokens: int
    trained_tokens: int
    sha256: str


def samples_of(tables: Sequence[pa.Table], bases: Sequence[int], loss: str) -> Samples:
    """A view over token tables (TABLE) under a loss policy; `bases[t]` is the number of table t's first conversation.

    `assistant` trains every answer, `last` the last answer of each conversation, `whole` all tokens (of a sample
    that repeats an earlier one's history, the history excepted). Samples with nothing to train are left out.
    """
    tokens, masks, columns = [], [], []
    for number, (table, base) in enumerate(zip(tables, bases, strict=True)):
        table = table.combine_chunks()
        index = table["index"].to_numpy().astype(np.int64)
        ids = _values(table["input_ids"])
        offsets = _offsets(table["input_ids"])
        ends, turns = _values(table["piece_ends"]), _values(table["turns"])
        per_sample = np.diff(_offsets(table["turns"]))
        piece_stop = ends + np.repeat(offsets[:-1], per_sample)
        piece_start = np.concatenate([np.zeros(1, np.int64), piece_stop[:-1]])
        chosen = _chosen(turns, index, per_sample, loss)
        mask = np.zeros(len(ids), np.bool_)
        lengths = (piece_stop - piece_start)[chosen]
        mask[gather(piece_start[chosen], np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]))] = True
        trained = np.add.reduceat(mask, offsets[:-1], dtype=np.int64) if len(index) else np.zeros(0, np.int64)
        tokens.append(ids)
        masks.append(mask)
        columns.append((np.full(len(index), number), offsets[:-1], np.diff(offsets), trained, index + base))
    joined = [np.concatenate(c).astype(np.int64) for c in zip(*columns, strict=True)]
    everything = Samples(tokens, masks, *joined)
    return everything.take(np.flatnonzero(everything.trained_length))


def _chosen(turns: Ints, index: Ints, per_sample: Ints, loss: str) -> npt.NDArray[np.bool_]:
    """Which pieces are trained."""
    conversation = np.repeat(index, per_sample)
    if loss == "assistant":
        return np.asarray(turns >= 0)
    if loss == "last":
        last = np.full(int(index.max(initial=-1)) + 1, -1, np.int64)
        np.maximum.at(last, conversation, turns)
        return np.asarray((turns >= 0) & (turns == last[conversation]))
    first_piece = np.concatenate([np.zeros(1, np.int64), np.cumsum(per_sample)])[:-1]
    repeats = np.concatenate([np.zeros(1, np.bool_), index[1:] == index[:-1]]) if len(index) else np.zeros(0, np.bool_)
    whole = np.ones(len(turns), np.bool_)
    whole[first_piece[repeats]] = False
    return whole


def _values(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    return np.concatenate([c.values.to_numpy() for c in column.chunks] or [np.zeros(0, np.int32)])


def _offsets(column: pa.ChunkedArray) -> Ints:
    chunks = column.chunks
    return chunks[0].offsets.to_numpy().astype(np.int64) if chunks else np.zeros(1, np.int64)


def write_split(
    samples: Samples, bins: Bins, rows: pa.Array, sources: pa.Array, folder: Path, split: str
) -> tuple[list[Shard], pl.DataFrame]:
    """Writes `folder/split/` and returns its shards, and where each conversation went (conversation, shard, index).

    `rows` and `sources` are the row ids and sources of all conversations. Each bin becomes one row.
    """
    (folder / split).mkdir(parents=True)
    ordered = samples.take(bins.order)
    bin_tokens = np.add.reduceat(ordered.length, bins.offsets[:-1])
    cuts = _cuts(bin_tokens, SHARD_TOKENS)
    shards, places = [], []
    for number, (start, stop) in enumerate(itertools.pairwise(cuts)):
        name = f"{split}/data-{number:05d}-of-{len(cuts) - 1:05d}.arrow"
        trained = 0
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, schema.TOKENS) as writer:
            for batch_start in range(start, stop, BATCH_ROWS):
                batch_stop = min(batch_start + BATCH_ROWS, stop)
                writer.write_batch(_batch(ordered, bins.offsets[batch_start : batch_stop + 1], rows, sources))
        inside = slice(bins.offsets[start], bins.offsets[stop])
        trained = int(ordered.trained_length[inside].sum())
        tokens = int(bin_tokens[start:stop].sum())
        shards.append(Shard(name, stop - start, tokens, trained, file_sha256(folder / name)))
        where = np.repeat(np.arange(stop - start), np.diff(bins.offsets[start : stop + 1]))
        places.append(
            pl.DataFrame({"conversation": ordered.conversation[inside], "index": where}).with_columns(
                shard=pl.lit(name), index=pl.col("index").cast(pl.Int64)
            )
        )
    _describe(folder / split, split, [Path(s.name).name for s in shards], shards)
    return shards, pl.concat(places)


def _cuts(sizes: Ints, limit: int) -> list[int]:
    """Row numbers at which a new file begins, so that no file holds more than about `limit` tokens."""
    number = (np.cumsum(sizes) - 1) // limit
    return [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(sizes)]


def _batch(samples: Samples, offsets: Ints, rows: pa.Array, sources: pa.Array) -> pa.RecordBatch:
    first, last = int(offsets[0]), int(offsets[-1])
    part = samples.take(np.arange(first, last))
    begins = np.concatenate([np.zeros(1, np.int64), np.cumsum(part.length)])
    ids = np.empty(begins[-1], np.int32)
    trained = np.empty(begins[-1], np.bool_)
    for chunk in np.unique(part.chunk):
        mine = np.flatnonzero(part.chunk == chunk)
        runs = np.concatenate([np.zeros(1, np.int64), np.cumsum(part.length[mine])])
        source, target = gather(part.start[mine], runs), gather(begins[mine], runs)
        ids[target] = samples.tokens[chunk][source]
        trained[target] = samples.trained[chunk][source]
    labels = np.where(trained, ids, np.int32(IGNORED))
    sequences = (offsets - first).astype(np.int32)
    token_offsets = pa.array(begins[sequences].astype(np.int32))
    which = pa.array(part.conversation)
    return pa.record_batch(
        [
            pa.ListArray.from_arrays(token_offsets, pa.array(ids)),
            pa.ListArray.from_arrays(token_offsets, pa.array(labels)),
            pa.ListArray.from_arrays(pa.array(sequences), pa.array(part.length.astype(np.int32))),
            pa.ListArray.from_arrays(pa.array(sequences), rows.take(which)),
            pa.ListArray.from_arrays(pa.array(sequences), sources.take(which)),
        ],
        schema=schema.TOKENS,
    )


def _describe(folder: Path, split: str, files: list[str], shards: list[Shard]) -> None:
    """The two JSON files `datasets` wants beside the Arrow files."""
    features = {
        field.name: {"feature": {"dtype": str(field.type.value_type), "_type": "Value"}, "_type": "List"}
        for field in schema.TOKENS
    }
    state: dict[str, Any] = {
        "_data_files": [{"filename": name} for name in files],
        "_fingerprint": hashlib.sha256("".join(s.sha256 for s in shards).encode()).hexdigest()[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": split,
    }
    write_json(folder / "dataset_info.json", {"features": features})
    write_json(folder / "state.json", state)


def write_json(path: Path, value: Any) -> None:
    """Readable JSON with a newline at its end."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def manifest_of(directory: Path) -> dict[str, Any]:
    """The manifest of a shard folder. Raises QdataError when the folder is not one, or was not finished."""
    file = directory / "manifest.json"
    if not file.is_file():
        raise QdataError(f"{directory}: no manifest.json in it; wanted a folder written by `qdata render`")
    manifest: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if "splits" not in manifest:
        raise QdataError(f"{directory}: written by `qdata {manifest.get('command')}`; wanted shards of `qdata render`")
    return manifest


def read_split(directory: Path, split: str) -> Iterator[pa.RecordBatch]:
    """The batches of one split, memory-mapped, in order."""
    for shard in manifest_of(directory)["splits"][split]["shards"]:
        with pa.memory_map(str(directory / shard["name"])) as file, pa.ipc.open_stream(file) as stream:
            yield from stream
