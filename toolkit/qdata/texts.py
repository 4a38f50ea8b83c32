"""What rows of an output say: from the file or shards where they stand, or from beside it where they were dropped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from qdata import schema
from qdata.errors import QdataError
from qdata.output import Output
from qdata.rows import exact, load, provenance, source

SAID = pl.Schema({"row": pl.String, "said": pl.String, "scores": pl.String})  # canonical JSON, and JSON of the scores
_PART_BYTES = 1 << 20  # of a file of any size only this much is read for a row


def said(output: Output, lines: pl.DataFrame) -> pl.DataFrame:
    """What some rows of a ledger say (SAID): kept ones as they stand in the output, dropped ones as they were then.

    `lines`: their lines (LEDGER). A row whose text is not here any more is missing: the file is gone, or was edited.
    """
    gone = pl.col("action") == "dropped"
    dropped = narrow(output.dropped().filter(pl.col("row").is_in(lines.filter(gone)["row"].implode())))
    stay = lines.filter(~gone)
    if output.is_shards:
        every = pl.scan_parquet(output.folder / "conversations.parquet", glob=False)
        return pl.concat([dropped, narrow(every.filter(pl.col("row").is_in(stay["row"].implode())))])
    if stay.is_empty() or not unchanged(output):
        return dropped
    wanted = stay.select("row", ordinal=pl.col("index") + 1)
    return pl.concat([dropped, *_at(output.path, output.manifest["to"], wanted)])


def unchanged(output: Output) -> bool:
    """Whether the rows of an output are those that were written. Of shards, `qdata verify` tells."""
    return output.is_shards or (output.path.is_file() and provenance.manifest_beside(output.path) is not None)


def narrow(rows: pl.LazyFrame) -> pl.DataFrame:
    """SAID of some CONVERSATION rows. Of a row that could not be read it is the raw text."""
    raw = pl.when(pl.col("drop").str.starts_with("read.")).then(pl.col("extra").str.json_path_match("$.raw"))
    fields = schema.score_fields(rows)
    score = pl.when(pl.any_horizontal(pl.col("score").struct.field(name).is_not_null() for name in fields)).then(
        pl.col("score").struct.json_encode()
    )
    as_text = pl.struct(text=raw).struct.json_encode()
    text = pl.when(raw.is_not_null()).then(as_text).otherwise(schema.canonical_json())
    return rows.select("row", said=text, scores=score).collect().match_to_schema(SAID)


def scores_of(text: str | None) -> dict[str, Any]:
    """The scores in SAID, without those that the row does not have."""
    return {name: value for name, value in exact.loads(text.encode()).items() if value is not None} if text else {}


def _at(path: Path, dialect: str, wanted: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """SAID of the rows at some places of a file; `wanted`: row, ordinal."""
    try:
        parts = list(source.parts_of(path, "", "", _PART_BYTES))
        for place, part in enumerate(parts):
            stop = parts[place + 1].first if place + 1 < len(parts) else None
            here = wanted.filter(pl.col("ordinal").is_between(part.first, stop or 1 << 62, closed="left"))
            if here.is_empty():
                continue
            frame = load.load(part, dialect).frame
            ordinal = pl.col("row").str.extract(r"#(\d+)$").cast(pl.Int64)
            found = frame.lazy().with_columns(ordinal=ordinal).drop("row").join(here.lazy(), on="ordinal")
            yield narrow(found)
    except QdataError:
        return  # talks of characters, where nobody says who answers
