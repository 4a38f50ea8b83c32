"""LLaMA-Factory's preference pairs: ShareGPT's `conversations`, and `chosen` and `rejected` as one turn each."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._preference import PAIR, beyond_one_turn
from qdata.rows.formats._trained import FIELDS, disagreement
from qdata.rows.formats.sharegpt import Sharegpt, are_turns, as_messages, beyond_turns, written

_TURN = pl.Struct({"from": pl.String, "value": pl.String, **FIELDS})


class SharegptPreference:
    """The prompt is read as `sharegpt` reads it; an answer is an object with `from` and `value`."""

    kind = "preference"
    columns: ClassVar = Sharegpt.columns | dict.fromkeys(PAIR, _TURN)
    sample: ClassVar = [
        {
            "conversations": [{"from": "human", "value": "月亮为什么有圆有缺？"}],
            "chosen": {"from": "gpt", "value": "因为我们看到的受光面在变。"},
            "rejected": {"from": "gpt", "value": "因为天狗。"},
        }
    ]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """Turns, and two answers that are turns."""
        return are_turns(row.get("conversations")) and all(are_turns([row.get(name)]) for name in PAIR)

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """Each answer becomes a list of one message."""
        answers = {
            name: as_messages(pl.when(pl.col(name).is_not_null()).then(pl.concat_list(pl.col(name)))) for name in PAIR
        }
        return Sharegpt.read(frame).with_columns(**answers)

    @staticmethod
    def fault() -> pl.Expr:
        """A turn that says in two spellings two different things of its training."""
        return disagreement("conversations")

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """As `sharegpt`, with the two answers."""
        return Sharegpt.write(conversation) | {name: written(conversation[name])[0] for name in PAIR}

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """Answers of several turns, reasoning, names, and text beside a tool call."""
        turns = [m for name in ("messages", *PAIR) for m in conversation[name]]
        return beyond_one_turn(conversation) or beyond_turns(turns)
