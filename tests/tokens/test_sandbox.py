"""Templates of strangers: each ends, soon and in a sentence; and the honest ones are not held up."""

from __future__ import annotations

import copy
import importlib.util
import threading
from pathlib import Path
from typing import Any

import pytest

from qdata.errors import QdataError
from qdata.tokens import limits
from qdata.tokens.template import SHIPPED, Template

Message = dict[str, Any]
TALK: list[Message] = [{"role": "user", "content": "hello there"}, {"role": "assistant", "content": "hi"}]
LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}BODY{% endfor %}{% endfor %}"
DOUBLED = "{% set ns = namespace(x=START) %}{% for i in range(200) %}{% set ns.x = GROWN %}{% endfor %}{{ ns.x }}"


def doubled(start: str, grown: str) -> str:
    """A value that grows from itself two hundred times."""
    return DOUBLED.replace("START", start).replace("GROWN", grown)


HOSTILE = {
    "loops": LOOPS.replace("BODY", ""),
    "loops that write nothing": LOOPS.replace("BODY", "{{ '' }}"),
    "loops whose condition is never met": "{% for a in range(99999) %}{% for b in range(99999) if false %}"
    "{% endfor %}{% endfor %}",
    "loop that calls itself": "{% for x in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "macros": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "a macro that calls itself": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "a block that calls itself": "{% block b %}{{ self.b() }}{% endblock %}",
    "much work on a long text": "{% set t = 'ab' * 8000000 %}" + LOOPS.replace("BODY", "{{ t.find('c') }}"),
    "slices of a long text": "{% set t = 'ab' * 8000000 %}" + LOOPS.replace("BODY", "{% set u = t[1:] %}"),
    "looking in a long list": "{% set t = range(99999) | list %}" + LOOPS.replace("BODY", "{% set u = 'x' in t %}"),
    "looking in a long text": "{% set t = 'ab' * 8000000 %}" + LOOPS.replace("BODY", "{% set u = 'x' in t %}"),
    "selecting nothing": "{% set t = range(99999) | list %}"
    + LOOPS.replace("BODY", "{% for c in t | select('none') %}{% endfor %}"),
    "captured blocks": LOOPS.replace("BODY", "{% set x %}{{ 'a' * 100000 }}{% endset %}"),
    "doubling with +": doubled("'ab'", "ns.x + ns.x"),
    "doubling with ~": doubled("'ab'", "ns.x ~ ns.x"),
    "doubling by joining": doubled("'ab'", "[ns.x, ns.x] | join"),
    "doubling by joining a generator": doubled("'ab'", "[ns.x, ns.x] | map('string') | join(ns.x)"),
    "doubling with the method join": doubled("'ab'", "ns.x.join([ns.x, ns.x])"),
    "doubling by formatting": doubled("'ab'", "'{0}{0}'.format(ns.x)"),
    "doubling with %": doubled("'ab'", "'%s%s' % (ns.x, ns.x)"),
    "doubling by replacing": doubled("'aa'", "ns.x.replace('a', 'aa')"),
    "doubling a list": doubled("[1]", "ns.x + ns.x"),
    "doubling a nested list": doubled("[1]", "[ns.x, ns.x]"),
    "doubling a nested mapping": doubled("{}", "{'a': ns.x, 'b': ns.x}"),
    "comparing nested lists": "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(60) %}"
    "{% set ns.x = [ns.x, ns.x] %}"
    "{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ 1 if ns.x == ns.y }}",
    "doubling in a captured block": "{% set ns = namespace(x='ab') %}{% for i in range(99) %}"
    "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}{{ ns.x }}",
    "doubling in a macro": "{% macro m(t) %}{{ t }}{{ t }}{% endmacro %}" + doubled("'ab'", "m(ns.x)"),
    "doubling in a filter block": "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set y %}"
    "{% filter upper %}{{ ns.x }}{{ ns.x }}{% endfilter %}{% endset %}{% set ns.x = y %}{% endfor %}",
    "a deep list": doubled("[]", "[ns.x]").replace("range(200)", "range(99999)"),
    "a long text written often": "{% set t = 'a' * 9999999 %}{{ t }}{{ t }}{{ t }}",
    "a long text": "{{ 'a' * 10**10 }}",
    "a long text at once": "{{ 'a' * 10000000000 }}",
    "a long text set": "{% set x = 'a' * 10000000000 %}",
    "a long list": "{{ [1] * 10000000000 }}",
    "a large number": "{{ 2 ** (10 ** 9) }}",
    "a large number at once": "{{ 2 ** 1000000000 }}",
    "numbers that grow": doubled("3", "ns.x * ns.x"),
    "many digits": "{{ 10 ** 9999 }}",
    "a wide number": "{{ '%9999999999d' % 3 }}",
    "a wide number with a star": "{{ '%*d' % (9999999999, 3) }}",
    "a wide number through a filter": "{{ '%9999999999d' | format(3) }}",
    "a wide number as remainder": "{{ '%999999999d' is divisibleby(3) }}",
    "a wide number as evenness": "{{ '%999999999d' is odd }}",
    "a wide field": "{{ '{:>9999999999}'.format('x') }}",
    "a wide field of a mapping": "{{ '{a:>9999999999}'.format_map({'a': 'x'}) }}",
    "a wide field named by an argument": "{{ '{:>{}}'.format('x', 9999999999) }}",
    "many fields": "{{ ('%(a)s' * 99999) % {'a': 'x' * 99999} }}",
    "center": "{{ 'x' | center(10000000000) }}",
    "center of many": "{{ ['x'] | map('center', 10000000000) | list }}",
    "the method center": "{{ 'x'.center(10000000000) }}",
    "zfill": "{{ '1'.zfill(10000000000) }}",
    "ljust": "{{ 'x'.ljust(10000000000) }}",
    "expandtabs": "{{ '\\t\\t'.expandtabs(10000000000) }}",
    "translate": "{{ ('a' * 99999).translate({97: 'b' * 99999}) }}",
    "indent": "{{ ('\\n' * 99999) | indent(99999) }}",
    "indent by a text": "{{ ('a\\n' * 9999) | indent('x' * 99999) }}",
    "replace": "{{ ('a' * 99999) | replace('a', 'b' * 99999) }}",
    "replace nothing": "{{ ('a' * 99999) | replace('', 'b' * 99999) }}",
    "replace by name": "{{ ('a' * 99999) | replace(new='b' * 99999, old='a') }}",
    "batch": "{{ [1] | batch(10000000000, 0) | list }}",
    "slice": "{{ [1] | slice(10000000000) | list }}",
    "round": "{{ 3.5 | round(1000000000, 'ceil') }}",
    "bytes of a number": "{{ (1).to_bytes(10000000000, 'big') }}",
    "indented JSON": "{{ [1] | tojson(indent=10000000000) }}",
    "sums of lists": "{{ ([range(9999) | list] * 9999) | sum(start=[]) }}",
    "a large range": "{{ range(10000000000) | list }}",
    "words for nothing": "{{ lipsum(1000000) }}",
    "nested parentheses": "{{ " + "(" * 100000 + "1" + ")" * 100000 + " }}",
    "nested conditions": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "nested loops": "{% for x in [1] %}" * 60 + "{% endfor %}" * 60,
    "a number of many digits": "{{ " + "9" * 100000 + " }}",
    "many parts": "{{a}}" * 50_000,
    "a long source": "x" * (limits.SOURCE + 1),
    "attributes of a class": "{{ ''.__class__.__mro__ }}",
    "attributes by a filter": "{{ (''|attr('__class__')).x }}",
    "attributes in a format": "{{ '{0.__class__.__mro__}'.format('') }}",
    "globals of a function": "{{ raise_exception.__globals__.x }}",
    "private names in a namespace": "{{ namespace(_x=1) }}",
    "changing the messages": "{{ messages.append(1) }}",
    "changing a message": "{{ messages[0].update(role='x') }}",
    "emptying a message": "{{ messages[0].clear() }}",
    "sorting the messages": "{{ messages.reverse() }}",
    "an include": "{% include 'secret' %}",
    "division by nothing": "{{ 1 / 0 }}",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_templates_end_in_a_sentence(name: str) -> None:
    """Refused with the template's name; the messages are what they were."""
    messages = copy.deepcopy(TALK)
    with pytest.raises(QdataError, match=r"^template hostile: .+"):
        Template("hostile", HOSTILE[name]).render(messages)
    assert messages == TALK


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("loops", r"more than 5,000,000 steps"),
        ("a long text", r"a text of more than 16,777,216 characters"),
        ("a long list", r"a text of more than 16,777,216 characters|a list of more than 1,000,000 items"),
        ("a large number", r"a whole number of more than 65,536 bits"),
        ("a macro that calls itself", r"too deep or too large \(RecursionError"),
        ("a large range", r"OverflowError: Range too big"),
        ("a long source", r"262,145 characters; wanted at most 262,144"),
    ],
)
def test_the_limit_is_named(name: str, limit: str) -> None:
    """So that who wrote an honest one knows what to change."""
    with pytest.raises(QdataError, match=limit):
        Template("hostile", HOSTILE[name]).render(TALK)


def test_a_hostile_file_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    """Compiling it neither hangs nor eats memory; the message names the file."""
    for name in ("a long source", "nested parentheses", "nested loops", "a number of many digits", "a long text set"):
        file = tmp_path / "hostile.jinja"
        file.write_text(HOSTILE[name], encoding="utf-8")
        with pytest.raises(QdataError, match="hostile"):
            Template.load(str(file))


def test_the_steps_are_each_renders_own() -> None:
    """One that was refused leaves the next its full number, in the same thread and beside it in another."""
    almost = Template("almost", "{% for a in range(9999) %}{% for b in range(270) %}{% endfor %}{% endfor %}done")
    with pytest.raises(QdataError, match="steps"):
        Template("hostile", HOSTILE["loops"]).render(TALK)
    said: list[str] = []
    threads = [threading.Thread(target=lambda: said.append(almost.render(TALK))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [*said, almost.render(TALK)] == ["done"] * 3


HONEST = {
    "arithmetic": "{{ 2 ** 10 }} {{ 7 % 4 }} {{ 'ab' * 3 }} {{ 3 * [1] }} {{ -2 ** 2 }} {{ 7 // 2 }}",
    "comparing": "{{ 1 < 2 < 3 }} {{ 'a' in messages[0].content }} {{ messages == messages }} {{ 1 in [1, x] }}",
    "formatting": "{{ '%s is %05d' % ('a', 3) }} {{ '%(a)s' % {'a': 1} }} {{ '{} {:>4}'.format('b', 5) }}",
    "formatting more": "{{ '%d' % 1700000000 }} {{ '%s' | format(1700000000) }} {{ '{a}'.format(a='x') }}",
    "joining": "{{ ['a', 1, none] | join('-') }} {{ messages | map(attribute='role') | join(', ') }}",
    "joining an attribute": "{{ messages | join('; ', attribute='content') }} {{ '+'.join(['a', 'b']) }}",
    "capturing": "{% set x %}{{ 1 }}b{% endset %}{{ x ~ 2 ~ none }}{% filter upper %}a{{ x }}{% endfilter %}",
    "escaping": "{% autoescape true %}{{ '<' ~ '&' }}{{ '<b>' }}{{ (messages[0].role|safe) ~ '<' }}{% endautoescape %}",
    "calling": "{% macro m(a) %}[{{ a }}{{ caller() if caller }}]{% endmacro %}{% call m(1) %}in{% endca"
    "ll %}{{ m(2) }}",
    "looping": "{% for m in messages if m.role == 'user' %}{{ loop.index }}{{ loop.last }}{% else %}none{% endfor %}",
    "trees": "{% for x in [[1, [2]], 3] recursive %}{% if x is iterable %}<{{ loop(x) }}>{% else %}{{ x "
    "}}{% endif %}{% endfor %}",
    "filters": "{{ 'abc' | center(9) }}|{{ 'a\\nb' | indent(2, true) }}|{{ [3, 1] | sort }}|{{ [1, 2] | "
    "sum }}|{{ 2.5 | round(1) }}",
    "more filters": "{{ 'a b' | replace('a', 'cc') }}|{{ [1, 2, 3] | batch(2, 0) | list }}|{{ messages |"
    " selectattr('role', 'equalto', 'user') | list }}",
    "tests": "{{ 3 is odd }}{{ 4 is divisibleby 2 }}{{ x is defined }}{{ 'a' is in 'abc' }}{{ 1 is eq 1 "
    "}}{{ 2 is ge(1) }}",
    "mappings": "{{ {'a': 1}.items() | list }}{{ messages[0].items() }}{{ messages[0].get }}{{ messages["
    "0].keys() | list }}",
    "missing": "[{{ nothing }}{{ messages[0].nothing }}{{ messages[0]['nothing'] }}{{ none }}]",
    "slicing": "{{ messages[::-1][0].role }}{{ 'abcdef'[1:4] }}{{ messages[-1:] | length }}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% set y = 1 %}\n{% endgenerati"
    "on %}\n{{ y is defined }}{% endfor %}",
}  # fmt: skip


@pytest.mark.parametrize("name", HONEST)
def test_honest_templates_mean_what_they_mean_to_a_server(name: str) -> None:
    """Every kind of expression that is counted says the same in transformers' environment."""
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    source = HONEST[name]
    wanted = utils._compile_jinja_template(source).render(messages=TALK, tools=None, add_generation_prompt=False)
    bare = wanted.partition(" object at ")[0].partition("<built-in method")[0]
    assert Template("honest", source).render(TALK).startswith(bare)
    assert bare


def _known(request: pytest.FixtureRequest) -> Template:
    kind, _, name = str(request.param).partition(":")
    if kind == "ours":
        return Template.load(name)
    return Template.load(str(request.getfixturevalue("real_tokenizers") / f"official_templates/{name}.jinja"))


SHORT = [f"ours:{file.stem}" for file in sorted(SHIPPED.glob("*.jinja"))]
known = pytest.fixture(_known, params=[*SHORT, *(f"vendor:{name}" for name in ("qwen2", "qwen2_5", "qwen3"))])


def test_long_conversations_are_within_the_limits(known: Template) -> None:
    """Every template we ship and the vendor's, with 5,000 messages, reasoning, tool calls and a hundred tools."""
    call = {"type": "function", "function": {"name": "look", "arguments": {"for": "x" * 50, "in": ["y"] * 10}}}
    turn: list[Message] = [
        {"role": "user", "content": "question " * 40},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "found " * 60},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\n" + "replied " * 60},
    ]
    tools = [{**call, "function": {"name": f"f{n}", "parameters": {"type": "object"}}} for n in range(100)]
    plain = [m for m in turn if m["content"] and m["role"] != "tool"]
    if known.name in ("alpaca", "chatml"):
        turn, tools = plain, []
    messages = turn * (5000 // len(turn))
    assert known.render(messages, tools).count("replied") == 60 * (5000 // len(turn))


def _trl() -> list[Path]:
    spec = importlib.util.find_spec("trl")
    return sorted((Path(spec.origin).parent / "chat_templates").glob("*.jinja")) if spec and spec.origin else []


@pytest.mark.parametrize("file", _trl(), ids=lambda file: file.stem)
def test_templates_of_others_say_what_a_server_says(file: Path) -> None:
    """Of every model TRL knows, those with `generation` tags too, with special tokens; a complaint stays one."""
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    source = file.read_text(encoding="utf-8")
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    one = Template(file.stem, source, variables=tokens)
    tools = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}]
    for messages in (TALK, TALK[:1], [{"role": "system", "content": "s"}, *TALK]):
        for given in (None, tools):
            for prompt in (False, True):
                try:
                    wanted = utils._compile_jinja_template(source).render(
                        messages=messages, tools=given, add_generation_prompt=prompt, **tokens
                    )
                except Exception:
                    with pytest.raises(QdataError, match=file.stem):
                        one.render(messages, given, add_generation_prompt=prompt)
                else:
                    assert one.render(messages, given, add_generation_prompt=prompt) == wanted


def test_steps_are_counted_alike_everywhere() -> None:
    """A count and no clock: the last loop that is allowed is the same each time."""
    loop = Template("loop", "{% for a in range(9999) %}{% for b in range(tools[0]) %}{% endfor %}{% endfor %}done")
    said = [loop.render(TALK, [n]) if n < 400 else "" for n in (1, 200)]
    assert said == ["done", "done"]
    for _ in range(2):
        with pytest.raises(QdataError, match="steps"):
            loop.render(TALK, [600])
