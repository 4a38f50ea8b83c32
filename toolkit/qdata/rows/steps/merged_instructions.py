"""Two instructions in one row: the answer goes on with the next task of the list it was generated in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import polars as pl

from qdata.rows.steps._judge import dropped, first_reason, said_by
from qdata.rows.steps._texts import changed_where, edited

# "6. Instruction: …" on a line of its own behind an answer; self-instruct prompts number their tasks like this.
_NUMBERED = r"(?i)\n[\s#*/;.\-]*[0-9]{1,3}\s*[.)、]\s*(?:Instruction|指令)\s*[:：]"
_NEXT = r"(?i)\n[\s#*/;\-]*(?:Instruction|指令)\s*[:：][^\n]*\n"
_NEXT += r"(?:[^\n]*\n){0,6}?[\s#*0-9.)]*(?:Input|Output|输入|输出)\s*[:：]"
_LABELS = r"(?i)\n[\s#*/;.\-]*[0-9]{1,3}\s*[.)、]\s*(?:Input|Output|输入|输出)\s*[:：]"
_ANY = f"{_NUMBERED}|{_NEXT}|{_LABELS}"


@dataclass(frozen=True)
class MergedInstructions:
    """Drops rows whose answer holds another instruction with its input and output, or cuts the answer before it.

    Alpaca has 37 of them. An answer that begins with "Instruction:" was asked for one, and passes.
    """

    do: Literal["drop", "trim"] = field(default="drop", metadata={"help": "what becomes of them"})

    @property
    def edits(self) -> bool:
        """Trimming does."""
        return self.do == "trim"

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Edits answers. Reason: `merged_instructions.second_instruction`.

        >>> from qdata.rows.steps._turns import example, shown
        >>> rows = example("user: a", "assistant: b.\\n##\\n6. Instruction: c\\n6. Input:\\nd\\n6. Output:\\ne")
        >>> shown(MergedInstructions()(rows))
        ['merged_instructions.second_instruction']
        >>> shown(MergedInstructions(do="trim")(rows))
        ['user: a', 'assistant: b.']
        """
        if self.do == "trim":
            return edited(frame, _trimmed, roles=("assistant",), fields=("content",), text=False)
        found = said_by(("assistant",)) & pl.col("content").str.contains(_ANY)
        reason = pl.when(found).then(pl.lit("merged_instructions.second_instruction"))
        return dropped(frame, first_reason(reason, text=False))


def _trimmed(texts: pl.Series) -> pl.Series:
    rest = rf"(?s)[\s#*/;\-]*(?:{_ANY}).*$"
    return changed_where(texts, _ANY, lambda some: some.str.replace(rest, ""))
