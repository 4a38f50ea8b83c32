"""Answers that must not be trained (`train: false`, weight 0), found in the text they stand in as history.

Under `loss = whole` the text around them is trained and they are not, so they are cut out as pieces of their own.
Where an answer cannot be told from what surrounds it, the whole piece is muted: what may be trained is lost rather
than that trained which may not.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from qdata.errors import QdataError
from qdata.tokens import thinking
from qdata.tokens.table import MUTED, UNTRAINED
from qdata.tokens.template import Template


class Piece(NamedTuple):
    """A stretch of a sample's text; `turn` is the message it answers with, or UNTRAINED or MUTED (table.py)."""

    text: str
    turn: int


Sample = list[Piece]


class _Shown(NamedTuple):
    """How the text up to the end of a muted answer may read, and where the answer begins in it."""

    text: str
    start: int


def mute(
    template: Template,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Any] | None,
    muted: Sequence[int],
    samples: Sequence[Sample],
) -> list[Sample]:
    """The samples of a conversation with the `muted` messages cut out of their untrained pieces."""
    shown = {turn: _shown(template, messages, tools, turn) for turn in muted}
    return [_cut_out(sample, shown, len(messages)) for sample in samples]


def _cut_out(sample: Sample, shown: Mapping[int, list[_Shown]], end: int) -> Sample:
    whole = "".join(piece.text for piece in sample)
    done: Sample = []
    start, before = 0, -1  # where the piece begins, and the last answer before it
    for at, piece in enumerate(sample):
        stop = start + len(piece.text)
        if piece.turn == UNTRAINED:
            after = sample[at + 1].turn if at + 1 < len(sample) else end
            done += _cut_piece(whole, start, stop, [ways for turn, ways in shown.items() if before < turn < after])
        else:
            done.append(piece)
            before = piece.turn
        start = stop
    return done


def _cut_piece(whole: str, start: int, stop: int, inside: Sequence[Sequence[_Shown]]) -> Sample:
    """The piece `whole[start:stop]` around the answers inside it."""
    done: Sample = []
    at = start
    for ways in inside:
        found = next((one for one in ways if one.start >= at and whole.startswith(one.text)), None)
        if found is None or len(found.text) > stop:
            return [Piece(whole[start:stop], MUTED)]
        done += [Piece(whole[at : found.start], UNTRAINED), Piece(whole[found.start : len(found.text)], MUTED)]
        at = len(found.text)
    return [*done, Piece(whole[at:stop], UNTRAINED)]


def _shown(
    template: Template, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None, turn: int
) -> list[_Shown]:
    """The text as it reads with the answer as its last message, and with the answer as history."""
    upto = list(messages[: turn + 1])
    ways = []
    with contextlib.suppress(QdataError):  # a template may refuse what we only ask
        prompt = template.render(messages[:turn], tools, add_generation_prompt=True)
        ways.append(_ended(template.render(upto, tools), template.stop, prompt))
        ways.append(_ended(thinking.as_history(template, upto, tools), template.stop, prompt))
    return [way for way in ways if way is not None]


def _ended(text: str, stop: str, prompt: str) -> _Shown | None:
    """The text up to its last stop token; the answer begins where the prompt ends, or the line in which they part."""
    said, found, _ = text.rpartition(stop)
    if not found:
        return None
    lines = zip(prompt.splitlines(keepends=True), said.splitlines(keepends=True), strict=False)
    same = sum(len(one) for one, other in itertools.takewhile(lambda pair: pair[0] == pair[1], lines))
    return _Shown(said + stop, len(prompt) if said.startswith(prompt) else same)
