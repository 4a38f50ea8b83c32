"""Whatever a row, a file or a reason is called: the page has the same elements, and says it."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st

from qdata.reporting import page
from qdata.reporting.difference import Segment, Token, visible
from qdata.reporting.facts import Facts, Input, Reason, Rows, Share, Stage, Step
from qdata.reporting.measures import Distribution
from qdata.reporting.samples import Sample, Sampled

PIECES = ["<", ">", "&", '"', "'", "</svg>", "<script>", "-->", "]]>", "{{", "%}", "\ud800", "\0", "\u202e", "\n", "x"]
HOSTILE = st.lists(st.sampled_from(PIECES) | st.characters(), max_size=8).map("".join)


class Skeleton(HTMLParser):
    """The tags of a page with the names of their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.said = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if ("class", "hidden") not in attrs:  # what nobody sees is shown in an element of its own
            self.tags.append((tag, tuple(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        self.said += data


def facts(text: str) -> Facts:
    """Facts in which every text is this one."""
    rows = Rows(3, 2, 1, 1)
    segments = [Segment("same", [Token(text, turn=True), Token(text)]), Segment("deleted", [Token(text)])]
    sampled = tuple(Sampled(text, why, 1, [Sample(text, segments, text)]) for why in (None, f"{text}."))
    stage = Stage(
        name=text,
        command="clean",
        inputs=(Input(text, text, "train", None, False, None),),
        rows=rows,
        steps=(Step(text, ({"key": text.encode("utf-8", "replace").decode()},), 1, 1, 2),),
        reasons=(Reason(text, text, 1),),
        left_out={text: 1},
        versions={"qdata": "0"},
        hashes={text: "0" * 64},
        samples=sampled,
    )
    one = Distribution(text, text, False, (0, 1, 2), (1, 1), (1, 0), {"kept": _QUANTILES, "dropped": _QUANTILES})
    shares = (Share(text, 2, 1),)
    return Facts(text, rows, (stage,), (one,), {}, shares, shares, None, True)


_QUANTILES = {"min": 0.0, "5%": 0.0, "median": 1.0, "95%": 1.0, "max": 1.0}


@settings(max_examples=30, deadline=None)
@given(HOSTILE)
def test_no_text_breaks_out(text: str) -> None:
    """The tags are those of a page about `x`; the text is there, and all of it can be seen and written."""
    made = page.html(facts(text))
    found = Skeleton(made)
    assert found.tags == Skeleton(page.html(facts("x"))).tags
    wanted = "".join(piece for piece, _ in visible(text)).replace("\r\n", "\n")
    assert found.said.count(wanted) >= 15
    assert made == page.html(facts(text))
    assert "{{" not in made.replace(text, "") or "{{" in text
