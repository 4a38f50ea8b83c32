"""XTuner: `{"conversation": [{"system": …, "input": …, "output": …}, {"input": …, "output": …}, …]}`."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._lists import ITEM, of_each
from qdata.rows.formats._turns import beyond_alternating, is_preference, system_of, turn
from qdata.schema import message

_NO_QUESTION = "every input is empty, which XTuner takes for pretraining text"


class Xtuner:
    """An exchange in each turn, with a system prompt before any of them; null and "" mean none.

    `output_with_loss: false` means that the answer is not trained. Where every `input` is empty, XTuner takes the
    outputs for pretraining text: such a row is no conversation.
    """

    columns: ClassVar = {
        "conversation": pl.List(
            pl.Struct({"system": pl.String, "input": pl.String, "output": pl.String, "output_with_loss": pl.Boolean})
        )
    }
    sample: ClassVar = [
        {
            "conversation": [
                {"system": "你是一位心理医生。", "input": "我最近总是睡不着。", "output": "愿意说说在担心什么吗？"},
                {"input": "下周有考试。", "output": "那我们先排一个复习计划。"},
            ]
        }
    ]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """A list of input/output exchanges with a question somewhere; system prompts stand in turns only."""
        turns = row.get("conversation")
        return (
            isinstance(turns, list)
            and all(isinstance(t, dict) and {"input", "output"} <= t.keys() for t in turns)
            and any(t["input"] for t in turns)
            and "system" not in row
            and not is_preference(row)
        )

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """Each exchange becomes a user and an assistant turn, after a system message where it has one."""
        field = pl.col(ITEM).struct.field
        question, answer = message("user", field("input")), turn("assistant", field("output"), train=field(_TRAINED))
        turns = of_each(pl.col("conversation"), system_of(field("system")), question, answer)
        return frame.with_columns(messages=turns).drop("conversation")

    @staticmethod
    def fault() -> pl.Expr:
        """Pretraining text."""
        inputs = pl.col("conversation").list.eval(pl.element().struct.field("input") == "")
        return pl.when(inputs.list.all() & (inputs.list.len() > 0)).then(pl.lit(_NO_QUESTION))

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """`system` and `output_with_loss` only where there is one."""
        turns: list[dict[str, Any]] = []
        out: dict[str, Any] = {}
        for m in conversation["messages"]:
            out |= {_KEYS[m["role"]]: m["content"]}
            if m["role"] == "assistant":
                turns.append(out if m["train"] is None else out | {_TRAINED: m["train"]})
                out = {}
        return {"conversation": turns}

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """Tools, per-message fields but `train` of answers, empty system prompts, and turns that do not alternate."""
        messages = conversation["messages"]
        system = [i for i, m in enumerate(messages) if m["role"] == "system"]
        if any(messages[i]["content"] == "" for i in system):
            return "an empty system prompt"
        if not all(i + 1 < len(messages) and messages[i + 1]["role"] == "user" for i in system):
            return "a system prompt that stands before no question"
        rest = [m for m in messages if m["role"] != "system"]
        if (beyond := beyond_alternating(conversation | {"messages": rest}, "xtuner", holds="train")) is not None:
            return beyond
        if any(messages[i][key] is not None for i in system for key in ("reasoning", "name", "train", "weight")):
            return "reasoning, names or training flags of a system prompt"
        return _NO_QUESTION if all(m["content"] == "" for m in rest[::2]) else None


_TRAINED = "output_with_loss"
_KEYS = {"system": "system", "user": "input", "assistant": "output"}
