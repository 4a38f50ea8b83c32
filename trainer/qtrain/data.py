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
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

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
    sources: tuple[str, ...] = ()
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
    sources: tuple[str, ...] = ()
    if "seq_lengths" in parts["train"].column_names:  # preference pairs are not packed
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
    """`part` with `row`, the row's number, and `source`, the number of each packed conversation's source (int32)."""
    from datasets import Dataset, concatenate_datasets
    from datasets.table import InMemoryTable

    numbers = pc.index_in(_sources(part), value_set=pa.array(sources, pa.string())).combine_chunks()
    ends = pc.cumulative_sum(pc.list_value_length(part.data.column("sources"))).combine_chunks().cast(pa.int32())
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends])
    columns = {"row": pa.array(range(len(part)), pa.int32()), "source": pa.ListArray.from_arrays(offsets, numbers)}
    return concatenate_datasets([part, Dataset(InMemoryTable(pa.table(columns)))], axis=1)


def row_ids(shards: Shards, indices: Sequence[int]) -> list[str]:
    """The ids of the conversations in these rows of the train split."""
    from datasets import load_from_disk

    rows = load_from_disk(str(shards.path))["train"].select_columns(["rows"])
    return [one for index in indices for one in rows[index]["rows"]]


def fits(shards: Shards, stage: str) -> None:
    """Raises QdataError where the rows are not of the kind that a `stage` of training wants."""
    kind = shards.manifest.get("kind", "chat")
    if kind != _KINDS[stage]:
        wants = " or ".join(name for name, one in _KINDS.items() if one == kind) or "no stage known here"
        raise QdataError(f"{shards.path}: rows of kind {kind}, and [train] stage = {stage} wants {_KINDS[stage]}; "
                         f"they are for stage = {wants}")  # fmt: skip


def _trains(part: Any) -> bool:
    """Whether any token is trained; reads no further than the first that is. Preference pairs always are."""
    if "labels" not in part.column_names:
        return True
    batches = part.select_columns(["labels"]).with_format("arrow").iter(1000)
    return any(pc.any(pc.not_equal(pc.list_flatten(batch["labels"]), IGNORED)).as_py() for batch in batches)


def packed(rows: Sequence[Row]) -> Batch:
    """Rows of the shards as one flat row without padding.

    Returns `input_ids`, `labels`, `position_ids`, each [1, T] int64, `weights` [1, T] float32 where the rows have them,
    and of numbered rows `rows` [1, number of rows] and `sources` [1, number of sequences], int64. Positions start at 0
    in every sequence. The first label of every sequence is ignored: the loss pairs each label with the token before it,
    which there is the end of a neighbour.
    """
    lengths = [length for row in rows for length in row["seq_lengths"]]
    batch = {
        "input_ids": _flat(row["input_ids"] for row in rows),
        "labels": _flat(row["labels"] for row in rows),
        "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
    }
    if batch["position_ids"].shape != batch["input_ids"].shape:
        raise QdataError(f"a row's seq_lengths add up to {sum(lengths)}, its tokens to {batch['input_ids'].shape[1]}")
    batch["labels"][0, _starts(lengths)] = IGNORED
    if "weights" in rows[0]:
        batch["weights"] = _flat((row["weights"] for row in rows), torch.float32)
    if "row" in rows[0]:
        batch["rows"] = torch.tensor([[row["row"] for row in rows]])
        batch["sources"] = _flat(row["source"] for row in rows)
    return batch


def padded(rows: Sequence[Row], pad: int) -> Batch:
    """The same sequences as a rectangle: one row each, padded on the right with `pad` (the textbook batch).

    Returns `input_ids`, `labels`, `attention_mask`, each [sequences, longest] int64. Training never uses it; it is
    what `packed` must equal, loss for loss.
    """
    sequences = [piece for row in rows for piece in _sequences(row)]
    longest = max(len(ids) for ids, _ in sequences)
    spare = [longest - len(ids) for ids, _ in sequences]
    return {
        "input_ids": torch.tensor([ids + [pad] * n for (ids, _), n in zip(sequences, spare, strict=True)]),
        "labels": torch.tensor([labels + [IGNORED] * n for (_, labels), n in zip(sequences, spare, strict=True)]),
        "attention_mask": torch.tensor([[1] * (longest - n) + [0] * n for n in spare]),
    }


def _sequences(row: Row) -> list[tuple[list[int], list[int]]]:
    ends = list(accumulate(row["seq_lengths"]))
    ids, labels = list(row["input_ids"]), list(row["labels"])
    return [(ids[a:b], labels[a:b]) for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def _flat(values: Any, dtype: torch.dtype = torch.long) -> Tensor:
    return torch.tensor(list(chain.from_iterable(values)), dtype=dtype)[None]


def _starts(lengths: Sequence[int]) -> list[int]:
    return [0, *accumulate(lengths)][:-1]
