"""A jinja chat template: read, given a default system prompt and the tokenizer's special tokens, rendered, hashed.

The text held here is the text that is saved with the model and that a server renders; sandbox.py renders it as a
server does.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jinja2
import jinja2.nodes

from qdata.errors import QdataError, did_you_mean
from qdata.paths import shipped
from qdata.tokens import default_system, sandbox
from qdata.tokens.probe import ObservedError

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
    variables: Mapping[str, str] = field(default_factory=dict, hash=False)  # the tokenizer's: bos_token, eos_token, …

    @classmethod
    def load(cls, name: str, variables: Mapping[str, str] | None = None) -> Template:
        """A template by its name in templates/, or a `.jinja` file. Raises QdataError when it is neither or broken.

        `variables` are the special tokens of the tokenizer it will be used with (`special_tokens`), as a server
        passes them. One that is not among them is undefined: jinja writes nothing for it.
        """
        ours = {file.stem: file for file in SHIPPED.glob("*.jinja")}
        if name.endswith(".jinja"):
            if not Path(name).is_file():
                raise QdataError(f"{name}: no such template file")
            source, label = _text(Path(name)), Path(name).stem
        elif name in ours:
            source, label = ours[name].read_text(encoding="utf-8"), name
        else:
            raise QdataError(f"no template is called {name!r}.{did_you_mean(name, ours)} A path ends in .jinja.")
        declared = _declared(source, name)
        template = cls(
            label,
            source,
            declared.get("stop", cls.stop),
            declared.get("tokenizer"),
            declared.get("follows", ""),
            variables or {},
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
        given = {"messages": list(messages), "tools": tools or None, "add_generation_prompt": add_generation_prompt}
        try:
            return sandbox.render(self.source, {**self.variables, **given, **switch})
        except ObservedError:
            raise
        except Exception as error:  # a template is a stranger's program: it may raise anything
            raise QdataError(f"template {self.name}: {_told(error)}") from None

    @property
    def transparent(self) -> bool:
        """Whether every use of a message's text in it can be observed by a probe (see probe.py)."""
        tree = sandbox.parse(self.source)
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

    Of several under names it is the one called `default`. Where there is another one called `tool_use`, a server takes
    that for conversations with tools; one template is saved with a model, so this is refused.
    Raises QdataError when there is none, too.
    """
    file, more = directory / "chat_template.jinja", directory / "additional_chat_templates"
    source: Any = _text(file) if file.is_file() else _config(directory).get("chat_template")
    named: dict[str, Any] = {one.stem: _text(one) for one in sorted(more.glob("*.jinja"))}
    if isinstance(source, list):  # several under names
        named |= {str(one.get("name")): one.get("template") for one in source if isinstance(one, dict)}
        source = named.get("default")
    if not isinstance(source, str):
        others = f" called default (only {', '.join(sorted(named))})" if named else ""
        raise QdataError(f"{directory}: its tokenizer has no chat template{others}; name one with --template")
    if named.get("tool_use", source) != source:
        raise QdataError(
            f"{directory}: its tokenizer has two chat templates, default and tool_use, and a server takes the second "
            f"where tools are given; one is saved with a model. Write the one you mean to a file, or both with "
            f"{{% if tools %}} around them, and name that with --template FILE.jinja"
        )
    return _checked(Template("tokenizer", source, variables=special_tokens(directory)), str(directory))


SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_QWEN = dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>")


def special_tokens(directory: Path) -> dict[str, str]:
    """The special tokens of a tokenizer folder by name, as transformers gives them to a chat template.

    They stand in tokenizer_config.json, as text or as `{"content": …}`; in older folders (without
    `added_tokens_decoder` there) special_tokens_map.json overrides them. What a Qwen tokenizer does not say is
    `<|endoftext|>`, as in transformers' Qwen2Tokenizer; `null` says there is none.
    Follows `special_tokens_map` of transformers 5 (tokenization_utils_base.py). Raises QdataError for broken files.
    """
    config = _config(directory)
    told = dict(_QWEN) if str(config.get("tokenizer_class")).startswith("Qwen2Tokenizer") else {}
    told |= config
    if "added_tokens_decoder" not in config:
        told |= _config(directory, "special_tokens_map.json")
    tokens = {name: told.get(name) for name in SPECIAL_TOKENS}
    out: dict[str, str] = {}
    for name, token in tokens.items():
        text = token.get("content") if isinstance(token, dict) else token
        if isinstance(text, str):
            out[name] = text
        elif token is not None:
            raise QdataError(f"{directory}: {name} of its tokenizer: wanted text, got {token!r}")
    return out


def _config(directory: Path, name: str = "tokenizer_config.json") -> dict[str, Any]:
    """What a JSON file of a tokenizer folder holds; nothing where it is not there."""
    file = directory / name
    if not file.is_file():
        return {}
    try:
        config = json.loads(_text(file))
    except ValueError as error:
        raise QdataError(f"{file}: not valid JSON: {error}") from None
    if not isinstance(config, dict):
        raise QdataError(f"{file}: wanted an object, got {type(config).__name__}")
    return config


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise QdataError(f"{file}: not UTF-8 ({error.reason} at byte {error.start + 1})") from None


def _told(error: Exception) -> str:
    """What a template raised, in words: its own complaints as they are, Python's with their kind."""
    known = isinstance(error, (jinja2.TemplateError, TypeError, ValueError))
    return str(error) if known else f"{type(error).__name__}: {error}"


def _checked(template: Template, label: str) -> Template:
    """The template if it compiles, with the stop token it writes where its header does not name one."""
    try:
        sandbox.compiled(template.source)
    except jinja2.TemplateSyntaxError as error:
        raise QdataError(f"{label}, line {error.lineno}: {error.message}") from None
    except jinja2.TemplateError as error:
        raise QdataError(f"{label}: {error}") from None
    return template if _HEADER.match(template.source) else replace(template, stop=_stop_of(template))


def _stop_of(template: Template) -> str:
    """What stands behind an answer: the special-looking token after the text of an assistant message."""
    said = "probe of the answer"
    text = template.render([{"role": "user", "content": "probe"}, {"role": "assistant", "content": said}])
    if said not in text:
        raise QdataError(
            f"template {template.name}: rewrites answers: {said!r} reads {text[-60:]!r}. Only what a model was told to "
            f"say can be trained"
        )
    stop = re.match(r"\s*(<[^<>\s]+>)", text.rpartition(said)[2])
    if not stop:
        raise QdataError(
            f"template {template.name}: no stop token such as <|im_end|> behind an answer, it ends "
            f"{text.rpartition(said)[2][:40]!r}. What ends an answer must be trained; declare it in a header comment. "
            f"If it is the tokenizer's eos_token, name the tokenizer with --tokenizer DIR|HUB_ID."
        )
    return stop.group(1)
