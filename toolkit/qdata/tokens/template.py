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
from qdata.tokens import default_system
from qdata.tokens.probe import ObservedError, Probe

SHIPPED = shipped("templates")
_HEADER = re.compile(r"\A\{#-?\s*qdata\n(.*?)-?#\}", re.DOTALL)

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
    about: str = ""  # what it follows, in words

    @classmethod
    def load(cls, name: str) -> Template:
        """A template by its name in templates/, or a `.jinja` file. Raises QdataError when it is neither or broken."""
        ours = {file.stem: file for file in SHIPPED.glob("*.jinja")}
        if name.endswith(".jinja"):
            if not Path(name).is_file():
                raise QdataError(f"{name}: no such template file")
            try:
                source, label = Path(name).read_text(encoding="utf-8"), Path(name).stem
            except UnicodeDecodeError as error:
                raise QdataError(f"{name}: not UTF-8 ({error.reason} at byte {error.start + 1})") from None
        elif name in ours:
            source, label = ours[name].read_text(encoding="utf-8"), name
        else:
            raise QdataError(f"no template is called {name!r}.{did_you_mean(name, ours)} A path ends in .jinja.")
        declared = _declared(source, name)
        template = cls(
            label, source, declared.get("stop", cls.stop), declared.get("tokenizer"), declared.get("follows", "")
        )
        return _checked(template, name)

    @property
    def sha256(self) -> str:
        """Of the text as it is saved with the model."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    @property
    def default_system(self) -> str | None:
        """The system prompt the template supplies where a conversation has none; None where it supplies none."""
        return default_system.supplied(self)

    def with_default_system(self, text: str | None) -> Template:
        """The template with another default system prompt; None changes nothing, `"none"` takes it away."""
        return self if text is None else replace(self, source=default_system.edit(self, text))

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Any] | None = None,
        *,
        add_generation_prompt: bool = False,
        enable_thinking: bool | None = None,
    ) -> str:
        """The text a server makes of these messages; `enable_thinking` None leaves it undefined, as a server does.

        Raises QdataError with the template's own complaint.
        """
        switch = {} if enable_thinking is None else {"enable_thinking": enable_thinking}
        try:
            return self._compiled().render(
                messages=list(messages), tools=tools or None, add_generation_prompt=add_generation_prompt, **switch
            )
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise QdataError(f"template {self.name}: {error}") from None

    def _compiled(self) -> jinja2.Template:
        return _compile(self.source)

    @property
    def transparent(self) -> bool:
        """Whether every use of a message's text in it can be observed by a probe (see probe.py)."""
        tree = _environment().parse(self.source)
        if any(True for _ in tree.find_all(_CAPTURES)):
            return False
        if not {node.name for node in tree.find_all(jinja2.nodes.Filter)} <= _TRANSPARENT_FILTERS:
            return False
        if any(test.name == "in" or not _sees_arguments(test) for test in tree.find_all(jinja2.nodes.Test)):
            return False
        if not all(_sees_operands(compare) for compare in tree.find_all(jinja2.nodes.Compare)):
            return False
        return all(_sees_arguments(call) for call in tree.find_all((jinja2.nodes.Call, jinja2.nodes.Filter)))


def _declared(source: str, label: str) -> dict[str, str]:
    """What a template's header comment declares; nothing where it has none."""
    header = _HEADER.match(source)
    try:
        declared = tomllib.loads(header.group(1)) if header else {}
    except tomllib.TOMLDecodeError as error:
        raise QdataError(f"{label}: its header comment is not valid TOML: {error}") from None
    for key, value in declared.items():
        if not isinstance(value, str):
            raise QdataError(f"{label}: {key} in its header comment: wanted text, got {value!r}")
    return declared


def _sees_arguments(call: Any) -> bool:
    """Whether a text given to a call as an argument would be noticed: `'yes or no'.find(text)` looks at it unseen."""
    if isinstance(call, jinja2.nodes.Call) and isinstance(call.node, jinja2.nodes.Name):
        return True  # namespace, dict, raise_exception: they store or write
    given = [*call.args, *(pair.value for pair in call.kwargs), call.dyn_args, call.dyn_kwargs]
    return all(one is None or isinstance(one, jinja2.nodes.Const) for one in given)


def _sees_operands(compare: jinja2.nodes.Compare) -> bool:
    """Whether a comparison asks the text: `text in 'yes or no'` asks the literal, and the text notices nothing."""
    lists = (jinja2.nodes.List, jinja2.nodes.Tuple)
    return all(
        operand.op not in ("in", "notin")
        or isinstance(compare.expr, jinja2.nodes.Const)
        or isinstance(operand.expr, lists)
        for operand in compare.ops
    )


def of_tokenizer(directory: Path) -> Template:
    """The template that lies with a tokenizer: `chat_template.jinja`, else `chat_template` in tokenizer_config.json.

    Raises QdataError when there is none.
    """
    file, config = directory / "chat_template.jinja", directory / "tokenizer_config.json"
    source: Any = file.read_text(encoding="utf-8") if file.is_file() else None
    if source is None and config.is_file():
        source = json.loads(config.read_text(encoding="utf-8")).get("chat_template")
    if isinstance(source, list):  # several under names
        source = next((one["template"] for one in source if one["name"] == "default"), None)
    if not isinstance(source, str):
        raise QdataError(f"{directory}: its tokenizer has no chat template; name one with --template")
    return _checked(Template("tokenizer", source), str(directory))


def _checked(template: Template, label: str) -> Template:
    """The template if it compiles, with the stop token it writes where its header does not name one."""
    try:
        template._compiled()
    except jinja2.TemplateSyntaxError as error:
        raise QdataError(f"{label}, line {error.lineno}: {error.message}") from None
    return template if _HEADER.match(template.source) else replace(template, stop=_stop_of(template))


def _stop_of(template: Template) -> str:
    """What stands behind an answer: the special-looking token after the text of an assistant message."""
    said = "probe of the answer"
    text = template.render([{"role": "user", "content": "probe"}, {"role": "assistant", "content": said}])
    stop = re.match(r"\s*(<[^<>\s]+>)", text.rpartition(said)[2])
    if not stop:
        raise QdataError(
            f"template {template.name}: no stop token such as <|im_end|> behind an answer, it ends "
            f"{text.rpartition(said)[2][:40]!r}. What ends an answer must be trained; declare it in a header comment."
        )
    return stop.group(1)


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
    _refuse_probes(value)
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse_probes(value: Any) -> None:
    """json.dumps reads strings behind their back: a probe (probe.py) would not notice."""
    if isinstance(value, Probe):
        raise ObservedError("tojson")
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return
    for one in value:
        _refuse_probes(one)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
