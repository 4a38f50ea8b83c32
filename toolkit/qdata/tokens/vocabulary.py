"""A real Qwen tokenizer directory, built offline from the vocabulary embedded in the splintr-rs wheel.

Without a hub within reach, ``AutoTokenizer.from_pretrained("Qwen/...")`` has nothing to read. But the Qwen
text models from 2 to 3 share 151,643 byte-level tokens and differ only in the few added above. splintr-rs
(MIT, on PyPI) carries the shared ones, the merges follow from their order, the added ones are written here.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

_BASE_SIZE = 151_643
# Of the token strings in id order, joined by newlines (the byte-level alphabet has none). The merges derive
# from nothing else, so this one digest vouches for every id, whatever release of splintr is installed.
_BASE_SHA256 = "36c3749fd3c87e2402f612459b45ae4e6ce5488a3ecde47a8a3ea3ed3d5dda5a"

_CHAT = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_MARKED = ("object_ref", "box", "quad", "vision")
_MARKS = tuple(f"<|{it}_{end}|>" for it in _MARKED for end in ("start", "end"))
_CONTROL = (*_CHAT, *_MARKS, "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")
_FILL = tuple(f"<|fim_{part}|>" for part in ("prefix", "middle", "suffix", "pad"))
_CALLS = ("<tool_call>", "</tool_call>", *_FILL, "<|repo_name|>", "<|file_sep|>")
_THINK = (*_CALLS, "<tool_response>", "</tool_response>", "<think>", "</think>")

# What these do not match is meant to stay unknown: Qwen2.5-Math-PRM adds a token of its own, multimodal and
# later models differ too, and a near miss would give wrong ids without a word.
_SIZE = r"\d+(?:\.\d+)?B(?:-A\d+(?:\.\d+)?B)?"
_QUANT = r"(?:-(?:AWQ|FP8|GPTQ-Int[48]))?"

WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Family:
    """Models that share one tokenizer: who they are and what it adds above the common tokens, in id order."""

    hub_ids: str  # a regular expression
    special: tuple[str, ...]  # control tokens, which decoding may skip
    plain: tuple[str, ...] = ()  # added tokens that are part of what a model says
    model_max_length: int = 131_072  # not the same for all sizes; transformers warns above it


FAMILIES: Mapping[str, Family] = {
    "qwen2": Family(rf"Qwen/Qwen2-{_SIZE}(-Instruct)?{_QUANT}", _CHAT, model_max_length=32_768),
    "qwen2_5": Family(rf"Qwen/Qwen2\.5-(Coder-)?{_SIZE}(-Instruct)?{_QUANT}", _CONTROL, _CALLS),
    "qwen3": Family(rf"Qwen/Qwen3-{_SIZE}(-Base|-(Instruct|Thinking)-2507)?{_QUANT}", _CONTROL, _THINK),
}
"""The families ``build`` can make, by name."""


def family_of(hub_id: str) -> str | None:
    """The family a model on the hub belongs to, or None where we do not know its tokenizer to be one of ours.

    >>> family_of("Qwen/Qwen2.5-7B-Instruct"), family_of("Qwen/Qwen2.5-VL-7B-Instruct")
    ('qwen2_5', None)
    """
    return next((name for name, family in FAMILIES.items() if re.fullmatch(family.hub_ids, hub_id)), None)


def build(family: str, directory: Path) -> Path:
    """Make ``directory`` a tokenizer that ``AutoTokenizer.from_pretrained`` reads, in some 2 s; return it.

    It holds tokenizer.json and tokenizer_config.json: the published ids, ``<|im_end|>`` as the end as in the
    Instruct models (also for a base model: it is about to learn to chat), and no chat template. It appears
    whole or not at all; what an earlier call or a faster process left there is kept.

    Raises ValueError for an unknown family and for a splintr that embeds another vocabulary, FileExistsError
    where ``directory`` holds something else, and ImportError, unchanged, without splintr.
    """
    if family not in FAMILIES:
        raise ValueError(f"no tokenizer family {family!r}; we can build {', '.join(FAMILIES)}")
    config = _config(FAMILIES[family])
    if _holds(directory, config):
        return directory
    if directory.exists() and any(directory.iterdir()):
        raise FileExistsError(f"{directory} holds something that is no {family} tokenizer: left alone")
    tokenizer = _tokenizer(_base_vocabulary(), FAMILIES[family])

    # A sibling, so that the rename stays within one file system and is atomic.
    draft = directory.with_name(f".{directory.name}.{uuid4().hex}")
    draft.mkdir(parents=True)
    try:
        for name, content in (("tokenizer.json", tokenizer), ("tokenizer_config.json", config)):
            (draft / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        draft.rename(directory)
    except OSError:
        if not _holds(directory, config):
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return directory


def _holds(directory: Path, config: Mapping[str, Any]) -> bool:
    """Whether a tokenizer with these added tokens stands there (its owner may edit the rest)."""
    try:
        found = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    same = found.get("added_tokens_decoder") == config["added_tokens_decoder"]
    return same and (directory / "tokenizer.json").exists()


def _base_vocabulary() -> dict[str, int]:
    """The shared tokens and their ids, in GPT-2's byte-level alphabet, which tokenizer.json is written in."""
    from splintr import Tokenizer

    embedded = Tokenizer.from_pretrained("qwen2")
    # Bytes that print stand for themselves in it, the others take the code points from 256 on, in order.
    printing = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    letters = {byte: 256 + at for at, byte in enumerate(b for b in range(256) if b not in printing)}
    tokens = [embedded.decode_token_bytes(i).decode("latin-1").translate(letters) for i in range(_BASE_SIZE)]
    if (seen := hashlib.sha256("\n".join(tokens).encode()).hexdigest()) != _BASE_SHA256:
        raise ValueError(f"splintr embeds another Qwen vocabulary (sha256 {seen[:12]}): ids would be wrong")
    return {token: i for i, token in enumerate(tokens)}


def _merges(ranks: Mapping[str, int]) -> Iterator[str]:
    """The merge that makes each token, in order: it joins the two parts earlier merges leave of its bytes."""
    for token, rank in ranks.items():
        parts = list(token)
        while len(parts) > 2:
            _, at = min((ranks.get(parts[i] + parts[i + 1], rank), i) for i in range(len(parts) - 1))
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        if len(parts) == 2:
            yield " ".join(parts)


def _added(family: Family) -> dict[int, dict[str, Any]]:
    verbatim = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = enumerate(family.special + family.plain, start=_BASE_SIZE)
    return {i: {"content": token, **verbatim, "special": token in family.special} for i, token in added}


def _tokenizer(vocabulary: Mapping[str, int], family: Family) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    affixes = {"continuing_subword_prefix": "", "end_of_word_suffix": ""}
    return {
        "version": "1.0",
        "added_tokens": [{"id": i, **token} for i, token in _added(family).items()],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {"type": "BPE", **affixes, "vocab": vocabulary, "merges": list(_merges(vocabulary))},
    }


def _config(family: Family) -> dict[str, Any]:
    tokens = {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": None}
    return {
        "tokenizer_class": "Qwen2Tokenizer",
        "model_max_length": family.model_max_length,
        **tokens,
        "additional_special_tokens": list(family.special[1:]),
        "added_tokens_decoder": {str(i): token for i, token in _added(family).items()},
        **dict.fromkeys(("add_prefix_space", "clean_up_tokenization_spaces", "split_special_tokens"), False),
    }
