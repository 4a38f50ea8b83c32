"""The proof of one sequence: each trained stretch is an answer behind its own serving prompt, and nothing else is.

From the conversation, each prompt is built the way a server builds it (serving.py); the trained stretch must stand
directly behind exactly those ids, and be exactly the ids of the answer and its stop token.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from qdata.schema import PLACEHOLDER
from qdata.tokens.serving import Conversation, Messages, Served, Server

KEPT_CASES = 20
IGNORED = -100
Ids = npt.NDArray[np.int32]

_VENDOR = re.compile(r"created by Alibaba Cloud|developed by Alibaba|\bYou are Qwen\b")
_HEAD = 64  # characters: a turn's head and an empty think block
_PLACEHOLDER = re.compile(PLACEHOLDER)


@dataclass
class Result:
    """What was looked at, and every kind of thing found wrong, with the first cases spelt out."""

    kind: str = "chat"  # of the rows
    sequences: int = 0
    answers: int = 0  # trained ones that were met; of pretraining text, documents
    trained_tokens: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    cases: list[str] = field(default_factory=list)
    parsed_by_servers: int = 0  # sequences whose data holds control tokens as text, trained as text
    vendor_prompts: int = 0  # sequences whose own system message names the vendor
    models: list[str] = field(default_factory=list)  # saved models that were looked at
    notes: list[str] = field(default_factory=list)  # what could not be looked at, and why

    def fail(self, kind: str, case: str) -> None:
        """Counts a failure; the first ones are kept in words."""
        self.failures[kind] += 1
        if len(self.cases) < KEPT_CASES:
            self.cases.append(f"{kind}: {case}")

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {**dataclasses.asdict(self), "failures": dict(self.failures), "ok": not self.failures}


class Tokens(NamedTuple):
    """One conversation's tokens within a row of a split: [T] each. `place` names the row, its file and its shard."""

    place: str
    ids: Ids
    labels: Ids
    weights: npt.NDArray[np.float32] | None  # None: each weighs 1

    @property
    def trained(self) -> npt.NDArray[np.bool_]:
        """Which tokens have a label."""
        return np.asarray(self.labels != IGNORED)

    def stretches(self, trained: bool = True) -> list[tuple[int, int]]:
        """The runs of trained (or of untrained) tokens, as start and stop."""
        edges = np.flatnonzero(np.diff(np.concatenate([[0], (self.trained == trained).astype(np.int8), [0]])))
        return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


class Proof:
    """What the sequences of one build have in common: the server, the manifest, and which answers were met."""

    def __init__(self, server: Server, manifest: Mapping[str, Any], result: Result) -> None:
        self.server, self.manifest, self.result = server, manifest, result
        self._met: set[tuple[str, int]] = set()
        self.told: set[tuple[str, str]] = set()  # kinds of failures, by conversation

    def conversation(self, row: Mapping[str, Any]) -> Conversation:
        """A row of conversations.parquet as its server meets it."""
        return Conversation(row, self.manifest, self.server)

    def met(self, row: str, turn: int) -> bool:
        """Whether an answer was found trained."""
        return (row, turn) in self._met

    def sequence(self, tokens: Tokens, row: Mapping[str, Any]) -> None:
        """Checks the tokens of a conversation; whatever is wrong goes into the result."""
        self.result.sequences += 1
        self.result.trained_tokens += int(tokens.trained.sum())
        _Sequence(self, tokens, self.conversation(row)).check()

    def fail(self, kind: str, case: str) -> None:
        """As Result.fail."""
        self.result.fail(kind, case)

    def meet(self, row: str, turn: int) -> None:
        """An answer was found trained; it must not be found again."""
        self._met.add((row, turn))
        self.result.answers += 1

    @cached_property
    def padding(self) -> int | None:
        """The id of the tokenizer's padding token; None where it also ends answers, as in a base model's."""
        pad: int | None = self.server.tokenizer.pad_token_id
        ends: int | None = self.server.tokenizer.convert_tokens_to_ids(self.server.stop)
        return None if pad == ends else pad


@dataclass
class _Sequence:
    """One sequence under proof."""

    proof: Proof
    tokens: Tokens
    chat: Conversation

    def check(self) -> None:
        tokens, ids = self.tokens, self.tokens.ids
        if np.any(tokens.trained & (tokens.labels != ids)):
            self.fail("labels", "a label that is neither -100 nor its token")
        if not tokens.trained.any():
            self.fail("untrained", "nothing is trained")
            return
        self._texts()
        self._padding()
        self._forged()
        if self._manifest["loss"] == "whole":
            self._whole()
            return
        last = [self._stretch(start, stop) for start, stop in tokens.stretches()][-1]
        if last is not None and not self._ends_well(ids[tokens.stretches()[-1][1] :], last):
            self.fail("text", "what follows the last answer is not of the template")

    def fail(self, kind: str, case: str) -> None:
        """Counted each time, told once of each kind and conversation."""
        if self._is_told(kind):
            self.proof.result.failures[kind] += 1
            return
        self.proof.told.add((kind, self.chat.row))
        self.proof.fail(kind, f"{self.tokens.place}: {case}")

    def _is_told(self, kind: str) -> bool:
        return (kind, self.chat.row) in self.proof.told

    @property
    def _manifest(self) -> Mapping[str, Any]:
        return self.proof.manifest

    @property
    def _server(self) -> Server:
        return self.proof.server

    def _met(self, turn: int) -> bool:
        return self.proof.met(self.chat.row, turn)

    def _texts(self) -> None:
        """No placeholder nobody filled, no vendor's identity that the data did not ask for."""
        self.proof.result.parsed_by_servers += self.chat.forged
        before = self._server.decode(self.tokens.ids[: self.tokens.stretches()[0][0]])
        self.proof.result.vendor_prompts += names_vendor(self.chat.messages)
        for kind, case in wrong_texts(self.chat.messages, before, self._manifest["template"]["default_system"] or ""):
            self.fail(kind, case)

    def _padding(self) -> None:
        pad = self.proof.padding
        if pad is not None and np.any(self.tokens.labels == pad):
            written = self._server.tokenizer.decode([pad])
            if not any(written in message["content"] for message in self.chat.messages):
                at = int(np.flatnonzero(self.tokens.labels == pad)[0])
                self.fail("padding", f"token {at}: the padding token {written} is trained")

    def _forged(self) -> None:
        """Control tokens that stand in the data are not the control tokens of the template."""
        if not self.chat.forged:
            return
        written, found = (self._server.controls(ids) for ids in (self._server.ids(self.chat.whole()), self.tokens.ids))
        for token in found - written:
            self.fail("forged turn", f"{found[token]} times {token}, which the template writes {written[token]} times")

    def _stretch(self, start: int, stop: int) -> Served | None:
        """One trained stretch: exactly an answer and its stop token, behind exactly what a server sees before it."""
        server, said = self._server, self.tokens.ids[start:stop].tolist()
        before = self.tokens.ids[:start].tolist()
        read = server.decode(before)  # texts first: rendering is cheap, tokenising a long prompt is not
        match: Served | None = None
        for one in self._candidates():
            if server.read(one.prompt) != read:
                continue
            match = match or one
            # Two turns may have one prompt (a part of a conversation that repeats itself): the answer tells them apart.
            if server.ids(one.answer) == said:
                match = one
                break
        if match is None or server.ids(match.prompt) != before:
            self.fail("prompt", self._no_prompt(start))
            return None
        answer = server.ids(match.answer)
        if said != answer and not self._cut(said, answer):
            what = f"message {match.turn} is not trained as answer + stop token"
            self.fail("answer", side_by_side(what, answer, said, start, server))
        elif len(said) < 2 and said == answer:
            self.fail("empty turn", f"message {match.turn} trains nothing but the stop token")
        self._weight(match.turn, start, stop)
        self.proof.meet(self.chat.row, match.turn)
        return match

    def _weight(self, turn: int, start: int, stop: int) -> None:
        """Each token of an answer weighs what its message says."""
        wanted = self.chat.weights[turn] if self._manifest["too_long"] != "split" else None
        weights = self.tokens.weights
        found = np.ones(1, np.float32) if weights is None else weights[start:stop]
        if wanted is not None and not np.all(found == np.float32(wanted)):
            self.fail("weight", f"message {turn} weighs {wanted:g}, its tokens {sorted(set(found.tolist()))}")

    def _no_prompt(self, start: int) -> str:
        """Beside the prompt that agrees longest with what stands before a trained stretch."""
        if self._is_told("prompt") or len(self.proof.result.cases) >= KEPT_CASES:
            return ""  # only counted: looking for the nearest prompt takes long
        before = self.tokens.ids[:start].tolist()
        prompts = [self._server.ids(one.prompt) for one in self._candidates()]
        if not prompts:
            return f"token {start}: trained, but every answer of the conversation was met before"
        nearest = max(prompts, key=lambda prompt: _agreement(prompt, before))
        what = f"token {start}: trained, but no serving prompt ends here"
        return side_by_side(what, nearest, before, 0, self._server)

    def _cut(self, said: list[int], answer: list[int]) -> bool:
        """Whether an answer was cut at max_length, as `too_long = truncate` says it may be."""
        return self._cut_at_the_end and bool(said) and answer[: len(said)] == said

    def _ends_well(self, tail: Ids, last: Served) -> bool:
        """What stands behind the last answer, untrained, is what the template writes there, or nothing."""
        if not len(tail):
            return True
        text = self._server.decode(tail)
        if self._manifest["too_long"] == "split":  # a part of the conversation: it ends in the middle of the whole
            return not text.strip()
        return self._server.read(self.chat.whole()).startswith(self._server.read(last.prompt + last.answer) + text)

    def _whole(self) -> None:
        """Under `whole` every token is trained, but for the history of another sample and answers that must not be."""
        server, ids = self._server, self.tokens.ids
        text, first = server.decode(ids), int(np.argmax(self.tokens.trained))
        history = server.decode(ids[:first])
        if first and not any(server.read(one.prompt) == history for one in self._candidates()):
            self.fail("untrained", f"tokens 0 to {first}: not trained, and no history, under loss = whole")
        for one in self._candidates():
            prompt, answer = server.read(one.prompt), server.read(one.answer)
            cut = text.startswith(prompt) and len(text) > len(prompt) and (prompt + answer).startswith(text)
            if self._met(one.turn) or not (text.startswith(prompt + answer) or (cut and self._cut_at_the_end)):
                continue
            before, said = server.ids(one.prompt), server.ids(one.answer)
            stop = len(before) + len(said)
            if ids[:stop].tolist() != [*before, *said][: len(ids)]:
                what = f"message {one.turn} does not stand as it is served"
                self.fail("prompt", side_by_side(what, [*before, *said], ids[:stop].tolist(), 0, server))
            self._weight(one.turn, len(before), stop)
            self.proof.meet(self.chat.row, one.turn)
        self._silent(first, history, text)

    def _silent(self, first: int, history: str, text: str) -> None:
        """What is not trained behind the history is an answer that must not be, and each of those is not."""
        bare = {turn: self._bare(turn) for turn in self.chat.silent}
        left = [turn for turn, said in bare.items() if said in text and said not in history]
        for start, stop in self.tokens.stretches(trained=False):
            if start < first:
                continue
            read = self._server.decode(self.tokens.ids[start:stop])
            # The line of the prompt in which the answer begins goes with it where a server's ids merge across it.
            found = (turn for turn in left if read.endswith(bare[turn]) and len(read) - len(bare[turn]) <= _HEAD)
            turn = next(found, None)
            if turn is None:
                self.fail("untrained", f"tokens {start} to {stop}: not trained, under loss = whole: {read[:60]!r}")
            else:
                left.remove(turn)
        for turn in left:
            self.fail("untrained", f"message {turn} is trained, and must not be")

    def _bare(self, turn: int) -> str:
        """An answer and its stop token as history shows it, without a think block."""
        return self._server.read(self.chat.served(turn).answer).rpartition("</think>")[2].lstrip("\n")

    @property
    def _cut_at_the_end(self) -> bool:
        return bool(self._manifest["too_long"] == "truncate" and len(self.tokens.ids) == self._manifest["max_length"])

    def _candidates(self) -> Iterator[Served]:
        """What this sequence's answers may be, in order."""
        return self.chat.candidates([turn for turn in self.chat.wanted if not self._met(turn)])


def wrong_texts(messages: Messages, prompt: str, default_system: str) -> Iterator[tuple[str, str]]:
    """Placeholders nobody filled, and a vendor's identity in the prompt that nobody asked for: failure and case."""
    for number, message in enumerate(messages):
        if found := _PLACEHOLDER.search(message["content"]):
            yield "placeholder", f"message {number} still says {found[0]}"
    asked = [message["content"] for message in messages] + [default_system]
    found = _VENDOR.search(prompt)
    if found and not any(found[0] in text for text in asked):
        yield "vendor identity", f"{found[0]!r} in the prompt, which neither the data nor the default says"


def names_vendor(messages: Messages) -> bool:
    """Whether a system message of the data names the vendor."""
    return messages[0]["role"] == "system" and bool(_VENDOR.search(messages[0]["content"]))


def side_by_side(what: str, served: list[int], trained: list[int], first: int, server: Server) -> str:
    """Both token rows from a little before the first difference; `first` is the place of their first token."""
    at = _agreement(served, trained)
    lines = [f"{what}; from token {first + at} on:"]
    for title, row in (("served ", served), ("trained", trained)):
        part = row[max(0, at - 3) : at + 6]
        shown = " ".join(f"{i}:{server.tokenizer.decode([i])!r}" for i in part) or "(nothing)"
        lines.append(f"      {title} {shown}")
    return "\n".join(lines)


def _agreement(one: list[int], other: list[int]) -> int:
    """How many tokens two rows have in common from the start."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
