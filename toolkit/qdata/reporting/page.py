"""The report as one HTML file: no network, no script, nothing of a row can break out; equal facts give equal bytes."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from importlib import resources
from itertools import groupby
from typing import Any

import jinja2
import orjson
from markupsafe import Markup

from qdata.reporting import svg
from qdata.reporting.difference import Segment, visible
from qdata.reporting.facts import Facts
from qdata.reporting.measures import Distribution, number
from qdata.rows.scores import QUANTILES


def html(facts: Facts) -> str:
    """The page."""
    return _template().render(
        facts=facts,
        pictures=[one for one in facts.distributions if not _is_constant(one)],
        constants=[one for one in facts.distributions if _is_constant(one)],
        quantiles=list(QUANTILES),
        bar=_bar,
        histogram=_histogram,
    )


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(resources.files("qdata") / "reporting")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"visible": visible, "number": number, "share": _share, "json": _json, "by_turn": _by_turn}
    return environment.get_template("page.html.jinja")


def _bar(parts: Sequence[tuple[str, int]], whole: int) -> Markup:
    return Markup(svg.bar(parts, whole))


def _histogram(one: Distribution) -> Markup:
    return Markup(svg.histogram(one))


def _is_constant(one: Distribution) -> bool:
    """All rows have one value: a line of text, no picture."""
    values = {quantiles[end] for quantiles in one.quantiles.values() if quantiles for end in ("min", "max")}
    return len(values) == 1


def _share(part: float, whole: float) -> str:
    """`1.0%`, and `<0.1%` of what is more than nothing."""
    if not part or not whole:
        return "0%"
    return f"{part / whole:.1%}" if part / whole >= 0.0005 else "<0.1%"


def _by_turn(segment: Segment) -> Iterator[tuple[bool, str]]:
    """The text of a segment in stretches: who speaks, and what is said. A line end that changed is shown as such."""
    for turn, tokens in groupby(segment.tokens, lambda token: token.turn):
        texts = [token.text for token in tokens]
        if turn:
            yield from ((True, one) for one in texts)
        else:
            said = "".join(texts)
            yield False, said.replace("\n", "⏎\n") if segment.operation in ("deleted", "inserted") else said


def _json(value: Any) -> str:
    return orjson.dumps(value).decode() if value else ""
