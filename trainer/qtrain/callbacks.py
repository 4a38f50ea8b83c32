"""What a person sees while a model trains, and what stays beside every checkpoint."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import TrainerCallback

from qtrain import plot


class Dashboard(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """One live line: step, loss, eval loss, learning rate, tokens/s, time left. Off a terminal a line per log."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.shown: dict[str, str] = {}
        self.progress = Progress(
            TextColumn("train"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console,
        )  # fmt: skip

    def __enter__(self) -> Dashboard:
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()  # also after an error: the terminal's cursor is hidden while it runs

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.task = self.progress.add_task("", total=state.max_steps, completed=state.global_step)
        self.first = state.global_step
        self.began, self.clock, self.tokens = time.monotonic(), time.monotonic(), state.num_input_tokens_seen
        if self.console.is_terminal:
            self.progress.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.progress.update(self.task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        if "loss" in logs:
            now, tokens = time.monotonic(), state.num_input_tokens_seen
            self.shown["loss"] = f"{logs['loss']:.3f}"
            self.shown["lr"] = f"{logs['learning_rate']:.1e}"
            self.shown["tokens/s"] = f"{(tokens - self.tokens) / max(now - self.clock, 1e-9):,.0f}"
            self.clock, self.tokens = now, tokens
        if "eval_loss" in logs:
            self.shown["eval"] = f"{logs['eval_loss']:.3f}"
            self.clock = time.monotonic()  # evaluating is not training slowly
        line = " · ".join(f"{name} {value}" for name, value in self.shown.items())
        self.progress.update(self.task, description=line)
        if not self.console.is_terminal and "loss" in logs:
            done = max(state.global_step - self.first, 1)
            left = (time.monotonic() - self.began) / done * (state.max_steps - state.global_step)
            step = f"step {state.global_step}/{state.max_steps}"
            self.console.print(f"{step} · {line} · {left:.0f} s left", soft_wrap=True)


class Journal(TrainerCallback):  # type: ignore[misc]
    """Writes each log entry to log.jsonl and redraws loss.png with every checkpoint."""

    def __init__(self, run: Path, title: str) -> None:
        self.run, self.title = run, title

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        if state.is_world_process_zero:
            entry = {"step": state.global_step, **logs}
            with (self.run / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            plot.save(state.log_history, self.run / "loss.png", self.title)
