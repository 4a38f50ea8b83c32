"""The condition of `filter`: what it means, and where a mistake in it is."""

from __future__ import annotations

import itertools
import operator
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.test_schema import conversation, frame, turn

from qdata import schema
from qdata.rows.steps import _where
from qdata.rows.steps.filter import Filter

CHAT = [turn("system", "be"), turn("user", "who?"), turn("assistant", "I"), turn("user", "?"), turn("assistant", "me")]
ROW = conversation(CHAT, row="s/f#1", source="muice", label=True)


def holds(where: str, row: dict[str, Any] | None = None, **scores: Any) -> bool:
    made = schema.with_scores(frame([row or ROW]).lazy(), {name: pl.lit(value) for name, value in scores.items()})
    drop = Filter(where)(made).collect()["drop"][0]
    assert drop in (None, "filter.where")
    return drop is None


@pytest.mark.parametrize(
    "where",
    [
        "score.x < 0.3 and source = 'muice'",
        "score.x<.3 AND source=='muice'",
        'score.x <= 2e-1 and source = "muice"',
        "lang = 'zh' and score.lang = lang",
        "lang in ('en', 'zh') and not lang in ('en')",
        "lang not in ('en') and lang <> 'en'",
        "score.x is not null and score.never is null and tools is null",
        "not score.x is null",
        "(score.x > 1 or (source = 'muice'))",
        "source = 'x' and score.x > 1 or score.x > -1.5",
        "turns = 4 and answer.chars = 3 and system.chars = 2 and user.chars = 5 and tool.chars = 0",
        "system = 'be' and answer != 'I' and row = 's/f#1'",
        "label and label = true and not label = false",
        "score.x < score.y",
        "0.1 < score.x",
        "score.长度 = 3",
        "not not label",
        "source != 'it''s' and source != \"a\"\"b\"",
    ],
)
def test_what_holds(where: str) -> None:
    """Each of these is true of the row, and its opposite is not."""
    scores = {"x": 0.2, "y": 0.5, "lang": "zh", "长度": 3.0}
    assert holds(where, **scores)
    assert not holds(f"not ({where})", **scores)


def test_a_text_without_quotes_is_told() -> None:
    """Where a word is near no field."""
    with pytest.raises(ValueError, match=r"^column 10: no field is called 'zh'\. Known: .* A text stands in quotes\.$"):
        _where.parse("source = zh")


def test_what_is_unknown_is_not_kept() -> None:
    """A missing score is neither below nor not below; `or` may still make it true."""
    for where in ("score.x < 1", "not score.x < 1", "score.x != 1", "score.x in (1)", "score.x not in (1)"):
        assert not holds(where)
        assert not holds(where, x=None)
        assert holds(f"{where} or score.x is null")


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        ("score.x", "column 8: wanted a comparison after score.x, got the end"),
        ("score.x and label", "column 9: wanted a comparison after score.x, got and"),
        ("score.x < 1 label", "column 13: wanted and, or, or the end, got label"),
        ("score.x < 'a'", "column 11: score.x is a number; wanted a number, got 'a'"),
        ("source < 'a'", "column 8: a text is compared with = or !=, got <"),
        ("source in 'a'", "column 11: wanted ( after in, got 'a'"),
        ("source in ('a' 'b')", "column 16: wanted , or ), got 'b'"),
        ("source in (1)", "column 12: source is a text; wanted a text, got 1"),
        ("source in ()", "column 12: wanted a number or a 'text', got )"),
        ("(label", "column 7: wanted and, or, or ), got the end"),
        ("label is 3", "column 10: wanted null, got 3"),
        ("label = null", "column 9: nothing equals null; wanted `is null` or `is not null`, got null"),
        ("", "column 1: wanted a number or a 'text', or a field, got the end"),
        ("  = 1", "column 3: wanted a number or a 'text', or a field, got ="),
        ("source = 'a", "column 10: this text does not end: 'a"),
        ("source ~ 'a'", "column 8: not understood: ~ 'a'"),
        ("score.x < 1.2.3", "column 11: not understood: 1.2.3"),
        ("sorce = 'a'", "column 1: no field is called 'sorce'. Did you mean 'source'? A score is written score.NAME."),
        (
            "label or score.a.b = 1",
            "column 10: no field is called 'score.a.b'.",
        ),
        ("not " * 60 + "label", "column 201: wanted at most 50 brackets or `not` inside each other, got not"),
        ("__import__('os')", "column 1: no field is called '__import__'"),
    ],
)
def test_a_mistake_is_told_with_its_place(where: str, wanted: str) -> None:
    """The column counts from 1, and what was wanted is said."""
    with pytest.raises(ValueError) as caught:
        Filter(where)
    assert str(caught.value).startswith(wanted)


def test_the_scores_it_looks_at() -> None:
    """For the check that some row has them."""
    assert Filter("score.a < 1 or lang = 'x' or not score.b is null").reads == {"a", "lang", "b"}
    assert Filter("source = 'score.c'").reads == set()


CONDITIONS: st.SearchStrategy[Any] = st.recursive(
    st.tuples(st.sampled_from(["<", "<=", "=", "!=", ">", ">="]), st.sampled_from("xyz"), st.integers(-1, 1)),
    lambda inner: st.one_of(st.tuples(st.just("not"), inner), st.tuples(st.sampled_from(["and", "or"]), inner, inner)),
    max_leaves=8,
)
COMPARE = {"<": operator.lt, "<=": operator.le, "=": operator.eq, "!=": operator.ne, ">": operator.gt,
           ">=": operator.ge}  # fmt: skip


def text_of(made: Any) -> str:
    """The condition, with no more brackets than it needs: `not` binds before `and`, `and` before `or`."""
    if made[0] == "not":
        return f"not {text_of(made[1])}" if made[1][0] not in ("and", "or") else f"not ({text_of(made[1])})"
    if made[0] in ("and", "or"):
        sides = [f"({text_of(s)})" if made[0] == "and" and s[0] == "or" else text_of(s) for s in made[1:]]
        return f" {made[0]} ".join(sides)
    return f"score.{made[1]} {made[0]} {made[2]}"


def slow(made: Any, scores: dict[str, float | None]) -> bool | None:
    """Three-valued logic, by plain Python."""
    if made[0] == "not":
        inner = slow(made[1], scores)
        return None if inner is None else not inner
    if made[0] in ("and", "or"):
        sides = [slow(side, scores) for side in made[1:]]
        decides = made[0] == "or"
        return decides if decides in sides else None if None in sides else not decides
    value = scores[made[1]]
    return None if value is None else bool(COMPARE[made[0]](value, made[2]))


@settings(max_examples=150, deadline=None)
@given(CONDITIONS)
def test_it_means_what_three_valued_logic_means(made: Any) -> None:
    """For all values of three scores, null among them."""
    every = list(itertools.product([None, -1.0, 0.0, 1.0], repeat=3))
    rows = pl.DataFrame({"score": [dict(zip("xyz", values, strict=True)) for values in every]})
    condition, _ = _where.parse(text_of(made), "xyz")
    found = rows.select(found=condition)["found"].to_list()
    assert found == [slow(made, dict(zip("xyz", values, strict=True))) for values in every]


@settings(max_examples=200, deadline=None)
@given(st.text("score.xnotandri=<>!'\"(),0123456789 \n~é好", max_size=30))
def test_any_text_is_a_condition_or_a_mistake(where: str) -> None:
    """Nothing else is ever raised, and what is a condition can be asked."""
    try:
        step = Filter(where)
    except ValueError as error:
        assert str(error).startswith("column ")
        return
    step(frame([ROW]).lazy()).collect()
