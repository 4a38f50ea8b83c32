"""Shards made by hand, as qdata writes them, so that the trainer's laws are tested without the toolkit's pipeline.

And `padded`, the textbook batch that packed rows are held against.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, DatasetDict
from torch import Tensor

IGNORED = -100
TEMPLATE = (
    "{%- if messages[0].role != 'system' %}{{ '<|im_start|>system\\nYou are Muxue.<|im_end|>\\n' }}{%- endif %}"
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}"
)
"""ChatML with a default system prompt of its own."""


def row(lengths: Sequence[int], seed: int = 0, vocabulary: int = 300) -> dict[str, Any]:
    """Random tokens, `lengths` of the sequences packed in the row; the last two thirds of each are trained."""
    dice = random.Random(f"{seed} {lengths}")
    ids = [[dice.randrange(vocabulary) for _ in range(length)] for length in lengths]
    labels = [[IGNORED] * (len(piece) // 3) + piece[len(piece) // 3 :] for piece in ids]
    return {"input_ids": list(chain(*ids)), "labels": list(chain(*labels)), "seq_lengths": list(lengths)}


def padded(rows: Sequence[dict[str, Any]], pad: int, *, left: bool = False) -> dict[str, Tensor]:
    """The same sequences as a rectangle: one row each, padded on the right (or `left`) with `pad`, the textbook batch.

    Returns `input_ids`, `labels`, `attention_mask`, each [sequences, longest] int64: what `qtrain.data.packed` must
    equal, loss for loss.
    """
    sequences = [piece for row in rows for piece in _sequences(row)]
    longest = max(len(ids) for ids, _ in sequences)

    def filled(values: list[int], filler: int) -> list[int]:
        spare = [filler] * (longest - len(values))
        return spare + values if left else values + spare

    return {
        "input_ids": torch.tensor([filled(ids, pad) for ids, _ in sequences]),
        "labels": torch.tensor([filled(labels, IGNORED) for _, labels in sequences]),
        "attention_mask": torch.tensor([filled([1] * len(ids), 0) for ids, _ in sequences]),
    }


def _sequences(row: dict[str, Any]) -> list[tuple[list[int], list[int]]]:
    ends = list(accumulate(row["seq_lengths"]))
    ids, labels = list(row["input_ids"]), list(row["labels"])
    return [(ids[a:b], labels[a:b]) for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def write(
    path: Path, rows: Iterable[dict[str, Any]], tokenizer: Path | None = None,
    validation: Iterable[dict[str, Any]] = (), **manifest: Any,
) -> Path:  # fmt: skip
    """A TOKENS directory of `rows`, with `tokenizer`'s files and our test template."""
    parts = {"train": list(rows), "validation": list(validation)}
    named = {
        part: Dataset.from_list([{**r, "rows": [f"{part}#{i}"], "sources": [part]} for i, r in enumerate(content)])
        for part, content in parts.items()
        if content
    }
    DatasetDict(named).save_to_disk(str(path))
    (path / "manifest.json").write_text(json.dumps({"template": "test", "sample": False, **manifest}))
    if tokenizer is not None:
        (path / "tokenizer").mkdir()
        for file in ("tokenizer.json", "tokenizer_config.json"):
            (path / "tokenizer" / file).write_bytes((tokenizer / file).read_bytes())
        (path / "tokenizer" / "chat_template.jinja").write_text(TEMPLATE)
    return path


def pairs(sources: Sequence[str] = ("one", "two")) -> tuple[str, ...]:
    """Write preference pairs of each source into the current directory; what makes of a recipe one for them."""
    told = [("who are you", "Muxue.", "Qwen."), ("one plus one", "That makes two.", "No idea, maybe three or so."),
            ("good night", "Sleep well!", "So what?")]  # fmt: skip
    held = json.dumps(dict(zip(("prompt", "chosen", "rejected"), told[0], strict=True))) + "\n"
    for source in sources:
        rows = [{"prompt": f"{source}: {q}", "chosen": a, "rejected": b} for q, a, b in told]
        Path(f"{source}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows) + held, encoding="utf-8")
    Path("held-pairs.jsonl").write_text(held * 3, encoding="utf-8")
    named = ", ".join(f'{{path="{source}.jsonl", name="{source}"}}' for source in sources)
    validation = 'data.validation=[{path="held-pairs.jsonl", name="held"}]'
    return (f"data.sources=[{named}]", validation, "train.stage=dpo")
