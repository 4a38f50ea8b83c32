"""Turns in which nobody says anything: empty, null, "N/A", "<nooutput>"."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import polars as pl

from qdata.rows.steps._judge import Role, calls, dropped, first_reason

# Whole answers, and answers that begin with it and explain why: "<No output. The task requires a poster>".
_NONE = (
    r"n/?a|not applicable|null|nan|undefined|no[ \-_]?(?:output|input|answer|response)|无输出|没有输出|无回答|无答案"
)
_WHY = r"(?: (?:is |was )?(?:required|needed|necessary|possible|provided|available|given))?"
_WHOLE = rf"(?i)^[\s<\[({{\"'`]*(?:{_NONE}){_WHY}[\s>\])}}\"'`.。]*$"
_BEGINS = r"(?i)^[\s<\[({\"'`]*no[ \-_]?output\b|^\s*[<\[({]\s*no[ \-_]?input\s*[>\])}]|^\s*n/a\s*[(\[]"
NO_OUTPUT = f"{_WHOLE}|{_BEGINS}"


@dataclass(frozen=True)
class EmptyTurn:
    """Drops conversations with an empty question or answer, or with an answer that says that there is none.

    A turn that calls a tool says something. "None" and "nothing" may be right answers, and pass.
    """

    roles: tuple[Role, ...] = field(default=("user", "assistant"), metadata={"help": "whose turns are looked at"})
    edits: ClassVar[bool] = False

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Reasons: `empty_turn.no_question`, `empty_turn.no_answer`, `empty_turn.no_output`, `empty_turn.empty`.

        >>> from qdata.rows.steps._turns import example, shown
        >>> shown(EmptyTurn()(example("user: a", "assistant: <nooutput>")))
        ['empty_turn.no_output']
        >>> shown(EmptyTurn()(example("user: ", "assistant: a")))
        ['empty_turn.no_question']
        """
        mine = pl.col("role").is_in(list(self.roles)).fill_null(False)
        silent = mine & (pl.col("content").fill_null("").str.strip_chars() == "") & ~calls()
        answers = pl.col("role") == "assistant"
        names = {"user": "no_question", "assistant": "no_answer"}
        what = pl.format("empty_turn.{}", pl.col("role").replace_strict(names, default="empty"))
        none = mine & answers & (pl.col("content").str.len_bytes() < 300) & pl.col("content").str.contains(NO_OUTPUT)
        reason = pl.when(silent).then(what).when(none).then(pl.lit("empty_turn.no_output"))
        return dropped(frame, first_reason(reason, text=False))
