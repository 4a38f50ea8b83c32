"""A row of a shard as sequences, each with the row of the data it was made of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from qdata.tokens.proof import Result, Tokens

_LINES = (".jsonl", ".ndjson")


def sequences(
    row: pa.RecordBatch, where: str, pack: int | None, conversations: Mapping[str, Any], result: Result
) -> list[tuple[Tokens, dict[str, Any]]]:
    """A row of a shard (a batch of one) cut into its sequences."""
    ids, labels = (row[column][0].values.to_numpy() for column in ("input_ids", "labels"))
    weights = row["weights"][0].values.to_numpy() if "weights" in row.schema.names else None
    lengths, names = row["seq_lengths"][0].as_py(), row["rows"][0].as_py()
    if sum(lengths) != len(ids) or len(ids) != len(labels) or len(lengths) != len(names):
        told = f"seq_lengths {lengths} for {len(ids)} ids, {len(labels)} labels, {len(names)} row ids"
        result.fail("lengths", f"{where}: {told}")
        return []
    if pack and len(ids) > pack:
        result.fail("lengths", f"{where}: {len(ids)} tokens in a row of {pack}")
    out, start = [], 0
    for name, length in zip(names, lengths, strict=True):
        part = slice(start, start := start + length)
        conversation = kept(name, where, conversations, result)
        if conversation is not None:
            weighing = None if weights is None else weights[part]
            out.append((Tokens(place(name, where), ids[part], labels[part], weighing), conversation))
    return out


def kept(name: str, where: str, conversations: Mapping[str, Any], result: Result) -> dict[str, Any] | None:
    """The row of the data by its id, or None where it is told not to be among those that were kept."""
    found: dict[str, Any] | None = conversations.get(name)
    if found is not None and found["drop"] is None:
        return found
    result.sequences += 1
    result.fail("dropped row", f"{place(name, where)}: not among the kept conversations")
    return None


def place(row: str, where: str = "") -> str:
    """`muice/train.jsonl#812 (line 812; train row 3)`: the id of a row, in words, and where it went."""
    file, _, ordinal = row.rpartition("#")
    plain = re.sub(r"\.(gz|zst|bz2|xz)$", "", file)
    told = [f"{'line' if plain.endswith(_LINES) else 'row'} {ordinal}", *([where] if where else [])]
    return f"{row} ({'; '.join(told)})"
