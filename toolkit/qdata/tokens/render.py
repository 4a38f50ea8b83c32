"""Conversation + template → text pieces, each an answer that is trained or text that is not.

Serving is the reference. A server renders the turns so far with `add_generation_prompt`, tokenises that prompt, and
the model writes the answer up to the stop token. So for every trained turn the template is rendered twice, as the
prompt and with the turn: the text is cut where the prompt ends, and again after the stop token.

`pieces` does this for one conversation. `render` does it for a frame: conversations of the same shape (roles, which
texts are empty) are rendered once, on probes in place of their texts, and the texts are filled in by columns. What the
template asks of a text on the way (does it hold `</think>`?) is answered and noted; conversations where the
answer would be another, tools and reasoning go row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import polars as pl

from qdata.errors import QdataError, RefusedRowsError
from qdata.tokens import thinking
from qdata.tokens.calls import calls_of, tools_of
from qdata.tokens.muted import Piece, Sample, mute
from qdata.tokens.probe import MARKS, Assumption, ObservedError, Probe, cut
from qdata.tokens.shown import refuse_unshown
from qdata.tokens.table import MUTED, UNTRAINED
from qdata.tokens.template import Template

WORTH_A_PLAN = 3  # conversations of one shape; fewer are rendered faster one by one

PIECES = pl.Schema(
    {
        "index": pl.UInt32,  # of the conversation in the frame
        "sample": pl.UInt32,  # within the conversation: 0, unless serving prefixes disagree
        "piece": pl.UInt32,  # within the sample
        "turn": pl.Int32,  # which message this answer is, or UNTRAINED or MUTED
        "text": pl.String,
    }
)


class Rendered(NamedTuple):
    """The pieces of a frame (PIECES, in order), and how many of its conversations took which road."""

    pieces: pl.DataFrame
    by_shape: int
    by_row: int
    emptied: int  # answers that were reasoning only, which the thinking policy removes: they are not trained


def pieces(
    template: Template,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Any] | None = None,
    think: str = "none",
) -> list[Sample]:
    """The training samples of one conversation (messages as `plain` makes them) under a thinking policy.

    One sample, as long as every trained turn's serving prompt begins with all that stands before it; a turn whose
    prompt differs (earlier reasoning is not shown again) begins a sample of its own. Each answer is in exactly one;
    those with `train: false` in none, but cut out of the text wherever it shows them.
    Raises QdataError when the template makes it impossible to train a turn as it is served.
    """
    messages = [thinking.without(m) if think in thinking.REMOVES else m for m in messages]
    whole = template.render(messages, tools)
    refuse_unshown(template, messages, tools, whole)
    samples: list[Sample] = []
    ends: list[str] = []  # the text of each sample so far
    answers = [turn for turn, message in enumerate(messages) if message["role"] == "assistant"]
    muted = [turn for turn in answers if messages[turn].get("train") is False]
    for turn in sorted(set(answers) - set(muted)):
        prompt, answer = thinking.served(template, messages, tools, turn, think)
        home = max((i for i, end in enumerate(ends) if prompt.startswith(end)), key=lambda i: len(ends[i]), default=-1)
        if home < 0:
            samples.append([])
            ends.append("")
        samples[home] += [Piece(prompt[len(ends[home]) :], UNTRAINED), Piece(answer, turn)]
        ends[home] = prompt + answer
    if not samples:
        samples.append([])
        ends.append("")
    main = next((i for i, end in enumerate(ends) if whole.startswith(end)), -1)
    if main >= 0:  # what follows the last answer: a newline, or turns without an answer
        samples[main].append(Piece(whole[len(ends[main]) :], UNTRAINED))
    if muted:
        samples = mute(template, messages, tools, muted, samples)
    return [sample for sample in ([p for p in one if p.text] for one in samples) if sample]


def split_at(sample: Sample, answer: int) -> tuple[Sample, Sample]:
    """The sample cut in two after the `answer`-th piece: later answers get the history as one uncut prompt.

    Needed where a server, which tokenises the history in one go, merges across that earlier generation point.
    """
    following = next(i for i in range(answer + 1, len(sample)) if sample[i].turn != UNTRAINED)
    kind = MUTED if any(p.turn == MUTED for p in sample[:following]) else UNTRAINED
    history = Piece("".join(p.text for p in sample[:following]), kind)
    return sample[: answer + 1], [history, *sample[following:]]


def render(
    template: Template,
    frame: pl.DataFrame,
    think: str = "none",
    of: Callable[..., list[Sample]] = pieces,
    by: Sequence[str] = (),
) -> Rendered:
    """The pieces of every conversation of a CONVERSATION frame, under a thinking policy.

    `of` makes the samples of one conversation; `by` names more columns of the frame, whose values it takes by name.
    Raises RefusedRowsError when conversations cannot be rendered: it names the first of them, why, and how many.
    """
    _refuse_weights(frame)
    index = pl.int_range(pl.len(), dtype=pl.UInt32).alias("index")
    indexed = frame.select(index, "row", "messages", "tools", _shape(), *by)
    done: list[pl.DataFrame] = []
    by_shape = emptied = 0
    slow: list[pl.DataFrame] = []
    for (shape, *values), group in indexed.group_by("shape", *by, maintain_order=True):
        plan = None
        if shape is not None and group.height >= WORTH_A_PLAN and template.transparent:
            plan = _plan(template, str(shape), think, partial(of, **dict(zip(by, values, strict=True))))
        if plan is None:
            slow.append(group)
            continue
        fits = group.select(plan.holds())["holds"]
        done.append(_fill(plan, group.filter(fits)))
        slow.append(group.filter(~fits))
        by_shape += int(fits.sum())
    if any(group.height for group in slow):
        rows, emptied = _by_row(template, pl.concat(slow).sort("index"), think, of, by)
        done.append(rows)
    out = pl.concat(done).sort("index", "sample", "piece") if done else pl.DataFrame(schema=PIECES)
    return Rendered(out, by_shape, frame.height - by_shape, emptied)


def _refuse_weights(frame: pl.DataFrame) -> None:
    """Below 0, the model would be trained away from the answer, as far as it goes."""
    weights = pl.col("messages").list.eval(pl.element().struct.field("weight"))
    bad = frame.select("row", least=weights.list.min()).filter(pl.col("least") < 0)
    if bad.height:
        raise RefusedRowsError({row: f"a message weighs {least:g}; wanted 0 or more" for row, least in bad.iter_rows()})


def _shape() -> pl.Expr:
    """One letter per message for its role, upper case where its text is empty; null where texts alone do not do."""
    field = pl.element().struct.field
    letter = field("role").replace_strict(_LETTERS)
    letters = pl.when(field("content") == "").then(letter.str.to_uppercase()).otherwise(letter)
    special = (
        field("content").is_null()
        | ~field("train").fill_null(True)
        | (field("weight") == 0).fill_null(False)
        | pl.any_horizontal(field(name).is_not_null() for name in ("reasoning", "tool_calls", "name"))
    )
    messages = pl.col("messages")
    plain = pl.col("tools").is_null() & ~messages.list.eval(special).list.any()
    return pl.when(plain).then(messages.list.eval(letters).list.join("")).alias("shape")


_LETTERS = {"system": "s", "user": "u", "assistant": "a", "tool": "t"}
_ROLES = {letter: role for role, letter in _LETTERS.items()}


class _Plan(NamedTuple):
    """For each piece of a shape: its place, its literals and message indices in alternation; and what was assumed."""

    pieces: list[tuple[int, int, int, list[str | int]]]  # sample, piece, turn, parts
    assumed: list[Assumption]

    def holds(self) -> pl.Expr:
        """Whether a conversation's texts are what the plan assumed of them."""
        return pl.all_horizontal(pl.col("index").is_not_null(), *(a.holds() for a in self.assumed)).alias("holds")


def _plan(template: Template, shape: str, think: str, of: Callable[..., list[Sample]]) -> _Plan | None:
    """How conversations of this shape are put together, or None when the text itself matters."""
    assumed: list[Assumption] = []
    texts = {i: Probe.make(i, assumed) for i, letter in enumerate(shape) if letter.islower()}
    messages = [{"role": _ROLES[letter.lower()], "content": texts.get(i, "")} for i, letter in enumerate(shape)]
    try:
        samples = of(template, messages, None, think)
    except (ObservedError, QdataError):
        return None  # a refusal is told of the row it is about
    planned, used = [], []
    for s, sample in enumerate(samples):
        for p, piece in enumerate(sample):
            parts = list(cut(str.__str__(piece.text)))
            planned.append((s, p, piece.turn, parts))
            used.append(parts)
    changed = any(MARKS & set(part) for parts in used for part in parts if isinstance(part, str))
    return None if changed else _Plan(planned, sorted(set(assumed)))


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


def _by_row(
    template: Template, group: pl.DataFrame, think: str, of: Callable[..., list[Sample]], by: Sequence[str]
) -> tuple[pl.DataFrame, int]:
    columns: tuple[list[Any], ...] = ([], [], [], [], [])
    refused: dict[str, str] = {}
    emptied = 0
    for index, row, messages, tools, *values in group.select("index", "row", "messages", "tools", *by).iter_rows():
        try:
            said = plain(messages)
            samples = of(template, said, tools_of(tools), think, **dict(zip(by, values, strict=True)))
            if think in thinking.REMOVES:
                emptied += sum(thinking.emptied(m, thinking.without(m)) for m in said if m["role"] == "assistant")
        except QdataError as error:
            refused[row] = str(error)
            continue
        for s, sample in enumerate(samples):
            for p, piece in enumerate(sample):
                for column, value in zip(columns, (index, s, p, piece.turn, piece.text), strict=True):
                    column.append(value)
    if refused:
        raise RefusedRowsError(refused)
    return pl.DataFrame(dict(zip(PIECES.names(), columns, strict=True)), schema=PIECES), emptied


def plain(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages as chat templates expect them: null fields left out, calls as objects, reasoning in its usual key.

    Raises QdataError for tool calls that are none.
    """
    out = []
    for turn, message in enumerate(messages):
        one = {k: v for k, v in message.items() if v is not None and k not in ("reasoning", "tool_calls", "weight")}
        if message["weight"] == 0:
            one["train"] = False
        if message["reasoning"] is not None:
            one["reasoning_content"] = message["reasoning"]
        if message["tool_calls"] is not None:
            one["tool_calls"] = calls_of(message["tool_calls"], turn)
        out.append({"content": "", **one})
    return out
