"""The stand-in for a model out of reach: a small Qwen2 with random weights and a byte-level BPE of its own.

It is built as an ordinary Hugging Face folder, so that everything after it treats it like any other local model. Same
rows, same recipe, same folder, byte for byte: what is proven on the stand-in holds for the road, not for luck.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from qdata.paths import whole
from qtrain.recipe import StandIn

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""Qwen2's control tokens, in id order. Like the vendor's they stand above the learned vocabulary."""


def build(stand_in: StandIn, texts: Iterable[str], directory: Path) -> Path:
    """Make `directory` a model folder: tokenizer trained on the `texts`, random weights, config.

    What is there gives way. Takes a few seconds for thousands of rows.
    """
    with whole(directory, replace=True) as partial:
        partial.mkdir()
        size = _tokenizer(texts, stand_in.vocab_size, partial)
        _weights(stand_in, size, partial)
    return directory


def texts_of(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """All that CONVERSATION rows say, of every kind: documents, the messages of chats, both answers of a pair."""
    for row in rows:
        if row["text"] is not None:
            yield row["text"]
        for column in ("messages", "chosen", "rejected"):
            for message in row[column] or ():
                # The role names are part of every prompt a template writes.
                yield f"{message['role']}\n"
                yield message["content"] or ""


def _tokenizer(texts: Iterable[str], size: int, directory: Path) -> int:
    """Train and write a tokenizer built like Qwen2's; returns its number of ids (≤ `size`, fewer on little text)."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    words = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated", invert=False)
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, as_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(CONTROL), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL])
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "model_max_length": 32_768,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "bos_token": None,
        "unk_token": None,
        "additional_special_tokens": list(CONTROL[1:]),
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
    }
    text = json.dumps(config, ensure_ascii=False, indent=2)
    (directory / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")
    return int(tokenizer.get_vocab_size())


def _weights(stand_in: StandIn, size: int, directory: Path) -> None:
    import torch
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    pad, _, stop = range(size - len(CONTROL), size)
    config = Qwen2Config(
        vocab_size=size,
        hidden_size=stand_in.hidden_size,
        num_hidden_layers=stand_in.num_hidden_layers,
        num_attention_heads=stand_in.num_attention_heads,
        num_key_value_heads=stand_in.num_key_value_heads,
        intermediate_size=stand_in.intermediate_size,
        tie_word_embeddings=True,  # as in Qwen2-1.5B
        bos_token_id=None,
        eos_token_id=stop,
        pad_token_id=pad,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stand_in.seed)
        model = Qwen2ForCausalLM(config).to(torch.float32)
    model.generation_config = GenerationConfig(eos_token_id=[stop, pad], pad_token_id=pad)
    model.save_pretrained(directory)
