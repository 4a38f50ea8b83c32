"""Ids: every trained answer follows exactly the ids that its server would have made of the prompt."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from qdata import schema
from qdata.errors import QdataError
from qdata.tokens import encoder as module
from qdata.tokens.encoder import Encoder, choose
from qdata.tokens.render import plain, render
from qdata.tokens.table import TABLE, gather
from qdata.tokens.template import Template
from qdata.tokens.tokenize import tokenize

STOP = "<|im_end|>"
BEGINNINGS = ["", "\n", "\n\n", "\r\n", " ", "  \n ", "\t", "\u00a0", "\u2028", "!", "...\n", "'s", "\u0301", "\u0338"]
BEGINNINGS += ["\u200d", "\ufe0f", "0", "x", "你", "\u1161", "😀", "_", "<|im_end", "\x00", "\u0345\u0301"]
TEXTS = st.tuples(st.sampled_from(BEGINNINGS), st.text(max_size=6)).map("".join)
ENDINGS = st.sampled_from(["", "\n", " ", "\n\n", "?"])

# The generation point need not be a line of its own: then every beginning may merge with the prompt.
BARE = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + 'POINT' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistantPOINT' }}{%- endif %}"
)
STRIPPING = (
    "{%- set ns = namespace(last=-1) %}{%- for message in messages %}"
    "{%- if message.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}"
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}"
    "{{- message.content.strip() if message.role == 'assistant' and loop.index0 < ns.last else message.content }}"
    "{{- '<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
TEMPLATES = {
    "qwen2": Template.load("qwen2"),
    "qwen2_5": Template.load("qwen2_5"),
    "colon": Template("colon", BARE.replace("POINT", ": ")),
    "word": Template("word", BARE.replace("POINT", "")),
    "two lines": Template("two lines", BARE.replace("POINT", "\\n\\n")),
    "stripping": Template("stripping", STRIPPING),
    "no control token": Template("no control token", BARE.replace("POINT", "\\n\\n").replace("<|im_start|>", "")),
}

Message = dict[str, Any]


@pytest.fixture(scope="session")
def encoder(qwen2: Path) -> Encoder:
    """Ours."""
    return Encoder(qwen2)


@pytest.fixture(scope="session")
def reference(qwen2: Path) -> Tokenizer:
    """The library itself."""
    return Tokenizer.from_file(str(qwen2 / "tokenizer.json"))


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """One to four exchanges, with a system message or none; some answers untrained, some users silent."""
    messages: list[Message] = []
    if draw(st.booleans()):
        messages.append({"role": "system", "content": draw(TEXTS)})
    for _ in range(draw(st.integers(1, 4))):
        if draw(st.integers(0, 5)):
            messages.append({"role": "user", "content": draw(TEXTS) + draw(ENDINGS)})
        answer: Message = {"role": "assistant", "content": draw(TEXTS) + draw(ENDINGS)}
        messages.append(answer | ({} if draw(st.integers(0, 5)) else {"train": False}))
    return messages


def frame_of(rows: list[list[Message]]) -> pl.DataFrame:
    """The rows as a CONVERSATION frame."""
    full = [[{f.name: m.get(f.name) for f in schema.MESSAGE.fields} for m in messages] for messages in rows]
    frame = pl.DataFrame({"messages": full}, schema={"messages": schema.MESSAGES})
    return schema.conform(frame.lazy()).collect()


def proves_serving(template: Template, rows: list[list[Message]], encoder: Encoder, reference: Tokenizer) -> int:
    """Asserts the law for every answer; returns how many samples there were."""
    frame = frame_of(rows)
    table = tokenize(render(template, frame).pieces, encoder)
    assert table.schema == TABLE
    met: Counter[tuple[int, int]] = Counter()
    columns = ("index", "input_ids", "piece_ends", "turns")
    for index, ids, ends, turns in zip(*(table[c].to_pylist() for c in columns), strict=True):
        assert ends[-1] == len(ids)
        messages = plain(frame["messages"][index].to_list())
        for start, stop, turn in zip([0, *ends], ends, turns, strict=False):
            if turn < 0:
                continue
            met[index, turn] += 1
            prompt = template.render(messages[:turn], add_generation_prompt=True)
            answer = template.render(messages[: turn + 1])[len(prompt) :].removesuffix("\n")
            assert ids[:start] == reference.encode(prompt, add_special_tokens=False).ids
            assert ids[start:stop] == reference.encode(answer, add_special_tokens=False).ids
    wanted = [
        (index, turn)
        for index, messages in enumerate(rows)
        for turn, m in enumerate(messages)
        if m["role"] == "assistant" and m.get("train") is not False
    ]
    assert met == Counter(wanted)
    return table.num_rows


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_answer_follows_the_ids_of_its_serving_prompt(name: str, encoder: Encoder, reference: Tokenizer) -> None:
    """Whatever it begins with, and wherever the template puts the generation point; and it is answer + stop itself."""

    @given(st.lists(conversations(), min_size=1, max_size=5))
    @settings(max_examples=50, deadline=None)
    def law(rows: list[list[Message]]) -> None:
        proves_serving(TEMPLATES[name], rows, encoder, reference)

    law()


@pytest.mark.parametrize(
    ("answer", "samples"), [("\nso", 2), (" \n", 2), ("\n\n", 2), ("so", 1), (" so", 1), ("!", 1), ("你", 1)]
)
def test_only_merging_answers_cut_a_conversation(
    answer: str, samples: int, encoder: Encoder, reference: Tokenizer
) -> None:
    """An earlier answer that begins with a line break gives a sample more; any other beginning costs nothing."""
    messages = [
        {"role": r, "content": c} for r, c in zip(("user", "assistant") * 2, ("q", answer, "r", "s"), strict=True)
    ]
    assert proves_serving(TEMPLATES["qwen2"], [messages], encoder, reference) == samples
    assert proves_serving(TEMPLATES["qwen2"], [messages[:2]], encoder, reference) == 1


@pytest.mark.parametrize("use_regex", [True, False], ids=["as GPT-2", "none"])
def test_another_pre_tokeniser_follows_its_own_serving_prompts(use_regex: bool, tmp_path: Path) -> None:
    """`--tokenizer` takes any folder: what Qwen's pre-tokeniser never merges, another may."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = byte_level
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=byte_level.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(["\nassistant\n\nyes", "assistant\nhello", "assistant\n\nyes", "\n\n"] * 5, trainer)
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    messages = [
        {"role": r, "content": c} for r, c in zip(("user", "assistant") * 2, ("q", "yes", "r", "s"), strict=True)
    ]
    muted = [messages[0], messages[1] | {"train": False}, *messages[2:]]
    for name in ("qwen2", "two lines", "no control token"):
        proves_serving(TEMPLATES[name], [messages, muted], Encoder(tmp_path), tokenizer)


def _sharegpt(file: Path, rows: int) -> list[list[Message]]:
    role = {"human": "user", "gpt": "assistant", "system": "system"}
    lines = file.read_text(encoding="utf-8").split("\n")[:rows]
    return [[{"role": role[m["from"]], "content": m["value"]} for m in json.loads(ln)["conversations"]] for ln in lines]


def _muice(file: Path, rows: int) -> list[list[Message]]:
    out = []
    for line in file.read_text(encoding="utf-8").split("\n")[:rows]:
        row = json.loads(line)
        turns = [(r, t[k]) for t in row["conversation"] for r, k in (("user", "human"), ("assistant", "assistant"))]
        out.append([{"role": r, "content": c} for r, c in [("system", row["system"]), *turns]])
    return out


def test_real_conversations_follow_their_serving_prompts(
    real_data: Path, encoder: Encoder, reference: Tokenizer
) -> None:
    """The same for what people and models really said."""
    rows = _sharegpt(real_data / "multiturn/sharegpt_zh_1K_format.jsonl", 30)
    rows += _muice(real_data / "muice/muice_messages.jsonl", 300)
    proves_serving(TEMPLATES["qwen2"], rows, encoder, reference)


@pytest.mark.slow
def test_all_real_conversations_follow_their_serving_prompts(
    real_data: Path, encoder: Encoder, reference: Tokenizer
) -> None:
    """All of the Chinese ShareGPT sample, with either template."""
    rows = _sharegpt(real_data / "multiturn/sharegpt_zh_1K_format.jsonl", 1000)
    for name in ("qwen2", "qwen2_5"):
        proves_serving(TEMPLATES[name], rows, encoder, reference)


def test_the_encoders_batches_do_not_matter(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does the number of rows that are tokenised together."""

    @given(st.lists(conversations(), min_size=1, max_size=6), st.integers(1, 5))
    @settings(max_examples=40, deadline=None)
    def law(rows: list[list[Message]], batch: int) -> None:
        pieces = render(TEMPLATES["qwen2"], frame_of(rows)).pieces
        at_once = tokenize(pieces, encoder)
        with monkeypatch.context() as patch:
            patch.setattr(module, "BATCH", batch)
            assert tokenize(pieces, encoder).equals(at_once)
        alone = [tokenize(render(TEMPLATES["qwen2"], frame_of([row])).pieces, encoder) for row in rows]
        assert [r for t in alone for r in t["input_ids"].to_pylist()] == at_once["input_ids"].to_pylist()
        assert [r for t in alone for r in t["turns"].to_pylist()] == at_once["turns"].to_pylist()

    law()


def test_encode_gives_each_text_its_own_ids(
    encoder: Encoder, reference: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One flat array and offsets that cut it; empty texts have no ids, and no text touches its neighbour."""
    monkeypatch.setattr(module, "BATCH", 3)
    texts = ["a", "", "\n", "\n", "你好", "<|im_start|>user\n", "", "x" * 50]
    ids, offsets = encoder.encode(texts)
    assert ids.dtype == np.int32
    cut = [ids[a:b].tolist() for a, b in itertools.pairwise(offsets)]
    assert cut == [reference.encode(text, add_special_tokens=False).ids for text in texts]
    nothing, zero = encoder.encode([])
    assert (nothing.tolist(), zero.tolist()) == ([], [0])


def test_no_conversations_make_an_empty_table(encoder: Encoder) -> None:
    """With the schema of any other."""
    table = tokenize(render(TEMPLATES["qwen2"], frame_of([])).pieces, encoder)
    assert (table.schema, table.num_rows) == (TABLE, 0)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 6)), max_size=8))
@settings(max_examples=100, deadline=None)
def test_gather_lays_runs_end_to_end(runs: list[tuple[int, int]]) -> None:
    """As slicing and joining would."""
    values = np.arange(100) * 7
    offsets = np.cumsum([0, *(length for _, length in runs)])
    index = gather(np.array([start for start, _ in runs], np.int64), offsets)
    assert values[index].tolist() == [v for start, length in runs for v in values[start : start + length]]


def test_padding_and_truncation_of_a_tokenizer_are_switched_off(reference: Tokenizer, tmp_path: Path) -> None:
    """A tokenizer.json saved by a trainer may pad and truncate; training rows are neither."""
    saved = Tokenizer.from_str(reference.to_str())
    saved.enable_padding(length=16)
    saved.enable_truncation(4)
    saved.save(str(tmp_path / "tokenizer.json"))
    ids, _ = Encoder(tmp_path).encode(["one two three four five six seven", "a"])
    assert ids.tolist() == [i for t in ("one two three four five six seven", "a") for i in reference.encode(t).ids]


def test_what_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    """With the folder or the file in the message."""
    with pytest.raises(QdataError, match=r"no tokenizer\.json in it"):
        Encoder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(QdataError, match=r"tokenizer\.json: not a tokenizer"):
        choose(tmp_path, tmp_path / "cache")


def test_the_proof_does_not_reach_what_it_proves() -> None:
    """Reading shards, and so verify, loads neither the renderer nor the tokeniser's road."""
    code = "import sys, qdata.tokens.verify; print(*(n for n in sys.modules if n.startswith('qdata.tokens')))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "qdata.tokens.samples" in loaded
    assert not {f"qdata.tokens.{name}" for name in ("render", "tokenize", "thinking", "muted", "template")} & set(
        loaded
    )
