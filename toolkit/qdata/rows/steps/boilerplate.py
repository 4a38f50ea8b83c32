"""What a model says of itself instead of an answer: "As an AI language model …", "我是一个人工智能助手，无法…"."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import polars as pl

from qdata.rows.steps._judge import Role, dropped, first_reason, said_by

_MODEL_EN = r"(?:(?:large|artificial|virtual|intelligent|text[- ]based|conversational|digital) )*"
_MODEL_EN += r"(?:AI|A\.I\.|artificial intelligence|language model|GPT(?:-?[0-9.]+)?|machine learning (?:model|system)"
_MODEL_EN += r"|(?:virtual|digital) assistant|chatbot)"
_MODEL_EN += r"(?:[- ](?:language|text|text[- ]based|model|assistant|system|chatbot|bot|program|entity|tool|agent))*"
_MODEL_EN += r"(?: (?:developed|trained|created|made|built|designed) (?:by|on|to) [^,.\n]{1,40})?"
_MODEL_ZH = r"(?:一[个名种位款])?(?:由?\w{0,12}(?:训练|开发|研发)的)?(?:大型?|虚拟|智能)?"
_MODEL_ZH += r"(?:人工智能|AI|语言模型|大模型|机器人|智能助手)"
_ITSELF_ZH = r"(?:语言|大|聊天|助手|助理|实体|模型|程序|系统|机器人|的? ?AI|的人工智能|的语言模型)*"
_ITSELF_ZH += r"(?:[，,。；：！\s]|我|无法|不能|没有|并|是|也|只|可以|会|来说|$)"
PATTERNS = {
    # "as" alone is no speaking of oneself: "technologies such as AI", "as AI becomes more common", 作为人工智能的分支
    "as_an_ai": rf"(?i)\b(?:as|being) (?:an?|your) {_MODEL_EN}(?:[,;:.!)]|\s+(?:I|my|you)\b)"
    rf"|\b(?:as|being) (?:the )?{_MODEL_EN},? (?:I|my)\b"
    rf"|\b(?:since|because) I(?: am|'m|’m) (?:just |only |merely )?(?:an? |the )?{_MODEL_EN}\b"
    rf"|\bI(?: am|'m|’m) (?:just |only |merely )?(?:an? |the )?{_MODEL_EN}(?:[,.]| and| so| that| which)"
    rf"|(?:作为|身为){_MODEL_ZH}{_ITSELF_ZH}|(?:由于我是|因为我是|我只是|我仅仅是|我作为){_MODEL_ZH}"
    rf"|我是{_MODEL_ZH}[^。！？\n]{{0,20}}(?:无法|不能|没有|不具备|并不)",
    "knowledge_cutoff": r"(?i)\bmy (?:knowledge|training)(?: data)?(?: cut-?off| (?:only )?(?:extends|goes))"
    r"|knowledge cut-?off|as of my last (?:knowledge )?(?:update|training)"
    r"|我的(?:知识|训练数据)(?:库)?(?:截止|截至|更新)",
}


@dataclass(frozen=True)
class Boilerplate:
    """Drops conversations in which an answer speaks of its speaker as a language model, or of when it was trained.

    Phrases are those that Vicuna's cleaning and peers after it look for, in English and Chinese. `patterns` are
    more of one's own. Refusals that name no model ("I'm sorry, but …") are not looked for: some are right.
    """

    patterns: tuple[str, ...] = field(default=(), metadata={"help": "more regular expressions (of polars' engine)"})
    roles: tuple[Role, ...] = field(default=("assistant",), metadata={"help": "whose texts are looked at"})
    edits: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Raises ValueError for patterns that are no regular expressions of polars' engine."""
        for pattern in self.patterns:
            try:
                pl.Series([""]).str.contains(pattern)
            except pl.exceptions.ComputeError as error:
                why = str(error).rpartition("error: ")[2].splitlines()[0]
                raise ValueError(f"patterns: {pattern!r} is no regular expression ({why})") from None

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Reasons: `boilerplate.as_an_ai`, `boilerplate.knowledge_cutoff`, `boilerplate.own_pattern`.

        >>> from qdata.rows.steps._turns import example, shown
        >>> shown(Boilerplate()(example("user: a", "assistant: As an AI language model, I cannot smell.")))
        ['boilerplate.as_an_ai']
        >>> shown(Boilerplate()(example("user: 你好", "assistant: 作为一个人工智能语言模型，我无法闻到气味。")))
        ['boilerplate.as_an_ai']
        """
        text = pl.col("content")
        # a cheap look first: the patterns above take twenty times as long
        may = said_by(self.roles) & text.str.contains_any(_WORDS, ascii_case_insensitive=True)
        found = [
            pl.when(may & text.str.contains(p)).then(pl.lit(f"boilerplate.{name}")) for name, p in PATTERNS.items()
        ]
        mine = said_by(self.roles)
        own = [pl.when(mine & text.str.contains(p)).then(pl.lit("boilerplate.own_pattern")) for p in self.patterns]
        return dropped(frame, first_reason(pl.coalesce([*found, *own]), text=False))


_WORDS = [" ai", "a.i.", "artificial", "language model", "gpt", "virtual", "chatbot", "digital", "cutoff", "cut-off"]
_WORDS += ["my knowledge", "my training", "my last", "人工智能", "语言模型", "大模型", "机器人", "智能助手", "知识"]
_WORDS += ["训练数据", "截止", "截至", "作为", "我只是", "我是", "as of", "machine learning"]
