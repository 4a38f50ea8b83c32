"""Thinking policies: each trains what it says of serving, removes what it says, and trains each answer once."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tokens.test_render import frame_of, turns
from tests.tokens.test_shards import said, small_tokenizer

from qdata import pipeline
from qdata.errors import QdataError
from qdata.recipe import DataRecipe, Source
from qdata.tokens import thinking
from qdata.tokens.encoder import Encoder, load_encoder
from qdata.tokens.render import PIECES, pieces, plain, render
from qdata.tokens.samples import Samples, samples_of
from qdata.tokens.table import UNTRAINED
from qdata.tokens.template import Template
from qdata.tokens.tokenize import tokenize

Message = dict[str, Any]

QWEN3 = Template.load("qwen3")
ASKED = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"
EMPTY = "<think>\n\n</think>\n\n"
THOUGHT = "<think>\nwhy\n</think>\n\n"
END = "<|im_end|>"

BARE = said("q", "a")
BESIDE = [BARE[0], BARE[1] | {"reasoning_content": "why"}]
INLINE = said("q", THOUGHT + "a")

EXPECTED = {
    "keep": ((ASKED + EMPTY, "a"), (ASKED, THOUGHT + "a")),
    "strip": ((ASKED, "a"), (ASKED, "a")),
    "empty_masked": ((ASKED + EMPTY, "a"), (ASKED + EMPTY, "a")),
    "empty_trained": ((ASKED, EMPTY + "a"), (ASKED, EMPTY + "a")),
    "none": ((ASKED, EMPTY + "a"), (ASKED, THOUGHT + "a")),
}
"""What stands before the answer and what is trained: of an answer without reasoning, and of one with it."""


def joined(samples: list[Any]) -> list[tuple[str, str]]:
    """Prompt and answer of each trained turn, in the order of the samples."""
    return [
        ("".join(p.text for p in sample[:at]), piece.text)
        for sample in samples
        for at, piece in enumerate(sample)
        if piece.turn >= 0
    ]


@pytest.mark.parametrize("think", thinking.POLICIES)
@pytest.mark.parametrize("messages", [BARE, BESIDE, INLINE], ids=["bare", "beside", "inline"])
def test_a_policy_means_what_it_says(think: str, messages: list[Message]) -> None:
    """The exact prompt and the exact answer under qwen3; the newline behind the stop token is untrained."""
    prompt, answer = EXPECTED[think][messages is not BARE]
    samples = pieces(QWEN3, messages, think=think)
    assert joined(samples) == [(prompt, answer + END)]
    assert samples[0][-1].turn == UNTRAINED or think == "strip"


@pytest.mark.parametrize("think", thinking.POLICIES)
def test_the_prompt_is_one_a_server_builds(think: str) -> None:
    """With thinking on, off, or its switch untouched: never a text that no server makes."""
    modes = {"keep": (True, False), "strip": (True,), "empty_masked": (False,), "empty_trained": (True,)}
    for messages in (BARE, BESIDE, INLINE):
        ((prompt, _),) = joined(pieces(QWEN3, messages, think=think))
        asked = [{"role": "user", "content": "q"}]
        served = [QWEN3.render(asked, add_generation_prompt=True, enable_thinking=m) for m in modes.get(think, (None,))]
        assert prompt in served


REASONED = {
    "beside": ({"content": "a", "reasoning_content": "why"}, "a"),
    "beside, blank": ({"content": "a", "reasoning_content": " \n"}, "a"),
    "inline": ({"content": "<think>\nwhy\n</think>\n\na\n"}, "a\n"),
    "inline, empty": ({"content": "<think>\n\n</think>\n\na"}, "a"),
    "inline, no opening": ({"content": "why\n</think>\n\na"}, "a"),
    "inline, spaces stay": ({"content": "<think>x</think>\n\n  a"}, "  a"),
    "none": ({"content": "\n\na"}, "\n\na"),
}


@pytest.mark.parametrize("name", REASONED)
def test_without_takes_the_reasoning_and_nothing_else(name: str) -> None:
    """Whether it stood beside the content or in front of it; other roles and other fields are not touched."""
    message, left = REASONED[name]
    assert thinking.without({"role": "assistant", "train": True, **message}) == {
        "role": "assistant",
        "train": True,
        "content": left,
    }
    for role in ("user", "system", "tool"):
        assert thinking.without({"role": role, **message}) == {"role": role, **message}
    assert thinking.thinks({"role": "assistant", **message}) is (
        name in ("beside", "inline", "inline, no opening", "inline, spaces stay")
    )


@pytest.mark.parametrize(
    "content",
    ["<think>x</think>y</think>\nz", "<think>x</think>y<think>z</think>w", "<think>never closed",
     "Hi <think>R</think> A", "Write `</think>` to close a block.", "a <think> b"],
)  # fmt: skip
def test_what_is_reasoning_must_be_told(content: str) -> None:
    """Tags inside an answer, or never closed: nothing is cut on a guess; beside reasoning every tag is the answer's."""
    with pytest.raises(QdataError, match="cannot be told"):
        thinking.without({"role": "assistant", "content": content})
    with pytest.raises(QdataError, match="cannot be told"):
        thinking.without({"role": "assistant", "content": "a</think>", "reasoning_content": "why"})
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": content}]
    frame = frame_of([(chat, None)] * 4)
    with pytest.raises(QdataError, match="cannot be told"):
        render(QWEN3, frame, "empty_masked")


def chat(reasons: list[str | None]) -> list[Message]:
    """A question and an answer for each, with that reasoning or with none."""
    messages: list[Message] = []
    for number, reason in enumerate(reasons):
        answer: Message = {"role": "assistant", "content": f"a{number}"}
        extra = {} if reason is None else {"reasoning_content": reason}
        messages += [{"role": "user", "content": f"q{number}"}, answer | extra]
    return messages


REASONS = st.lists(st.none() | st.sampled_from(["why", "so\nso"]), min_size=1, max_size=5)


@pytest.mark.parametrize("think", thinking.POLICIES)
def test_each_answer_is_in_exactly_one_sample_behind_its_prompt(think: str) -> None:
    """However its turns are spread over samples."""
    modes = {"strip": True, "empty_masked": False, "empty_trained": True, "none": None}

    @given(REASONS)
    @settings(max_examples=20, deadline=None)
    def law(reasons: list[str | None]) -> None:
        messages = chat(reasons)
        samples = pieces(QWEN3, messages, think=think)
        answers = list(range(1, len(messages), 2))
        assert Counter(p.turn for s in samples for p in s if p.turn >= 0) == Counter(answers)
        cleaned = [thinking.without(m) for m in messages] if think in thinking.REMOVES else messages
        for sample in samples:
            for at, piece in enumerate(sample):
                if piece.turn < 0:
                    continue
                mode = modes.get(think, reasons[piece.turn // 2] is not None)
                prompt = QWEN3.render(cleaned[: piece.turn], add_generation_prompt=True, enable_thinking=mode)
                assert "".join(p.text for p in sample[:at]) == prompt
                assert piece.text.endswith(f"a{piece.turn // 2}{END}")
                for reason in filter(None, reasons):
                    shown = think in ("keep", "none") and reason == reasons[piece.turn // 2]
                    assert (reason in piece.text) is shown

    law()


def test_history_without_reasoning_expands() -> None:
    """Qwen3 shows no earlier reasoning or block: only under `strip` do all turns agree, and one sample is enough."""
    messages = chat(["why", None, "so"])
    counts = {think: len(pieces(QWEN3, messages, think=think)) for think in thinking.POLICIES}
    assert counts == {"keep": 3, "strip": 1, "empty_masked": 3, "empty_trained": 3, "none": 3}
    for sample in pieces(QWEN3, messages, think="keep"):
        *history, _ = "".join(p.text for p in sample).split("<|im_start|>assistant\n")
        assert not any("<think>" in part for part in history)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """The small tokenizer."""
    return load_encoder(small_tokenizer(tmp_path_factory.mktemp("small")))


def seen(samples: Samples) -> list[tuple[list[int], list[int]]]:
    """Ids and trained turns of each sample."""
    ids, _, _ = samples.copied()
    ends = np.cumsum(samples.length)
    turns = [
        samples.piece_turn[a:b][samples.piece_answers[a:b]].tolist() for a, b in itertools.pairwise(samples.pieces)
    ]
    return [(ids[end - n : end].tolist(), t) for end, n, t in zip(ends, samples.length, turns, strict=True)]


@pytest.mark.parametrize("loss", ["assistant", "last"])
@pytest.mark.parametrize("think", thinking.POLICIES)
def test_without_expansion_a_conversation_keeps_its_fullest_sample(think: str, loss: str, encoder: Encoder) -> None:
    """One of those it would have with expansion, unchanged; none trains more of its answers, no later one as many."""

    @given(REASONS, st.booleans())
    @settings(max_examples=15, deadline=None)
    def law(reasons: list[str | None], newline: bool) -> None:
        messages = [{("reasoning" if k == "reasoning_content" else k): v for k, v in m.items()} for m in chat(reasons)]
        if newline:  # an answer that merges with its prompt cuts a sample in two where all prompts agree
            messages[1]["content"] = "\n\n" + messages[1]["content"]
        table = tokenize(render(QWEN3, frame_of([(messages, None)]), think).pieces, encoder)
        expanded = seen(samples_of([table], [0], loss))
        fullest = max(reversed(expanded), key=lambda sample: len(sample[1]))
        assert seen(samples_of([table], [0], loss, expand=False)) == [fullest]

    law()


def test_without_expansion_all_answers_that_share_a_sample_are_trained() -> None:
    """Under `strip` all of a chat's turns do, however the template writes the last one; with reasoning, none do."""
    stripped = pieces(QWEN3, chat(["why", None, "so"]), think="strip")
    assert [[p.turn for p in sample if p.turn >= 0] for sample in stripped] == [[1, 3, 5]]
    kept = pieces(QWEN3, chat(["why", "so"]), think="keep")
    assert [[p.turn for p in sample] for sample in kept] == [[UNTRAINED, 1], [UNTRAINED, 3, UNTRAINED]]
    assert "a0<|im_end|>\n" in kept[1][0].text


@pytest.mark.parametrize("messages", [BARE, BESIDE, INLINE], ids=["bare", "beside", "inline"])
def test_a_prompt_that_opens_a_block_takes_no_bare_answer(messages: list[Message]) -> None:
    """`strip` under qwen3_5 could never be served: refused, by either road, with the reason."""
    template = Template.load("qwen3_5")
    with pytest.raises(QdataError, match=r"think = strip.*message 1 is written differently"):
        pieces(template, messages, think="strip")
    rows: list[tuple[list[Message], str | None]]
    rows = [([{("reasoning" if k == "reasoning_content" else k): v for k, v in m.items()} for m in messages], None)]
    with pytest.raises(QdataError, match="cannot be trained as served"):
        render(template, frame_of(rows * 4), "strip")


@pytest.mark.parametrize("name", ["qwen2", "qwen2_5", "chatml"])
def test_reasoning_is_not_lost_in_silence(name: str) -> None:
    """A template that shows none is refused under `keep`; under the policies that remove it, it is fine."""
    with pytest.raises(QdataError, match=r"message 1 has some, which would be lost.*--think strip"):
        pieces(Template.load(name), BESIDE, think="keep")
    for think in ("strip", "none"):
        assert [a for _, a in joined(pieces(Template.load(name), BESIDE, think=think))] == ["a" + END]
    assert [a for _, a in joined(pieces(Template.load(name), BARE, think="keep"))] == ["a" + END]


SPECIAL = ["</think>", "<think>\nr\n</think>\n\na", "<think>", "<tool_response>", "<tool_response>\nx</tool_response>"]
SPECIAL += ["\n\na", "a\n\n", " a", "", "r</think>\n\nb", "你好", "\n"]
TEXTS = st.sampled_from(SPECIAL) | st.lists(st.sampled_from([*SPECIAL, "x"]), max_size=3).map("".join)


@st.composite
def rows(draw: st.DrawFn) -> list[tuple[list[Message], str | None]]:
    """Conversations with texts that these templates ask questions about."""
    made: list[tuple[list[Message], str | None]] = []
    for _ in range(draw(st.integers(1, 5))):
        roles = draw(
            st.sampled_from([["user", "assistant"], ["user", "assistant"] * 2, ["user", "tool", "assistant", "user"]])
        )
        messages = [{"role": role, "content": draw(TEXTS)} for role in roles]
        if draw(st.booleans()):
            messages.insert(0, {"role": "system", "content": draw(TEXTS)})
        made.append(([dict(m) for m in messages], None))
    return made


def one_by_one(template: Template, frame: pl.DataFrame, think: str) -> list[Any]:
    """The reference: every conversation by itself."""
    made = []
    for index, (messages, tools) in enumerate(frame.select("messages", "tools").iter_rows()):
        samples = pieces(template, plain(messages), json.loads(tools) if tools else None, think)
        made += [(index, s, p, *piece[::-1]) for s, sample in enumerate(samples) for p, piece in enumerate(sample)]
    return made


@pytest.mark.parametrize("think", thinking.POLICIES)
@pytest.mark.parametrize("name", ["qwen3", "qwen3_5", "qwen2_5"])
def test_both_roads_say_the_same(name: str, think: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By shape and by row, whatever the texts are; where one refuses, both do."""
    monkeypatch.setattr("qdata.tokens.render.WORTH_A_PLAN", 1)
    template = Template.load(name)

    @given(rows() | st.lists(turns(special=True), min_size=1, max_size=4))
    @settings(max_examples=12, deadline=None)
    def law(given_rows: list[tuple[list[Message], str | None]]) -> None:
        frame = frame_of(given_rows)
        try:
            wanted = one_by_one(template, frame, think)
        except QdataError:
            with pytest.raises(QdataError):
                render(template, frame, think)
            return
        done = render(template, frame, think)
        assert done.pieces.schema == PIECES
        assert done.pieces.rows() == wanted

    law()


def test_plain_rows_under_a_policy_take_the_fast_road(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the two roads were one. Texts that look like reasoning go by row."""
    monkeypatch.setattr("qdata.tokens.render.WORTH_A_PLAN", 1)
    for think in thinking.POLICIES:
        assert render(QWEN3, frame_of([(said("q", "a", "r", "b"), None)] * 3), think).by_shape == 3
        assert render(QWEN3, frame_of([(said("q", THOUGHT + "a"), None)] * 3), think).by_row == 3


@pytest.mark.parametrize("think", thinking.POLICIES)
def test_verify_agrees(think: Any, tmp_path: Path) -> None:
    """Shards of reasoned and bare chats: every trained turn is what transformers would serve under the policy."""
    pytest.importorskip("transformers")
    from qdata.tokens import verify

    chats = [chat(["why", None, "so\nso"]), said("q", THOUGHT + "a", "r", "b"), said("x", "y"), chat([None, None])]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"messages": c}) + "\n" for c in chats), encoding="utf-8")
    tokenizer = small_tokenizer(tmp_path / "tokenizer")
    for expand in (True, False):
        recipe = DataRecipe(
            sources=(Source(path=str(file)),), tokenizer=str(tokenizer), template="qwen3", think=think, expand=expand
        )
        pipeline.build(recipe, tmp_path / f"out{expand}")
        result = verify.verify(tmp_path / f"out{expand}")
        assert (dict(result.failures), result.cases) == ({}, [])
        # Without expansion two of the chats keep their fullest sample, of one answer; under `strip` all turns agree.
        assert result.answers == (8 if expand or think == "strip" else 4)
        manifest = json.loads((tmp_path / f"out{expand}/manifest.json").read_text(encoding="utf-8"))
        assert manifest["unexpanded_answers"] == 8 - result.answers
        assert manifest["rows"] == {"in": 4, "kept": 4, "edited": 0, "dropped": {}}
