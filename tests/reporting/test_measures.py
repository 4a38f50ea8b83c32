"""Bins hold every value, once; and pictures of equal numbers are equal bytes."""

from __future__ import annotations

from xml.etree import ElementTree

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from qdata.reporting import measures, svg

WHOLE = st.integers(-(10**6), 10**15 - 1)
FLOATS = st.floats(-1e9, 1e9, allow_nan=False).map(lambda x: round(x, 9))


@settings(deadline=None)
@given(st.lists(WHOLE | st.integers(0, 300), min_size=1) | st.lists(FLOATS | st.floats(0, 1), min_size=1), st.data())
def test_every_value_is_in_one_bin(values: list[float], data: st.DataObject) -> None:
    """Whatever the numbers: the edges grow, the first holds the lowest, and the counts are those of a slow count."""
    split = data.draw(st.integers(0, len(values)))
    frames = [pl.DataFrame({"score.x": pl.Series(part, dtype=pl.Float64)}) for part in (values[:split], values[split:])]
    (one,) = measures.distributions(frames[0], frames[1])
    assert list(one.edges) == sorted(set(one.edges))
    for counts, part in ((one.kept, values[:split]), (one.dropped, values[split:])):
        assert sum(counts) == len(part)
        for low, high, count in zip(one.edges, one.edges[1:-1], counts, strict=False):
            assert count == sum(low <= value < high for value in part)
    assert len(one.kept) <= 160


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.lists(st.integers(0, 10**7), max_size=30))
def test_pictures_are_xml_of_what_was_counted(kept: list[float], dropped: list[int]) -> None:
    """A rectangle for each bin with its number; none is higher than the picture."""
    frames = [pl.DataFrame({'score.<&">': pl.Series(part, dtype=pl.Float64)}) for part in (kept, dropped)]
    (one,) = measures.distributions(frames[0], frames[1])
    drawn = svg.histogram(one)
    assert drawn == svg.histogram(one)
    root = ElementTree.fromstring(drawn)
    height = float(root.attrib["viewBox"].split()[3])
    for name, counts in (("kept", one.kept), ("dropped", one.dropped)):
        rects = [rect for rect in root.iter("rect") if rect.attrib["class"] == name]
        assert [int(rect.attrib["data-rows"]) for rect in rects] == (list(counts) if sum(counts) else [])
        for rect in rects:
            top, tall = float(rect.attrib["y"]), float(rect.attrib["height"])
            assert top >= 0 and top + tall <= height + 0.02


def test_a_bar_is_as_wide_as_its_share() -> None:
    """Of 200 rows 150 and 50; of none nothing."""
    root = ElementTree.fromstring(svg.bar([("kept", 150), ("dropped", 50)], 200))
    assert [(r.attrib["class"], r.attrib["x"], r.attrib["width"]) for r in root] == [
        ("kept", "0", "750"),
        ("dropped", "750", "250"),
    ]
    assert len(ElementTree.fromstring(svg.bar([("kept", 0)], 0))) == 0
