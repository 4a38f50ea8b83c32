"""What the steps that write system prompts share: which messages the prompt is, whose language it should speak.

The system prompt of a conversation is the system messages it opens with, taken together; one that comes later is a
remark in the conversation and stays. Pretraining text has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import polars as pl

from qdata.rows.steps._texts import regrouped
from qdata.schema import MESSAGE, MESSAGES

LANGUAGES = ("zh", "en")
Text = str | Mapping[str, str]
Where = Literal["replace", "fill"]


def with_system(frame: pl.LazyFrame, text: pl.Expr, do: Where = "replace") -> pl.LazyFrame:
    """`frame` with `text` as the system prompt: of each conversation, or under `fill` of those that have none.

    Where `text` is null the row stays; where it is empty the prompt is taken away. A prompt that is white space only is
    none. Flags and name of a replaced prompt stay, and so does every other turn.
    """

    def made(both: pl.Series) -> pl.Series:
        lists, texts = both.struct.field("messages"), both.struct.field("text")
        flat = _flat(lists)
        mine = texts.is_not_null() & (lists.list.len() > 0)
        if do == "fill":
            said = flat.filter(pl.col("_opening") & (pl.col("content").fill_null("").str.strip_chars() != ""))
            mine &= ~pl.int_range(len(lists), eager=True).is_in(said["_row"].implode())
        wanted = pl.DataFrame({"_row": mine.arg_true(), "_text": texts.filter(mine)}).cast({"_row": pl.Int64})
        old = flat.filter("_opening").unique("_row", keep="first").drop("role", "content", "reasoning", "tool_calls")
        new = wanted.filter(pl.col("_text") != "").join(old, on="_row", how="left")
        opened = new.with_columns(role=pl.lit("system"), content="_text")
        for name in ("reasoning", "tool_calls"):
            opened = opened.with_columns(pl.lit(None, pl.String).alias(name))
        kept = flat.filter(~(pl.col("_opening") & mine.gather(flat["_row"])))
        return _lists([opened, kept], lists)

    both = pl.struct("messages", text=text)
    return frame.with_columns(messages=both.map_batches(made, return_dtype=MESSAGES))


def without() -> pl.Expr:
    """The messages without the system prompt."""
    return pl.col("messages").map_batches(
        lambda lists: _lists([_flat(lists).filter(~pl.col("_opening"))], lists), return_dtype=MESSAGES
    )


def by_language(text: Text) -> pl.Expr:
    """A text, or of a text per language the one that the conversation is in."""
    if isinstance(text, str):
        return pl.lit(text)
    return pl.when(language() == "zh").then(pl.lit(text["zh"])).otherwise(pl.lit(text["en"]))


def language() -> pl.Expr:
    """`zh` where the turns have more Chinese characters than Latin words, else `en`; the system prompt has no say."""

    def told(lists: pl.Series) -> pl.Series:
        said, content = _flat(lists).filter((pl.col("role") != "system").fill_null(True)), pl.col("content").str
        more = content.count_matches(r"\p{Han}").cast(pl.Int64) - content.count_matches(r"\p{Latin}+").cast(pl.Int64)
        chinese = said.group_by("_row").agg(more.sum().alias("more")).filter(pl.col("more") > 0)["_row"]
        rows = pl.select(pl.int_range(len(lists)).is_in(chinese.implode()).alias("zh"))
        return rows.select(pl.when("zh").then(pl.lit("zh")).otherwise(pl.lit("en")).alias("language")).to_series()

    return pl.col("messages").map_batches(told, return_dtype=pl.String)


def check(text: Text, what: str) -> None:
    """Raises ValueError for a text that cannot be a prompt: half the languages, none of it, or jinja to be run."""
    if not isinstance(text, str) and set(text) != set(LANGUAGES):
        raise ValueError(f"{what}: wanted a text for each of {', '.join(LANGUAGES)}, got {', '.join(text) or 'none'}")
    for one in [text] if isinstance(text, str) else text.values():
        if not one.strip():
            raise ValueError(f'{what}: an empty text; to have no system prompt at all say do = "drop"')
        if "{%" in one or "{#" in one:
            raise ValueError(
                f"{what}: holds jinja statements, which are not run here and would be trained as they stand; "
                f"write out what they make. Placeholders like {{{{name}}}} are filled"
            )


def _flat(lists: pl.Series) -> pl.DataFrame:
    """All messages, one behind the other; `_row` says whose, `_opening` whether they are of the system prompt."""
    lengths = lists.list.len().fill_null(0)
    rows = pl.int_range(len(lists), eager=True).repeat_by(lengths).explode(empty_as_null=False, keep_nulls=False)
    messages = lists.explode(empty_as_null=False, keep_nulls=False).struct.unnest().with_columns(_row=rows)
    talk = (pl.col("role") != "system").fill_null(True).cast(pl.UInt32).cum_sum()
    return messages.with_columns(_opening=talk.over("_row") == 0)


def _lists(messages: list[pl.DataFrame], of: pl.Series) -> pl.Series:
    """Messages with their `_row`, as lists again: what stands in the first frame comes first."""
    fields = [field.name for field in MESSAGE.fields]
    flat = pl.concat([one.select("_row", *fields) for one in messages]).sort("_row", maintain_order=True)
    lengths = pl.DataFrame({"_row": pl.int_range(len(of), eager=True)}).join(
        flat.group_by("_row").len(), on="_row", how="left", maintain_order="left"
    )["len"]
    return regrouped(lengths.fill_null(0), of.is_null(), flat.select(fields).to_struct("messages"))
