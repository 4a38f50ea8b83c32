"""The proof of pretraining text: a document's sequences, put together, are its text and the end of text.

The tokens that were found are kept until the last row, since the blocks of a long document lie in any order; then each
document is tokenised once, by transformers, and held against them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from qdata.tokens.proof import Ids, Result, side_by_side
from qdata.tokens.proof_rows import place, sequences
from qdata.tokens.serving import Server

BATCH = 4096  # documents read at once


class Documents:
    """Documents of a build."""

    columns: tuple[str, ...] = ()

    def __init__(self, server: Server, manifest: Mapping[str, Any], result: Result) -> None:
        self._server, self._manifest, self._result = server, manifest, result
        self._found: defaultdict[str, list[Ids]] = defaultdict(list)  # by row id

    def row(self, row: pa.RecordBatch, where: str, conversations: Mapping[str, Any]) -> None:
        """All of it is trained, as it stands."""
        for tokens, one in sequences(row, where, self._manifest["pack"], conversations, self._result):
            self._result.sequences += 1
            self._result.trained_tokens += int(tokens.trained.sum())
            if not tokens.trained.all():
                self._result.fail("untrained", f"{tokens.place}: {int((~tokens.trained).sum())} tokens are not trained")
            if np.any(tokens.trained & (tokens.labels != tokens.ids)):
                self._result.fail("labels", f"{tokens.place}: a label that is neither -100 nor its token")
            if tokens.weights is not None and np.any(tokens.weights != 1):
                self._result.fail("weight", f"{tokens.place}: a token of text that does not weigh 1")
            limit = self._manifest["max_length"]
            if limit and len(tokens.ids) > limit:
                self._result.fail("lengths", f"{tokens.place}: {len(tokens.ids)} tokens, and max_length is {limit}")
            self._found[one["row"]].append(tokens.ids)

    def close(self, directory: Path, *, complete: bool) -> None:
        """Each document against what was found of it; where all rows were looked at, whether all of it was found."""
        texts = pl.scan_parquet(directory / "conversations.parquet", glob=False).select("row", "text")
        book = pl.scan_parquet(directory / "ledger.parquet", glob=False)
        kept = book.filter(pl.col("action") != "dropped").select("row").collect()["row"]
        looked_at = kept if complete else kept.filter(kept.is_in(list(self._found)))
        for start in range(0, len(looked_at), BATCH):
            names = looked_at[start : start + BATCH]
            for name, text in texts.filter(pl.col("row").is_in(names.implode())).collect().iter_rows():
                self._document(name, self._server.document(text, self._manifest["specials"]), complete)

    def _document(self, name: str, wanted: list[int], complete: bool) -> None:
        blocks = [block.tolist() for block in self._found.get(name, ())]
        if not blocks:
            self._result.fail("not trained", f"{place(name)}: the document is in no shard")
            return
        self._result.answers += 1
        limit, policy = self._manifest["max_length"], self._manifest["too_long"]
        is_long = limit and len(wanted) > limit
        if is_long and policy == "truncate":
            wanted = wanted[:limit]
        elif is_long and policy == "split" and not complete:
            array = np.array(wanted, np.int32).tobytes()
            for block in blocks:
                if not _holds(array, np.array(block, np.int32).tobytes()):
                    self._result.fail("document", f"{place(name)}: a block of it that is no run of its tokens")
            return
        found = _together(blocks, wanted)
        if found != wanted:
            what = f"{place(name)}: what was found of it is not its text and the end of text"
            self._result.fail("document", side_by_side(what, wanted, found, 0, self._server))


def _together(blocks: list[list[int]], wanted: list[int]) -> list[int]:
    """The blocks in the order in which they stand in the document, the longest that fits first; the rest behind."""
    left = sorted(blocks, key=len, reverse=True)
    out: list[int] = []
    while left:
        fits = (n for n, block in enumerate(left) if wanted[len(out) : len(out) + len(block)] == block)
        out += left.pop(next(fits, 0))
    return out


def _holds(document: bytes, block: bytes) -> bool:
    """Whether int32 ids contain others, as a run."""
    at = document.find(block)
    while at % 4 and at >= 0:
        at = document.find(block, at + 1)
    return at >= 0
