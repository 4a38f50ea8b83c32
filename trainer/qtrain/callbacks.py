"""What a person sees while a model trains, and what stays beside every checkpoint."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text
from transformers import TrainerCallback

from qtrain import plot

_SOURCES = 12  # lines of the table
_GIB = 2**30


class Dashboard(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """A live table under a progress bar: losses, also by source, tokens/s, memory. Off a terminal a line per log."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.shown: dict[str, str] = {}
        self.sources: dict[str, dict[str, str]] = {}
        self.progress = Progress(
            TextColumn("step"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False), console=console,
        )  # fmt: skip
        self.live = Live(console=console, get_renderable=self.table, refresh_per_second=2)

    def __enter__(self) -> Dashboard:
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()  # also after an error: the terminal's cursor is hidden while it runs

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.task = self.progress.add_task("", total=state.max_steps, completed=state.global_step)
        self.first = state.global_step
        self.began, self.clock, self.tokens = time.monotonic(), time.monotonic(), state.num_input_tokens_seen
        if self.console.is_terminal:
            self.live.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.progress.update(self.task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        if "loss" in logs:
            now, tokens = time.monotonic(), state.num_input_tokens_seen
            self.shown["loss"] = f"{logs['loss']:.3f}"
            if "rewards/margins" in logs:  # of preference pairs
                self.shown["margin"] = f"{logs['rewards/margins']:.3f}"
                self.shown["in order"] = f"{logs['rewards/accuracies']:.0%}"
            self.shown["lr"] = f"{logs['learning_rate']:.1e}"
            self.shown["tokens/s"] = f"{(tokens - self.tokens) / max(now - self.clock, 1e-9):,.0f}"
            self.shown["memory"] = memory()
            self.clock, self.tokens = now, tokens
        if "eval_loss" in logs:
            self.shown["eval"] = f"{logs['eval_loss']:.3f}"
            self.clock = time.monotonic()  # evaluating is not training slowly
        for part in ("loss", "eval_loss"):
            of_source = {key.partition("/")[2]: f"{logs[key]:.3f}" for key in logs if key.startswith(f"{part}/")}
            if of_source:
                self.sources[part] = self.sources.get(part, {}) | of_source
        if not self.console.is_terminal:
            self._line(state, logs)

    def _line(self, state: Any, logs: dict[str, Any]) -> None:
        if "loss" in logs:
            done = max(state.global_step - self.first, 1)
            left = (time.monotonic() - self.began) / done * (state.max_steps - state.global_step)
            line = " · ".join(f"{name} {value}" for name, value in self.shown.items())
            step = f"step {state.global_step}/{state.max_steps}"
            self.console.print(f"{step} · {line} · {left:.0f} s left", soft_wrap=True)
            self.shown.pop("eval", None)  # on the line after the evaluation, and on no other
        several = self.sources.get("eval_loss", {})
        if "eval_loss" in logs and len(several) > 1:
            line = " · ".join(f"{name} {loss}" for name, loss in several.items())
            self.console.print(f"  eval by source: {line}", soft_wrap=True, markup=False)

    def table(self) -> Group:
        """What is shown on a terminal."""
        values = Table.grid(padding=(0, 2))
        for _ in self.shown:
            values.add_column(justify="right")
        values.add_row(*(Text(name, style="dim") for name in self.shown))
        values.add_row(*(Text(value, style="bold") for value in self.shown.values()))
        parts: list[Any] = [self.progress, values]
        names = list(dict.fromkeys(name for part in self.sources.values() for name in part))
        if len(names) > 1:
            by_source = Table("source", *self.sources, box=None, padding=(0, 2), header_style="dim")
            for name in names[:_SOURCES]:
                by_source.add_row(Text(name), *(part.get(name, "–") for part in self.sources.values()))
            if len(names) > _SOURCES:
                by_source.add_row(Text(f"and {len(names) - _SOURCES} more, in log.jsonl", style="dim"))
            parts.append(by_source)
        return Group(*parts)


def memory() -> str:
    """What this process takes now: main memory, and of a GPU what torch holds."""
    import torch

    said = f"{psutil.Process().memory_info().rss / _GIB:.1f} GiB"
    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        said += f", GPU {torch.cuda.memory_reserved() / _GIB:.1f} of {total / _GIB:.0f} GiB"
    return said


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
