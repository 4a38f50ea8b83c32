"""`score.repetition < 0.3 and source = 'muice'`: a condition on rows, read into a polars expression.

    any    = all { "or" all }
    all    = one { "and" one }
    one    = "not" one | "(" any ")" | value test
    test   = ( "=" "!=" "<" "<=" ">" ">=" ) value | ["not"] "in" "(" literal { "," literal } ")" | "is" ["not"] "null"
    value  = literal | field

Nothing of it is ever run as Python. As in SQL a comparison with null is unknown, and what is unknown is not kept.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import polars as pl

from qdata.rows.steps._scores import answers, characters, said
from qdata.schema import SCORE_TEXTS, score_type

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_WORDS = {"and", "or", "not", "in", "is", "null", "true", "false"}
_TOKEN = re.compile(
    r"\s*(?:(?P<number>-?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))"
    r"|(?P<text>'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\")|(?P<name>[^\W\d]\w*(?:\.\w+)*)"
    r"|(?P<sign><=|>=|!=|<>|==|[=<>(),]))"
)
_DEEPEST = 50


def _texts() -> dict[str, pl.Expr]:
    return {"system": said("system"), "user": said("user"), "answer": answers(), "tool": said("tool")}


def _turns() -> pl.Expr:
    is_turn = pl.element().struct.field("role") != "system"
    return pl.col("messages").list.eval(is_turn).list.sum()


# What can be asked of a row besides its scores: name → (kind, expression).
FIELDS: dict[str, tuple[str, pl.Expr]] = {
    "row": ("text", pl.col("row")),
    "source": ("text", pl.col("source")),
    "label": ("truth", pl.col("label")),
    "tools": ("text", pl.col("tools")),
    "turns": ("number", _turns()),
    **{name: ("text", text) for name, text in _texts().items()},
    **{f"{role}.chars": ("number", characters(role)) for role in ("system", "user", "tool")},
    "answer.chars": ("number", characters("assistant") + pl.col("text").str.len_chars().fill_null(0)),
}


class _Token(NamedTuple):
    kind: str  # number, text, name, sign, word, end
    said: str
    column: int  # from 1


class _Value(NamedTuple):
    kind: str  # number, text, truth
    expr: pl.Expr
    token: _Token


def parse(where: str, scores: Collection[str] | None = None) -> tuple[pl.Expr, frozenset[str]]:
    """The condition, and the names of the scores it asks for.

    `scores`: the fields that `score` has; any other is null. Raises ValueError that names the column.
    """
    reader = _Reader(where, scores)
    expr = reader.any()
    reader.expect("", "and, or, or the end")
    return expr, frozenset(reader.read)


@dataclass
class _Reader:
    where: str
    scores: Collection[str] | None
    read: set[str] = field(default_factory=set)
    at: int = 0
    depth: int = 0

    def __post_init__(self) -> None:
        self.tokens = _tokens(self.where)

    @property
    def next(self) -> _Token:
        return self.tokens[self.at]

    def take(self, *said: str) -> bool:
        """Steps over the next token if it is one of these signs or words."""
        found = self.next.kind in ("sign", "word") and self.next.said in said
        self.at += found
        return found

    def expect(self, said: str, wanted: str) -> None:
        if self.next.said != said or self.next.kind not in ("sign", "word", "end"):
            raise _error(self.next, f"wanted {wanted}")
        self.at += 1

    def any(self) -> pl.Expr:
        expr = self.all()
        while self.take("or"):
            expr = expr | self.all()
        return expr

    def all(self) -> pl.Expr:
        expr = self.one()
        while self.take("and"):
            expr = expr & self.one()
        return expr

    def one(self) -> pl.Expr:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise _error(self.next, f"wanted at most {_DEEPEST} brackets or `not` inside each other")
        if self.take("not"):
            expr = ~self.one()
        elif self.take("("):
            expr = self.any()
            self.expect(")", "and, or, or )")
        else:
            expr = self.test(self.value())
        self.depth -= 1
        return expr

    def test(self, left: _Value) -> pl.Expr:
        sign = self.next
        if self.take(*_COMPARE):
            right = self.value()
            if left.kind != right.kind:
                raise _error(right.token, f"{left.token.said} is a {left.kind}; wanted a {left.kind}")
            if left.kind != "number" and sign.said not in ("=", "!="):
                raise _error(sign, f"a {left.kind} is compared with = or !=")
            compared: pl.Expr = _COMPARE[sign.said](left.expr, right.expr)
            return compared
        if self.take("is"):
            negated = self.take("not")
            self.expect("null", "null")
            return left.expr.is_not_null() if negated else left.expr.is_null()
        negated = self.take("not")
        if self.take("in"):
            found = self.among(left)
            return ~found if negated else found
        if left.kind == "truth" and not negated:
            return left.expr
        raise _error(self.next, f"wanted a comparison after {left.token.said}")

    def among(self, left: _Value) -> pl.Expr:
        self.expect("(", "( after in")
        found = pl.lit(False)
        while True:
            one = self.value(literal=True)
            if one.kind != left.kind:
                raise _error(one.token, f"{left.token.said} is a {left.kind}; wanted a {left.kind}")
            found = found | (left.expr == one.expr)
            if self.take(")"):
                return found
            self.expect(",", ", or )")

    def value(self, literal: bool = False) -> _Value:
        token = self.next
        self.at += 1
        if token.kind == "number":
            return _Value("number", pl.lit(float(token.said)), token)
        if token.kind == "text":
            mark = token.said[0]
            return _Value("text", pl.lit(token.said[1:-1].replace(2 * mark, mark)), token)
        if token.said in ("true", "false") and token.kind == "word":
            return _Value("truth", pl.lit(token.said == "true"), token)
        if token.said == "null" and token.kind == "word":
            raise _error(token, "nothing equals null; wanted `is null` or `is not null`")
        if token.kind != "name" or literal:
            raise _error(token, "wanted a number or a 'text'" + ("" if literal else ", or a field"))
        return self.field(token)

    def field(self, token: _Token) -> _Value:
        name = f"score.{token.said}" if token.said in SCORE_TEXTS else token.said
        if name in FIELDS:
            return _Value(*FIELDS[name], token)
        score = name.removeprefix("score.")
        if score == name or "." in score:
            raise ValueError(f"column {token.column}: no field is called {name!r}.{_near(name)}")
        self.read.add(score)
        is_there = self.scores is None or score in self.scores
        expr = pl.col("score").struct.field(score) if is_there else pl.lit(None, score_type(score))
        return _Value("text" if score in SCORE_TEXTS else "number", expr, token)


def _tokens(where: str) -> list[_Token]:
    tokens, at = [], 0
    while where[at:].strip():
        column = at + len(where[at:]) - len(where[at:].lstrip()) + 1
        found = _TOKEN.match(where, at)
        if found is None:
            rest = where[column - 1 :]
            wanted = "this text does not end" if rest[0] in "'\"" else "not understood"
            raise ValueError(f"column {column}: {wanted}: {_short(rest)}")
        at, kind = found.end(), str(found.lastgroup)
        said = found[kind]
        if kind == "name" and said.lower() in _WORDS:
            kind, said = "word", said.lower()
        tokens.append(_Token(kind, {"==": "=", "<>": "!="}.get(said, said) if kind == "sign" else said, column))
    return [*tokens, _Token("end", "", len(where) + 1)]


def _error(token: _Token, wanted: str) -> ValueError:
    return ValueError(f"column {token.column}: {wanted}, got {_short(token.said) or 'the end'}")


def _short(said: str) -> str:
    return said if len(said) <= 30 else said[:29] + "…"


def _near(name: str) -> str:
    near = difflib.get_close_matches(name, [*FIELDS, "score.given", *SCORE_TEXTS], n=2, cutoff=0.6)
    told = f" Did you mean {' or '.join(map(repr, near))}?" if near else f" Known: {', '.join(FIELDS)}, lang."
    return f"{told} A score is written score.NAME.{'' if near else ' A text stands in quotes.'}"
