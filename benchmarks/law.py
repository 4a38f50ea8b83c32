"""The law that `serving.py` measures: what is trained of an assistant turn equals what a server will see and write.

A trained turn is right if the tokens before its trained stretch equal the tokenized serving prompt (the model's own
template over the turns so far, with `add_generation_prompt`), the trained tokens equal the answer and the stop token,
and nothing else before it is trained. Only `transformers` and the ids and labels of a tool's output are used here.

Where there is more than one honest way to serve or to write an answer, each is accepted: thinking on or off for a turn
without reasoning, and an answer as the row has it or as the model's own template writes it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

IGNORED = -100
STOP = "<|im_end|>"
EMPTY_THINK = "<think>\n\n</think>\n\n"

AFTER, BEFORE, EMPTY = "newline after the stop token", "newline before the answer", "empty think block"
MISSING, TWICE, PROMPT = "turn not trained", "trained more than once", "prompt trained"
LENIENT = frozenset({AFTER})


@dataclass(frozen=True)
class Served:
    """One way a turn is served: the prompt's tokens, and the answer's without the stop token."""

    prompt: list[int]
    answer: list[int]


@dataclass(frozen=True)
class Turn:
    """An assistant turn of a row: the ways it may be served, and whether the row wants it trained."""

    name: str
    wanted: bool
    served: list[Served]


@dataclass(frozen=True)
class Seen:
    """A trained stretch found in an output: all tokens before it, its own, and which of a prompt before are trained."""

    before: list[int]
    trained: list[int]
    holes: bool
    leaks: tuple[int, ...]


@dataclass
class Score:
    """The counts of one tool on one data set."""

    turns: int = 0
    right: int = 0
    right_but_newline: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    unwanted_turns: int = 0  # marked `train: false`
    unwanted_trained: int = 0
    sequences: int = 0
    sequences_of_no_row: int = 0
    examples: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, flaws: Iterable[str]) -> None:
        """Counts one turn."""
        found = set(flaws)
        self.turns += 1
        self.right += not found
        self.right_but_newline += found <= LENIENT
        for flaw in sorted(found):
            self.kinds[flaw] = self.kinds.get(flaw, 0) + 1


class Law:
    """The law for one model: its tokenizer with its own chat template."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.stop = self.ids(STOP)
        self.newline = self.ids("\n")
        self.empty = self.ids(EMPTY_THINK)
        self.header = self.ids("<|im_start|>assistant")
        self.modes: list[dict[str, bool]] = [{}]
        if "enable_thinking" in tokenizer.chat_template:
            self.modes.append({"enable_thinking": False})

    def ids(self, text: str) -> list[int]:
        """Tokens of a text."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def text(self, ids: Sequence[int]) -> str:
        """Text of tokens, control tokens included."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def turns(self, rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Turn]]:
        """The assistant turns of rows in the OpenAI layout, by the rows' keys; each first user text is unique."""
        return {self.row_key(row): self._turns(f"row {number}", row) for number, row in enumerate(rows)}

    def _turns(self, name: str, row: Mapping[str, Any]) -> list[Turn]:
        out = []
        for at, message in enumerate(row["messages"]):
            if message["role"] == "assistant":
                served = self._served(row["messages"][: at + 1], row.get("tools"))
                out.append(Turn(f"{name} message {at}", message.get("train") is not False, served))
        return out

    def _served(self, messages: list[dict[str, Any]], tools: list[Any] | None) -> list[Served]:
        def render(turns: list[dict[str, Any]], **options: bool) -> str:
            text = self.tokenizer.apply_chat_template(turns, tools=tools, tokenize=False, **options)
            return str(text)

        prompts = [render(messages[:-1], add_generation_prompt=True, **mode) for mode in self.modes]
        whole = render(messages).removesuffix("\n").removesuffix(STOP)
        written = [whole.removeprefix(prompt) for prompt in prompts if whole.startswith(prompt)]
        thinks = written and written[-1].startswith("<think>\n") and not written[-1].startswith(EMPTY_THINK)
        if thinks:  # there is reasoning: only a prompt that leaves room for it will do
            prompts = prompts[:1]
        answers = {text.removeprefix(EMPTY_THINK) for text in written}
        if not messages[-1].get("tool_calls") and not messages[-1].get("reasoning_content"):
            answers.add(messages[-1]["content"])  # as the row has it
        return [Served(self.ids(p), self.ids(a)) for p in prompts for a in sorted(answers)]

    def key(self, text: str) -> str:
        """What a row is known by in an output: its first user text, up to a stop token in it."""
        return unicodedata.normalize("NFC", text).split(STOP)[0].strip()

    def row_key(self, row: Mapping[str, Any]) -> str:
        """The key of a row in the OpenAI layout."""
        return self.key(next(m["content"] for m in row["messages"] if m["role"] == "user"))

    def sequence_key(self, ids: Sequence[int]) -> str:
        """The key of a sequence of an output."""
        found = re.search(r"<\|im_start\|>user\n(.*?)(?:<\|im_end\|>|$)", self.text(ids), re.DOTALL)
        return self.key(found[1]) if found else ""

    def stretches(self, ids: list[int], labels: list[int]) -> dict[int, Seen]:
        """The trained stretch of the n-th assistant turn of a sequence, for each that has one."""
        starts = [i for i, token in enumerate(ids) if token == self.header[0]] + [len(ids)]
        heads = [(a, b) for a, b in pairwise(starts) if ids[a : a + len(self.header)] == self.header]
        inside = {i for a, b in heads for i in range(a, b)}
        leaks = [i for i, label in enumerate(labels) if label != IGNORED and i not in inside]
        out = {}
        for number, (start, end) in enumerate(heads):
            trained = [i for i in range(start, end) if labels[i] != IGNORED]
            if trained:
                first, last = trained[0], trained[-1] + 1
                before = tuple(i for i in leaks if i < first)
                out[number] = Seen(ids[:first], ids[first:last], len(trained) != last - first, before)
        return out

    def flaws(self, seen: Seen, turn: Turn) -> list[str]:
        """What is wrong with a trained stretch, judged by the way of serving that it comes closest to."""
        wrong = (PROMPT,) * bool(seen.leaks) + ("holes in the answer",) * seen.holes
        return [*wrong, *min((self._against(seen, way) for way in turn.served), key=_severity)]

    def _against(self, seen: Seen, way: Served) -> list[str]:
        before, trained, prompt = seen.before, seen.trained, way.prompt
        whole = before + trained
        if whole[: len(prompt)] != prompt:
            head = [BEFORE] * (trained[:1] == self.newline != way.answer[:1])
            return [self._context(before, prompt), *head, *self._answer(trained[len(head) :], way.answer)]
        if len(before) <= len(prompt):  # the end of the prompt may be trained
            extra = self.text(prompt[len(before) :])
            named = {"": [], "\n": [BEFORE], EMPTY_THINK: [EMPTY], "\n" + EMPTY_THINK: [BEFORE, EMPTY]}
            head = named.get(extra, [PROMPT])
            return [*head, *self._answer(whole[len(prompt) :], way.answer)]
        masked = before[len(prompt) :]
        if masked == way.answer[: len(masked)]:
            return ["beginning of the answer not trained", *self._answer(whole[len(prompt) :], way.answer)]
        return [self._context(before, prompt), *self._answer(trained, way.answer)]

    def _answer(self, trained: list[int], answer: list[int]) -> list[str]:
        """What is wrong with the trained tokens after the prompt."""
        full = answer + self.stop
        if trained == full:
            return []
        if trained == full + self.newline:
            return [AFTER]
        if trained == answer:
            return ["stop token not trained"]
        if trained[: len(self.empty)] == self.empty != answer[: len(self.empty)]:
            return [EMPTY, *self._answer(trained[len(self.empty) :], answer)]
        tail = [AFTER] * (trained[-2:] == self.stop + self.newline)
        return [self._difference(trained, answer), *tail]

    def _difference(self, trained: list[int], answer: list[int]) -> str:
        wrote, wanted = self.text(trained).removesuffix("\n").removesuffix(STOP), self.text(answer)
        if wrote == wanted:
            return "answer: same text in other tokens"
        if wrote.strip() == wanted.strip():
            return "answer: white space at its ends changed"
        if _without_think(wrote).strip() == _without_think(wanted).strip():
            return "answer: think block differs"
        if wanted.startswith(wrote):
            return "answer cut"
        return "answer: other text"

    def _context(self, before: list[int], prompt: list[int]) -> str:
        """In what a context that is not the serving prompt differs from it."""
        has, wants = self.text(before).rstrip("\n"), self.text(prompt).rstrip("\n")
        has, wants = has.removesuffix(EMPTY_THINK.rstrip("\n")).rstrip("\n"), wants
        if has == wants.removesuffix(EMPTY_THINK.rstrip("\n")).rstrip("\n"):
            return "prompt: same text in other tokens"
        bare, wanted = _without_think(has), _without_think(wants)
        if bare.strip() == wanted.strip():
            return "prompt: think blocks of earlier turns differ"
        if bare.split(STOP, 1)[-1] == wanted.split(STOP, 1)[-1]:
            return "prompt: system or tools differ"
        if "".join(bare.split()) == "".join(wanted.split()):
            return "prompt: white space differs"
        return "prompt: other text"


def _without_think(text: str) -> str:
    return re.sub(r"<think>.*?</think>\n*", "", text, flags=re.DOTALL)


def _severity(flaws: list[str]) -> tuple[bool, int]:
    return any(f.startswith(("prompt", "answer")) for f in flaws), len(flaws)


def score(law: Law, turns: Mapping[str, list[Turn]], sequences: Iterable[tuple[list[int], list[int]]]) -> Score:
    """Counts a tool's output against the turns of the rows it was given, by the rows' keys."""
    found: dict[tuple[str, int], list[Seen]] = {}
    result = Score()
    for ids, labels in sequences:
        result.sequences += 1
        key = law.sequence_key(ids)
        if key not in turns:
            result.sequences_of_no_row += 1
            continue
        for number, seen in law.stretches(ids, labels).items():
            found.setdefault((key, number), []).append(seen)
    for key, wanted in turns.items():
        for number, turn in enumerate(wanted):
            stretches = found.get((key, number), [])
            if not turn.wanted:
                result.unwanted_turns += 1
                result.unwanted_trained += bool(stretches)
                continue
            if not stretches:
                result.add([MISSING])
                continue
            judged = [(law.flaws(seen, turn), seen) for seen in stretches]
            flaws, seen = min(judged, key=lambda pair: _severity(pair[0]))
            flaws += [TWICE] * (len(stretches) > 1)
            result.add(flaws)
            for flaw in flaws:
                result.examples.setdefault(flaw, _example(law, flaw, turn, seen))
    return result


def _example(law: Law, flaw: str, turn: Turn, seen: Seen) -> dict[str, str]:
    """A turn as it is served and as it is trained, around the first difference, or at the end for what comes last."""
    way = min(turn.served, key=lambda way: _severity(law._against(seen, way)))
    served = [(t, False) for t in way.prompt] + [(t, True) for t in way.answer + law.stop]
    trained = [(t, i in seen.leaks) for i, t in enumerate(seen.before)] + [(t, True) for t in seen.trained]
    differ = [i for i, (a, b) in enumerate(zip(served, trained, strict=False)) if a != b]
    both = {"served": served, "trained": trained}
    painted = {
        name: _painted(law, many, len(many) - 6 if flaw == AFTER or not differ else differ[0] - 5)
        for name, many in both.items()
    }
    return {"turn": turn.name} | painted


def _painted(law: Law, tokens: list[tuple[int, bool]], start: int, width: int = 14) -> str:
    """A window of tokens: `·` between them, ⏎ for a newline, trained ones in ⟦ ⟧, … where more follows."""
    start = max(start, 0)
    window = tokens[start : start + width]
    text, inside = "…" if start else "", False
    for token, trained in window:
        text += "⟦" if trained and not inside else "⟧" if inside and not trained else "·" if text else ""
        text += law.text([token]).replace("\n", "⏎")
        inside = trained
    return text + ("…" if start + width < len(tokens) else "⟧" if inside else "")
