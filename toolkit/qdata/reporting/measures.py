"""How long rows are and what they score: narrow columns, a number per row, and their distributions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from qdata import schema
from qdata.errors import QdataError
from qdata.output import Output
from qdata.paths import shown
from qdata.rows import load, provenance, source
from qdata.rows.scores import QUANTILES
from qdata.rows.steps._where import FIELDS
from qdata.tokens import shards

SCORE = "score."  # begins the name of a column that is a score
_TITLES = {
    "characters": "characters of a row",
    "turns": "turns of a conversation",
    "answer": "characters of the answers",
    "rejected": "characters of the rejected answer",
    "tokens": "tokens of a sample",
    "trained_tokens": "trained tokens of a sample",
}
_MOST_BINS = 24  # of a linear scale
_COUNTS_FROM = 50  # what reaches this and is never negative is seen on a logarithmic scale
_EDGES = [0, *sorted({round(10 ** (k / 10)) for k in range(151)})]  # whole numbers, ten to a decade


@dataclass(frozen=True)
class Distribution:
    """How many rows have a value from each edge to below the next; the last bin holds its upper edge too.

    `kept` and `dropped` have one entry less than `edges`. `quantiles` are told of both, of a group without rows none.
    """

    name: str
    title: str
    logarithmic: bool
    edges: tuple[float, ...]
    kept: tuple[int, ...]
    dropped: tuple[int, ...]
    quantiles: dict[str, dict[str, float]]


def of(frame: pl.LazyFrame, *also: str) -> pl.LazyFrame:
    """`characters`, `turns`, `answer` and `rejected` of rows (CONVERSATION), as `qdata filter` counts them, and scores.

    A score NAME is the column `score.NAME`. What a row does not have is null. The columns `also` stay as they are.
    """
    chars = {role: FIELDS[f"{role}.chars"][1] for role in ("system", "user", "tool", "answer")}
    said = pl.col("messages").is_not_null() | pl.col("text").is_not_null()
    rejected = pl.col("rejected").list.eval(pl.element().struct.field("content").str.len_chars()).list.sum()
    return frame.select(
        *also,
        characters=pl.when(said).then(pl.sum_horizontal(*chars.values())).cast(pl.UInt32),
        turns=FIELDS["turns"][1].cast(pl.UInt32),
        answer=pl.when(said).then(chars["answer"]).cast(pl.UInt32),
        rejected=rejected.cast(pl.UInt32),
        **{SCORE + name: pl.col("score").struct.field(name) for name in schema.score_fields(frame)},
    )


def kept(output: Output) -> pl.DataFrame | None:
    """`of` the rows that an output holds; None of a file that is gone, or was edited since it was written."""
    if output.is_shards:
        gone = output.ledger().filter(pl.col("action") == "dropped").select("row")
        every = pl.scan_parquet(output.folder / "conversations.parquet", glob=False)
        return of(every.join(gone, on="row", how="anti")).collect(engine="streaming")
    if not output.path.is_file() or provenance.manifest_beside(output.path) is None:
        return None
    made = [_of_part(part, output.manifest["to"]) for part in source.parts_of(output.path, "", output.path.name)]
    return pl.concat(made, how="diagonal_relaxed")


def dropped(road: Sequence[Output]) -> pl.DataFrame:
    """`of` the rows that some output dropped and the last one does not hold, each once; and `row`."""
    gone = [of(one.dropped(), "row").collect(engine="streaming") for one in road]
    stays = road[-1].ledger().filter(pl.col("action") != "dropped").select("row")
    every = pl.concat(gone, how="diagonal_relaxed").unique("row", keep="first", maintain_order=True)
    return every.lazy().join(stays, on="row", how="anti", maintain_order="left").collect()


def _of_part(part: source.Part, dialect: str) -> pl.DataFrame:
    loaded = load.load(part, dialect)
    if loaded.bad:
        raise QdataError(
            f"{shown(part.path)}, row {loaded.bad[0].ordinal}: cannot be read back ({loaded.bad[0].reason})"
        )
    return of(loaded.frame.lazy()).collect()


def tokens(output: Output) -> pl.DataFrame:
    """`tokens` and `trained_tokens` of each sample of shards, in the order of the splits."""
    made = [_lengths(batch) for split in output.manifest["splits"] for batch in shards.read_split(output.folder, split)]
    lengths, trained = (np.concatenate(column) for column in zip(*made, strict=True))
    return pl.DataFrame({"tokens": lengths, "trained_tokens": trained})


def _lengths(batch: pa.RecordBatch) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    lengths = batch.column("seq_lengths").flatten().to_numpy()
    is_trained = batch.column("labels").flatten().to_numpy() != shards.IGNORED
    starts = np.cumsum(lengths) - lengths
    return lengths, np.add.reduceat(is_trained, starts, dtype=np.int32)


def distributions(kept: pl.DataFrame | None, dropped: pl.DataFrame) -> Iterator[Distribution]:
    """Of each number that some kept row has, or some dropped one where the kept rows are not here."""
    frame = dropped if kept is None else kept
    for name, dtype in frame.schema.items():
        if not dtype.is_numeric():
            continue
        values = [_values(one, name) for one in (pl.DataFrame() if kept is None else kept, dropped)]
        both = np.concatenate(values)
        if not len(both):
            continue
        edges, logarithmic = edges_of(float(both.min()), float(both.max()), whole=bool((both == np.rint(both)).all()))
        counts = [tuple(np.histogram(one, np.array(edges))[0].tolist()) for one in values]
        quantiles = {group: _quantiles(one) for group, one in zip(("kept", "dropped"), values, strict=True)}
        title = _TITLES.get(name, name)
        yield Distribution(name, title, logarithmic, tuple(edges), counts[0], counts[1], quantiles)


def _values(frame: pl.DataFrame, name: str) -> npt.NDArray[np.float64]:
    if name not in frame.columns:
        return np.empty(0)
    return frame[name].drop_nulls().cast(pl.Float64).to_numpy()


def _quantiles(values: npt.NDArray[np.float64]) -> dict[str, float]:
    if not len(values):
        return {}
    found = pl.Series(values)
    return {name: float(found.quantile(share, "nearest") or 0) for name, share in QUANTILES.items()}


def edges_of(low: float, high: float, *, whole: bool) -> tuple[list[float], bool]:
    """The edges of bins for values from `low` to `high`, and whether they grow by factors; `whole`: numbers are.

    >>> edges_of(0, 3, whole=True)
    ([0, 1, 2, 3, 4], False)
    >>> edges_of(0.02, 0.11, whole=False)[0][:5]
    [0.02, 0.025, 0.03, 0.035, 0.04]
    >>> edges_of(9, 120, whole=True)
    ([8, 10, 13, 16, 20, 25, 32, 40, 50, 63, 79, 100, 126], True)
    """
    if low >= 0 and high >= _COUNTS_FROM and whole and high < _EDGES[-1]:
        first = max(i for i, edge in enumerate(_EDGES) if edge <= low)
        last = next(i for i, edge in enumerate(_EDGES) if edge > high)
        return [float(edge) if not whole else edge for edge in _EDGES[first : last + 1]], True
    span = (high - low) or 1.0
    exponent = math.floor(math.log10(span / _MOST_BINS))
    steps = ((1, 0), (2, 0), (2.5, 1), (5, 0), (10, 0))
    found = next((m, more) for m, more in steps if span / (m * 10.0**exponent) <= _MOST_BINS)
    digits = max(0, found[1] - exponent)
    step = found[0] * 10.0**exponent
    if whole:
        step, digits = max(1.0, math.ceil(step)), 0
        high += 1  # a bin for the highest itself
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)  # 0.3 / 0.1 is a little below 3
    first -= round(first * step, digits) > low
    last += round(last * step, digits) < high
    edges = [round(i * step, digits) for i in range(first, max(last, first + 1) + 1)]
    return ([int(edge) for edge in edges] if whole else edges), False


def number(value: float | None) -> str:
    """`52,002`; four digits of what is not whole; a dash of nothing.

    >>> number(52002), number(0.123456), number(None)
    ('52,002', '0.1235', '–')
    """
    if value is None:
        return "–"
    return f"{int(value):,}" if float(value).is_integer() else f"{value:.4g}"
