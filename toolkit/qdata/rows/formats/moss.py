"""MOSS: `{"meta_instruction": …, "chat": {"turn_1": {"Human": "<|Human|>: …<eoh>\\n", …, "MOSS": …}, …}}`."""

from __future__ import annotations

import functools
import re
from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._lists import ITEM, joined, of_each
from qdata.rows.formats._turns import beyond_alternating, is_preference, split_system, system_turn, turn
from qdata.schema import message

# How each text begins and ends; the marks are part of the format, and no part of what is said.
_MARKS = {
    "Human": ("<|Human|>: ", "<eoh>\n"),
    "Inner Thoughts": ("<|Inner Thoughts|>: ", "<eot>\n"),
    "Commands": ("<|Commands|>: ", "<eoc>\n"),
    "MOSS": ("<|MOSS|>: ", "<eom>\n"),
}
_NO_COMMANDS = "<|Commands|>: None<eoc>\n"
_NO_RESULTS = "<|Results|>: None<eor>\n"
_NO_RESULTS_AFTER_THOUGHTS = "<|Results|>:\nNone\n<eor>\n"  # how the rows with plugins say it


class Moss:
    """Question and answer in marks, with `Inner Thoughts` as the reasoning; "None" means none.

    Rows in which a plugin is called are told of: a command (`Search("…"), Calculate("…")`) names no parameters and one
    result answers several of them, so that neither could be made tool calls and their answers, and back.
    """

    columns: ClassVar = {
        "meta_instruction": pl.String,
        "chat": pl.List(
            pl.Struct(dict.fromkeys(("Human", "Inner Thoughts", "Commands", "Tool Responses", "MOSS"), pl.String))
        ),
    }
    sample: ClassVar = [
        {
            "meta_instruction": "You are an AI assistant whose name is MOSS.\n- Inner thoughts: enabled.\n",
            "chat": {
                "turn_1": {
                    "Human": "<|Human|>: 七乘以八是多少？<eoh>\n",
                    "Inner Thoughts": "<|Inner Thoughts|>: 背乘法表就够了。<eot>\n",
                    "Commands": _NO_COMMANDS,
                    "Tool Responses": _NO_RESULTS_AFTER_THOUGHTS,
                    "MOSS": "<|MOSS|>: 五十六。<eom>\n",
                }
            },
        }
    ]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """`chat` holds turn_1, turn_2 … with Human and MOSS."""
        chat = row.get("chat")
        return (
            isinstance(chat, dict)
            and bool(chat)
            and all(re.fullmatch(r"turn_\d+", key) for key in chat)
            and all(isinstance(t, dict) and {"Human", "MOSS"} <= t.keys() for t in chat.values())
            and not is_preference(row)
        )

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """The texts without their marks: `meta_instruction` as the system message, then question and answer."""
        said = functools.partial(_said, pl.col(ITEM))
        thoughts = said("Inner Thoughts")
        answer = turn("assistant", said("MOSS"), reasoning=pl.when(thoughts != "None").then(thoughts))
        turns = of_each(pl.col("chat"), message("user", said("Human")), answer)
        return frame.with_columns(messages=joined(system_turn("meta_instruction"), turns)).drop(Moss.columns)

    @staticmethod
    def fault() -> pl.Expr:
        """The first turn that calls a plugin or has a text without its marks: which, in words, or null."""
        field = pl.element().struct.field
        results = field("Tool Responses")
        wrong = pl.coalesce(
            pl.when(field("Commands") != _NO_COMMANDS).then(
                pl.format(
                    "the plugin call {} and its result would be lost", _said(pl.element(), "Commands").str.slice(0, 60)
                )
            ),
            pl.when(~results.is_in([_NO_RESULTS, _NO_RESULTS_AFTER_THOUGHTS])).then(pl.lit("a result of no command")),
            *(
                pl.when(~(field(key).str.starts_with(begin) & field(key).str.ends_with(end))).then(
                    pl.lit(f"{key}: wanted {begin}…{end.strip()} and a line end")
                )
                for key, (begin, end) in _MARKS.items()
            ),
        )
        said = pl.col("chat").list.eval(wrong)
        at = said.list.eval(pl.element().is_not_null()).list.arg_max() + 1
        first = said.list.drop_nulls().list.first()
        return pl.when(first.is_not_null()).then(pl.format("turn_{}: {}", at, first))

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """Every text in its marks, and the words for none where nothing is thought, called or answered."""
        system, turns = split_system(conversation["messages"])
        chat = {}
        for number, (user, answer) in enumerate(zip(turns[::2], turns[1::2], strict=True), 1):
            thoughts = answer["reasoning"]
            chat[f"turn_{number}"] = {
                "Human": _marked("Human", user["content"]),
                "Inner Thoughts": _marked("Inner Thoughts", "None" if thoughts is None else thoughts),
                "Commands": _NO_COMMANDS,
                "Tool Responses": _NO_RESULTS if thoughts is None else _NO_RESULTS_AFTER_THOUGHTS,
                "MOSS": _marked("MOSS", answer["content"]),
            }
        return {"chat": chat} if system is None else {"meta_instruction": system, "chat": chat}

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """Tools, per-message fields but the reasoning of answers, an empty system prompt, turns not alternating."""
        if any(m["reasoning"] == "None" for m in conversation["messages"]):
            return 'the reasoning "None", its word for none'
        return beyond_alternating(conversation, "moss", holds="reasoning")


def _said(turn: pl.Expr, key: str) -> pl.Expr:
    """A text of a turn, without its marks."""
    begin, end = _MARKS[key]
    return turn.struct.field(key).str.strip_prefix(begin).str.strip_suffix(end)


def _marked(key: str, text: str) -> str:
    begin, end = _MARKS[key]
    return f"{begin}{text}{end}"
