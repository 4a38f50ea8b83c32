"""One part becomes CONVERSATION rows: container → dialect → the common shape, with row ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import polars as pl

from qdata import plugin, schema
from qdata.errors import QdataError
from qdata.rows import exact, formats, kinds, scores, source
from qdata.rows.columns import columns
from qdata.rows.formats._turns import SECOND_ANSWERS, VERDICTS, verdict_of
from qdata.rows.parts import Bad, Part, short


class Loaded(NamedTuple):
    """The rows of a part in the CONVERSATION schema (without content_hash), and those that cannot be one."""

    frame: pl.DataFrame
    bad: list[Bad]


def load(part: Part, dialect: str, rename: Mapping[str, str] | None = None, character: str | None = None) -> Loaded:
    """Reads a part. Order is kept; every row of the part is either in the frame or in `bad`.

    `character` says who answers in rows that hold talks of characters. Raises QdataError where a dialect must be told.
    """
    form = plugin.find(formats, dialect)
    everything = source.read(part)
    rows, shown = _set_aside(everything, form, rename or {})
    raw, misfits = columns(rows, {**form.columns, "score": pl.Float64}, rename)
    misfits += shown
    rest, found = scores.taken(raw["extra"], as_text=source.is_table(part.container))
    raw = raw.with_columns(rest)
    if character is not None and "character" in form.columns:
        raw = raw.with_columns(pl.col("character").fill_null(character))
    if hasattr(form, "lacks") and (why := form.lacks(raw)) is not None:
        raise QdataError(f"{part.label}: {why}")
    frame = form.read(raw.lazy()).with_columns(
        row=pl.lit(f"{part.source}/{part.relative}#") + pl.col("ordinal").cast(pl.String),
        source=pl.lit(part.source),
        score=pl.when(pl.col("score").is_not_null()).then(pl.struct(given=pl.col("score"))),
    )
    if found:
        frame = schema.with_scores(frame, {name: pl.lit(column) for name, column in found.items()})
    tools = pl.when(pl.col("tools") != "").then(pl.col("tools"))  # "": an empty cell of a table
    shaped = schema.conform(frame).with_columns(tools=tools).collect()
    reasons = shaped.select(pl.coalesce(_fault_of_kind(kinds.kind(form)), _fault()).alias("fault"))["fault"]
    if hasattr(form, "fault"):  # what only the dialect can see, before its columns become messages
        reasons = raw.select(fault=pl.coalesce(form.fault(), pl.lit(reasons)))["fault"]
    if reasons.null_count() == len(reasons):
        return Loaded(shaped, [*rows.bad, *misfits])
    faulty = [(i, reason) for i, reason in enumerate(reasons) if reason is not None]
    by_ordinal = dict(zip(rows.ordinals, rows.rows, strict=True))
    ordinals = raw["ordinal"]
    faults = [
        Bad(ordinals[i], _told(reason, shaped, i), exact.text(by_ordinal[ordinals[i]]), _CODES.get(reason, "misfit"))
        for i, reason in faulty
    ]
    return Loaded(shaped.filter(reasons.is_null()), sorted([*rows.bad, *misfits, *faults]))


def _told(reason: str, frame: pl.DataFrame, index: int) -> str:
    """The reason with what was seen where, where it names a kind of mistake only."""
    if reason != _UNKNOWN_ROLE:
        return reason
    roles = [m and m["role"] for m in frame["messages"][index]]
    at = next(i for i, role in enumerate(roles) if role not in schema.ROLES)
    seen = "no role; wanted one of" if roles[at] is None else f"role {short(roles[at])} is not one of"
    return f"message {at}: {seen} {', '.join(schema.ROLES)}"


_UNKNOWN_ROLE = "unknown role"
_CODES = {
    _UNKNOWN_ROLE: "unknown_role",
    "no messages": "no_messages",
    "an empty list of messages": "no_messages",
    "the answer is null or missing": "answer_missing",
    "the chosen answer is null or missing": "answer_missing",
    "the rejected answer is null or missing": "answer_missing",
    "no label; wanted true or false": "label_missing",
    "a message without content": "content_missing",
}


def _fault() -> pl.Expr:
    """What makes a row no conversation at all, in words, or null. Quality is for the steps to judge, not for us."""
    field = pl.element().struct.field
    role, content = field("role"), field("content")
    said = content.is_not_null() | field("tool_calls").is_not_null()
    messages = pl.col("messages")

    def every(good: pl.Expr) -> pl.Expr:
        return messages.list.eval(good.fill_null(False)).list.all()

    return (
        pl.when(messages.is_null() & pl.col("text").is_null())
        .then(pl.lit("no messages"))
        .when(messages.list.len() == 0)
        .then(pl.lit("an empty list of messages"))
        .when(~every(role.is_in(list(schema.ROLES))))
        .then(pl.lit(_UNKNOWN_ROLE))
        .when(~every((role != "assistant") | said))
        .then(pl.lit("the answer is null or missing"))
        .when(~every(content.is_not_null() | (role == "assistant")))
        .then(pl.lit("a message without content"))
    )


def _fault_of_kind(kind: str) -> pl.Expr:
    """As `_fault`, of the columns that only rows of this kind have."""
    if kind == "judged":
        return pl.when(pl.col("label").is_null()).then(pl.lit("no label; wanted true or false"))
    if kind != "preference":
        return pl.lit(None, pl.String)
    field = pl.element().struct.field
    said = field("content").is_not_null() | field("tool_calls").is_not_null()
    wrong = []
    for name in ("chosen", "rejected"):
        turns = pl.col(name)
        wrong += [
            pl.when(turns.list.len().fill_null(0) == 0).then(pl.lit(f"the {name} answer is null or missing")),
            pl.when(~turns.list.eval((field("role") == "assistant").fill_null(False)).list.all()).then(
                pl.lit(f"{name}: a turn that is not the assistant's; all of an answer is trained")
            ),
            pl.when(~turns.list.eval(said.fill_null(False)).list.all()).then(
                pl.lit(f"the {name} answer is null or missing")
            ),
        ]
    return pl.coalesce(wrong)


_MEDIA = {"images": "image", "videos": "video", "audios": "audio"}
_TOLD = {
    "multimodal": "pictures, videos and sound are not read, and without them the text means something else",
    "judged": "a second answer or a verdict in a row of chat; as chat, what somebody rejected would be imitated "
    "(--map {0}= reads the row without {0})",
}


def _set_aside(rows: source.Rows, form: Any, rename: Mapping[str, str]) -> tuple[source.Rows, list[Bad]]:
    """Rows that are what they look like, and those with something beside it that makes their text another matter.

    `images`, `videos`, `audios` that are not empty do so; one under `image` … only with its `<image>` in the text;
    where a row should hold one answer, a second one, or whether it was good.
    """
    suspects = {*_MEDIA, *_MEDIA.values()}
    if kinds.kind(form) in ("chat", "text"):
        suspects |= {*SECOND_ANSWERS, *VERDICTS} - rename.keys()  # what the user maps, or leaves unread, is no accident
    suspects -= {*rename.values(), *form.columns}
    if all(suspects.isdisjoint(row) for row in rows.rows):
        return rows, []
    kept: list[tuple[int, dict[str, Any]]] = []
    bad = []
    for ordinal, row in zip(rows.ordinals, rows.rows, strict=True):
        found = [(name, why) for name in row if name in suspects and (why := _matters(row, name))]
        if found:
            name, code = found[0]
            bad.append(Bad(ordinal, f"{name}: {_TOLD[code].format(name)}", exact.text(row), code))
        else:
            kept.append((ordinal, row))
    return source.Rows([ordinal for ordinal, _ in kept], [row for _, row in kept], rows.bad), bad


def _matters(row: dict[str, Any], name: str) -> str | None:
    """The kind of mistake that reading a row without this column would be, or None."""
    if name in VERDICTS:
        return "judged" if verdict_of(row[name]) is not None else None
    if name in SECOND_ANSWERS:
        return "judged" if row[name] is not None else None
    shown = bool(row[name]) and (name in _MEDIA or f"<{name}>" in exact.text(row))
    return "multimodal" if shown else None


def unreadable(part: Part, bad: list[Bad]) -> pl.DataFrame:
    """Bad rows as dropped CONVERSATION rows; `extra` keeps their raw text, which is hashed, and the reason in words."""
    frame = pl.DataFrame(
        {
            "row": [f"{part.source}/{part.relative}#{b.ordinal}" for b in bad],
            "content_hash": schema.content_hashes(pl.Series([b.raw for b in bad], dtype=pl.String)),
            "source": [part.source] * len(bad),
            "drop": [f"read.{b.code}" for b in bad],
            "extra": [exact.text({"raw": b.raw, "reason": b.reason}) for b in bad],
        },
        schema=dict.fromkeys(("row", "content_hash", "source", "drop", "extra"), pl.String),
    )
    return schema.conform(frame.lazy()).collect()
