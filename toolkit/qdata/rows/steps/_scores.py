"""What scorers share: the texts they look at, words and n-grams of them, shares.

A scorer writes fields of its own into `score` and names them in `scores`; it neither edits nor drops, and what came
with the data (`score.given`) and other scorers' fields stay as they are. Null means that there is nothing to judge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import polars as pl

from qdata.schema import conform, with_scores

# Chinese and Japanese are written without spaces: a character counts as a word.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}"
WORD = rf"[{_UNSPACED}]|[\p{{L}}\p{{M}}\p{{N}}&&[^{_UNSPACED}]]+"


def scored(frame: pl.LazyFrame, stages: Sequence[Mapping[str, pl.Expr]], scores: Mapping[str, pl.Expr]) -> pl.LazyFrame:
    """`frame` with these scores; `stages` are columns that each stage and the scores can use by name, and are dropped.

    Without them an expression that is used in several places would be worked out in each.
    """
    out = frame
    for stage in stages:
        out = out.with_columns(**stage)
    return with_scores(out, scores).drop(name for stage in stages for name in stage)


def said(*roles: str) -> pl.Expr:
    """What these roles say in `messages`, a line break between turns; null where they say nothing."""
    return _joined("messages", roles)


def answers() -> pl.Expr:
    """What is to be learned: all turns of the assistant, the chosen answer of a pair, or the text of pretraining."""
    text = pl.col("text")
    parts = [_joined("messages", ("assistant",)), _joined("chosen", ("assistant",)), pl.when(text != "").then(text)]
    return _unless_empty(pl.concat_str(parts, separator="\n", ignore_nulls=True))


def everything_said() -> pl.Expr:
    """What user and assistant say, the chosen answer of a pair with it, or the text of pretraining; else null."""
    parts = [_joined("messages", ("user", "assistant")), _joined("chosen", ("assistant",)), pl.col("text")]
    return _unless_empty(pl.concat_str(parts, separator="\n", ignore_nulls=True))


def _joined(column: str, roles: tuple[str, ...]) -> pl.Expr:
    field = pl.element().struct.field
    mine = pl.when(field("role").is_in(list(roles))).then(field("content"))
    return _unless_empty(pl.col(column).list.eval(mine).list.join("\n", ignore_nulls=True))


def _unless_empty(text: pl.Expr) -> pl.Expr:
    return pl.when(text != "").then(text)


def characters(role: str) -> pl.Expr:
    """How many characters this role says in `messages`, and the chosen answer of a pair has; 0 for who is silent."""
    field = pl.element().struct.field
    lengths = pl.when(field("role") == role).then(field("content").str.len_chars())
    counts = [pl.col(column).list.eval(lengths).list.sum().fill_null(0) for column in ("messages", "chosen")]
    return counts[0] + counts[1]


def words(text: pl.Expr) -> pl.Expr:
    """The words of a text in small letters; of Chinese and Japanese the characters."""
    return text.str.to_lowercase().str.extract_all(WORD)


def lines(text: pl.Expr) -> pl.Expr:
    """The lines of a text that are not blank, without white space at their ends."""
    line = pl.element().str.strip_chars()
    return text.str.split("\n").list.eval(line.filter(line != ""))


def grams(words: pl.Expr, n: int) -> pl.Expr:
    """All n-grams of lists of words, as texts; none where there are fewer words."""

    def of_all(lists: pl.Series) -> pl.Series:
        # All words end to end: `list.eval` with shifts takes ten times as long.
        flat = pl.DataFrame({"row": pl.int_range(len(lists), eager=True), "word": lists})
        flat = flat.explode("word", empty_as_null=False, keep_nulls=False)
        following = [pl.col("word").shift(-k) for k in range(n)]
        within = pl.col("row") == pl.col("row").shift(1 - n)
        made = flat.select("row", within=within, gram=pl.concat_str(following, separator=" ")).filter("within")
        by_row = made.group_by("row", maintain_order=True).agg("gram")
        rows = pl.DataFrame({"row": pl.int_range(len(lists), eager=True), "is_null": lists.is_null()})
        joined = rows.join(by_row, on="row", how="left", maintain_order="left")
        none = pl.lit([], pl.List(pl.String))
        return joined.select(pl.when(~pl.col("is_null")).then(pl.col("gram").fill_null(none))).to_series()

    return words.map_batches(of_all, return_dtype=pl.List(pl.String))


def share(part: pl.Expr, whole: pl.Expr, *, empty: float | None = None) -> pl.Expr:
    """`part / whole`; of nothing `empty`, and null where either is null."""
    return pl.when(whole > 0).then(part / whole).when(whole == 0).then(pl.lit(empty, pl.Float64))


def per_text(function: Callable[[str], float], text: pl.Expr) -> pl.Expr:
    """A number for each text, by Python."""

    def judged(texts: pl.Series) -> pl.Series:
        made = [None if one is None else function(one) for one in texts.to_list()]
        return pl.Series(texts.name, made, pl.Float64)

    return text.map_batches(judged, return_dtype=pl.Float64)


def example(prompt: str, answer: str) -> pl.LazyFrame:
    """One question and its answer."""
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return conform(pl.LazyFrame({"content_hash": ["0"], "messages": [messages]}))


def shown(frame: pl.LazyFrame) -> dict[str, float | str]:
    """The scores of a one-row frame that are there, rounded to three digits."""
    scores = frame.select("score").collect()["score"][0]
    return {k: v if isinstance(v, str) else round(v, 3) for k, v in scores.items() if v is not None}
