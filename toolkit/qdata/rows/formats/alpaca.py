"""Stanford Alpaca's `instruction, input, output`, with LLaMA-Factory's `system` and `history`."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._lists import joined
from qdata.rows.formats._turns import (
    are_plain,
    beyond_alternating,
    earlier_turns,
    is_preference,
    says_only,
    split_system,
    system_turn,
)
from qdata.schema import json_string, message


class Alpaca:
    """The question is `instruction` and `input`, those that are not empty, a line each; `history` holds earlier pairs.

    `system: ""` and `history: []` mean none. Reading joins instruction and input, so writing puts the whole question
    into `instruction`: the conversation is the same.
    """

    columns: ClassVar = {
        "instruction": pl.String,
        "input": pl.String,
        "output": pl.String,
        "system": pl.String,
        "history": pl.List(pl.List(pl.String)),
    }
    sample: ClassVar = [
        {
            "instruction": "把下面的句子译成英文。",
            "input": "你好，世界",
            "output": "Hello, world",
            "system": "",
            "history": [],
        },
        {
            "instruction": "再短一点",
            "input": "",
            "output": "好。",
            "system": "你是一位编辑。",
            "history": [["请概括这篇文章。", "文章讲了三件事。"]],
        },
    ]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """`instruction` and `output`, and no second answer (that would be a preference pair)."""
        return {"instruction", "output"} <= row.keys() and not is_preference(row)

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """System, then history, then the question and its answer."""
        turns = joined(
            system_turn("system"),
            earlier_turns("history"),
            message("user", _question()),
            message("assistant", pl.col("output")),
        )
        return frame.with_columns(messages=turns).drop(Alpaca.columns)

    @staticmethod
    def fault() -> pl.Expr:
        """An entry of `history` with more than question and answer: which, and what was wanted."""
        entries = pl.col("history").list.eval(pl.element().list.len() > 2)
        what = pl.format("history[{}]: wanted [question, answer], got more than two texts", entries.list.arg_max())
        return pl.when(entries.list.any()).then(what)

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """All five columns in every row, as LLaMA-Factory's own files have them."""
        system, turns = split_system(conversation["messages"])
        *earlier, question, answer = [m["content"] for m in turns]
        return {
            "instruction": question,
            "input": "",
            "output": answer,
            "system": system or "",
            "history": [list(pair) for pair in zip(earlier[::2], earlier[1::2], strict=True)],
        }

    @staticmethod
    def lines(frame: pl.DataFrame) -> pl.Series:
        """As `write`, of the rows that are one question and its answer; null for all others."""
        turns = pl.col("messages").list
        question, answer = (turns.get(at, null_on_oob=True).struct for at in (0, 1))
        pair = (turns.len() == 2) & (question.field("role") == "user") & (answer.field("role") == "assistant")
        said = pl.concat_str(
            pl.lit('{"instruction":'),
            json_string(question.field("content")),
            pl.lit(',"input":"","output":'),
            json_string(answer.field("content")),
            pl.lit(',"system":"","history":[]}'),
        )
        return frame.select(lines=pl.when(says_only("messages") & are_plain("messages") & pair).then(said))["lines"]

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """Tools, per-message fields, an empty system prompt, and turns that do not alternate."""
        return beyond_alternating(conversation, "alpaca")


def _question() -> pl.Expr:
    """Instruction and input, as LLaMA-Factory joins them: those that are not empty; null where both are null."""
    instruction, given = pl.col("instruction"), pl.col("input")
    both = pl.when(instruction.fill_null("") == "").then(given).otherwise(pl.concat_str(instruction, "\n" + given))
    return pl.when(given.fill_null("") == "").then(instruction).otherwise(both)
