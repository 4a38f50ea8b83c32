"""The default system prompt of any template: replaced, taken away, shown; and never the vendor's again."""

from __future__ import annotations

import importlib.util
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from qdata.cli import main
from qdata.errors import QdataError
from qdata.tokens.template import SHIPPED, Template

Message = dict[str, Any]

OURS = sorted(file.stem for file in SHIPPED.glob("*.jinja"))
VENDORS = ("qwen2", "qwen2_5", "qwen3")
IDENTITIES = ("You are Qwen, created by Alibaba Cloud", "You are a helpful assistant", "Below is an instruction")
ASKED: list[Message] = [{"role": "user", "content": "q"}]
TALK: list[Message] = [*ASKED, {"role": "assistant", "content": "a"}, {"role": "user", "content": "r"}]
TOOLS = [{"type": "function", "function": {"name": "look", "description": "查", "parameters": {"type": "object"}}}]
TEXTS = [
    "You are Muxue.",
    "你是沐雪。\n第二行",
    "quotes ' and \"",
    "{{ messages }} {% endif %} {# no #}",
    "\\n \\u0041 \\",
]


def system(text: str) -> Message:
    """A system message."""
    return {"role": "system", "content": text}


def templates(request: pytest.FixtureRequest) -> Template:
    """Ours by name, the vendor's by its file."""
    kind, _, name = str(request.param).partition(":")
    if kind == "ours":
        return Template.load(name)
    return Template.load(str(request.getfixturevalue("real_tokenizers") / f"official_templates/{name}.jinja"))


template = pytest.fixture(templates, params=[*(f"ours:{n}" for n in OURS), *(f"vendor:{n}" for n in VENDORS)])


def foreign(text: str, wanted: str = "") -> list[str]:
    """The vendors' identities in a text that did not ask for them."""
    return [identity for identity in IDENTITIES if identity in text and identity not in wanted]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("tools", [None, TOOLS], ids=["bare", "tools"])
def test_a_default_is_as_if_it_were_sent(template: Template, text: str, tools: Any) -> None:
    """Without a system message the new default stands there, with and without tools, and never the vendor's."""
    changed = template.with_default_system(text)
    for messages in (ASKED, TALK):
        for prompt in (True, False):
            got = changed.render(messages, tools, add_generation_prompt=prompt)
            assert got == template.render([system(text), *messages], tools, add_generation_prompt=prompt)
            assert text in got or template.name == "qwen3_5"
            assert not foreign(got)


@given(text=st.text(min_size=1, max_size=20).filter(str.strip))
@settings(max_examples=40, deadline=None)
def test_any_text_can_be_a_default(text: str) -> None:
    """Ours hold it in a variable; to any other a guard is prepended. Both say what was asked, whatever it is."""
    for one in (Template.load("qwen2_5"), Template("odd", "{%- for m in messages %}{{- m.content }}{%- endfor %}")):
        changed = one.with_default_system(text)
        if text == "none":
            return
        assert changed.render(ASKED) == one.render([system(text), *ASKED])
        assert changed.sha256 != one.sha256 or text == one.default_system


@pytest.mark.parametrize("tools", [None, TOOLS], ids=["bare", "tools"])
def test_none_takes_the_default_away(template: Template, tools: Any) -> None:
    """Nobody's identity is left, and no system prompt but what tools need."""
    changed = template.with_default_system("none")
    assert changed.default_system is None
    for messages in (ASKED, TALK):
        got = changed.render(messages, tools, add_generation_prompt=True)
        assert not foreign(got)
        assert tools or "system" not in got
        if tools and template.name not in ("qwen2", "chatml", "alpaca"):
            assert "<tools>" in got


@pytest.mark.parametrize("text", [*TEXTS, "none"])
def test_a_system_message_of_ones_own_stays(template: Template, text: str) -> None:
    """Whatever the default is, what is sent is what is shown, unchanged, and alone."""
    changed = template.with_default_system(text)
    for tools in (None, TOOLS):
        for own in ("Mine.", "", "You are a helpful assistant."):
            sent = [system(own), *TALK]
            got = changed.render(sent, tools, add_generation_prompt=True)
            assert got == template.render(sent, tools, add_generation_prompt=True)
            assert own in got
            assert text not in got


def test_the_default_can_be_read_back(template: Template) -> None:
    """Of ours and of the vendor's; nothing changes where nothing is asked."""
    assert template.with_default_system(None) is template
    lone = template.render(ASKED)
    assert (template.default_system is None) is not any(identity in lone for identity in IDENTITIES)
    if template.default_system is not None:
        assert lone == template.render([system(template.default_system), *ASKED])
    assert template.with_default_system("You are Muxue.").default_system == "You are Muxue."


def test_a_changed_default_can_be_changed_again(template: Template) -> None:
    """The last word counts."""
    changed = template.with_default_system("first").with_default_system("second")
    assert changed.render(ASKED) == template.render([system("second"), *ASKED])


CHATML = (
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
HARD = {
    "in two literals": "{{- '<|im_start|>system\\nYou are ' + 'Vendor.<|im_end|>\\n' }}",
    "between tags": "<|im_start|>system\nYou are Vendor.<|im_end|>{{- '\\n' }}",
    "through a filter": "{{- '<|im_start|>system\\nYe are Vendor.<|im_end|>\\n' | replace('Ye', 'You') }}",
}


@pytest.mark.parametrize("name", HARD)
def test_what_cannot_be_taken_away_is_refused(name: str) -> None:
    """With what it says and the way out: giving another text works."""
    source = "{%- if messages[0].role != 'system' %}" + HARD[name] + "{%- endif %}" + CHATML
    one = Template("hard", source)
    assert one.default_system == "You are Vendor."
    with pytest.raises(QdataError, match=r"'You are Vendor\.' cannot be taken away.*--default-system TEXT"):
        one.with_default_system("none")
    changed = one.with_default_system("Mine.")
    assert "Vendor" not in changed.render(ASKED)
    assert changed.render(ASKED) == one.render([system("Mine."), *ASKED])


WRITTEN = "'<|im_start|>system\\nYou are Vendor.<|im_end|>\\n'"
WITHOUT = "{%- if messages[0].role != 'system' %}"
INVENTED = {  # source in front of CHATML, texts of the vendor, what becomes of "none"
    "only with tools": (WITHOUT + "{%- if tools %}{{- " + WRITTEN + " }}{%- endif %}{%- endif %}", True),
    "only without tools": (WITHOUT + "{%- if not tools %}{{- " + WRITTEN + " }}{%- endif %}{%- endif %}", True),
    "two of them": (
        WITHOUT + "{%- if tools %}{{- 'You are Vendor, with tools.\\n' }}{%- else %}{{- " + WRITTEN + " }}{%- endif %}"
        "{%- endif %}",
        True,
    ),
    "one within the other": (
        WITHOUT
        + "{%- if tools %}{{- 'You are Vendor. So.' }}{%- else %}{{- 'You are Vendor.' }}{%- endif %}{%- endif %}",
        True,
    ),
    "its newline eaten": (WITHOUT + "{{- '<|im_start|>system\\nYou are Vendor.<|im_end|>' -}}\n\n{%- endif %}", True),
    "another end": (WITHOUT + "{{- '<|im_start|>system\\nYou are Vendor.<|im_end|>  ' }}{%- endif %}", True),
    "in plain text, trimmed": (
        WITHOUT + "\n<|im_start|>system\nYou are Vendor.<|im_end|>\n\n{%- else -%}\n{%- endif %}",
        False,
    ),
    "in a variable at the top": (
        "{%- set d = 'You are Vendor.' %}"
        + WITHOUT
        + "{{- '<|im_start|>system\\n' + d + '<|im_end|>\\n' }}{%- endif %}",
        True,
    ),
    "in a variable called as ours, with tools only": (
        (
            '{%- set default_system = "You are Vendor." %}'
            "{%- if tools and messages[0].role != 'system' %}{{- default_system }}{%- endif %}"
        ),
        True,
    ),
    "in a variable called as ours, of no use": (
        '{%- set default_system = "You are nobody." %}' + WITHOUT + "{{- " + WRITTEN + " }}{%- endif %}",
        True,
    ),
    "by concatenation": (
        WITHOUT + "{{- '<|im_start|>system\\nYou are ' ~ 'Vendor.<|im_end|>\\n' }}{%- endif %}",
        False,
    ),
    "only while thinking": (WITHOUT + "{%- if enable_thinking %}{{- " + WRITTEN + " }}{%- endif %}{%- endif %}", True),
    "only in a longer talk": (
        WITHOUT + "{%- if messages|length > 2 %}{{- " + WRITTEN + " }}{%- endif %}{%- endif %}",
        True,
    ),
    "an apostrophe in a comment": ("{#- don't -#}" + WITHOUT + "{{- " + WRITTEN + " }}{%- endif %}", True),
    "its length is told with every system message": (
        "{%- set d = 'You are Vendor.' %}"
        + WITHOUT
        + "{{- '[' + d + ']' }}{%- else %}{{- '[' + messages[0].content + ']' }}"
        "{%- set messages = messages[1:] %}{%- endif %}{{- d|length }}",
        False,
    ),
    "written again in parts": (
        "{%- set unused = 'You are Vendor.' %}" + WITHOUT + "{{- '[' + 'You are ' + 'Vendor.' + ']' }}{%- endif %}",
        False,
    ),
    "none at all": ("", True),
    "with every conversation": ("{{- 'You are Vendor.' }}", None),
    "takes no system message": (
        "{%- if messages[0].role == 'system' %}{{- raise_exception('no') }}{%- endif %}",
        False,
    ),
    "passes a system message over": (
        "{{- 'You are Vendor.' }}{%- if messages[0].role == 'system' %}{%- set messages = messages[1:] %}{%- endif %}",
        False,
    ),
}


def said(one: Template, messages: list[Message], tools: Any, prompt: bool, thinking: bool | None) -> str | None:
    """What a template makes of a conversation; None where it refuses."""
    try:
        return one.render(messages, tools, add_generation_prompt=prompt, enable_thinking=thinking)
    except QdataError:
        return None


def cases() -> Iterator[tuple[list[Message], Any, bool, bool | None]]:
    """Conversations without a system message in every setting a server may be asked for."""
    yield from itertools.product((ASKED, TALK, TALK[:2]), (None, TOOLS), (True, False), (None, True, False))


def kept_or_refused(one: Template, text: str) -> bool:
    """Whether a default is accepted, which it may only be with the law kept; a refusal names template and reason."""
    try:
        changed = one.with_default_system(text)
    except QdataError as error:
        assert f"template {one.name}: " in str(error)
        assert ": it" in str(error) or "cannot be" in str(error)
        return False
    for messages, *settings_ in cases():
        for own in ("Mine.", "", "你是沐雪。"):
            sent = [system(own), *messages]
            assert said(changed, sent, *settings_) == said(one, sent, *settings_)
        got = said(changed, messages, *settings_)
        if text != "none":
            assert got == said(one, [system(text), *messages], *settings_)
            assert changed.default_system is not None
            continue
        before = said(one, messages, *settings_)
        assert (got is None) is (before is None)
        if got is not None and before is not None:  # what went stood in one place, and no message with it
            behind = next(n for n in range(len(got) + 1) if before.startswith(got[: len(got) - n]))
            assert behind == 0 or before.endswith(got[-behind:])
            assert all(got.count(m["content"]) <= before.count(m["content"]) for m in messages)
            assert "Vendor" not in got
        assert changed.default_system is None
    return True


@pytest.mark.parametrize("text", [*TEXTS, "none"])
@pytest.mark.parametrize("name", INVENTED)
def test_any_template_is_given_a_default_or_refused(name: str, text: str) -> None:
    """Whatever way a vendor writes its own: the law is kept, or the template is refused with the reason."""
    source, removable = INVENTED[name]
    one = Template("invented", source + CHATML)
    if name == "with every conversation":  # no default: it stands there whatever is sent
        assert one.default_system is None
        assert one.with_default_system("none").render(ASKED) == one.render(ASKED)
        return
    taken = kept_or_refused(one, text)
    if text == "none":
        assert taken is removable
    else:
        assert taken is ("system message" not in name or "length" in name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "its length is told with every system message",
            "a conversation with a system message changes|more than the text",
        ),
        ("written again in parts", "the text is still there"),
        ("by concatenation", "the text is still there"),
        ("takes no system message", "shows no system message"),
    ],
)
def test_a_refusal_says_why(name: str, reason: str) -> None:
    """In words of the template."""
    with pytest.raises(QdataError, match=reason):
        Template("invented", INVENTED[name][0] + CHATML).with_default_system("none")


def test_a_default_given_with_tools_only_is_told() -> None:
    """It is what a conversation with tools reads; without, there is none."""
    one = Template("invented", INVENTED["only with tools"][0] + CHATML)
    assert one.default_system is not None
    assert "You are Vendor." in one.default_system


def _trl() -> list[Path]:
    spec = importlib.util.find_spec("trl")
    return sorted((Path(spec.origin).parent / "chat_templates").glob("*.jinja")) if spec and spec.origin else []


@pytest.mark.parametrize("text", ["You are Muxue.", "none"])
@pytest.mark.parametrize("file", _trl(), ids=lambda file: file.stem)
def test_templates_of_others_are_given_a_default_or_refused(file: Path, text: str) -> None:
    """Of every model that TRL knows a template of."""
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    taken = kept_or_refused(Template(file.stem, file.read_text(encoding="utf-8"), variables=tokens), text)
    assert taken or not file.stem.startswith(("qwen2_5", "qwen3_instruct", "llama3")) or text == "none"


@given(
    given=st.text("abc <|>'\"\n\\{}%", min_size=1, max_size=8).filter(
        lambda t: t.strip() and "{" not in t and "%" not in t
    ),
    where=st.sampled_from(["tools", "not tools", "true", "messages|length > 1"]),
    trim=st.sampled_from(["", "-"]),
    text=st.sampled_from(["none", *TEXTS]),
)
@settings(max_examples=120, deadline=None)
def test_any_default_is_taken_away_or_refused(given: str, where: str, trim: str, text: str) -> None:
    """Whatever the vendor's text is, where it is given, and whether blanks are trimmed."""
    block = json.dumps(f"<|im_start|>system\n{given}<|im_end|>\n", ensure_ascii=False)
    written = f"{{%{trim} if {where} {trim}%}}\n {{{{{trim} {block} {trim}}}}}\n{{%{trim} endif {trim}%}}"
    head = WITHOUT + written + "{%- endif %}"
    kept_or_refused(Template("invented", head + CHATML), text)


def run(*words: str) -> str:
    """What a command prints; it must succeed."""
    result = CliRunner().invoke(main, list(words))
    assert result.exit_code == 0, result.output
    return str(result.output)


def test_template_list_names_them_all() -> None:
    """What each follows, and what it supplies."""
    out = run("template", "list")
    for name in OURS:
        one = Template.load(name)
        assert f"{name}: {one.about}\n  default system prompt: {one.default_system!r}\n" in out


def test_template_show_prints_what_is_saved() -> None:
    """The source to the letter, or what it makes of a short conversation."""
    assert run("template", "show", "qwen2_5") == Template.load("qwen2_5").source + "\n"
    changed = Template.load("qwen2_5").with_default_system("You are Muxue.")
    assert run("template", "show", "qwen2_5", "--default-system", "You are Muxue.") == changed.source + "\n"
    shown = run("template", "show", "qwen2_5", "--rendered", "--default-system", "You are Muxue.")
    assert shown.startswith("<|im_start|>system\nYou are Muxue.<|im_end|>\n<|im_start|>user\n你好<|im_end|>\n")
    assert shown.endswith("<|im_start|>assistant\n\n")
    assert not foreign(run("template", "show", "qwen2_5", "--rendered", "--default-system", "none"))


def test_template_diff_shows_the_lines_that_change(tmp_path: Path) -> None:
    """Between two templates, or of one under another default; of equal ones nothing."""
    out = run("template", "diff", "qwen2", "--default-system", "You are Muxue.").splitlines()
    assert [line for line in out if line.startswith(("-{", "+{"))] == [
        '-{%- set default_system = "You are a helpful assistant." %}',
        '+{%- set default_system = "You are Muxue." %}',
    ]
    copy = tmp_path / "copy.jinja"
    copy.write_text(Template.load("qwen2").source, encoding="utf-8")
    assert run("template", "diff", "qwen2", str(copy)) == ""
    assert "+++ qwen2_5" in run("template", "diff", "qwen2", "qwen2_5")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("diff", "qwen2"), "nothing to compare with"),
        (("show", "qwen22"), "no template is called"),
        (("diff", "qwen2", "missing.jinja"), "no such template file"),
    ],
)
def test_template_commands_refuse_in_words(words: tuple[str, ...], complaint: str) -> None:
    """As one message, never as a traceback."""
    result = CliRunner().invoke(main, ["template", *words])
    assert result.exit_code != 0
    assert complaint in " ".join(result.output.split())
    assert "Traceback" not in result.output
