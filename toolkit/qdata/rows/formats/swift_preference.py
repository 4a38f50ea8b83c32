"""ms-swift's `query, response, history` with a `rejected_response`."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._lists import joined
from qdata.rows.formats._preference import are_texts, before_last, beyond_texts, texts, with_answer
from qdata.rows.formats.swift import Swift
from qdata.schema import message


class SwiftPreference:
    """The prompt and the preferred answer are read as `swift` reads them."""

    kind = "preference"
    columns: ClassVar = Swift.columns | {"rejected_response": pl.String}
    sample: ClassVar = [
        {"query": "地球有几个卫星？", "response": "一个：月球。", "rejected_response": "两个。"},
    ]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """A query with two responses, all texts."""
        return are_texts(row, "query", "response", "rejected_response")

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """The last turn of the conversation is the preferred answer."""
        return Swift.read(frame).with_columns(
            messages=before_last("messages"),
            chosen=pl.col("messages").list.tail(1),
            rejected=joined(message("assistant", pl.col("rejected_response"))),
        )

    @staticmethod
    def fault() -> pl.Expr:
        """An entry of `history` with more than query and response."""
        return Swift.fault()

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """As `swift`, with the second answer."""
        return Swift.write(with_answer(conversation)) | {"rejected_response": texts(conversation)["rejected"]}

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """Tools, per-message fields, an empty system prompt, and turns that do not alternate."""
        return beyond_texts(conversation, "swift_preference")
