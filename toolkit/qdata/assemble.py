"""Parts that are done → one shard folder. Everything after the token tables is a view over them:

what is trained, what is too long, which side of the split, which bin. Changing any of it re-tokenises nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from qdata import manifest, schema
from qdata.errors import QdataError
from qdata.part import Done
from qdata.recipe import DataRecipe
from qdata.rows import ledger
from qdata.tokens import locate, pack, shards

if TYPE_CHECKING:
    from qdata.pipeline import Plan


def assemble(planned: Plan, done: Sequence[Done], folder: Path) -> dict[str, Any]:
    """Writes the shard folder of a plan whose parts are done; returns its manifest.

    Raises QdataError when nothing is left to train.
    """
    recipe = planned.recipe
    rows = _narrow(done, folder / "conversations.parquet")
    kept = rows.filter(pl.col("drop").is_null())
    per_part = [d.kept for d in done]
    bases = np.concatenate([[0], np.cumsum(per_part)])[:-1].tolist()
    samples = shards.samples_of([d.tokens() for d in done], bases, recipe.loss)
    fits = np.ones(len(samples.length), np.bool_)
    if recipe.max_length:
        fits = samples.length <= recipe.max_length
    too_long = np.setdiff1d(samples.conversation[~fits], samples.conversation[fits])
    samples = samples.take(np.flatnonzero(fits))
    in_validation = _held_out(kept, recipe)
    row_ids, sources = (kept[c].to_arrow().cast(pa.string()) for c in ("row", "source"))
    splits: dict[str, Any] = {}
    places = []
    for split, wanted in zip(schema.SPLITS, (False, True), strict=True):
        mine = samples.take(np.flatnonzero(in_validation[samples.conversation] == wanted))
        if not len(mine.length):
            continue
        bins = _bins(mine.length, recipe)
        written, where = shards.write_split(mine, bins, row_ids, sources, folder, split)
        places.append(where)
        splits[split] = _split_facts(mine, bins, written, recipe.pack)
    book = _ledger(rows, kept, too_long, done, places)
    if "train" not in splits:
        reasons = ", ".join(f"{n} {why}" for why, n in ledger.sums(book)["dropped"].items()) or "all held out by val"
        raise QdataError(f"nothing is left to train: {reasons}")
    locate.save(planned.tokenizer, planned.template, folder / "tokenizer")
    shards.write_json(folder / "dataset_dict.json", {"splits": list(splits)})
    ledger.write(book, folder / "ledger.parquet")
    facts = manifest.of_build(planned, done, ledger.sums(book), splits)
    shards.write_json(folder / "manifest.json", facts)
    return facts


def _narrow(done: Sequence[Done], file: Path) -> pl.DataFrame:
    """Copies the parts' conversations into one file, and returns what a global view needs of them."""
    narrow = []
    writer: pq.ParquetWriter | None = None
    for one in done:
        frame = one.conversations()
        table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
        writer = writer or pq.ParquetWriter(file, table.schema, compression="zstd", compression_level=1)
        writer.write_table(table.cast(writer.schema))
        narrow.append(frame.select("row", "content_hash", "source", "drop", split=pl.lit(one.work.split)))
    if writer:
        writer.close()
    return pl.concat(narrow) if narrow else pl.DataFrame(schema={**schema.CONVERSATION, "split": pl.String})


def _held_out(kept: pl.DataFrame, recipe: DataRecipe) -> Any:
    """A boolean per kept conversation: in validation, because its file is, or by a draw over contents.

    The draw looks at the content hash and the seed only: exact duplicates fall on the same side, and a row stays on
    its side when others are added or the order changes.
    """
    held = (kept["split"] == "validation").to_numpy().copy()
    train = np.flatnonzero(~held)
    count = 0
    if recipe.val is not None:
        count = round(recipe.val * len(train)) if recipe.val < 1 else int(recipe.val)
    if count:
        draws = np.array(
            [
                int.from_bytes(hashlib.blake2b(f"{recipe.seed}:{h}".encode(), digest_size=8).digest())
                for h in kept["content_hash"].gather(train)
            ],
            np.uint64,
        )
        held[train[draws <= np.sort(draws)[min(count, len(draws)) - 1]]] = True
    return held


def _bins(lengths: Any, recipe: DataRecipe) -> pack.Bins:
    if not recipe.pack:
        return pack.one_each(len(lengths))
    # Drawn before packing too: else samples of one length, often of one kind, would share a bin in file order.
    drawn = np.random.default_rng(recipe.seed).permutation(len(lengths))
    bins = pack.shuffled(pack.best_fit_decreasing(lengths[drawn], recipe.pack), recipe.seed)
    return pack.Bins(drawn[bins.order], bins.offsets)


def _split_facts(
    samples: shards.Samples, bins: pack.Bins, written: list[shards.Shard], packed: int | None
) -> dict[str, Any]:
    lengths = samples.length
    return {
        "rows": len(bins),
        "samples": len(lengths),
        "conversations": len(np.unique(samples.conversation)),
        "tokens": int(lengths.sum()),
        "trained_tokens": int(samples.trained_length.sum()),
        "longest": int(lengths.max()),
        "fill": round(pack.fill(lengths, bins, packed), 6) if packed else None,
        "shards": [s._asdict() for s in written],
    }


def _ledger(
    rows: pl.DataFrame, kept: pl.DataFrame, too_long: Any, done: Sequence[Done], places: list[pl.DataFrame]
) -> pl.DataFrame:
    gone = kept[too_long].select("row", late=pl.lit("max_length.too_long"))
    rows = rows.join(gone, on="row", how="left", maintain_order="left").with_columns(drop=pl.coalesce("drop", "late"))
    where = (
        pl.concat(places)
        if places
        else pl.DataFrame(schema={"conversation": pl.Int64, "index": pl.Int64, "shard": pl.String})
    )
    where = where.sort("conversation", maintain_order=True)
    placed = where.select("shard", "index", row=kept["row"].gather(where["conversation"]))
    edits = pl.concat([d.edits() for d in done])
    return ledger.ledger(rows.select("row", "content_hash", "drop"), edits, placed)
