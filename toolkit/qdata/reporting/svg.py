"""Bars and histograms as inline SVG: pure functions of numbers; the same numbers give the same bytes.

Colours are classes (`kept`, `edited`, `dropped`, `lost`, `axis`) that the page's style sheet knows, light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from qdata.reporting.measures import Distribution

_WIDTH, _HALF, _AXIS = 360, 66, 18  # of a histogram: pixels; a half is the space above or below the axis
_ROOM = 40  # from one number at the axis to the next
_THOUSANDS = ((10**9, "G"), (10**6, "M"), (10**3, "k"))


def bar(parts: Sequence[tuple[str, int]], whole: int) -> str:
    """One bar of several parts (class, number), each as wide as its share of `whole`; it fills the box it stands in."""
    rects, at = [], 0.0
    for name, number in parts:
        width = 1000 * number / whole if whole else 0.0
        if number:
            rects.append(f'<rect class="{name}" x="{_n(at)}" width="{_n(width)}" height="10"/>')
        at += width
    return (
        f'<svg class="bar" viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true">{"".join(rects)}</svg>'
    )


def histogram(one: Distribution) -> str:
    """Kept rows above the axis, dropped ones below it: each as shares of its own group, on one scale."""
    totals = [sum(one.kept), sum(one.dropped)]
    groups = [(name, counts) for name, counts in (("kept", one.kept), ("dropped", one.dropped)) if sum(counts)]
    highest = max(max(counts) / sum(counts) for _, counts in groups)
    top = 12 + (_HALF if totals[0] else 0)
    height = top + _AXIS + (_HALF if totals[1] else 0)
    width = _WIDTH / len(one.kept)
    gap = min(1.0, width / 6)
    rects = []
    for name, counts in groups:
        for number, count in enumerate(counts):
            tall = _HALF * count / sum(counts) / highest
            y = top - tall if name == "kept" else top + _AXIS
            low, up = label(one.edges[number]), label(one.edges[number + 1])
            facts = f'data-from="{one.edges[number]:.10g}" data-to="{one.edges[number + 1]:.10g}" data-rows="{count}"'
            hint = f"{low} to {up}: {count:,} {name} ({count / sum(counts):.1%})"
            rects.append(
                f'<rect class="{name}" x="{_n(number * width + gap / 2)}" y="{_n(y)}" width="{_n(width - gap)}" '
                f'height="{_n(tall)}" {facts}><title>{hint}</title></rect>'
            )
    texts = [
        f'<text x="{_n(x)}" y="{_n(top + 13)}" text-anchor="{anchor}">{escape(text)}</text>'
        for x, anchor, text in _ticks(one, width)
    ]
    line = f'<line class="axis" x1="0" x2="{_WIDTH}" y1="{_n(top)}" y2="{_n(top)}"/>'
    most = f'<text x="0" y="9">{highest:.0%}</text>' if highest >= 0.01 else ""
    return (
        f'<svg class="histogram" viewBox="0 0 {_WIDTH} {_n(height)}" role="img" aria-label="{escape(one.title)}" '
        f'data-distribution="{escape(one.name)}">{"".join(rects)}{line}{"".join(texts)}{most}</svg>'
    )


def label(value: float) -> str:
    """A number as short as an axis wants it.

    >>> [label(n) for n in (0, 0.25, 63, 1585, 20000, 1000000)]
    ['0', '0.25', '63', '1.6k', '20k', '1M']
    """
    for size, letter in _THOUSANDS:
        if abs(value) >= size:
            return f"{value / size:.2g}{letter}" if abs(value) < 10 * size else f"{value / size:.0f}{letter}"
    return f"{value:.4g}"


def _ticks(one: Distribution, width: float) -> list[tuple[float, str, str]]:
    """Where the axis has a number: at its ends, and between them where there is room."""
    last = len(one.edges) - 1
    ticks: list[tuple[float, str, str]] = [(0.0, "start", label(one.edges[0]))]
    for i in range(1, last):
        if _is_round(one, i) and min(i * width - ticks[-1][0], _WIDTH - i * width) >= _ROOM:
            ticks.append((i * width, "middle", label(one.edges[i])))
    return [*ticks, (float(_WIDTH), "end", label(one.edges[-1]))]


def _is_round(one: Distribution, at: int) -> bool:
    """1, 2 or 5 with noughts on a logarithmic scale; on a linear one, with at most five of its kind, as round as can
    be."""
    if one.logarithmic:
        return f"{one.edges[at]:.0f}".rstrip("0") in ("1", "2", "5")
    span = one.edges[-1] - one.edges[0]
    exponent = math.floor(math.log10(span / 5))
    step = next(m * 10.0**exponent for m in (1, 2, 5, 10) if span / (m * 10.0**exponent) <= 5)
    return math.isclose(one.edges[at] / step, round(one.edges[at] / step), abs_tol=1e-6)


def _n(value: float) -> str:
    """Two decimals at most, so that the same picture is the same bytes."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
