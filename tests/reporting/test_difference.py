"""What an edit changed: everything of both texts is told, and what nobody sees is shown."""

from __future__ import annotations

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from qdata.reporting.difference import Segment, difference, said, visible

TEXTS = st.text(st.characters(codec="utf-8"), max_size=60)
TALKS = st.lists(st.tuples(st.sampled_from(["user", "assistant", "tool"]), TEXTS), max_size=3)


def talk(turns: list[tuple[str, str]]) -> str:
    """A conversation in canonical JSON."""
    return orjson.dumps({"messages": [{"role": role, "content": text} for role, text in turns]}).decode()


def told(segments: list[Segment], *operations: str) -> list[tuple[str, bool]]:
    """The tokens with these fates, each stretch of text as one."""
    out: list[tuple[str, bool]] = []
    for text, turn in (token for one in segments if one.operation in operations for token in one.tokens):
        if out and not turn and not out[-1][1]:
            out[-1] = (out[-1][0] + text, False)
        else:
            out.append((text, turn))
    return out


def turns(talked: list[tuple[str, str]]) -> list[tuple[str, bool]]:
    return [pair for role, text in talked for pair in ((role, True), (text, False)) if pair[0]]


@settings(deadline=None)
@given(TALKS, TALKS)
def test_both_texts_are_in_the_difference(before: list[tuple[str, str]], after: list[tuple[str, str]]) -> None:
    """What stays and what was deleted is the text before; what stays and what was inserted the one after."""
    found = difference(talk(before), talk(after))
    assert told(found, "same", "deleted") == turns(before)
    assert told(found, "same", "inserted") == turns(after)


@settings(deadline=None)
@given(TEXTS)
def test_what_nobody_sees_is_shown(text: str) -> None:
    """Pieces are printable, but for line ends; and the text can be read back from them."""
    pieces = visible(text)
    assert all(piece.replace("\n", "").isprintable() for piece, _ in pieces)
    assert "".join(chr(int(piece[2:], 16)) if name else piece for piece, name in pieces) == text


def test_words_of_some_languages_and_characters_of_others() -> None:
    """`cat` became `dog`, and not `c` `d`; of Chinese one character changed."""
    found = difference(talk([("user", "my cat 我爱北京")]), talk([("user", "my dog 我爱东京")]))
    assert told(found, "deleted") == [("cat北", False)] and told(found, "inserted") == [("dog东", False)]


def test_far_from_the_change_is_cut() -> None:
    """How much is left out is told, and whose words the rest is."""
    long = "word " * 400
    found = difference(
        talk([("user", long), ("assistant", long + "a")]), talk([("user", long), ("assistant", long + "b")])
    )
    assert [one.operation for one in found] == ["cut", "same", "deleted", "inserted"]
    assert told(found, "same")[0] == ("assistant", True)
    shown = sum(len(token.text) for token in found[1].tokens if not token.turn)
    assert int(found[0].tokens[0].text.replace(",", "")) + shown == 2 * len(long)
    assert told(said({"messages": [{"role": "user", "content": long}]}), "cut") == [("1,300", False)]


def test_of_long_texts_only_what_changed_is_told() -> None:
    """Two characters of ten thousand, in lines of their own."""
    lines = [f"第{i}行：" + "沐雪喜欢吃东西" * 5 for i in range(250)]
    other = [line.replace("雪", "月", 1) if i in (5, 240) else line for i, line in enumerate(lines)]
    found = difference(talk([("user", "\n".join(lines))]), talk([("user", "\n".join(other))]))
    assert told(found, "deleted") == [("雪雪", False)] and told(found, "inserted") == [("月月", False)]


def test_a_row_that_cannot_be_read_shows_what_it_was() -> None:
    """Its raw text and the reason, from `extra`."""
    found = said({"messages": None, "extra": '{"raw":"{broken","reason":"not JSON"}'})
    assert told(found, "same") == [("reason", True), ("not JSON", False), ("raw", True), ("{broken", False)]
