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

from qdata import decide, manifest, schema
from qdata.arrays import to_arrow
from qdata.errors import QdataError
from qdata.part import Done, kind_named
from qdata.paths import file_sha256
from qdata.recipe import DataRecipe
from qdata.rows import ledger
from qdata.tokens import locate, pack, shards
from qdata.tokens.samples import Ints, Samples, samples_of

if TYPE_CHECKING:
    from qdata.pipeline import Plan


def assemble(planned: Plan, done: Sequence[Done], folder: Path) -> dict[str, Any]:
    """Writes the shard folder of a plan whose parts are done; returns its manifest.

    Raises QdataError when nothing is left to train.
    """
    recipe, kind = planned.recipe, kind_named(planned.kind)
    rows = _narrow(done)
    kept = rows.filter(pl.col("drop").is_null())
    per_part = [d.kept for d in done]
    bases = np.concatenate([[0], np.cumsum(per_part)])[:-1].tolist()
    tables = [d.tokens() for d in done]
    everything = samples_of(tables, bases, recipe.loss, recipe.expand)
    expanded = everything if recipe.expand else samples_of(tables, bases, recipe.loss)
    fitted = kind.fit(everything, recipe.max_length, str(recipe.too_long))
    _refuse_long(kept, everything, kind.lengths(everything), recipe)
    gone = _gone(kept.height, everything, fitted.samples, kind.untrained)
    decisions = _decided(done, kept, gone)
    fallen = kept.join(decisions, on="row", how="left", maintain_order="left")["drop_right"]
    stays = fallen.is_null().to_numpy()
    samples = fitted.samples.take(np.flatnonzero(stays[fitted.samples.conversation]))
    in_validation = _held_out(kept, stays, recipe)
    _write_conversations(done, decisions, folder / "conversations.parquet")
    row_ids, sources = (kept[c].to_arrow().cast(pa.string()) for c in ("row", "source"))
    layout = kind.layout(kept["label"])
    splits: dict[str, Any] = {}
    places = []
    for split, wanted in zip(schema.SPLITS, (False, True), strict=True):
        mine = samples.take(np.flatnonzero(in_validation[samples.conversation] == wanted))
        if not len(mine.length):
            continue
        bins = _bins(mine.length, recipe)
        written, where = shards.write_split(mine, bins, row_ids, sources, folder, split, layout)
        places.append(where)
        facts = _split_facts(mine, bins, written, recipe.pack, sources.take(to_arrow(mine.conversation)))
        splits[split] = facts | kind.counts(mine) | {"longest": int(kind.lengths(mine).max())}
    book = _ledger(rows, kept, gone, decisions, done, places)
    lengths = {
        "unexpanded_answers": int(expanded.piece_answers.sum() - everything.piece_answers.sum()),
        "too_long_answers": fitted.lost_answers,
        "too_long_conversations": fitted.lost_conversations,
        "cut_answers": fitted.cut_answers,
        "lost_beyond": kind.lost(everything),
    }
    if "train" not in splits:
        reasons = ", ".join(f"{n} {why}" for why, n in ledger.sums(book)["dropped"].items()) or "all held out by val"
        raise QdataError(f"nothing is left to train: {reasons}")
    locate.save(planned.tokenizer, planned.template, folder / "tokenizer")
    shards.write_json(folder / "dataset_dict.json", {"splits": list(splits)})
    ledger.write(book, folder / "ledger.parquet")
    facts = manifest.of_build(planned, done, ledger.sums(book), splits, lengths)
    written_shards = {shard["name"] for split in splits.values() for shard in split["shards"]}
    others = sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())
    facts["files"] = {name: file_sha256(folder / name) for name in others if name not in written_shards}
    shards.write_json(folder / "manifest.json", facts)
    return facts


def _gone(kept: int, before: Samples, after: Samples, why: str) -> pl.DataFrame:
    """The conversations that no sample is left of (`conversation`), and why (`late`): some had none."""
    everyone = np.arange(kept)
    untrained = np.setdiff1d(everyone, before.conversation)
    too_long = np.setdiff1d(before.conversation, after.conversation)
    reasons = [why] * len(untrained) + ["max_length.too_long"] * len(too_long)
    return pl.DataFrame(
        {"conversation": np.concatenate([untrained, too_long]), "late": reasons},
        schema={"conversation": pl.Int64, "late": pl.String},
    )


def _refuse_long(kept: pl.DataFrame, samples: Samples, lengths: Ints, recipe: DataRecipe) -> None:
    """Under `too_long = error`, raises QdataError that names the first rows that are too long."""
    if recipe.max_length is None or recipe.too_long != "error":
        return
    long = np.flatnonzero(lengths > recipe.max_length)
    if len(long):
        rows = kept["row"].gather(samples.conversation[long[:5]]).to_list()
        shown = ", ".join(f"{row} ({n:,} tokens)" for row, n in zip(rows, lengths[long[:5]], strict=True))
        raise QdataError(
            f"{len(long):,} samples are longer than {recipe.max_length:,} tokens: {shown}. "
            f"Raise --max-length, or say what becomes of them with --too-long"
        )


def _narrow(done: Sequence[Done]) -> pl.DataFrame:
    """What a global view needs of all conversations: little of each."""
    columns = ["row", "content_hash", "source", "drop", "label"]
    narrow = [one.conversations(columns).with_columns(split=pl.lit(one.work.split)) for one in done]
    return pl.concat(narrow) if narrow else pl.DataFrame(schema={**schema.CONVERSATION, "split": pl.String})


def _decided(done: Sequence[Done], kept: pl.DataFrame, gone: pl.DataFrame) -> pl.DataFrame:
    """What global steps decide of the rows that have samples; of each split by itself.

    So a row that is too long is no reason to drop a shorter one, and no row of a file for validation falls to another.
    """
    staying = kept.with_row_index("conversation").filter(~pl.col("conversation").is_in(gone["conversation"].implode()))
    made = []
    for split in schema.SPLITS:
        parts = [one for one in done if one.work.split == split]
        steps = parts[0].work.global_steps if parts else ()
        rows = staying.filter(pl.col("split") == split)["row"]
        made.append(decide.decide(steps, [one.directory for one in parts], rows))
    return pl.concat(made, how="diagonal")


def _write_conversations(done: Sequence[Done], decisions: pl.DataFrame, file: Path) -> None:
    """Copies the parts' conversations into one file, with what global steps decided of them."""
    decided = [name for name in decisions.columns if name not in ("row", "drop", "by")]
    scores = list(dict.fromkeys([*(name for one in done for name in one.scores), *decided]))
    writer: pq.ParquetWriter | None = None
    for one in done:
        frame = one.conversations()
        if one.work.global_steps:
            frame = decide.apply(frame, decisions)
        frame = schema.with_score_fields(frame, scores)
        think = one.work.rendering.think if one.work.rendering else "none"
        table = frame.with_columns(think=pl.lit(think)).to_arrow(compat_level=pl.CompatLevel.oldest())
        writer = writer or pq.ParquetWriter(file, table.schema, compression="zstd", compression_level=1)
        writer.write_table(table.cast(writer.schema))
    if writer:
        writer.close()


def _held_out(kept: pl.DataFrame, stays: Any, recipe: DataRecipe) -> Any:
    """A boolean per kept conversation: in validation, because its file is, or by a draw over contents.

    The draw looks at the content hash and the seed only: exact duplicates fall on the same side, and a row stays on
    its side when others are added or the order changes.
    """
    held = (kept["split"] == "validation").to_numpy().copy()
    train = np.flatnonzero(~held & stays)
    if recipe.val is None or not len(train):
        return held
    hashes = kept["content_hash"].gather(train)
    seeded = (hashlib.blake2b(f"{recipe.seed}:{h}".encode(), digest_size=8).digest() for h in hashes)
    draws = np.array([int.from_bytes(digest) for digest in seeded], np.uint64)
    if recipe.val < 1:
        limit = max(np.uint64(recipe.val * 2.0**64), draws.min())  # a fraction of the hashes; at least one row
    else:
        limit = np.sort(draws)[min(int(recipe.val), len(draws)) - 1]
    held[train[draws <= limit]] = True
    return held


def _bins(lengths: Any, recipe: DataRecipe) -> pack.Bins:
    if not recipe.pack:
        return pack.one_each(len(lengths))
    # Drawn before packing too: else samples of one length, often of one kind, would share a bin in file order.
    drawn = np.random.default_rng(recipe.seed).permutation(len(lengths))
    bins = pack.shuffled(pack.best_fit_decreasing(lengths[drawn], recipe.pack), recipe.seed)
    return pack.Bins(drawn[bins.order], bins.offsets)


def _split_facts(
    samples: Samples, bins: pack.Bins, written: list[shards.Shard], packed: int | None, sources: pa.Array
) -> dict[str, Any]:
    lengths = samples.length
    return {
        "rows": len(bins),
        "samples": len(lengths),
        "conversations": len(np.unique(samples.conversation)),
        "tokens": int(lengths.sum()),
        "trained_tokens": int(samples.trained_length.sum()),
        **_growth(samples, sources),
        "fill": round(pack.fill(lengths, bins, packed), 6) if packed else None,
        "shards": [s._asdict() for s in written],
    }


def _ledger(
    rows: pl.DataFrame,
    kept: pl.DataFrame,
    gone: pl.DataFrame,
    decisions: pl.DataFrame,
    done: Sequence[Done],
    places: list[pl.DataFrame],
) -> pl.DataFrame:
    late = gone.select("late", row=kept["row"].gather(gone["conversation"]))
    fallen = decisions.select("row", "by", fell="drop")
    rows = rows.join(late, on="row", how="left", maintain_order="left")
    rows = rows.join(fallen, on="row", how="left", maintain_order="left")
    rows = rows.with_columns(drop=pl.coalesce("drop", "late", "fell"))
    none = pl.DataFrame(schema={"conversation": pl.Int64, "index": pl.Int64, "shard": pl.String})
    where = pl.concat(places or [none]).sort("conversation", maintain_order=True)
    placed = where.select("shard", "index", row=kept["row"].gather(where["conversation"]))
    edits = pl.concat([d.edits() for d in done])
    return ledger.ledger(rows.select("row", "content_hash", "drop", "by"), edits, placed)


def _growth(samples: Samples, sources: pa.Array) -> dict[str, Any]:
    """What expansion costs: samples beyond one of each conversation, and all tokens over those of the longest ones.

    `growth_by_source` tells it of each source. Parts of a conversation that was split count as conversations.
    """
    starts = samples.groups
    counts = pl.DataFrame(
        {
            "source": sources.take(to_arrow(starts)),
            "tokens": np.add.reduceat(samples.length, starts),
            "longest": np.maximum.reduceat(samples.length, starts),
        }
    )
    ratio = (pl.col("tokens").sum() / pl.col("longest").sum()).round(4).alias("growth")
    by_source = counts.group_by("source").agg(ratio).sort("source")
    return {
        "expanded": len(samples) - len(starts),
        "growth": counts.select(ratio).item(),
        "growth_by_source": dict(by_source.iter_rows()),
    }
