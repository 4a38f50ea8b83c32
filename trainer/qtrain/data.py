"""From shards to batches: open them memory-mapped, flatten rows into one, keep neighbours apart.

A batch is one row of T tokens, however many conversations lie in it: `input_ids`, `labels`, `position_ids`, each [1,
T], and no attention mask. Beside them go numbers that say where it came from, which no model sees. transformers builds
the block-diagonal mask from positions that start again at 0, for eager, sdpa, flex and flash alike, but only without a
mask and without a key-value cache; with either of them neighbours would read each other, silently.
`tests/train/test_packed.py` guards every backend.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from qdata.errors import QdataError

IGNORED = -100
"""The label that is not trained, in torch's and transformers' convention."""

Row = Mapping[str, Any]
Batch = dict[str, Tensor]
_COLUMNS = (
    "input_ids",
    "labels",
    "seq_lengths",
    "weights",
    "prompt_ids",
    "chosen_ids",
    "rejected_ids",
    "row",
    "source",
)
_KINDS = {"sft": "chat", "pt": "text", "dpo": "preference"}
ORIGIN = ("rows", "sources")
"""What a batch says of its origin: the numbers of its rows in the split, and of each conversation's source."""


@dataclass(frozen=True)
class Shards:
    """An opened TOKENS directory; `train` and `validation` are `datasets.Dataset`s with the columns a batch needs."""

    path: Path
    manifest: Mapping[str, Any]
    train: Any
    validation: Any | None
    sources: tuple[str, ...]
    """The names that the rows' `source` numbers stand for."""

    @property
    def tokenizer(self) -> Path:
        """The folder with the tokenizer and the chat template the rows were made with."""
        return self.path / "tokenizer"


def open_shards(path: Path) -> Shards:
    """Open the TOKENS directory `path`; nothing is read into memory.

    Raises QdataError where it is incomplete, has no rows, nothing to train or evaluate in them, or holds placeholders
    nobody filled.
    """
    from datasets import load_from_disk

    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        parts = load_from_disk(str(path))
    except FileNotFoundError as error:
        raise QdataError(f"{path}: no complete shards here ({error.filename or error} is missing)") from None
    if unfilled := manifest.get("unfilled_placeholders"):
        names = ", ".join(f"{{{{{name}}}}}" for name in manifest.get("unfilled", ()))
        raise QdataError(
            f"{path}: placeholders stand unfilled in {unfilled} rows ({names}); the model would learn to say them. "
            "Give their values in [data] placeholders"
        )
    if not len(parts["train"]):
        raise QdataError(f"{path}: no rows to train on")
    for name, part in parts.items():
        if not _trains(part):
            which = "rows" if name == "train" else f"{name} rows"
            raise QdataError(
                f"{path}: no token of its {which} is trained, every label is {IGNORED}: look at [data] loss, and at "
                "`train` and `weight` of the messages"
            )
    sources = tuple(sorted({name for part in parts.values() for name in _sources(part).unique().to_pylist()}))
    parts = {name: _numbered(part, sources) for name, part in parts.items()}
    picked = {
        name: part.select_columns([c for c in _COLUMNS if c in part.column_names]) for name, part in parts.items()
    }
    return Shards(path, manifest, picked["train"], picked.get("validation"), sources)


def _sources(part: Any) -> pa.ChunkedArray:
    """The source of every conversation, in order."""
    return pc.list_flatten(part.data.column("sources"))


def _numbered(part: Any, sources: Sequence[str]) -> Any:
    """`part` with `row`, the row's number, and `source`, that of the source of each conversation in it (int32)."""
    from datasets import Dataset, concatenate_datasets
    from datasets.table import InMemoryTable

    numbers = pc.index_in(_sources(part), value_set=pa.array(sources, pa.string())).combine_chunks()
    ends = pc.cumulative_sum(pc.list_value_length(part.data.column("sources"))).combine_chunks().cast(pa.int32())
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends])
    columns = {
        "row": pa.array(np.arange(len(part), dtype=np.int32)),
        "source": pa.ListArray.from_arrays(offsets, numbers),
    }
    return concatenate_datasets([part, Dataset(InMemoryTable(pa.table(columns)))], axis=1)


def row_ids(shards: Shards, indices: Sequence[int]) -> list[str]:
    """The ids of the conversations in these rows of the train split."""
    from datasets import load_from_disk

    rows = load_from_disk(str(shards.path))["train"].select_columns(["rows"])
    return [one for index in indices for one in rows[index]["rows"]]


def longest(part: Any) -> int:
    """The tokens of the longest row of a split, of a preference pair with both answers."""
    lists = [part.data.column(name) for name in part.column_names if name.endswith("_ids")]
    return int(np.sum([np.asarray(pc.list_value_length(column)) for column in lists], axis=0).max())


def fits(shards: Shards, stage: str) -> None:
    """Raises QdataError where the rows are not of the kind that a `stage` of training wants."""
    refuse_kind(str(shards.path), shards.manifest.get("kind", "chat"), stage)


def refuse_kind(where: str, kind: str, stage: str) -> None:
    """Raises QdataError where rows of this kind are not what a `stage` of training wants."""
    if kind != _KINDS[stage]:
        wants = " or ".join(name for name, one in _KINDS.items() if one == kind) or "no stage known here"
        raise QdataError(f"{where}: rows of kind {kind}, and [train] stage = {stage} wants {_KINDS[stage]}; "
                         f"they are for stage = {wants}")  # fmt: skip


def _trains(part: Any) -> bool:
    """Whether any token is trained; reads no further than the first that is. Preference pairs always are."""
    if "labels" not in part.column_names:
        return True
    batches = part.select_columns(["labels"]).with_format("arrow").iter(1000)
    return any(pc.any(pc.not_equal(pc.list_flatten(batch["labels"]), IGNORED)).as_py() for batch in batches)


class Arrays(TorchDataset[Row]):
    """The rows of a `datasets.Dataset` with NumPy arrays for lists, views of Arrow's memory.

    Left to itself it makes a Python object of every token, which takes longer than a small model's step on a GPU.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset.with_format("arrow")

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Row:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Row]:
        """The rows with these numbers, as a DataLoader asks for a batch."""
        table = self.dataset[list(indices)]
        columns = [_arrays(table.column(name).combine_chunks()) for name in table.column_names]
        return [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]


def _arrays(column: Any) -> Any:
    """Of each row its value, or of a list column the array of its values."""
    if not pa.types.is_list(column.type):
        return column.to_numpy()
    values, offsets = column.values.to_numpy(), column.offsets.to_numpy()
    return [values[start:end] for start, end in pairwise(offsets)]


def packed(rows: Sequence[Row]) -> Batch:
    """Rows of the shards, lists or arrays, as one flat row without padding.

    Returns `input_ids`, `labels`, `position_ids`, each [1, T] int64, `weights` [1, T] float32 where the rows have them,
    and of numbered rows `rows` [1, number of rows] and `sources` [1, number of sequences], int64. Positions start at 0
    in every sequence. The first label of every sequence is ignored: the loss pairs each label with the token before it,
    which there is the end of a neighbour.
    """
    lengths = _joined(rows, "seq_lengths")
    starts = np.cumsum(lengths) - lengths
    positions = np.arange(lengths.sum()) - np.repeat(starts, lengths)
    batch = {
        "input_ids": _flat(_joined(rows, "input_ids")),
        "labels": _flat(_joined(rows, "labels")),
        "position_ids": _flat(positions),
    }
    if batch["position_ids"].shape != batch["input_ids"].shape:
        raise QdataError(f"a row's seq_lengths add up to {lengths.sum()}, its tokens to {batch['input_ids'].shape[1]}")
    batch["labels"][0, starts] = IGNORED
    if "weights" in rows[0]:
        batch["weights"] = _flat(_joined(rows, "weights", np.float32))
    if "row" in rows[0]:
        batch["rows"] = torch.tensor([[int(row["row"]) for row in rows]])
        batch["sources"] = _flat(_joined(rows, "source"))
    return batch


def _joined(rows: Sequence[Row], name: str, dtype: Any = np.int64) -> Any:
    """One column of all rows, end to end; always a copy."""
    return np.concatenate([row[name] for row in rows], dtype=dtype, casting="unsafe")


def _flat(values: Any) -> Tensor:
    return torch.from_numpy(values)[None]
