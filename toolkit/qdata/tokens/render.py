"""Conversation + template → text pieces, each an answer that is trained or text that is not.

Serving is the reference. A server renders the turns so far with `add_generation_prompt`, tokenises that prompt, and
the model writes the answer up to the stop token. So for every trained turn the template is rendered twice, as the
prompt and with the turn: the text is cut where the prompt ends, and again after the stop token.

`pieces` does this for one conversation. `render` does it for a frame: conversations of the same shape (roles, which
texts are empty) are rendered once, on probes in place of their texts, and the texts are filled in by columns. A probe
notices when the template looks at a text (strips, splits, compares it); such shapes, tools and reasoning go row by row.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import polars as pl

from qdata.errors import QdataError
from qdata.tokens.template import Template

UNTRAINED = -1

PIECES = pl.Schema(
    {
        "index": pl.UInt32,  # of the conversation in the frame
        "sample": pl.UInt32,  # within the conversation: 0, unless serving prefixes disagree
        "piece": pl.UInt32,  # within the sample
        "turn": pl.Int32,  # which message this answer is, or UNTRAINED
        "text": pl.String,
    }
)


class Piece(NamedTuple):
    """A stretch of a sample's text; `turn` is the index of the message it answers with, or UNTRAINED."""

    text: str
    turn: int


Sample = list[Piece]


class Rendered(NamedTuple):
    """The pieces of a frame (PIECES, in order), and how many of its conversations took which road."""

    pieces: pl.DataFrame
    by_shape: int
    by_row: int


def pieces(
    template: Template, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None = None
) -> list[Sample]:
    """The training samples of one conversation.

    One sample, as long as every trained turn's serving prompt is a prefix of the whole text; a turn whose prompt
    differs (earlier reasoning stripped) gets a sample of its own. Each answer is in exactly one sample.
    Raises QdataError when the template makes it impossible to find an answer.
    """
    whole = template.render(messages, tools)
    shared: Sample = []
    alone: list[Sample] = []
    done = 0
    for turn, message in enumerate(messages):
        if message["role"] != "assistant" or message.get("train") is False:
            continue
        prompt = template.render(messages[:turn], tools, add_generation_prompt=True)
        upto = template.render(messages[: turn + 1], tools)
        answer = _answer(template, prompt, upto, turn)
        if whole.startswith(prompt + answer):
            shared += [Piece(whole[done : len(prompt)], UNTRAINED), Piece(answer, turn)]
            done = len(prompt) + len(answer)
        else:
            alone.append([Piece(prompt, UNTRAINED), Piece(answer, turn)])
    if shared or not alone:
        shared.append(Piece(whole[done:], UNTRAINED))
    return [[p for p in sample if p.text] for sample in (shared, *alone) if sample]


def _answer(template: Template, prompt: str, upto: str, turn: int) -> str:
    if not upto.startswith(prompt):
        raise QdataError(
            f"template {template.name}: message {turn} is written differently from how its serving prompt ends; "
            f"the prompt ends {prompt[-40:]!r}, the turn has {upto[: len(prompt)][-40:]!r}. "
            f"It cannot be trained as served."
        )
    end = upto.rfind(template.stop, len(prompt))
    if end < 0:
        raise QdataError(f"template {template.name}: no stop token {template.stop!r} after message {turn}")
    return upto[len(prompt) : end + len(template.stop)]


def split_at(sample: Sample, answer: int) -> tuple[Sample, Sample]:
    """The sample cut in two after the `answer`-th piece: later answers get the history as one uncut prompt.

    Needed where a server, which tokenises the history in one go, merges across that earlier generation point.
    """
    following = next(i for i in range(answer + 1, len(sample)) if sample[i].turn != UNTRAINED)
    history = Piece("".join(p.text for p in sample[:following]), UNTRAINED)
    return sample[: answer + 1], [history, *sample[following:]]


def render(template: Template, frame: pl.DataFrame) -> Rendered:
    """The pieces of every conversation of a CONVERSATION frame."""
    indexed = frame.select(pl.int_range(pl.len(), dtype=pl.UInt32).alias("index"), "messages", "tools", _shape())
    done: list[pl.DataFrame] = []
    by_shape = 0
    slow: list[pl.DataFrame] = []
    for (shape,), group in indexed.group_by("shape", maintain_order=True):
        plan = None if shape is None or not template.transparent else _plan(template, str(shape))
        if plan is None:
            slow.append(group)
        else:
            done.append(_fill(plan, group))
            by_shape += group.height
    if slow:
        done.append(_by_row(template, pl.concat(slow)))
    out = pl.concat(done).sort("index", "sample", "piece") if done else pl.DataFrame(schema=PIECES)
    return Rendered(out, by_shape, frame.height - by_shape)


def _shape() -> pl.Expr:
    """One letter per message for its role, upper case where its text is empty; null where texts alone do not do."""
    field = pl.element().struct.field
    letter = field("role").replace_strict(_LETTERS)
    letters = pl.when(field("content") == "").then(letter.str.to_uppercase()).otherwise(letter)
    special = (
        field("content").is_null()
        | (field("train") == False).fill_null(False)  # noqa: E712 (an expression, not a truth value)
        | pl.any_horizontal(field(name).is_not_null() for name in ("reasoning", "tool_calls", "name"))
    )
    messages = pl.col("messages")
    plain = pl.col("tools").is_null() & ~messages.list.eval(special).list.any()
    return pl.when(plain).then(messages.list.eval(letters).list.join("")).alias("shape")


_LETTERS = {"system": "s", "user": "u", "assistant": "a", "tool": "t"}
_ROLES = {letter: role for role, letter in _LETTERS.items()}


class _ObservedError(Exception):
    """The template looked at a text instead of only writing it."""


class _Probe(str):
    """A text that may be written, concatenated and tested for being there; anything else is noticed."""

    __slots__ = ()

    def __add__(self, other: str) -> _Probe:
        return _Probe(str.__str__(self) + str.__str__(other))

    def __radd__(self, other: str) -> _Probe:
        return _Probe(str.__str__(other) + str.__str__(self))

    def __bool__(self) -> bool:
        return True  # whether a text is empty is part of the shape

    def __str__(self) -> str:
        return self

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("__"):
            raise _ObservedError(name)
        return object.__getattribute__(self, name)


def _observed(*_: Any, **__: Any) -> NoReturn:
    raise _ObservedError


_LOOKS = ("len", "contains", "iter", "getitem", "hash", "format", "mod", "rmod", "mul", "rmul")
for _name in (*_LOOKS, "eq", "ne", "lt", "le", "gt", "ge"):
    setattr(_Probe, f"__{_name}__", _observed)


def _mark(index: int) -> str:
    """Text that any transformation would change: white space at both ends, quotes, case, markup, another script."""
    return f' \n\x02"<Aä你{index}&\x03\\ \t'


class _Plan(NamedTuple):
    """For each piece of a shape: its literals and message indices in alternation, and its place."""

    pieces: list[tuple[int, int, int, list[str | int]]]  # sample, piece, turn, parts


def _plan(template: Template, shape: str) -> _Plan | None:
    """How conversations of this shape are put together, or None when the text itself matters."""
    messages = [
        {"role": _ROLES[letter.lower()], "content": _Probe(_mark(i)) if letter.islower() else ""}
        for i, letter in enumerate(shape)
    ]
    try:
        samples = pieces(template, messages)
    except _ObservedError:
        return None
    marks = {_mark(i): i for i, letter in enumerate(shape) if letter.islower()}
    planned = []
    for s, sample in enumerate(samples):
        used: list[int] = []
        for p, piece in enumerate(sample):
            parts = list(_cut(str.__str__(piece.text), marks))
            used += [part for part in parts if isinstance(part, int)]
            planned.append((s, p, piece.turn, parts))
        if any("\x02" in part or "\x03" in part for *_, parts in planned for part in parts if isinstance(part, str)):
            return None  # a probe was changed on its way
        if len(used) != len(set(used)):
            return None
    return _Plan(planned)


def _cut(text: str, marks: Mapping[str, int]) -> Iterator[str | int]:
    while text:
        at, mark = min(((text.find(m), m) for m in marks if m in text), default=(-1, ""))
        if at < 0:
            yield text
            return
        if at:
            yield text[:at]
        yield marks[mark]
        text = text[at + len(mark) :]


def _fill(plan: _Plan, group: pl.DataFrame) -> pl.DataFrame:
    def text(parts: Iterable[str | int]) -> pl.Expr:
        content = pl.col("messages").list.get
        return pl.concat_str(
            pl.lit(p) if isinstance(p, str) else content(p).struct.field("content") for p in parts
        ).alias("text")

    done = []
    for sample, piece, turn, parts in plan.pieces:
        place = {"sample": sample, "piece": piece, "turn": turn}
        columns = [pl.lit(value, PIECES[name]).alias(name) for name, value in place.items()]
        done.append(group.select("index", *columns, text(parts)))
    return pl.concat(done) if done else pl.DataFrame(schema=PIECES)


def _by_row(template: Template, group: pl.DataFrame) -> pl.DataFrame:
    columns: tuple[list[Any], ...] = ([], [], [], [], [])
    for index, messages, tools in group.select("index", "messages", "tools").iter_rows():
        for s, sample in enumerate(pieces(template, plain(messages), json.loads(tools) if tools else None)):
            for p, piece in enumerate(sample):
                for column, value in zip(columns, (index, s, p, piece.turn, piece.text), strict=True):
                    column.append(value)
    return pl.DataFrame(dict(zip(PIECES.names(), columns, strict=True)), schema=PIECES)


def plain(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages as chat templates expect them: null fields left out, calls as objects, reasoning in its usual key."""
    out = []
    for message in messages:
        one = {k: v for k, v in message.items() if v is not None and k not in ("reasoning", "tool_calls", "weight")}
        if message["reasoning"] is not None:
            one["reasoning_content"] = message["reasoning"]
        if message["tool_calls"] is not None:
            one["tool_calls"] = json.loads(message["tool_calls"])
            one.setdefault("content", "")
        out.append(one)
    return out
