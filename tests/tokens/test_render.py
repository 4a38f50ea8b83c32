"""Text pieces: the fast road by shape says what the slow road by row says, and each answer is cut out exactly once."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tokens.test_shards import said, small_tokenizer

from qdata import pipeline, schema
from qdata.errors import QdataError
from qdata.recipe import DataRecipe, Source
from qdata.tokens.muted import Piece
from qdata.tokens.render import PIECES, pieces, plain, render, split_at
from qdata.tokens.table import MUTED, UNTRAINED
from qdata.tokens.template import Template


@pytest.fixture(autouse=True)
def _always_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Single rows take the road by shape too; otherwise it would not be worth it."""
    monkeypatch.setattr("qdata.tokens.render.WORTH_A_PLAN", 1)


STOP = "<|im_end|>"
TEXTS = st.sampled_from(
    ["", "yes", "no", " yes", "yes\n", "\n", '"', "\\", "a\tb", "<think>\nx\n</think>\n\ny", "你好", "\x02", STOP, "😀"]
) | st.text(max_size=6)

Message = dict[str, Any]


def chatml(body: str, before: str = "", prompt: str = "<|im_start|>assistant\\n") -> str:
    """A ChatML template that writes a message's text by `body`."""
    return (
        before
        + "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}"
        + body
        + "{{- '<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '"
        + prompt
        + "' }}{%- endif %}"
    )


MINI_QWEN3 = """
{%- set ns = namespace(last=-1) %}
{%- for message in messages %}{%- if message.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.reasoning_content is defined and loop.index0 > ns.last %}
        {{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}
    {%- endif %}
    {{- message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
"""Earlier reasoning is left out, as Qwen3 does it."""


@st.composite
def turns(draw: st.DrawFn, special: bool, calls_too: bool = True) -> tuple[list[Message], str | None]:
    """Messages in the CONVERSATION fields, and tools; with `special` also what makes a row go the slow road.

    Without `calls_too` no tools and calls, which templates that cannot show them refuse.
    """
    roles = draw(st.lists(st.sampled_from(["user", "assistant", "assistant", "user", "tool"]), min_size=1, max_size=6))
    messages: list[Message] = [{"role": role, "content": draw(TEXTS)} for role in roles]
    if draw(st.booleans()):
        messages.insert(0, {"role": "system", "content": draw(TEXTS)})
    tools = None
    if special:
        for message in messages:
            if message["role"] == "assistant":
                extra = draw(
                    st.sampled_from(["", "train", "reasoning", "name", *(["calls", "null"] if calls_too else [])])
                )
                calls = json.dumps([{"name": "f", "arguments": {"q": draw(TEXTS)}}])
                message |= {
                    "": {},
                    "train": {"train": draw(st.booleans())},
                    "calls": {"tool_calls": calls},
                    "null": {"tool_calls": calls, "content": None},
                    "reasoning": {"reasoning": draw(TEXTS)},
                    "name": {"name": "x"},
                }[extra]
        tools = draw(
            st.none() if not calls_too else st.none() | st.just('[{"type": "function", "function": {"name": "f"}}]')
        )
    return messages, tools


def frames(special: bool, calls_too: bool = True) -> st.SearchStrategy[list[tuple[list[Message], str | None]]]:
    """Conversations of a frame; few shapes, so that groups form."""
    return st.lists(turns(special, calls_too), min_size=1, max_size=8)


def frame_of(rows: list[tuple[list[Message], str | None]]) -> pl.DataFrame:
    """The rows as a CONVERSATION frame."""
    columns = {
        "row": [f"s/f.jsonl#{i}" for i in range(len(rows))],
        "messages": [
            [{f.name: m.get(f.name) for f in schema.MESSAGE.fields} for m in messages] for messages, _ in rows
        ],
        "tools": [tools for _, tools in rows],
    }
    types = {"row": pl.String, "messages": schema.MESSAGES, "tools": pl.String}
    return schema.conform(pl.DataFrame(columns, schema=types).lazy()).collect()


def by_row(template: Template, frame: pl.DataFrame) -> pl.DataFrame:
    """The reference: every conversation by itself."""
    rows = [
        (index, s, p, piece.turn, piece.text)
        for index, (messages, tools) in enumerate(frame.select("messages", "tools").iter_rows())
        for s, sample in enumerate(pieces(template, plain(messages), json.loads(tools) if tools else None))
        for p, piece in enumerate(sample)
    ]
    return pl.DataFrame(rows, schema=PIECES, orient="row")


@pytest.mark.parametrize("name", ["qwen2", "qwen2_5"])
def test_both_roads_say_the_same(name: str) -> None:
    """Whatever rows a frame mixes, and in the frame's order."""
    template = Template.load(name)

    @given(frames(special=False) | frames(special=True, calls_too=name != "qwen2"))
    @settings(max_examples=80, deadline=None)
    def law(rows: list[tuple[list[Message], str | None]]) -> None:
        frame = frame_of(rows)
        done = render(template, frame)
        assert done.pieces.schema == PIECES
        assert done.pieces.equals(by_row(template, frame))
        assert done.by_shape + done.by_row == frame.height

    law()


@pytest.mark.parametrize("name", ["qwen2", "qwen2_5"])
def test_plain_rows_take_the_fast_road(name: str) -> None:
    """Our own templates only write texts, so rows of plain texts never go row by row."""

    @given(frames(special=False))
    @settings(max_examples=30, deadline=None)
    def law(rows: list[tuple[list[Message], str | None]]) -> None:
        assert render(Template.load(name), frame_of(rows)).by_shape == len(rows)

    law()


CONTENT = "{{- message.content }}"
USES = {
    "write": CONTENT,
    "plus": "{{- '[' + message.content + ']' }}",
    "by key": "{{- message['content'] }}",
    "if empty": "{{- message.content if message.content else 'nothing' }}",
    "default": "{{- message.content | default('nothing', true) }}",
    "is string": "{%- if message.content is string %}{{- message.content }}{%- endif %}",
    "twice": "{{- message.content }}{{- message.content }}",
    "through a namespace": "{%- set ns = namespace(t='') %}{%- set ns.t = ns.t + message.content %}{{- ns.t }}",
    "through set": "{%- set t = message.content %}{{- t }}",
    "dropped": "{{- message.content if message.role == 'assistant' }}",
    "strip": "{{- message.content.strip() }}",
    "trim": "{{- message.content | trim }}",
    "split": "{{- message.content.split('</think>')[-1] }}",
    "startswith": "{{- 'Y' if message.content.startswith('y') else message.content }}",
    "endswith": "{{- 'Y' if message.content.endswith('\\n') else message.content }}",
    "startswith one of two": "{{- 'Y' if message.content.startswith(('y', 'n')) else message.content }}",
    "startswith another": "{{- 'Y' if message.content.startswith(messages[0].content) else message.content }}",
    "endswith another": "{{- 'Y' if message.content.endswith(messages[0].content) else message.content }}",
    "another in it": "{{- 'Y' if messages[0].content in message.content else message.content }}",
    "strip letters": "{{- message.content.strip('yes ') }}",
    "lstrip lines": "{{- message.content.lstrip('\\n') }}",
    "rstrip lines": "{{- message.content.rstrip('\\n') + '.' }}",
    "strip what another holds": "{{- message.content.strip(messages[0].content or 'y') }}",
    "strip twice": "{{- message.content.strip('y').strip('e') }}",
    "strip inside": "{{- (message.content + 'y').strip('y') }}",
    "starts after strip": "{{- 'Y' if message.content.strip().startswith('y') else message.content }}",
    "thought": "{{- message.content.split('</think>')[-1].lstrip('\\n') if '</think>' in message.content else 'x' }}",
    "in text": "{{- 'Y' if 'es' in message.content else message.content }}",
    "text in": "{{- 'Y' if message.content in 'yes or no' else message.content }}",
    "is in": "{{- 'Y' if message.content is in 'yes or no' else message.content }}",
    "in list": "{{- 'Y' if message.content in ['yes', 'no'] else message.content }}",
    "equal": "{{- 'Y' if message.content == 'yes' else message.content }}",
    "unequal": "{{- 'Y' if 'yes' != message.content else message.content }}",
    "is eq": "{{- 'Y' if message.content is eq('yes') else message.content }}",
    "less": "{{- 'Y' if message.content < 'b' else message.content }}",
    "length": "{{- message.content | length }}",
    "if long": "{{- message.content if message.content | length > 3 else 'short' }}",
    "concat": "{{- '[' ~ message.content ~ ']' }}",
    "capture": "{%- set t %}{{- message.content }}{%- endset %}{{- t | upper }}",
    "filter block": "{%- filter upper %}{{- message.content }}{%- endfilter %}",
    "macro": "{%- macro m(t) %}{{- t }}{%- endmacro %}{{- m(message.content) | length }}",
    "call": "{%- macro m() %}{{- caller() | upper }}{%- endmacro %}{%- call m() %}{{- message.content }}{%- endcall %}",
    "upper": "{{- message.content | upper }}",
    "method upper": "{{- message.content.upper() }}",
    "replace": "{{- message.content | replace('e', 'E') }}",
    "method replace": "{{- message.content.replace('e', 'E') }}",
    "join": "{{- [message.content, 'x'] | join('-') }}",
    "method join": "{{- '-'.join([message.content, 'x']) }}",
    "join letters": "{{- '-'.join(message.content) }}",
    "percent": "{{- '%s|%5s' % (message.content, message.content) }}",
    "percent alone": "{{- '%5s' % message.content }}",
    "format": "{{- '{:>5}'.format(message.content) }}",
    "slice": "{{- message.content[:2] }}",
    "first letter": "{{- message.content[0] }}",
    "loop": "{%- for c in message.content %}{{- c + '.' }}{%- endfor %}",
    "times": "{{- message.content * 2 }}",
    "key of a dict": "{{- {'yes': 'Y'}.get(message.content, message.content) }}",
    "tojson": "{{- message.content | tojson }}",
    "tojson of the message": "{{- {'content': message.content} | tojson }}",
    "printed list": "{{- [message.content] }}",
    "printed message": "{{- {'content': message.content} }}",
    "string of a list": "{{- [message.content] | string }}",
    "literal startswith": "{{- 'Y' if 'yes or no'.startswith(message.content) else message.content }}",
    "literal find": "{{- 'yes or no'.find(message.content) }}",
    "literal count": "{{- 'yes or no'.count(message.content) }}",
    "literal strip": "{{- 'yes or no'.strip(message.content) }}",
    "literal replace": "{{- 'yes or no'.replace(message.content, 'X') }}",
    "literal split": "{{- 'yes or no'.split(message.content or 'o') | length }}",
    "into a literal": "{{- 'yes or no'.replace('or', message.content) }}",
    "indent": "{{- message.content | indent }}",
    "escape": "{{- message.content | e }}",
    "changed": "{%- if loop.changed(message.content) %}{{- message.content }}{%- endif %}",
    "previous": "{{- 'same' if loop.previtem and loop.previtem.content == message.content else message.content }}",
    "map": "{{- messages | map(attribute='content') | join }}",
    "refused": "{%- if message.content == 'no' %}{{- raise_exception('no') }}{%- endif %}{{- message.content }}",
}


@pytest.mark.parametrize("use", USES)
def test_a_template_that_looks_at_a_text_gets_the_text(use: str) -> None:
    """However a template uses a text: it goes row by row or gives equal pieces, never other text than a server's."""
    template = Template(use, chatml(USES[use]))

    @given(st.lists(TEXTS, min_size=4, max_size=12))
    @settings(max_examples=15, deadline=None)
    def law(texts: list[str]) -> None:
        rows = [
            ([{"role": "user", "content": q}, {"role": "assistant", "content": a}], None)
            for q, a in zip(texts[::2], texts[1::2], strict=False)
        ]
        agree(template, frame_of(rows))

    law()
    agree(template, frame_of([([{"role": "user", "content": q}], None) for q in ("yes", "no", "", 'q"')]))


def agree(template: Template, frame: pl.DataFrame) -> None:
    """The frame's pieces are those of its rows one by one, or both refuse."""
    try:
        wanted = by_row(template, frame)
    except QdataError:
        with pytest.raises(QdataError):
            render(template, frame)
        return
    got = render(template, frame).pieces
    assert got.rows() == wanted.rows()


def test_a_fast_road_there_is() -> None:
    """The uses that only write a text are taken by shape, those that change it are not: else nothing was compared."""
    rows = [([{"role": "user", "content": "q"}, {"role": "assistant", "content": t}], None) for t in ("a", "b", "")]
    for use in ("write", "plus", "by key", "if empty", "default", "is string", "through a namespace", "through set"):
        assert render(Template(use, chatml(USES[use])), frame_of(rows)).by_shape == 3, use
    for use in ("concat", "slice", "equal", "first letter"):
        assert render(Template(use, chatml(USES[use])), frame_of(rows)).by_row >= 2, use
    for use in ("capture", "upper", "length"):  # what rewrites a text is refused, by its row
        with pytest.raises(QdataError, match="does not show message 0"):
            render(Template(use, chatml(USES[use])), frame_of(rows))


@pytest.mark.parametrize("name", ["qwen2", "qwen2_5"])
def test_the_pieces_joined_are_the_templates_text(name: str) -> None:
    """One sample, and nothing is lost, added or moved."""
    template = Template.load(name)

    @given(turns(special=True, calls_too=name != "qwen2"))
    @settings(max_examples=150, deadline=None)
    def law(row: tuple[list[Message], str | None]) -> None:
        messages, tools = plain(full(row[0])), json.loads(row[1]) if row[1] else None
        samples = pieces(template, messages, tools)
        assert ["".join(p.text for p in sample) for sample in samples] == [template.render(messages, tools)]
        assert all(p.text for p in samples[0])

    law()


def full(messages: list[Message]) -> list[Message]:
    """With every field of MESSAGE, as a frame's rows have them."""
    return [{f.name: m.get(f.name) for f in schema.MESSAGE.fields} for m in messages]


@pytest.mark.parametrize("source", ["qwen2", "qwen2_5", "mini_qwen3"])
def test_each_answer_is_in_exactly_one_sample(source: str) -> None:
    """It stands there behind its serving prompt, ends with the stop token, and what has `train: false` is no answer."""
    template = Template(source, MINI_QWEN3) if source == "mini_qwen3" else Template.load(source)

    @given(turns(special=True, calls_too=source == "qwen2_5"))
    @settings(max_examples=150, deadline=None)
    def law(row: tuple[list[Message], str | None]) -> None:
        messages, tools = plain(full(row[0])), json.loads(row[1]) if row[1] else None
        samples = pieces(template, messages, tools)
        wanted = [i for i, m in enumerate(messages) if m["role"] == "assistant" and m.get("train") is not False]
        assert Counter(p.turn for sample in samples for p in sample if p.turn >= 0) == Counter(wanted)
        for sample in samples:
            for at, piece in enumerate(sample):
                if piece.turn >= 0:
                    prompt = template.render(messages[: piece.turn], tools, add_generation_prompt=True)
                    assert "".join(p.text for p in sample[:at]) == prompt
                    said = template.render(messages[: piece.turn + 1], tools)
                    assert said == prompt + piece.text + "\n"
                    assert piece.text.endswith(STOP)

    law()


@pytest.mark.parametrize("name", ["qwen2", "chatml", "alpaca"])
@pytest.mark.parametrize("what", ["tools", "calls"])
def test_tools_that_a_template_does_not_show_are_not_lost_in_silence(what: str, name: str) -> None:
    """The row is named, and the function; a template that shows them takes the same row."""
    messages: list[Message] = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    if what == "calls":
        messages[1]["tool_calls"] = json.dumps([{"name": 'look "up"', "arguments": {}}])
    tools = json.dumps([{"type": "function", "function": {"name": 'look "up"'}}]) if what == "tools" else None
    frame = frame_of([([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], None)] * 3)
    frame = pl.concat([frame, frame_of([(messages, tools)]).with_columns(row=pl.lit("s/f.jsonl#4"))])
    with pytest.raises(QdataError, match=r's/f.jsonl#4: template \w+ (shows no tools|writes no tool calls).*look "up"'):
        render(Template.load(name), frame)
    assert render(Template.load("qwen3"), frame).pieces["index"].n_unique() == 4


def test_bare_tools_are_shown_as_a_server_shows_them() -> None:
    """OpenAI's protocol, through which servers get tools, knows them wrapped only; data sets list them bare too."""
    bare = {"name": "look", "parameters": {"type": "object", "properties": {"type": {}}}}
    chat: list[Message] = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    template = Template.load("qwen2_5")
    wanted = [{"type": "function", "function": bare}]
    for listed in ([bare], wanted):
        (sample,) = (
            render(template, frame_of([(chat, json.dumps(listed))])).pieces.group_by("sample").agg("text").rows()
        )
        assert "".join(sample[1]) == template.render(chat, wanted)
    for odd in ([{"type": "web_search"}], [{"type": "retrieval", "name": "docs"}]):
        (sample,) = render(template, frame_of([(chat, json.dumps(odd))])).pieces.group_by("sample").agg("text").rows()
        assert "".join(sample[1]) == template.render(chat, odd)


def test_untrained_answers_stay_in_the_text() -> None:
    """`train: false` takes an answer out of training, not out of the history."""
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "wrong", "train": False},
        {"role": "user", "content": "again"},
        {"role": "assistant", "content": "right", "train": True},
    ]
    (sample,) = pieces(Template.load("qwen2"), messages)
    assert [p.turn for p in sample] == [UNTRAINED, MUTED, UNTRAINED, 3, UNTRAINED]
    assert [p.text for p in sample if p.turn != UNTRAINED] == ["wrong<|im_end|>", "right<|im_end|>"]
    assert sample[0].text.endswith("<|im_start|>assistant\n")


def test_stripped_reasoning_expands_a_conversation() -> None:
    """One sample for the turns that agree with the whole text, and one for each that a later turn rewrites."""
    template = Template("mini_qwen3", MINI_QWEN3)

    @given(st.lists(st.none() | st.sampled_from(["so", "hm\nhm"]), min_size=1, max_size=5))
    @settings(max_examples=60, deadline=None)
    def law(reasons: list[str | None]) -> None:
        messages: list[Message] = []
        for number, reason in enumerate(reasons):
            answer: Message = {"role": "assistant", "content": f"a{number}"}
            messages += [
                {"role": "user", "content": f"q{number}"},
                answer | ({} if reason is None else {"reasoning_content": reason}),
            ]
        samples = pieces(template, messages)
        rewritten = [2 * n + 1 for n, reason in enumerate(reasons[:-1]) if reason is not None]
        assert "".join(p.text for p in samples[-1]) == template.render(messages)
        assert len(samples) == len(rewritten) + 1
        turns = [p.turn for sample in samples for p in sample if p.turn >= 0]
        assert sorted(turns) == list(range(1, 2 * len(reasons), 2))
        for sample in samples:
            for at, piece in enumerate(sample):
                if piece.turn < 0:
                    continue
                served = template.render(messages[: piece.turn], add_generation_prompt=True)
                assert "".join(p.text for p in sample[:at]) == served
                if (reason := reasons[piece.turn // 2]) is not None:
                    assert f"<think>\n{reason}\n</think>" in piece.text
        rows = [
            (None, s, p, piece.turn, piece.text) for s, sample in enumerate(samples) for p, piece in enumerate(sample)
        ]
        ours = [{("reasoning" if k == "reasoning_content" else k): v for k, v in m.items()} for m in messages]
        table = render(template, frame_of([(ours, None)])).pieces
        assert [row[1:] for row in table.rows()] == [row[1:] for row in rows]

    law()


def test_the_vendors_qwen3_trains_each_turn_as_served(real_tokenizers: Any) -> None:
    """Its last turn gets a think block that earlier ones lose, so every earlier answer has a sample of its own."""
    source = (real_tokenizers / "official_templates/qwen3.jinja").read_text(encoding="utf-8")
    messages = [{"role": r, "content": f"{r}{n}"} for n in range(3) for r in ("user", "assistant")]
    samples = pieces(Template("qwen3", source), messages)
    assert len(samples) == 3
    assert sorted(p.text for sample in samples for p in sample if p.turn >= 0) == [
        f"<think>\n\n</think>\n\nassistant{n}<|im_end|>" for n in range(3)
    ]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (chatml(CONTENT, prompt="<|im_start|>assistant\\n<think>\\n"), "message 1 is written differently"),
        (chatml(CONTENT, prompt="<|im_start|>model\\n"), "message 1 is written differently"),
        (chatml(CONTENT).replace("<|im_end|>", "</s>"), r"no stop token '<\|im_end\|>' after message 1"),
        (chatml("{{- message.content if message.role == 'user' }}").replace("<|im_end|>\\n", "\\n"), "no stop token"),
        (chatml("{%- if message.role == 'assistant' %}{{- raise_exception('mute') }}{%- endif %}"), "mute"),
    ],
    ids=["opens a thought", "another role", "another stop", "no stop", "complains"],
)
def test_what_cannot_be_trained_as_served_is_refused(source: str, message: str) -> None:
    """With the reason, by either road."""
    template = Template("odd", source)
    rows = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    with pytest.raises(QdataError, match=message):
        pieces(template, rows)
    with pytest.raises(QdataError, match=message):
        render(template, frame_of([(rows, None)]))


def test_the_refusal_of_a_row_speaks_of_its_text() -> None:
    """A template that quotes a text in its complaint quotes the row's, not what stood in its place."""
    template = Template("strict", chatml("{{- raise_exception('refused: ' + message.content) }}"))
    with pytest.raises(QdataError, match="refused: the question"):
        render(template, frame_of([([{"role": "user", "content": "the question"}], None)]))


def test_a_refusal_names_its_row_and_counts_the_others() -> None:
    """The first of the frame that is refused, in the data's order and by its own name."""
    template = Template(
        "strict", chatml("{{- raise_exception('no') if 'x' in message.content }}{{- message.content }}")
    )
    rows: list[tuple[list[Message], str | None]]
    rows = [([{"role": "user", "content": text}, {"role": "assistant", "content": "a"}], None) for text in "axbxx"]
    with pytest.raises(QdataError, match=r"^s/f\.jsonl#1: template strict: no \(2 more rows of this part"):
        render(template, frame_of(rows))
    with pytest.raises(QdataError, match=r"^s/f\.jsonl#1: template strict: no$"):
        render(template, frame_of(rows[:3]))
    rows[1][0][0]["name"], rows[1][0][0]["content"] = "somebody", "b"  # another shape, rendered before the others
    with pytest.raises(QdataError, match=r"^s/f\.jsonl#3: "):
        render(template, frame_of(rows))


ROAD = said("q0", "a0", "q1", "a1", "q2", "a2")


@pytest.mark.parametrize("muted", [[1], [3], [5], [1, 3], [1, 5], [1, 3, 5]], ids=str)
@pytest.mark.parametrize("name", ["qwen2", "qwen3", "qwen3_5"])
def test_muted_answers_are_cut_out_wherever_they_stand(name: str, muted: list[int]) -> None:
    """As a first, middle or last answer: nothing of it stands in another piece, and no other text in its own."""
    template = Template.load(name)
    messages = [m | ({"train": False} if i in muted else {}) for i, m in enumerate(ROAD)]
    samples = pieces(template, messages, None, "keep")
    assert sorted(p.turn for sample in samples for p in sample if p.turn >= 0) == sorted({1, 3, 5} - set(muted))
    for sample in samples:
        for piece in sample:
            spoken = [i for i in range(1, 6, 2) if ROAD[i]["content"] in piece.text]
            if piece.turn == MUTED:
                assert len(spoken) == 1
                assert set(spoken) <= set(muted)
                assert piece.text.endswith(f"{ROAD[spoken[0]]['content']}{STOP}")
                assert "q" not in piece.text
            else:
                assert not set(spoken) & set(muted)


def test_an_empty_frame_has_no_pieces() -> None:
    """And the schema of any other."""
    done = render(Template.load("qwen2"), frame_of([]))
    assert (done.pieces.schema, done.pieces.height, done.by_shape, done.by_row) == (PIECES, 0, 0, 0)


@given(st.lists(st.tuples(st.text(max_size=4), st.booleans()), min_size=1, max_size=8), st.data())
@settings(max_examples=100, deadline=None)
def test_split_at_keeps_text_and_answers(parts: list[tuple[str, bool]], data: st.DataObject) -> None:
    """The second sample says all that the first said and goes on; each answer stays in exactly one of them."""
    sample = [Piece(text, turn if answer else UNTRAINED) for turn, (text, answer) in enumerate(parts)]
    answers = [at for at, piece in enumerate(sample) if piece.turn >= 0]
    if len(answers) < 2:
        return
    cut = data.draw(st.sampled_from(answers[:-1]))
    head, rest = split_at(sample, cut)
    assert head == sample[: cut + 1]
    assert "".join(p.text for p in rest) == "".join(p.text for p in sample)
    assert rest[0].turn == UNTRAINED
    assert [p for p in head + rest if p.turn >= 0] == [p for p in sample if p.turn >= 0]


MALFORMED = {
    "tools that are no JSON": ({}, "not json", "tools: not JSON"),
    "one tool, not a list": ({}, {"type": "function", "function": {"name": "f"}}, "tools: wanted a list"),
    "names of tools": ({}, ["f"], "tools: wanted a list of objects"),
    "calls that are no JSON": ({"tool_calls": "x"}, None, "message 1: tool_calls: not JSON"),
    "one call, not a list": ({"tool_calls": {"name": "f", "arguments": {}}}, None, "tool_calls: wanted a list"),
    "a call that is a name": ({"tool_calls": ["f"]}, None, r"tool_calls\[0\]: wanted a name and arguments"),
    "a call without arguments": ({"tool_calls": [{"name": "f"}]}, None, r"tool_calls\[0\]: wanted a name and arg"),
    "a weight below 0": ({"weight": -1.0}, None, "weighs -1; wanted 0 or more"),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_what_no_server_could_be_sent_costs_its_row(what: str, tmp_path: Path) -> None:
    """Under strict refused with its row and place; else set aside in the ledger, and the others are rendered."""
    extra, tools, told = MALFORMED[what]
    good: dict[str, Any] = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    bad = {"messages": [good["messages"][0], good["messages"][1] | extra], **({"tools": tools} if tools else {})}
    file = tmp_path / "data/rows.jsonl"
    file.parent.mkdir()
    file.write_text("".join(json.dumps(row) + "\n" for row in (good, bad, good)), encoding="utf-8")
    recipe = DataRecipe(sources=(Source(path=str(file)),), tokenizer=str(small_tokenizer(tmp_path)), template="qwen3")
    with pytest.raises(QdataError, match=r"data/rows.jsonl#2: .*" + told):
        pipeline.build(recipe, tmp_path / "out", strict=True)
    assert not (tmp_path / "out").exists()
    manifest = pipeline.build(recipe, tmp_path / "out")
    assert manifest["rows"]["kept"] == 2
    (reason,) = manifest["rows"]["dropped"]
    assert reason.startswith("render.")
    with pytest.raises(QdataError, match=told):  # what was set aside then is not good now
        pipeline.build(recipe, tmp_path / "again", strict=True)
