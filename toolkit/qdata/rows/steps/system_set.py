"""One system prompt for all conversations: in place of every other one, only where there is none, or none at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import polars as pl

from qdata.rows.steps._system import by_language, check, with_system, without


@dataclass(frozen=True)
class SystemSet:
    """Replaces every system prompt, fills in missing ones (white space only is missing), or drops them all.

    The prompt is the system messages that a conversation opens with; later ones are part of the talk and stay. Whether
    a conversation is Chinese or English is told by the script of its turns. Placeholders in the text, like {{name}},
    are filled by the recipe's `placeholders`; jinja statements are refused.
    """

    do: Literal["replace", "fill", "drop"] = field(default="replace", metadata={"help": "what becomes of the prompts"})
    text: str | dict[str, str] | None = field(
        default=None, metadata={"help": "the system prompt, or one per language: { zh = text, en = text }"}
    )
    sources: Mapping[str, str | dict[str, str]] = field(
        default_factory=dict,
        metadata={"help": "source = text, before `text`; without `text`, rows of other sources stay as they are"},
    )
    edits: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Raises ValueError where a text is missing, too many, or no prompt."""
        given = ({} if self.text is None else {"text": self.text}) | {
            f"sources.{k}": v for k, v in self.sources.items()
        }
        if self.do == "drop" and given:
            raise ValueError(f'do = "drop" takes the prompts away, and {next(iter(given))} has no place; leave it out')
        if self.do != "drop" and not given:
            raise ValueError(f'do = "{self.do}" wants a text, or sources with a text each')
        for name, text in given.items():
            check(text, name)

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Edits `messages`.

        >>> from qdata.rows.steps._turns import example, shown
        >>> shown(SystemSet(text="Be kind.")(example("system: You are Qwen.", "user: a", "assistant: b")))
        ['system: Be kind.', 'user: a', 'assistant: b']
        >>> shown(SystemSet(do="fill", text="Be kind.")(example("system: Be short.", "user: a", "assistant: b")))
        ['system: Be short.', 'user: a', 'assistant: b']
        >>> shown(SystemSet(text={"zh": "你好", "en": "Hello"})(example("user: 一二三", "assistant: 四")))
        ['system: 你好', 'user: 一二三', 'assistant: 四']
        >>> shown(SystemSet(do="drop")(example("system: s", "user: a", "assistant: b")))
        ['user: a', 'assistant: b']
        """
        if self.do == "drop":
            return frame.with_columns(messages=without())
        text = pl.lit(None, pl.String) if self.text is None else by_language(self.text)
        for source, other in self.sources.items():
            text = pl.when(pl.col("source") == source).then(by_language(other)).otherwise(text)
        return with_system(frame, text, self.do)
