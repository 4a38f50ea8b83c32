"""ms-swift's preference rows: `messages` with the preferred answer last, and a `rejected_response` beside."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._lists import joined
from qdata.rows.formats._openai import are_messages
from qdata.rows.formats._preference import are_texts, before_last, beyond_one_turn, texts, with_answer
from qdata.rows.formats.messages import Messages
from qdata.schema import message


class MessagesRejected:
    """The messages are read as in `messages`; the second answer is a text."""

    kind = "preference"
    columns: ClassVar = Messages.columns | {"rejected_response": pl.String}
    sample: ClassVar = [
        {
            "messages": [
                {"role": "user", "content": "长江有多长？"},
                {"role": "assistant", "content": "约六千三百公里。"},
            ],
            "rejected_response": "很长。",
        }
    ]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """A list of messages, the last of which is an answer, and a text."""
        messages = row.get("messages")
        return are_messages(messages) and row["messages"][-1]["role"] == "assistant" and are_texts(row, _REJECTED)

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """The last message is the preferred answer."""
        return Messages.read(frame).with_columns(
            messages=before_last("messages"),
            chosen=pl.col("messages").list.tail(1),
            rejected=joined(message("assistant", pl.col(_REJECTED))),
        )

    @staticmethod
    def fault() -> pl.Expr:
        """A message that says in two spellings two different things of its training."""
        return Messages.fault()

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """As `messages`, with the second answer."""
        return Messages.write(with_answer(conversation)) | {_REJECTED: texts(conversation)["rejected"]}

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """Answers of several turns, and all but the text of the rejected one."""
        if (lost := beyond_one_turn(conversation)) is not None:
            return lost
        (answer,) = conversation["rejected"]
        if answer["content"] is None or any(answer[key] is not None for key in answer.keys() - {"role", "content"}):
            return "reasoning, tool calls, names or training flags of the rejected answer"
        return Messages.loses(conversation)


_REJECTED = "rejected_response"
