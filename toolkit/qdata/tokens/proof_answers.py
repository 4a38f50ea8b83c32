"""The proof of pairs and judged answers: the prompt is what a server sends, an answer what the model then writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from qdata.tokens.proof import Result, names_vendor, side_by_side, wrong_texts
from qdata.tokens.proof_rows import kept, place
from qdata.tokens.serving import Conversation, Server


class _Answers:
    """What pairs and judged answers have in common."""

    columns: Sequence[str]
    names: tuple[str, ...]  # columns of the answers

    def __init__(self, server: Server, manifest: Mapping[str, Any], result: Result) -> None:
        self._server, self._manifest, self._result = server, manifest, result
        self._met: set[str] = set()

    def row(self, row: pa.RecordBatch, where: str, conversations: Mapping[str, Any]) -> None:
        """Its prompt, its answers, and that it was not met before."""
        names = row["rows"][0].as_py()
        if len(names) != 1:
            self._result.fail("lengths", f"{where}: {len(names)} row ids; wanted one")
            return
        one = kept(names[0], where, conversations, self._result)
        if one is None:
            return
        self._result.sequences += 1
        try:
            self._prove(row, place(names[0], where), one)
        except Exception as error:  # a template may refuse a row in its own words
            self._result.fail("unreadable", f"{place(names[0], where)}: {type(error).__name__}: {str(error)[:300]}")

    def close(self, directory: Path, *, complete: bool) -> None:
        """Where all rows were looked at, that none is missing."""
        if not complete:
            return
        book = pl.read_parquet(directory / "ledger.parquet", glob=False)
        for name in book.filter(pl.col("action") != "dropped")["row"]:
            if name not in self._met:
                self._result.fail("not trained", f"{place(name)}: is in no shard")

    def _chats(self, one: Mapping[str, Any]) -> tuple[int, list[Conversation]]:
        """The message at which the answer begins, and the conversation with each of the answers."""
        raise NotImplementedError

    def _prove(self, row: pa.RecordBatch, where: str, one: Mapping[str, Any]) -> None:
        if one["row"] in self._met:
            self._result.fail("repeated", f"{where}: is there more than once")
        self._met.add(one["row"])
        first, chats = self._chats(one)
        prompt = row["prompt_ids"][0].as_py()
        answers = [row[name][0].as_py() for name in self.names]
        self._result.trained_tokens += sum(map(len, answers))
        self._result.parsed_by_servers += any(chat.forged for chat in chats)
        self._result.vendor_prompts += names_vendor(chats[0].messages)
        longest = len(prompt) + max(map(len, answers))
        if self._manifest["max_length"] and longest > self._manifest["max_length"]:
            self._fail("lengths", where, f"{longest} tokens, and max_length is {self._manifest['max_length']}")
        if len(answers) > 1 and answers[0] == answers[1]:
            self._fail("answer", where, "both answers are the same")
        text, default = self._server.decode(prompt), self._manifest["template"]["default_system"] or ""
        for number, chat in enumerate(chats):
            for kind, case in wrong_texts(chat.messages if number == 0 else chat.messages[first:], text, default):
                self._fail(kind, where, case)
        beside = [message for chat in chats for message in chat.messages[first:]]
        for name, said, chat in zip(self.names, answers, chats, strict=True):
            served, wanted = self._served(chat, first, beside)
            if served != prompt:
                self._fail("prompt", where, side_by_side("not the serving prompt", served, prompt, 0, self._server))
                return
            if wanted != said:
                what = f"{name} are not answer + stop token"
                self._fail("answer", where, side_by_side(what, wanted, said, 0, self._server))
                continue
            self._result.answers += 1

    def _served(self, chat: Conversation, first: int, beside: Sequence[dict[str, Any]]) -> tuple[list[int], list[int]]:
        """The ids a server sends before message `first`, and those of all that the model and it then write."""
        server, ids = self._server, list[int]()
        prompt = so_far = ""
        for turn in range(first, len(chat.messages)):
            one = server.served(chat.messages, chat.tools, turn, chat.think, beside)
            if turn == first:
                prompt = one.prompt
            elif one.prompt.startswith(so_far):
                ids += server.ids(one.prompt[len(so_far) :])
            else:
                raise ValueError(f"the prompt of message {turn} does not begin with the turns before it")
            ids += server.ids(one.answer)
            so_far = one.prompt + one.answer
        return server.ids(prompt), ids

    def _fail(self, kind: str, where: str, case: str) -> None:
        self._result.fail(kind, f"{where}: {case}")


class Pairs(_Answers):
    """Preference pairs."""

    columns = ("messages", "tools", "think", "chosen", "rejected")
    names = ("chosen_ids", "rejected_ids")

    def _chats(self, one: Mapping[str, Any]) -> tuple[int, list[Conversation]]:
        both = [{**one, "messages": [*one["messages"], *one[side]]} for side in ("chosen", "rejected")]
        return len(one["messages"]), [Conversation(each, self._manifest, self._server) for each in both]


class Judged(_Answers):
    """Judged answers: the last turn is the one that was judged."""

    columns = ("messages", "tools", "think", "label")
    names = ("completion_ids",)

    def _chats(self, one: Mapping[str, Any]) -> tuple[int, list[Conversation]]:
        return len(one["messages"]) - 1, [Conversation(one, self._manifest, self._server)]

    def _prove(self, row: pa.RecordBatch, where: str, one: Mapping[str, Any]) -> None:
        if row["label"][0].as_py() != one["label"]:
            self._fail("label", where, f"{row['label'][0]}, and the row says {one['label']}")
        super()._prove(row, where, one)
