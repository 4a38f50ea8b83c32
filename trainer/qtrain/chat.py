"""Talk to a model as it will be served: through the chat template saved with it, with no system message of our own."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from qtrain import model as models
from qtrain import run

Message = dict[str, str]
_EXIT = ("/exit", "/quit")


@dataclass
class Chat:
    """A loaded model and its tokenizer. `path` is the folder they were read from."""

    path: Path
    model: Any
    tokenizer: Any

    def prompt(self, messages: Sequence[Message]) -> str:
        """The text the model is given: the saved template, up to where the answer begins."""
        return str(self.tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False))

    def answer(self, messages: Sequence[Message], limit: int, emit: Callable[[str], None] | None = None) -> str:
        """The model's next turn, at most `limit` tokens, without its stop token; `emit` gets the text as it grows.

        Greedy, so that the same model gives the same answer.
        """
        return self.complete(self.prompt(messages), limit, emit)

    def complete(self, text: str, limit: int, emit: Callable[[str], None] | None = None) -> str:
        """How `text` goes on, at most `limit` tokens; the rest as for `answer`."""
        import torch
        from transformers import TextStreamer

        class Streamer(TextStreamer):  # type: ignore[misc]
            def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
                if emit is not None:
                    emit(text)

        # The template writes every control token itself; the tokenizer must add none.
        inputs = self.tokenizer(text, add_special_tokens=False, return_tensors="pt")
        inputs = inputs.to(self.model.device)
        with torch.no_grad():  # inference_mode would leave tensors behind that a model in training cannot use
            output = self.model.generate(
                **inputs,
                generation_config=self._greedy(limit),
                streamer=Streamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True) if emit else None,
            )
        return str(self.tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))

    def _greedy(self, limit: int) -> Any:
        from transformers import GenerationConfig

        # A fresh configuration: the vendor's carries sampling temperatures and a repetition penalty.
        return GenerationConfig(
            max_new_tokens=limit,
            do_sample=False,
            eos_token_id=models.stops(self.tokenizer, run.stop_of(self.path)),
            pad_token_id=self.tokenizer.pad_token_id,
        )


def load(path: Path) -> Chat:
    """The model that `path` means (run, checkpoint, recipe folder or any Hugging Face folder), ready to answer.

    Raises QdataError where there is none.
    """
    from transformers import AutoTokenizer

    models.quiet()
    folder = run.model_in(path)
    return Chat(folder, models.for_inference(folder), AutoTokenizer.from_pretrained(folder))


def before(chat: Chat) -> Chat:
    """The model a run started from, with the run's tokenizer and template: what training changed is then all there is.

    Raises QdataError where it is out of reach.
    """
    beside = chat.path.parent / "base"
    if beside.is_dir():
        return load(beside)
    manifest = json.loads((chat.path / "manifest.json").read_text(encoding="utf-8"))
    folder = models.find(manifest["model"])
    return Chat(folder, models.for_inference(folder), chat.tokenizer)


def ask(chats: dict[str, Chat], questions: Sequence[str], system: str | None, limit: int) -> list[dict[str, str]]:
    """Each question put to each model in a conversation of its own: `{"question": …, <name of chat>: answer, …}`."""
    rows = []
    for question in questions:
        messages = [*opening(system), {"role": "user", "content": question}]
        rows.append({"question": question, **{name: chat.answer(messages, limit) for name, chat in chats.items()}})
    return rows


def opening(system: str | None) -> list[Message]:
    """The messages before the first question: none, unless a system message is asked for."""
    return [{"role": "system", "content": system}] if system is not None else []


def table(rows: Sequence[dict[str, str]]) -> Table:
    """Questions and answers side by side, blank lines left out."""
    shown = Table(show_lines=True)
    for name in rows[0]:
        shown.add_column(name, overflow="fold")
    for row in rows:
        # Text, not markup, and no control characters: an untrained model may say anything.
        shown.add_row(*(Text("\n".join(line for line in value.splitlines() if line.strip())) for value in row.values()))
    return shown


def talk(chat: Chat, system: str | None, limit: int, console: Console) -> None:
    """A conversation in the terminal, answers streaming, until /exit or end of input; /new starts over."""
    console.print(f"[bold]{chat.path}[/bold] · /new starts over, /exit ends", highlight=False)
    messages = opening(system)
    while True:
        try:
            question = console.input("[bold cyan]you ›[/bold cyan] ").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if question in _EXIT:
            return
        if question == "/new":
            messages = opening(system)
        elif question:
            messages.append({"role": "user", "content": question})
            console.print("[bold magenta]  it ›[/bold magenta] ", end="")
            said = chat.answer(messages, limit, lambda text: console.out(text, end="", highlight=False))
            console.print()
            messages.append({"role": "assistant", "content": said})
