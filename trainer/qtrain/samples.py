"""What the model answers while it learns: the recipe's questions at each evaluation, and how much is said again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from transformers import TrainerCallback

from qdata.rows.steps.score_repetition import ScoreRepetition
from qdata.schema import conform
from qtrain import steps
from qtrain.chat import Chat, opening
from qtrain.recipe import Eval

FILE = "samples.jsonl"
_SHOWN = 200  # characters of an answer in the table; the file has all


class Samples(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Asks `asked` of the model in training, writes samples.jsonl and shows a table.

    A conversation goes through the template that is saved with the model, as `qtrain chat` does it; with `raw` the
    model goes on with the bare text, which is all that pretraining knows.
    """

    def __init__(self, run: Path, asked: Eval, tokenizer: Any, console: Console, *, raw: bool) -> None:
        self.run, self.asked, self.tokenizer, self.console, self.raw = run, asked, tokenizer, console, raw
        self.last = -1

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        file = self.run / FILE
        done = steps.rewind(file, state.global_step) if state.is_world_process_zero else steps.read(file)
        self.last = max((one["step"] for one in done if one["step"] <= state.global_step), default=-1)

    def on_evaluate(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self._sample(args, state, model)

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self._sample(args, state, model)

    def _sample(self, args: Any, state: Any, model: Any) -> None:
        if state.global_step == self.last or not self.asked.prompts:
            return
        self.last = state.global_step
        # Every process asks: where the weights are shared out among them, none has a whole model.
        with undisturbed(model), _autocast(args, model):
            answers = [self._answer(model, prompt) for prompt in self.asked.prompts]
        if state.is_world_process_zero:
            shown = Table("prompt", "answer", "repeated", title=f"step {state.global_step}", title_justify="left")
            for prompt, answer, again in zip(self.asked.prompts, answers, repetition(answers), strict=True):
                entry = {"step": state.global_step, "prompt": prompt, "answer": answer, "repetition": again}
                steps.append(self.run / FILE, entry)
                shown.add_row(Text(prompt), Text(" ".join(answer.split())[:_SHOWN]), f"{again:.0%}")
            self.console.print(shown)

    def _answer(self, model: Any, prompt: str) -> str:
        chat = Chat(self.run, model, self.tokenizer)  # a run's own manifest says where its answers stop
        if self.raw:
            return chat.complete(prompt, self.asked.max_new_tokens)
        messages = [*opening(self.asked.system), {"role": "user", "content": prompt}]
        return chat.answer(messages, self.asked.max_new_tokens)


def repetition(answers: Sequence[str]) -> list[float]:
    """How much of an answer came before in it: of 4-grams of words, as `score.repetition` of qdata, or of strings of 10
    characters, whichever is more (zeros or spaces in a row are no words); 0 of an empty one.

    >>> repetition(["a list that goes round, a list that goes round, a list that goes round", "ok", "0" * 20])
    [0.6066, 0.0, 0.9091]
    """
    said = [[{"role": "assistant", "content": answer}] for answer in answers]
    rows = conform(pl.LazyFrame({"content_hash": [str(i) for i in range(len(said))], "messages": said}))
    scores = ScoreRepetition()(rows).select(pl.col("score").struct.field("repetition")).collect().to_series()
    both = zip(scores.fill_null(0.0), map(_again, answers), strict=True)
    return [round(max(of_words, of_characters), 4) for of_words, of_characters in both]


def _again(text: str, length: int = 10) -> float:
    found = [text[at : at + length] for at in range(len(text) - length + 1)]
    return 1 - len(set(found)) / len(found) if found else 0.0


@contextmanager
def undisturbed(model: Any) -> Iterator[None]:
    """`model` ready to answer; afterwards every module is in its old mode, and no random number has been drawn."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        for module, training in modes:
            module.training = training


def _autocast(args: Any, model: Any) -> Any:
    kind = torch.bfloat16 if args.bf16 else torch.float16
    return torch.autocast(model.device.type, kind, enabled=args.bf16 or args.fp16)
