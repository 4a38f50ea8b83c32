"""TRL's conversational prompt and completion: `{"prompt": [message, …], "completion": [message, …]}`."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._lists import joined
from qdata.rows.formats._openai import TURNS, are_messages, as_messages, faults, no_json, written, written_tools
from qdata.rows.formats._turns import is_judged, listed

_BOTH = ("prompt", "completion")


class CompletionMessages:
    """Only the completion is trained: answers inside the prompt are read as `train: false` where they do not say."""

    columns: ClassVar = {**dict.fromkeys(_BOTH, TURNS), "tools": pl.String}
    sample: ClassVar = [
        {
            "prompt": [{"role": "user", "content": "竹子是草还是树？"}],
            "completion": [{"role": "assistant", "content": "是草，属于禾本科。"}],
        }
    ]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """Two lists of messages, and no second answer."""
        return all(are_messages(row.get(name)) for name in _BOTH) and not is_judged(row)

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """The prompt's messages, then the completion's."""
        field = pl.element().struct.field
        muted = pl.when(field("role") == "assistant").then(field("train").fill_null(False)).otherwise(field("train"))
        prompt = as_messages(pl.col("prompt")).list.eval(pl.element().struct.with_fields(train=muted))
        return frame.with_columns(messages=joined(prompt, as_messages(pl.col("completion")))).drop(_BOTH)

    @staticmethod
    def fault() -> pl.Expr:
        """A message that says in two spellings two different things."""
        return pl.coalesce(faults(name) for name in _BOTH)

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """The last message is the completion; that answers before it are not trained needs no word."""
        *before, last = conversation["messages"]
        prompt = [m | {"train": None} if m["role"] == "assistant" and m["train"] is False else m for m in before]
        return {"prompt": written(prompt), "completion": written([last])} | written_tools(conversation)

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """Answers before the last one that are trained, and conversations that do not end with an answer."""
        messages = conversation["messages"]
        if len(messages) < 2 or messages[-1]["role"] != "assistant":
            told = listed([m["role"] for m in messages]) or "(none)"
            return f"the turns {told}; completion_messages holds a prompt and an answer"
        if any(m["role"] == "assistant" and m["train"] is None for m in messages[:-1]):
            return "the training of answers before the last one"
        return no_json(conversation)
