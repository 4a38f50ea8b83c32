"""The Arrow schemas everything agrees on, and the two functions that keep rows true to them.

CONVERSATION is the one shape rows have between reading and tokenizing; LEDGER says what became of each of them;
TOKENS is what lies in the shards. Tool schemas and call arguments are JSON *text*: as Arrow structs they would be
padded with the null keys of other rows, which then leak into prompts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

SPLITS = ("train", "validation")
ROLES = ("system", "user", "assistant", "tool")

MESSAGE: pl.Struct = pl.Struct(
    {
        "role": pl.String,
        "content": pl.String,
        "reasoning": pl.String,
        "tool_calls": pl.String,  # JSON text: [{"name": …, "arguments": …}]
        "name": pl.String,
        "train": pl.Boolean,  # null = trained if it is an assistant turn
        "weight": pl.Float64,  # null = 1
    }
)
MESSAGES: pl.List = pl.List(MESSAGE)
SCORE: pl.Struct = pl.Struct({"given": pl.Float64})  # `given` came with the data; scorers add fields beside it
SCORE_TEXTS = frozenset({"lang"})  # scores that are a text; every other is a number

CONVERSATION = pl.Schema(
    {
        "row": pl.String(),  # source/relative path#ordinal; for line-based files the ordinal is the line number
        "content_hash": pl.String(),
        "source": pl.String(),
        "messages": MESSAGES,
        "tools": pl.String(),  # JSON text
        "chosen": MESSAGES,
        "rejected": MESSAGES,
        "label": pl.Boolean(),
        "text": pl.String(),
        "score": SCORE,
        "drop": pl.String(),  # null, or "step.reason"
        "extra": pl.String(),  # JSON text of every column nobody understood
    }
)

LEDGER = pl.Schema(
    {
        "row": pl.String,
        "content_hash": pl.String,
        "action": pl.String,  # kept | edited | dropped; every input row has exactly one line
        "step": pl.String,
        "reason": pl.String,
        "before": pl.String,  # JSON text of the messages, for edited rows
        "after": pl.String,
        "shard": pl.String,  # file the row went to, relative to the output
        "index": pl.Int64,  # its place in that file, from 0
        "by": pl.String,  # the row that stays in its stead, where a row was dropped because of another
    }
)

TOKENS = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),  # -100 = not trained; not shifted
        ("seq_lengths", pa.list_(pa.int32())),  # tokens of each sequence packed into this row
        ("rows", pa.list_(pa.string())),  # row id of each sequence
        ("sources", pa.list_(pa.string())),
    ]
)


# Preference pairs and judged answers, in TRL's own names. A trainer joins the prompt with each answer.
_SIDES = {name: pa.field(name, pa.list_(pa.int32())) for name in ("prompt_ids", "chosen_ids", "rejected_ids")}
_FROM = [TOKENS.field("rows"), TOKENS.field("sources")]
PREFERENCE = pa.schema([*_SIDES.values(), *_FROM])
JUDGED = pa.schema(
    [
        _SIDES["prompt_ids"],
        ("completion_ids", pa.list_(pa.int32())),
        ("label", pa.bool_()),  # whether the answer was good
        *_FROM,
    ]
)


def tokens(*, weighted: bool) -> pa.Schema:
    """The schema of shards; `weights` (of each token in the loss) only where some weight is not 1."""
    return TOKENS.append(pa.field("weights", pa.list_(pa.float32()))) if weighted else TOKENS


# Names that identity sets are known to leave open. Other braces are left alone: answers about jinja have them too.
PLACEHOLDER_NAMES = ("name", "author", "ai_nickname", "master_nickname", "model_name", "model_author")
PLACEHOLDER = r"\{\{\s*(?i:" + "|".join(PLACEHOLDER_NAMES) + r")\s*\}\}|<(?:NAME|AUTHOR)>"

_CONTENT = ("messages", "tools", "chosen", "rejected", "label", "text")


def message(role: str, content: pl.Expr) -> pl.Expr:
    """A struct expression with the two fields every message has; `conform` adds the rest."""
    return pl.struct(pl.lit(role).alias("role"), content.cast(pl.String).alias("content"))


def lists(values: pl.Series, lengths: npt.NDArray[np.integer[Any]], null: npt.NDArray[np.bool_]) -> pl.Series:
    """Values laid end to end as lists of these lengths; a list that is `null` has length 0."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    starts, mask = (_arrow(pl.Series(one)) for one in (offsets, null))  # pa.array would import pandas, 0.15 s
    return pl.Series(pl.from_arrow(pa.LargeListArray.from_arrays(starts, _arrow(values), mask=mask)))


def structs(columns: list[pl.Series], null: npt.NDArray[np.bool_]) -> pl.Series:
    """Columns as objects with their names as keys."""
    arrays, names = [_arrow(column) for column in columns], [column.name for column in columns]
    return pl.Series(pl.from_arrow(pa.StructArray.from_arrays(arrays, names, mask=_arrow(pl.Series(null)))))


def _arrow(column: pl.Series) -> pa.Array:
    return column.to_arrow(compat_level=pl.CompatLevel.newest())


def conform(frame: pl.LazyFrame) -> pl.LazyFrame:
    """`frame` with exactly the CONVERSATION columns: missing ones null, message fields filled up, order fixed."""
    have = frame.collect_schema()
    columns = []
    for name, dtype in CONVERSATION.items():
        if name not in have:
            columns.append(pl.lit(None, dtype).alias(name))
        elif dtype == MESSAGES and have[name] != MESSAGES:
            columns.append(_full_messages(name, have[name]))
        elif name == "score" and isinstance(have[name], pl.Struct):
            columns.append(pl.col(name))  # scorers may have added fields
        else:
            columns.append(pl.col(name).cast(dtype))
    return frame.select(columns)


def score_type(name: str) -> pl.DataType:
    """The type of a field of `score`."""
    return pl.String() if name in SCORE_TEXTS else pl.Float64()


def score_fields(frame: pl.DataFrame | pl.LazyFrame) -> list[str]:
    """The fields of `score` in a CONVERSATION frame."""
    dtype = frame.collect_schema()["score"]
    return [f.name for f in dtype.fields] if isinstance(dtype, pl.Struct) else []


def with_score_fields(frame: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """`frame` with just these fields in `score`, null where it had none: parts with other scores fit into one file."""
    have = score_fields(frame)
    if have == list(names):
        return frame
    fields = [
        pl.col("score").struct.field(name) if name in have else pl.lit(None, score_type(name)).alias(name)
        for name in names
    ]
    return frame.with_columns(score=pl.struct(fields))


def with_scores(frame: pl.LazyFrame, scores: Mapping[str, pl.Expr]) -> pl.LazyFrame:
    """`frame` with these fields in its `score` struct; the others stay as they are."""
    old = [pl.col("score").struct.field(name) for name in score_fields(frame) if name not in scores]
    new = [value.cast(score_type(name)).alias(name) for name, value in scores.items()]
    return frame.with_columns(score=pl.struct(*old, *new))


def _full_messages(name: str, dtype: pl.DataType) -> pl.Expr:
    inner = dtype.inner if isinstance(dtype, pl.List) else None
    have = {f.name for f in inner.fields} if isinstance(inner, pl.Struct) else set()
    fields = [
        pl.element().struct.field(f.name).cast(f.dtype) if f.name in have else pl.lit(None, f.dtype).alias(f.name)
        for f in MESSAGE.fields
    ]
    return pl.col(name).list.eval(pl.struct(fields)).cast(MESSAGES)


def json_string(text: pl.Expr) -> pl.Expr:
    """A text as JSON: what a string may not hold literally is escaped in the shortest form of RFC 8259."""
    encoded = pl.struct(text.alias("t")).struct.json_encode()
    return pl.when(text.is_not_null()).then(encoded.str.strip_prefix('{"t":').str.strip_suffix("}"))


def _json_object(fields: dict[str, pl.Expr]) -> pl.Expr:
    """Null fields are left out, so that a new optional field changes no existing hash."""
    pairs = [pl.concat_str(pl.lit(f'"{name}":'), value) for name, value in fields.items()]
    return pl.concat_str(pl.lit("{"), pl.concat_str(pairs, separator=",", ignore_nulls=True), pl.lit("}"))


def _json_value(value: pl.Expr, dtype: Any) -> pl.Expr:
    return json_string(value) if dtype == pl.String else value.cast(pl.String)


def messages_json(column: str) -> pl.Expr:
    """The messages of a column as canonical JSON text: fixed key order, no spaces, null fields left out."""
    fields = {f.name: _json_value(pl.element().struct.field(f.name), f.dtype) for f in MESSAGE.fields}
    inner = pl.col(column).list.eval(_json_object(fields)).list.join(",")
    return pl.when(pl.col(column).is_not_null()).then(pl.concat_str(pl.lit("["), inner, pl.lit("]")))


def canonical_json() -> pl.Expr:
    """What a conversation says, as canonical JSON text: content only, no row id, score, source or extra."""
    return _json_object(
        {
            name: messages_json(name)
            if CONVERSATION[name] == MESSAGES
            else _json_value(pl.col(name), CONVERSATION[name])
            for name in _CONTENT
        }
    )


def content_hashes(canonical: pl.Series) -> pl.Series:
    """128-bit BLAKE2b of each canonical JSON text, as 32 hex digits; the same on every machine and version."""
    texts = canonical.cast(pl.Binary).to_list()
    digests = [hashlib.blake2b(text, digest_size=16).hexdigest() for text in texts]
    return pl.Series("content_hash", digests, pl.String)


def with_content_hash(frame: pl.DataFrame) -> pl.DataFrame:
    """`frame` (CONVERSATION) with `content_hash` computed from the content."""
    same = _same_fields(frame)
    json = canonical_json() if same is None else pl.struct(same).struct.json_encode()
    return frame.with_columns(content_hashes(frame.select(json.alias("c"))["c"]))


def _same_fields(frame: pl.DataFrame) -> list[pl.Expr] | None:
    """The content without what no row has, where every row and message has all the rest, and that is texts.

    polars' own JSON of it is then the canonical one, at a third of the time. None where some have what others lack.
    """
    columns = []
    for name in (name for name in _CONTENT if frame[name].null_count() < len(frame)):
        column = frame[name]
        if column.dtype == MESSAGES and column.null_count() == 0:
            messages = column.explode(empty_as_null=False, keep_nulls=False)
            fields = [f for f in MESSAGE.fields if messages.struct.field(f.name).null_count() < len(messages)]
            whole = all(f.dtype == pl.String and not messages.struct.field(f.name).null_count() for f in fields)
            if not (fields and whole):
                return None
            columns.append(pl.col(name).list.eval(pl.struct(pl.element().struct.field(f.name) for f in fields)))
        elif column.dtype == pl.String and column.null_count() == 0:
            columns.append(pl.col(name))
        else:
            return None
    return columns or None
