"""The system prompt of a character card, as role-play frontends write them: name, description, scenario, dialogue."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import polars as pl

from qdata.rows.steps._system import Where, check, with_system
from qdata.rows.steps._texts import edited

_FIELDS = ("name", "description", "personality", "scenario", "mes_example", "system_prompt")
_CHAR = r"(?i:\{\{\s*char\s*\}\})|<(?:BOT|CHAR)>"
_USER = r"(?i:\{\{\s*user\s*\}\})|<USER>"
_LAYOUT = {
    "en": "{{system_prompt}}\n\n{{description}}\n\n{{char}}'s personality: {{personality}}\n\n"
    "Scenario: {{scenario}}\n\nHow {{char}} talks:\n{{mes_example}}",
    "zh": "{{system_prompt}}\n\n{{description}}\n\n{{char}}的性格：{{personality}}\n\n"
    "场景：{{scenario}}\n\n{{char}}的说话方式：\n{{mes_example}}",
}


@dataclass(frozen=True)
class SystemCard:
    """Makes a character card the system prompt, and fills {{char}} and {{user}} in the prompt and in all turns.

    The card is a JSON or TOML file of the community's layout: flat (V1), or with `spec` and `data` (V2, V3). Read are
    name, description, personality, scenario, mes_example and system_prompt; greetings, notes and lore books are no part
    of a prompt. What the file says stands in the manifest, not where it lay.
    """

    file: str | None = field(default=None, metadata={"help": "card file (.json, .toml), relative to the recipe"})
    card: Mapping[str, Any] = field(default_factory=dict, metadata={"help": "the card itself, in place of a file"})
    user: str = field(default="User", metadata={"help": "whom the character talks to: the value of {{user}}"})
    layout: str | None = field(
        default=None,
        metadata={
            "help": "the prompt, with {{description}} and so on; paragraphs whose variable is empty are left out"
        },
    )
    do: Where = field(default="replace", metadata={"help": "replace every prompt, or only fill in missing ones"})
    edits: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Reads the file. Raises ValueError where there is none, or it is no card."""
        if (self.file is None) == (not self.card):
            raise ValueError("wanted either file (a card) or card (its fields)")
        given = self.card if self.file is None else _read(Path(self.file))
        object.__setattr__(self, "card", _fields(given, self.file or "card"))
        object.__setattr__(self, "file", None)
        for what, value in (("the card's name", self.card["name"]), ("user", self.user)):
            if not value.strip() or re.search(f"{_CHAR}|{_USER}", value):
                raise ValueError(f"{what}: {value!r} is no name")
        check(self.prompt, "the card")

    @property
    def prompt(self) -> str:
        """The system prompt.

        >>> SystemCard(card={"name": "Mia", "description": "{{char}} mends clocks.", "scenario": ""}).prompt
        'Mia mends clocks.'
        """
        said = {name: text.strip() for name, text in self.card.items()}
        said["mes_example"] = re.sub(r"\s*<START>\s*", "\n\n", said.get("mes_example", "")).strip()
        chinese = re.search("[\u4e00-\u9fff]", "".join(said.values()))
        paragraphs = []
        for paragraph in re.split(r"\n\s*\n", self.layout or _LAYOUT["zh" if chinese else "en"]):
            variables = set(re.findall(r"\{\{(\w+)\}\}", paragraph)) & set(_FIELDS)
            if all(said.get(name) for name in variables):
                paragraphs.append(re.sub(r"\{\{(\w+)\}\}", lambda m: said.get(m[1], m[0]), paragraph))
        text = re.sub(_CHAR, lambda _: self.card["name"], "\n\n".join(paragraphs))
        return re.sub(_USER, lambda _: self.user, text).strip()

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Edits content and reasoning of `messages`, `chosen` and `rejected`.

        >>> from qdata.rows.steps._turns import example, shown
        >>> card = SystemCard(card={"name": "Mia", "description": "{{char}} mends clocks."}, user="Ann")
        >>> shown(card(example("user: Hello {{char}}", "assistant: Hello {{user}}!")))
        ['system: Mia mends clocks.', 'user: Hello Mia', 'assistant: Hello Ann!']
        """

        def filled(texts: pl.Series) -> pl.Series:
            for pattern, value in ((_CHAR, self.card["name"]), (_USER, self.user)):
                texts = texts.str.replace_all(pattern, value.replace("$", "$$"))
            return texts

        return edited(with_system(frame, pl.lit(self.prompt), self.do), filled, text=False)


def _read(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text; export an image card as JSON first"
        raise ValueError(f"{path}: {why}; wanted a character card, .json or .toml") from None
    try:
        return tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: not valid {'TOML' if path.suffix == '.toml' else 'JSON'}: {error}") from None


def _fields(given: Any, where: str) -> dict[str, str]:
    """The fields of a card that a prompt is made of."""
    card = given.get("data", given) if isinstance(given, Mapping) else None
    if not isinstance(card, Mapping) or "name" not in card:
        raise ValueError(f"{where}: no character card; wanted a name beside {', '.join(_FIELDS[1:])}")
    found = {name: card[name] for name in _FIELDS if card.get(name) is not None}
    for name, value in found.items():
        if not isinstance(value, str):
            raise ValueError(f"{where}: {name}: wanted text, got {value!r}")
    prompt = found.get("system_prompt", "")  # {{original}} stands for the frontend's own prompt, and there is none here
    return found | {"system_prompt": re.sub(r"(?i)\{\{\s*original\s*\}\}", "", prompt)}
