"""When two rows are the same: a hash of the part of them that is looked at."""

from __future__ import annotations

import hashlib
from typing import Literal

import polars as pl

from qdata.schema import MESSAGE, MESSAGES, canonical_json

On = Literal["prompt", "first_turn", "answer", "conversation"]
Normalize = Literal["strip", "casefold", "whitespace"]
_TRAINING = ("train", "weight")  # how a turn is trained is nothing that it says


def with_key(frame: pl.LazyFrame, on: On, system: bool, normalize: tuple[Normalize, ...]) -> pl.LazyFrame:
    """`frame` with `key`: 128 bits of BLAKE2b of what `on` names; null where a row has no such thing.

    `system`: system prompts are looked at too. `normalize`: strip = no white space at both ends of texts, whitespace =
    a run of it is one space, casefold = no capitals.
    """
    null = pl.lit(None)
    pair, answer = pl.col("chosen").is_not_null(), on in ("answer", "conversation")
    messages = pl.when(pair & (on == "prompt")).then(_turns("messages", "conversation", system, normalize))
    seen = frame.select(
        messages=messages.otherwise(_turns("messages", on, system, normalize)),
        tools=null.cast(pl.String) if on == "answer" else pl.col("tools"),
        chosen=_turns("chosen", on, system, normalize) if answer else null.cast(MESSAGES),
        rejected=_turns("rejected", on, system, normalize) if on == "conversation" else null.cast(MESSAGES),
        label=pl.col("label") if on == "conversation" else null.cast(pl.Boolean),
        text=_normal(pl.col("text"), normalize) if on == "conversation" else null.cast(pl.String),
    )
    some = pl.any_horizontal(pl.col("messages", "chosen").list.len() > 0, pl.col("text").is_not_null())
    said = seen.select(key=pl.when(some.fill_null(False)).then(canonical_json()))
    casefold = "casefold" in normalize

    def hashed(texts: pl.Series) -> pl.Series:
        words = (t if t is None or not casefold else t.casefold() for t in texts.to_list())
        digests = [None if t is None else hashlib.blake2b(t.encode(), digest_size=16).digest() for t in words]
        return pl.Series(texts.name, digests, pl.Binary)

    key = pl.col("key").map_batches(hashed, return_dtype=pl.Binary)
    return pl.concat([frame, said.select(key)], how="horizontal")


def answer_chars() -> pl.Expr:
    """Characters of what is to be learned: turns of the assistant, the chosen answer, pretraining text."""
    field = pl.element().struct.field
    lengths = pl.when(field("role") == "assistant").then(field("content").str.len_chars())
    said = [pl.col(name).list.eval(lengths).list.sum() for name in ("messages", "chosen")]
    return pl.sum_horizontal(*said, pl.col("text").str.len_chars()).cast(pl.Int64)


def _turns(column: str, on: On, system: bool, normalize: tuple[Normalize, ...]) -> pl.Expr:
    """The turns of a list that `on` names, with normal texts."""
    field = pl.element().struct.field
    role = field("role")
    is_system, is_answer = (role == name for name in ("system", "assistant"))
    to_come = is_answer.cast(pl.UInt32).sum() - is_answer.cast(pl.UInt32).cum_sum()
    asked = (to_come > 0) | ~is_answer.any()
    wanted = {
        "prompt": asked & ~is_system,
        "first_turn": (role == "user") & ((role == "user").cum_sum() == 1),
        "answer": is_answer,
        "conversation": ~is_system,
    }[on]
    if system and on != "answer":
        wanted = wanted | is_system
    fields = [
        pl.lit(None, f.dtype).alias(f.name)
        if f.name in _TRAINING
        else _normal(field(f.name), normalize)
        if f.name in ("content", "reasoning")
        else field(f.name)
        for f in MESSAGE.fields
    ]
    return pl.col(column).list.eval(pl.struct(fields).filter(wanted.fill_null(False))).cast(MESSAGES)


def _normal(text: pl.Expr, normalize: tuple[Normalize, ...]) -> pl.Expr:
    if "whitespace" in normalize:
        text = text.str.replace_all(r"\s+", " ")
    return text.str.strip_chars() if "strip" in normalize else text
