"""TRL: SFTTrainer's own preparation, with `assistant_only_loss` or in the prompt-completion layout."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import driver
import trl
from datasets import Dataset
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer


def completions(row: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """A row per answer: the prompt-completion layout trains one."""
    for at, message in enumerate(row["messages"]):
        if message["role"] == "assistant":
            thinks = bool(message.get("reasoning_content")) or "</think>" in message["content"]
            parts = {"prompt": row["messages"][:at], "completion": [message], "tools": row.get("tools")}
            yield parts | {"chat_template_kwargs": {"enable_thinking": thinks}}


def prepare(job: driver.Job) -> tuple[Iterable[Any], str]:
    """The train_dataset of a trainer; the model is tiny and random."""
    rows = driver.rows(job, "messages")
    completion = job["options"]["loss"] == "completion"
    if completion:
        rows = [part for row in rows for part in completions(row)]
        used = "prompt-completion, a row per answer, chat_template_kwargs: enable_thinking where there is reasoning"
    else:
        rows = [{"messages": row["messages"], "tools": row.get("tools")} for row in rows]
        used = "assistant_only_loss=True"
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    if job["template"] == "qwen3":  # it refuses the first revision; the later one renders all texts alike
        later = Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja"
        tokenizer.chat_template = later.read_text(encoding="utf-8")
        used += ", the template's later revision"
    arguments = SFTConfig(
        output_dir=job["work"],
        max_length=None,
        assistant_only_loss=not completion,
        report_to="none",
        use_cpu=True,
        bf16=False,
    )
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(job["model"])),
        args=arguments,
        train_dataset=Dataset.from_list(rows, on_mixed_types="use_json"),
        processing_class=tokenizer,
    )
    return trainer.train_dataset, f"{used}, max_length=None"


driver.run(prepare, "trl", "transformers", "datasets")
