"""What the steps that write system prompts share: which messages the prompt is, whose language it should speak.

The system prompt of a conversation is the system messages it opens with, taken together; one that comes later is a
remark in the conversation and stays. Pretraining text has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import polars as pl

from qdata.rows.steps._turns import role
from qdata.schema import MESSAGE, MESSAGES

LANGUAGES = ("zh", "en")
Text = str | Mapping[str, str]
Where = Literal["replace", "fill"]


def with_system(frame: pl.LazyFrame, text: pl.Expr, do: Where = "replace") -> pl.LazyFrame:
    """`frame` with `text` as the system prompt: of each conversation, or under `fill` of those that have none.

    Where `text` is null the row stays; where it is empty the prompt is taken away. A prompt that is white space only is
    none. Flags and name of a replaced prompt stay, and so does every other turn.
    """
    opening, messages = _opening(), pl.col("messages")
    old = messages.list.eval(pl.element().filter(opening)).list.first().struct
    kept = {name: old.field(name) for name in ("name", "train", "weight")}
    nothing = {name: pl.lit(None, pl.String) for name in ("reasoning", "tool_calls")}
    fields = {"role": pl.lit("system"), "content": text} | nothing | kept
    new = pl.concat_list(pl.struct([fields[f.name].alias(f.name) for f in MESSAGE.fields]))
    made = pl.when(text == "").then(without()).otherwise(pl.concat_list(new, without())).cast(MESSAGES)
    mine = text.is_not_null() & (messages.list.len() > 0)
    if do == "fill":
        said = pl.element().struct.field("content").fill_null("").str.strip_chars() != ""
        mine &= ~messages.list.eval(opening & said).list.any()
    return frame.with_columns(messages=pl.when(mine).then(made).otherwise(messages))


def without() -> pl.Expr:
    """The messages without the system prompt."""
    return pl.col("messages").list.eval(pl.element().filter(~_opening()))


def by_language(text: Text) -> pl.Expr:
    """A text, or of a text per language the one that the conversation is in."""
    if isinstance(text, str):
        return pl.lit(text)
    return pl.when(language() == "zh").then(pl.lit(text["zh"])).otherwise(pl.lit(text["en"]))


def language() -> pl.Expr:
    """`zh` where the turns have more Chinese characters than Latin words, else `en`; the system prompt has no say."""
    said = pl.when(role() != "system").then(pl.element().struct.field("content")).fill_null("")
    text = pl.col("messages").list.eval(said).list.join("\n")
    chinese = text.str.count_matches(r"\p{Han}") > text.str.count_matches(r"\p{Latin}+")
    return pl.when(chinese.fill_null(False)).then(pl.lit("zh")).otherwise(pl.lit("en"))


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


def _opening() -> pl.Expr:
    """Inside `list.eval`: whether a message is one of the system messages a conversation opens with."""
    return (role() != "system").fill_null(True).cast(pl.UInt32).cum_sum() == 0
