"""Answers in which a model says that it is Qwen or ChatGPT, of Alibaba Cloud or OpenAI: it becomes the persona."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import polars as pl

from qdata.rows.steps._identity import HINTS, patterns, rewritten
from qdata.rows.steps._system import LANGUAGES
from qdata.rows.steps._texts import by_text, edited


@dataclass(frozen=True)
class Identity:
    """Rewrites "I am Qwen, created by Alibaba Cloud" to the persona's name and author, in assistant turns and prompts.

    Known are Qwen, QwQ, Tongyi Qianwen (通义千问), ChatGPT, GPT-N, DeepSeek, ChatGLM and 文心一言, of Alibaba (阿里云,
    阿里巴巴, 达摩院, 通义实验室), OpenAI, Anthropic, 深度求索 and 智谱AI. Only the names are changed, and only where a
    sentence speaks of itself: "I am", "my name is", "I was trained by", "as an AI by …, I", 我是, 我叫, 我由, 作为 …,
    我; in system prompts "you are" and 你是 too. Left alone are user turns, sentences about these models or companies,
    denials, questions, suppositions, what others say, quotations, code, rejected answers, and those judged bad.
    """

    name: str | dict[str, str] = field(metadata={"help": "the persona's name, or one per language: { zh = …, en = … }"})
    author: str | dict[str, str] = field(metadata={"help": "who made it, or one per language"})
    models: tuple[str, ...] = field(default=(), metadata={"help": "more names of models that are rewritten"})
    makers: tuple[str, ...] = field(default=(), metadata={"help": "more names of makers that are rewritten"})
    prompts: bool = field(default=True, metadata={"help": "rewrite system prompts too"})
    edits: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Raises ValueError for a name that is missing, or would itself be rewritten."""
        if not all(one.strip() for one in (*self.models, *self.makers)):
            raise ValueError("models, makers: an empty name would stand everywhere; leave it out")
        for what in ("name", "author"):
            for value in self._values(what):
                known = [one for one in (*HINTS, *map(str.lower, (*self.models, *self.makers))) if one in value.lower()]
                if not value.strip() or known:
                    why = f"holds {known[0]!r}, which is rewritten" if known else "is empty"
                    raise ValueError(f"{what}: {value!r} {why}; wanted the persona's own")

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Edits content and reasoning of `messages` and `chosen`.

        >>> from qdata.rows.steps._turns import example, shown
        >>> step = Identity(name={"zh": "沐雪", "en": "Muxue"}, author="Moemu")
        >>> shown(step(example("user: Who are you, Qwen?", "assistant: I am Qwen, created by Alibaba Cloud.")))
        ['user: Who are you, Qwen?', 'assistant: I am Muxue, created by Moemu.']
        >>> shown(step(example("user: 你是谁？", "assistant: 我是由OpenAI训练的语言模型。ChatGPT由OpenAI开发。")))
        ['user: 你是谁？', 'assistant: 我是由Moemu训练的语言模型。ChatGPT由OpenAI开发。']
        """
        before = frame.with_columns(_messages="messages", _rejected="rejected")
        after = edited(before, lambda texts: self._edit(texts, False), roles=["assistant"], text=False)
        if self.prompts:
            after = edited(after, lambda texts: self._edit(texts, True), roles=["system"], text=False)
        bad = pl.col("label").eq_missing(False)
        messages = pl.when(bad).then("_messages").otherwise("messages")
        return after.with_columns(messages=messages, rejected="_rejected").drop("_messages", "_rejected")

    def _edit(self, texts: pl.Series, prompts: bool) -> pl.Series:
        found = patterns(self.models, self.makers, prompts)
        names = dict(zip(LANGUAGES, zip(self._values("name"), self._values("author"), strict=True), strict=True))
        hints = [*HINTS, *(word.lower() for word in (*self.models, *self.makers))]
        likely = texts.str.to_lowercase().str.contains_any(hints)
        made = by_text(lambda text: rewritten(text, found, names), texts.filter(likely))
        return texts.scatter(likely.arg_true(), made) if len(made) else texts

    def _values(self, what: str) -> list[str]:
        """The value for each of LANGUAGES."""
        value = getattr(self, what)
        if isinstance(value, str):
            return [value] * len(LANGUAGES)
        if not value or set(value) - set(LANGUAGES):
            raise ValueError(
                f"{what}: wanted a text for each of {', '.join(LANGUAGES)}, got {', '.join(value) or 'none'}"
            )
        return [value.get(language, next(iter(value.values()))) for language in LANGUAGES]
