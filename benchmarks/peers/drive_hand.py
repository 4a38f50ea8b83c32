"""What many write by hand: `datasets.map`, the chat tokenized whole, each answer found by the prefixes' lengths."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import driver
from datasets import Dataset
from transformers import AutoTokenizer


def prepare(job: driver.Job) -> tuple[Iterable[Any], str]:
    """Ids of the whole chat; labels from the length of the prompt to the length with the answer."""
    tokenizer = AutoTokenizer.from_pretrained(job["model"])

    def encode(row: dict[str, Any]) -> dict[str, list[int]]:
        def ids(end: int, prompt: bool) -> list[int]:
            text = tokenizer.apply_chat_template(
                row["messages"][:end], tools=row["tools"], tokenize=False, add_generation_prompt=prompt
            )
            return list(tokenizer(text, add_special_tokens=False)["input_ids"])

        whole = ids(len(row["messages"]), prompt=False)
        labels = [-100] * len(whole)
        for at, message in enumerate(row["messages"]):
            if message["role"] == "assistant":
                start, end = len(ids(at, prompt=True)), len(ids(at + 1, prompt=False))
                labels[start:end] = whole[start:end]
        return {"input_ids": whole, "labels": labels}

    rows = [{"messages": row["messages"], "tools": row.get("tools")} for row in driver.rows(job, "messages")]
    dataset = Dataset.from_list(rows, on_mixed_types="use_json")
    return dataset.map(encode, remove_columns=dataset.column_names), "apply_chat_template, mask by prefix lengths"


driver.run(prepare, "transformers", "datasets")
