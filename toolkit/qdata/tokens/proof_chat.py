"""The proof of conversations: each of their sequences (proof.py), and that no answer is missing."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from qdata.tokens.proof import Proof, Result
from qdata.tokens.proof_rows import place, sequences
from qdata.tokens.serving import Server


class Chats:
    """Conversations of a build."""

    columns = ("messages", "tools", "think")

    def __init__(self, server: Server, manifest: Mapping[str, Any], result: Result) -> None:
        self._proof = Proof(server, manifest, result)

    def row(self, row: pa.RecordBatch, where: str, conversations: Mapping[str, Any]) -> None:
        """Every sequence of it."""
        result = self._proof.result
        for tokens, conversation in sequences(row, where, self._proof.manifest["pack"], conversations, result):
            try:
                self._proof.sequence(tokens, conversation)
            except Exception as error:  # a template may refuse a row in its own words
                result.fail("unreadable", f"{tokens.place}: {type(error).__name__}: {str(error)[:300]}")

    def close(self, directory: Path, *, complete: bool) -> None:
        """Where all rows were looked at, whether all answers were met."""
        if complete:
            _complete(directory, self._proof.manifest, self._proof)


def _complete(directory: Path, manifest: Mapping[str, Any], proof: Proof) -> None:
    """Each answer that should be trained was met exactly once (a proof takes each only once), or had a reason."""
    kept = pl.read_parquet(directory / "ledger.parquet", glob=False).filter(pl.col("action") != "dropped").select("row")
    texts = pl.read_parquet(
        directory / "conversations.parquet", glob=False, columns=["row", "messages", "tools", "think"]
    )
    server, limit = proof.server, manifest["max_length"]
    for row in texts.join(kept, on="row", how="semi").iter_rows(named=True):
        if ("prompt", row["row"]) in proof.told:
            continue  # it is there, and was told to be wrong
        chat = proof.conversation(row)
        missing = [turn for turn in chat.wanted if not proof.met(chat.row, turn)]
        if not manifest["expand"]:
            there = [chat.served(turn) for turn in chat.wanted if proof.met(chat.row, turn)]
            missing = [turn for turn in missing if _would_go_with(chat.served(turn), there)]
        if not missing:
            continue
        # Turns of one sample go together when it is too long: the last missing one tells its length.
        served = chat.served(missing[-1])
        if not limit or len(server.ids(served.prompt)) + len(server.ids(served.answer)) <= limit:
            proof.fail("not trained", f"{place(chat.row)}: message {missing[-1]} is in no shard")


def _would_go_with(one: Any, there: list[Any]) -> bool:
    """Whether a turn could stand in the one sample with the turns that are there."""
    texts = sorted([*there, one], key=lambda served: served.turn)
    return all(after.prompt.startswith(before.prompt + before.answer) for before, after in itertools.pairwise(texts))
