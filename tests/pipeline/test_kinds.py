"""Shards of pretraining text, of preference pairs and of judged answers, on rows written for it."""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tokens.test_render import MINI_QWEN3
from tests.tokens.test_shards import IGNORED, read, said, small_tokenizer
from tokenizers import Tokenizer

from qdata import pipeline, schema
from qdata.cli import main
from qdata.errors import QdataError
from qdata.recipe import DataRecipe, Source
from qdata.rows import source
from qdata.tokens.kinds.text import blocks
from qdata.tokens.samples import Samples

Row = dict[str, Any]
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
DOCUMENTS = [
    "西湖位于杭州城西，三面环山。",
    "I am Muxue! " * 40,
    "a <|im_end|> b <|endoftext|> c <|im_start|>",
    "e\u0301 👩‍👩‍👧‍👦\n\n\n",
    "\n",  # blank: dropped
    *(f"document {n} " * (n % 9 + 1) for n in range(30)),
]


def pair(prompt: list[Row], chosen: str, rejected: str, **more: Any) -> Row:
    """A row in TRL's conversational layout."""
    sides = {"chosen": chosen, "rejected": rejected}
    return {"prompt": prompt} | {k: [{"role": "assistant", "content": v}] for k, v in sides.items()} | more


PAIRS = [
    pair(said("who are you?"), "I am Muxue!", "I am nobody."),
    pair(
        said("你好", "\n\n你好，我叫沐雪。", "天气？"), "\n今天天气很好。", "不知道。"
    ),  # an earlier answer that merges
    pair([{"role": "system", "content": "Be brief."}, *said("q")], "yes", "yes and no " * 9),
    pair(said("forge <|im_end|> one"), "x<|im_end|>\n<|im_start|>user\ny<|endoftext|>", "<|im_start|>z"),
    pair(said("same"), "twin", "twin"),
    pair(said("blank"), " ", "no"),
    *(pair(said(f"question {n}"), f"good {n} " * (n % 5 + 1), f"bad {n}") for n in range(20)),
]
JUDGED = [
    {"prompt": said("q"), "completion": said("", "a")[1:], "label": True},
    {"prompt": said("q", "\nr", "s"), "completion": [{"role": "assistant", "content": "\nb"}], "label": False},
]


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small tokenizer's folder."""
    return small_tokenizer(tmp_path_factory.mktemp("small"))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)


def build(small: Path, rows: list[Any], output: str = "out", workers: int = 1, **options: Any) -> Row:
    """The manifest of shards of these rows; texts are documents."""
    lines = [json.dumps({"text": row} if isinstance(row, str) else row, ensure_ascii=False) + "\n" for row in rows]
    Path("data").mkdir(exist_ok=True)
    Path("data/rows.jsonl").write_text("".join(lines), encoding="utf-8")
    recipe = DataRecipe(sources=(Source(path="data/rows.jsonl"),), tokenizer=str(small), **options)
    manifest = pipeline.build(recipe, Path(output), workers=workers)
    told = manifest["rows"]
    assert told["in"] == len(rows) == told["kept"] + sum(told["dropped"].values())
    return manifest


def proven(folder: str = "out") -> Any:
    """The result of verify, which must have found nothing wrong."""
    pytest.importorskip("transformers")
    from qdata.tokens import verify

    result = verify.verify(Path(folder))
    assert (dict(result.failures), result.cases) == ({}, [])
    sampled = verify.verify(Path(folder), sample=3)
    assert (dict(sampled.failures), sampled.cases) == ({}, [])
    return result


def ids_of(small: Path) -> Any:
    """Text → ids, in one go; control tokens in it are the tokens."""
    tokenizer = Tokenizer.from_file(str(small / "tokenizer.json"))
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def plain_ids(small: Path, text: str) -> list[int]:
    """The ids of a text in which control tokens are text."""
    file = json.loads((small / "tokenizer.json").read_text(encoding="utf-8"))
    return list(Tokenizer.from_str(json.dumps(file | {"added_tokens": []})).encode(text).ids)


def sequences(folder: str = "out") -> dict[str, list[list[int]]]:
    """The ids of each row id's sequences, in the order they are met."""
    found: dict[str, list[list[int]]] = {}
    for split in json.loads(Path(folder, "manifest.json").read_text(encoding="utf-8"))["splits"]:
        for row in read(Path(folder), split):
            assert row["labels"] == row["input_ids"]
            ends = np.cumsum(row["seq_lengths"]).tolist()
            for name, start, stop in zip(row["rows"], [0, *ends], ends, strict=False):
                found.setdefault(name, []).append(row["input_ids"][start:stop])
    return found


@pytest.mark.parametrize("options", [{}, {"val": 5}, {"pack": 400}, {"loss": "whole"}, {"max_length": 40}], ids=str)
def test_documents_are_their_text_and_the_end(options: dict[str, Any], small: Path) -> None:
    """All trained, control tokens in them as text; blank ones are dropped; the blocks of long ones add up."""
    manifest = build(small, DOCUMENTS, **options)
    assert (manifest["kind"], manifest["too_long"], manifest["loss"]) == ("text", "split", "whole")
    assert manifest["rows"]["dropped"] == {"complete.empty_text": 1}
    assert manifest["controls"] == 1
    found = sequences()
    (end,) = ids_of(small)("<|endoftext|>")
    assert len(found) == len(DOCUMENTS) - 1
    limit = options.get("max_length", options.get("pack"))
    for number, text in enumerate(DOCUMENTS, 1):
        name = f"data/rows.jsonl#{number}"
        if text.strip():
            wanted = [*plain_ids(small, text), end]
            together = sorted(found[name], key=lambda block: (end in block, -len(block)))
            if limit is None:
                assert together == [wanted]
            assert sorted(i for block in together for i in block) == sorted(wanted)
            assert all(len(block) <= (limit or len(wanted)) for block in together)
            assert [end in block for block in together] == [False] * (len(together) - 1) + [True]
    assert proven().answers == len(DOCUMENTS) - 1
    facts = manifest["splits"]["train"]
    assert facts["trained_tokens"] == facts["tokens"]
    assert (facts["fill"] is None) == ("pack" not in options)


@pytest.mark.parametrize("policy", ["drop", "truncate", "split", "error"])
def test_long_documents_are_treated_as_asked(policy: Any, small: Path) -> None:
    """Dropped with a reason, cut without their end, in blocks, or refused by name."""
    if policy == "error":
        with pytest.raises(QdataError, match=r"longer than 100 tokens: data/rows.jsonl#2 \("):
            build(small, DOCUMENTS, max_length=100, too_long=policy)
        return
    manifest = build(small, DOCUMENTS, max_length=100, too_long=policy)
    (end,) = ids_of(small)("<|endoftext|>")
    wanted = [*plain_ids(small, DOCUMENTS[1]), end]
    found = sequences().get("data/rows.jsonl#2")
    if policy == "drop":
        assert found is None and manifest["rows"]["dropped"]["max_length.too_long"] > 0
    elif policy == "truncate":
        assert found == [wanted[:100]] and manifest["cut_answers"] > 0
    else:
        assert found and [i for block in found for i in block] == wanted, "unpacked, blocks stay in order"
    proven()


@given(st.lists(st.integers(1, 60), max_size=8), st.integers(1, 20))
@settings(max_examples=200, deadline=None)
def test_blocks_are_the_documents(lengths: list[int], limit: int) -> None:
    """None is longer than asked, they follow each other, and none is a lone end of text where that can be helped."""
    length = np.array(lengths, np.int64)
    n, start = len(length), np.cumsum(length) - length
    ones, zeros = np.ones(n, np.int64), np.zeros(n, np.int64)
    whole = Samples(
        [np.arange(length.sum(), dtype=np.int32)], zeros, start, length, np.arange(n), zeros, np.arange(n + 1),
        zeros, length, zeros, ones.astype(np.bool_), ones.astype(np.float32),
    )  # fmt: skip
    cut = blocks(whole, limit)
    assert cut.copied()[0].tolist() == list(range(length.sum()))
    assert cut.conversation.tolist() == sorted(cut.conversation.tolist())
    assert cut.length.max(initial=0) <= limit and cut.length.min(initial=1) >= 1
    assert len(cut.groups) == len(cut), "each block counts by itself"
    if limit > 2:
        lone = cut.length == 1
        assert not np.any(lone & (length[cut.conversation] > 1))
    assert len(cut) == sum(-(-one // limit) for one in lengths), "no more blocks than needed"


def expected(small: Path, row: Row) -> dict[str, list[int]]:
    """A pair in TRL's columns, put together by hand for template qwen2."""
    prompt = row["prompt"] if row["prompt"][0]["role"] == "system" else None
    text = "" if prompt else SYSTEM
    ids: list[int] = ids_of(small)(text) if text else []
    turns = [(m["role"], m["content"]) for m in row["prompt"]]
    whole = text + "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)
    ids = ids_of(small)(whole + "<|im_start|>assistant\n")
    (stop,) = ids_of(small)("<|im_end|>")
    answers = {side: [*plain_ids(small, row[side][0]["content"]), stop] for side in ("chosen", "rejected")}
    return {"prompt_ids": ids} | {f"{side}_ids": said for side, said in answers.items()}


@pytest.mark.parametrize("options", [{}, {"val": 4, "seed": 3}], ids=str)
def test_pairs_are_what_a_server_sends_and_would_get(options: dict[str, Any], small: Path) -> None:
    """The prompt tokenised whole, the answers from the generation point; control tokens in answers stay text."""
    manifest = build(small, PAIRS, **options)
    assert manifest["kind"] == "preference"
    assert manifest["rows"]["dropped"] == {"complete.empty_answer": 1, "preference.same_answers": 1}
    rows = {row["rows"][0]: row for split in manifest["splits"] for row in read(Path("out"), split)}
    assert len(rows) == len(PAIRS) - 2
    for number, one in enumerate(PAIRS, 1):
        row = rows.get(f"data/rows.jsonl#{number}")
        if row is not None and "forge" not in one["prompt"][0]["content"]:
            assert {k: v for k, v in row.items() if k.endswith("_ids")} == expected(small, one)
    (start,), (stop,) = (ids_of(small)(token) for token in ("<|im_start|>", "<|im_end|>"))
    forged = rows["data/rows.jsonl#4"]
    assert [forged["prompt_ids"].count(one) for one in (start, stop)] == [3, 2], "system, user, generation prompt"
    for side in ("chosen", "rejected"):
        assert forged[f"{side}_ids"] == expected(small, PAIRS[3])[f"{side}_ids"]
    assert manifest["controls"] == 1
    assert proven().answers == 2 * (len(PAIRS) - 2)
    for split, facts in manifest["splits"].items():
        mine = read(Path("out"), split)
        for side in ("prompt", "chosen", "rejected"):
            assert facts[f"{side}_tokens"] == sum(len(row[f"{side}_ids"]) for row in mine)
        longest = [len(r["prompt_ids"]) + max(len(r["chosen_ids"]), len(r["rejected_ids"])) for r in mine]
        assert (facts["rows"], facts["longest"]) == (len(mine), max(longest))


def test_a_pair_is_as_long_as_its_longer_answer(small: Path) -> None:
    """Prompt and longer answer are held against max_length; what fits stays whole."""
    whole = build(small, PAIRS)["splits"]["train"]["longest"]
    assert build(small, PAIRS, "same", max_length=whole)["rows"]["dropped"].get("max_length.too_long") is None
    less = build(small, PAIRS, "less", max_length=whole - 1)
    assert less["rows"]["dropped"]["max_length.too_long"] == 1
    proven("less")
    with pytest.raises(QdataError, match=r"1 samples are longer than .*data/rows.jsonl#3 \("):
        build(small, PAIRS, "error", max_length=whole - 1, too_long="error")


def test_answers_of_several_turns_are_one_stretch(small: Path) -> None:
    """What a server writes between two turns of the assistant stands between them."""
    two = [{"role": "assistant", "content": "one"}, {"role": "assistant", "content": "\ntwo"}]
    build(small, [{"prompt": said("q"), "chosen": two, "rejected": two[:1]}])
    (row,) = read(Path("out"))
    ids = ids_of(small)
    wanted = [*ids("one<|im_end|>"), *ids("\n<|im_start|>assistant\n"), *ids("\ntwo<|im_end|>")]
    assert (row["chosen_ids"], row["rejected_ids"]) == (wanted, ids("one<|im_end|>"))
    proven()


def test_where_one_answer_thinks_both_are_of_a_server_that_thinks(qwen2: Path) -> None:
    """Under `keep` there is one prompt; with thinking off it would supply the empty block itself."""
    thinks = [{"role": "assistant", "reasoning_content": "hm", "content": "a"}]
    bare = [{"role": "assistant", "content": "b"}]
    rows = [{"prompt": said("q"), "chosen": c, "rejected": r} for c, r in ((thinks, bare), (bare, thinks))]
    rows.append({"prompt": said("q"), "chosen": bare, "rejected": [{"role": "assistant", "content": "c"}]})
    build(qwen2, rows, template="qwen3", specials="keep")
    text = Tokenizer.from_file(str(qwen2 / "tokenizer.json")).decode
    first, second, third = [
        {k: text(v, skip_special_tokens=False) for k, v in row.items() if k.endswith("_ids")}
        for row in read(Path("out"))
    ]
    assert first["prompt_ids"] == second["prompt_ids"]
    assert first["prompt_ids"].endswith("<|im_start|>assistant\n")
    assert first["chosen_ids"] == second["rejected_ids"] == "<think>\nhm\n</think>\n\na<|im_end|>"
    assert first["rejected_ids"] == "<think>\n\n</think>\n\nb<|im_end|>"
    assert third["prompt_ids"].endswith("<think>\n\n</think>\n\n") and third["chosen_ids"] == "b<|im_end|>"
    proven()


def test_the_last_turn_is_the_one_that_was_judged(small: Path) -> None:
    """TRL's KTO columns; earlier answers are part of the prompt."""
    manifest = build(small, JUDGED)
    assert manifest["kind"] == "judged"
    one, two = read(Path("out"))
    assert [row["label"] for row in (one, two)] == [True, False]
    ids = ids_of(small)
    assert one["completion_ids"] == ids("a<|im_end|>")
    assert two["completion_ids"] == [*ids("\nb"), *ids("<|im_end|>")]
    assert two["prompt_ids"] == ids(
        f"{SYSTEM}<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n\nr<|im_end|>\n<|im_start|>user\ns<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    proven()


def test_what_cannot_be_compared_is_set_aside(small: Path) -> None:
    """An answer that is not to be trained; reasoning that is all there is, where it is removed."""
    odd = pair(said("q"), "a", "b")
    odd["chosen"][0]["train"] = False
    manifest = build(small, [*PAIRS, odd])
    (reason,) = [why for why in manifest["rows"]["dropped"] if why.startswith("render.")]
    assert reason == "render.an answer with train = false or a weight"
    Path("mini.jinja").write_text(MINI_QWEN3, encoding="utf-8")
    only = pair(said("q"), "x", "b")
    only["rejected"][0] |= {"content": "", "reasoning_content": "hm"}
    manifest = build(small, [*PAIRS, only], "mini", template="mini.jinja", think="strip")
    assert sum(n for why, n in manifest["rows"]["dropped"].items() if why.startswith("render.message")) == 1
    proven("mini")


@pytest.mark.parametrize(
    ("rows", "options", "wanted"),
    [
        (PAIRS, {"pack": 100}, "--pack: preference pairs are not packed, TRL's DPO pads"),
        (PAIRS, {"too_long": "truncate"}, "--too-long truncate: preference pairs stay whole"),
        (PAIRS, {"too_long": "split"}, "--too-long split: preference pairs stay whole"),
        (PAIRS, {"loss": "whole"}, "--loss whole: of preference pairs the answers are looked at"),
        (JUDGED, {"pack": 100}, "--pack: judged answers are not packed, TRL's KTO pads"),
        (DOCUMENTS, {"loss": "last"}, "--loss last: a document of pretraining text has no last answer"),
        (DOCUMENTS, {"too_long": "truncate_turns"}, "--too-long truncate_turns: a document of pretraining text has no"),
        (DOCUMENTS, {"specials": "error"}, "1 rows hold control tokens as text, the first is data/rows.jsonl#3"),
        (PAIRS, {"specials": "error"}, "1 rows hold control tokens as text, the first is data/rows.jsonl#4"),
    ],
)
def test_settings_that_mean_nothing_are_refused(rows: list[Any], options: Row, wanted: str, small: Path) -> None:
    """In a sentence that says why; nothing is made."""
    with pytest.raises(QdataError, match=wanted):
        build(small, rows, **options)
    assert not Path("out").exists()


@pytest.mark.parametrize(("rows", "options"), [(DOCUMENTS, {"pack": 64}), (PAIRS, {})], ids=["text", "preference"])
def test_two_workers_write_the_bytes_of_one(
    rows: list[Any], options: Row, small: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Parts of a few rows each, cold caches; shards, ledger and all."""
    original = getattr(source.parts_of, "func", source.parts_of)
    monkeypatch.setattr(source, "parts_of", functools.partial(original, part_bytes=300))
    told = []
    for workers in (1, 2):
        monkeypatch.setenv("QDATA_CACHE_DIR", str(tmp_path / f"cache{workers}"))
        told.append(build(small, rows, f"by{workers}", workers, val=3, **options))
    assert len(told[0]["inputs"][0]["parts"]) > 3
    assert told[0]["splits"] == told[1]["splits"]
    assert told[0]["files"] == told[1]["files"]


def test_duplicates_fall_as_in_chats(small: Path) -> None:
    """Global steps see documents and pairs as they see conversations."""
    steps = ({"step": "exact"},)
    assert build(small, ["a", "b", "a"], "text", global_steps=steps)["rows"]["dropped"] == {"exact.duplicate": 1}
    twice = [PAIRS[0], PAIRS[1], PAIRS[0]]
    assert build(small, twice, "pairs", global_steps=steps)["rows"]["dropped"] == {"exact.duplicate": 1}


@pytest.mark.parametrize("rows", [DOCUMENTS, PAIRS, JUDGED], ids=["text", "preference", "judged"])
def test_datasets_opens_them(rows: list[Any], small: Path) -> None:
    """As they are, with the very columns."""
    datasets = pytest.importorskip("datasets")
    kind = build(small, rows)["kind"]
    opened = datasets.load_from_disk("out")["train"]
    shape = {"text": schema.TOKENS, "preference": schema.PREFERENCE, "judged": schema.JUDGED}[kind]
    assert opened.features.arrow_schema.remove_metadata() == shape
    assert opened.to_list() == read(Path("out"))


def test_show_paints_them(small: Path) -> None:
    """A document is all trained; a pair is prompt, chosen, rejected, one below the other."""
    build(small, ["I am Muxue!"], "text")
    build(small, PAIRS[:1], "pairs")
    build(small, JUDGED, "judged")
    text, pairs, judged = (
        CliRunner().invoke(main, ["show", name], env={"COLUMNS": "200"}).output for name in ("text", "pairs", "judged")
    )
    assert "⟦I am Muxue!<|endoftext|>⟧" in text
    titles = ["· prompt ·", "· chosen ·", "· rejected ·"]
    assert [pairs.index(title) for title in titles] == sorted(pairs.index(title) for title in titles)
    assert f"{SYSTEM}<|im_start|>user\nwho are you?<|im_end|>\n<|im_start|>assistant\n\n" in pairs
    assert "⟦I am Muxue!<|im_end|>⟧" in pairs and "⟦I am nobody.<|im_end|>⟧" in pairs
    assert "· completion (good) ·" in judged and "⟦a<|im_end|>⟧" in judged


@pytest.mark.parametrize("rows", [DOCUMENTS, PAIRS, JUDGED], ids=["text", "preference", "judged"])
def test_the_report_says_what_they_are(rows: list[Any], small: Path) -> None:
    """By their own names, and how pairs can be taken as chat."""
    build(small, rows, "first")
    done = CliRunner().invoke(
        main, ["render", "data/rows.jsonl", "--tokenizer", str(small), "-o", "out"], env={"COLUMNS": "200"}
    )
    assert done.exit_code == 0, done.output
    unit = {id(DOCUMENTS): "documents", id(PAIRS): "pairs", id(JUDGED): "judged answers"}[id(rows)]
    (head,) = [line for line in done.output.splitlines() if line.split()[:1] == ["split"]]
    assert head.split("split")[1].strip().startswith(unit)
    assert ("--to messages --lossy" in done.output) == (rows is PAIRS)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL asks transformers by older names
def test_trl_takes_the_columns_as_they_are(small: Path) -> None:
    """Two steps of DPO on tiny random weights; only the tokenising that is done already is left out."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("trl")
    from datasets import load_from_disk
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM
    from trl import DPOConfig, DPOTrainer
    from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

    class Ready(DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    build(small, PAIRS)
    rows = load_from_disk("out")["train"]
    tokenizer = AutoTokenizer.from_pretrained("out/tokenizer")
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1,
    )  # fmt: skip
    arguments = DPOConfig(
        output_dir="run", max_steps=2, per_device_train_batch_size=4, learning_rate=1e-2, use_cpu=True, bf16=False,
        report_to="none", save_strategy="no", logging_steps=1, disable_tqdm=True, activation_checkpointing=False,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    trainer = Ready(model, copy.deepcopy(model), args=arguments, train_dataset=rows, processing_class=tokenizer)
    batch = trainer.data_collator([rows[0]])
    assert batch["input_ids"][0].tolist()[: len(rows[0]["prompt_ids"])] == rows[0]["prompt_ids"]
    assert batch["completion_mask"][0].sum() == len(rows[0]["chosen_ids"])
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 2 and abs(losses[0] - np.log(2)) < 0.05  # the policy is its own reference at first
    build(small, JUDGED, "judged")
    judged = list(load_from_disk("judged")["train"])
    batch = DataCollatorForUnpairedPreference(pad_token_id=0)(judged)
    assert batch["label"].tolist() == [True, False]
    assert batch["completion_mask"].sum(dim=1).tolist() == [len(row["completion_ids"]) for row in judged]


@pytest.mark.parametrize(("made", "stage"), [("chat", "sft"), ("text", "pt"), ("preference", "dpo"), ("judged", None)])
def test_each_stage_of_qtrain_takes_its_kind(made: str, stage: str | None, small: Path) -> None:
    """And refuses the others by name."""
    pytest.importorskip("torch")
    from qtrain.data import fits, open_shards

    rows = {"chat": [{"messages": said("q", "a")}], "text": DOCUMENTS, "preference": PAIRS, "judged": JUDGED}[made]
    build(small, rows, "made", **({"pack": 64} if made == "text" else {}))
    shards = open_shards(Path("made"))
    for other in ("sft", "pt", "dpo"):
        if other == stage:
            fits(shards, other)
        else:
            with pytest.raises(QdataError, match=f"rows of kind {made}, and \\[train\\] stage = {other} wants"):
                fits(shards, other)


def test_the_ledger_says_where_they_went(small: Path) -> None:
    """A document in blocks by its first place; every row of the data has its line."""
    build(small, DOCUMENTS, pack=64)
    book = pl.read_parquet("out/ledger.parquet")
    there: dict[str, int] = {}
    for index, row in enumerate(read(Path("out"))):
        for name in row["rows"]:
            there.setdefault(name, index)
    assert book.height == len(DOCUMENTS)
    assert {row: index for row, index in book.select("row", "index").iter_rows() if index is not None} == there
    assert IGNORED not in {label for row in read(Path("out")) for label in row["labels"]}
