"""The default system prompt of any template: replaced, taken away, shown; and never the vendor's again."""

from __future__ import annotations

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
