"""A jinja chat template: read, given a default system prompt, compiled, hashed.

The text held here is the text that is saved with the model and that a server renders. The environment is the one
servers use (transformers' `apply_chat_template`): sandboxed, trimmed blocks, loop controls, `raise_exception`,
`strftime_now`, and a `tojson` that neither escapes HTML nor sorts keys.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox

from qdata.errors import QdataError, did_you_mean
from qdata.paths import shipped

SHIPPED = shipped("templates")
_HEADER = re.compile(r"\A\{#-?\s*qdata\n(.*?)-?#\}", re.DOTALL)
_DEFAULT = re.compile(r"(\{%-?\s*set default_system = )(\"(?:[^\"\\]|\\.)*\")(\s*-?%\})")

# What a template may do with a message's text without our seeing it; such a template is rendered row by row.
_CAPTURES = (
    jinja2.nodes.Concat,
    jinja2.nodes.AssignBlock,
    jinja2.nodes.Macro,
    jinja2.nodes.FilterBlock,
    jinja2.nodes.CallBlock,
)
_TRANSPARENT_FILTERS = {"tojson", "length", "count", "trim", "default", "d", "string"}


@dataclass(frozen=True)
class Template:
    """A chat template and what it declares in its header comment."""

    name: str
    source: str
    stop: str = "<|im_end|>"  # what ends an answer; trained with it
    tokenizer: str | None = None  # hub id of the tokenizer it was written for

    @classmethod
    def load(cls, name: str) -> Template:
        """A template by its name in templates/, or a `.jinja` file. Raises QdataError when it is neither or broken."""
        ours = {file.stem: file for file in SHIPPED.glob("*.jinja")}
        if name.endswith(".jinja"):
            if not Path(name).is_file():
                raise QdataError(f"{name}: no such template file")
            source, label = Path(name).read_text(encoding="utf-8"), Path(name).stem
        elif name in ours:
            source, label = ours[name].read_text(encoding="utf-8"), name
        else:
            raise QdataError(f"no template is called {name!r}.{did_you_mean(name, ours)} A path ends in .jinja.")
        header = _HEADER.match(source)
        declared = tomllib.loads(header.group(1)) if header else {}
        template = cls(label, source, declared.get("stop", cls.stop), declared.get("tokenizer"))
        try:
            template._compiled()
        except jinja2.TemplateSyntaxError as error:
            raise QdataError(f"{name}, line {error.lineno}: {error.message}") from None
        return template

    @property
    def sha256(self) -> str:
        """Of the text as it is saved with the model."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    @property
    def default_system(self) -> str | None:
        """The system prompt the template supplies itself, where it says so in a variable."""
        found = _DEFAULT.search(self.source)
        return json.loads(found.group(2)) if found else None

    def with_default_system(self, text: str | None) -> Template:
        """The template with another default system prompt; None changes nothing.

        Ours hold it in a variable. Before any other template a guard is put that adds the system message where
        there is none, which equals sending it.
        """
        if text is None:
            return self
        literal = json.dumps(text, ensure_ascii=False)
        if _DEFAULT.search(self.source):
            return replace(self, source=_DEFAULT.sub(lambda m: m[1] + literal + m[3], self.source, count=1))
        guard = (
            "{%- if not messages or messages[0].role != 'system' %}"
            "{%- set messages = [{'role': 'system', 'content': " + literal + "}] + messages %}{%- endif %}"
        )
        return replace(self, source=guard + self.source)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Any] | None = None,
        *,
        add_generation_prompt: bool = False,
    ) -> str:
        """The text a server makes of these messages. Raises QdataError with the template's own complaint."""
        try:
            return self._compiled().render(
                messages=list(messages), tools=tools or None, add_generation_prompt=add_generation_prompt
            )
        except jinja2.TemplateError as error:
            raise QdataError(f"template {self.name}: {error}") from None

    def _compiled(self) -> jinja2.Template:
        return _compile(self.source)

    @property
    def transparent(self) -> bool:
        """Whether every use of a message's text in it can be observed by a probe (see render.py)."""
        tree = _environment().parse(self.source)
        filters = {node.name for node in tree.find_all(jinja2.nodes.Filter)}
        return not any(True for _ in tree.find_all(_CAPTURES)) and filters <= _TRANSPARENT_FILTERS


@functools.lru_cache(maxsize=16)
def _compile(source: str) -> jinja2.Template:
    return _environment().from_string(source)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
