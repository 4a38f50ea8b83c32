"""What a server makes of a conversation, through transformers: the reference that shards are compared with.

Nothing of render.py, thinking.py or tokenize.py is used here: the prompt is `apply_chat_template` of the turns so far,
tokenised in one go, with the tokenizer and the template that lie in the shard folder.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from qdata.errors import QdataError


class Served(NamedTuple):
    """What a server sees before one answer, and what the model must then say."""

    turn: int
    prompt: str
    answer: str


class Server:
    """Renders and tokenises as a server does, with what lies in the shard folder."""

    def __init__(self, directory: Path, stop: str) -> None:
        try:
            from transformers import AutoTokenizer
            from transformers.utils.chat_template_utils import render_jinja_template
        except ImportError:
            raise QdataError("qdata verify renders with transformers: pip install 'qdata[train]'") from None
        self.tokenizer = AutoTokenizer.from_pretrained(directory)
        self.template = (directory / "chat_template.jinja").read_text(encoding="utf-8")
        self.stop = stop
        self._render = render_jinja_template
        added = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
        self.special = [t["content"] for t in added if t["special"]]
        self.tags = [t["content"] for t in added if not t["special"]]

    def text(self, messages: list[dict[str, Any]], tools: Any, *, prompt: bool, thinking: bool | None = None) -> str:
        """The rendered text; `thinking` None leaves the template's own switch alone."""
        switch = {} if thinking is None else {"enable_thinking": thinking}
        # What apply_chat_template calls; itself it refuses the empty list, which is the prompt of a model that opens.
        rendered, _ = self._render(
            conversations=[messages],
            tools=tools,
            chat_template=self.template,
            add_generation_prompt=prompt,
            **self.tokenizer.special_tokens_map,
            **switch,
        )
        return str(rendered[0])

    def ids(self, text: str) -> list[int]:
        """The ids of a text, tokenised in one go."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def served(self, messages: list[dict[str, Any]], tools: Any, turn: int, think: str) -> Served:
        """The prompt of one assistant turn and the answer, under a thinking policy."""
        message = messages[turn]
        own = bool(reasoning_of(message))
        thinking = {"keep": own, "none": None, "empty_masked": False}.get(think, True)
        prompt = self.text(messages[:turn], tools, prompt=True, thinking=thinking)
        if think == "strip" and not message.get("tool_calls"):
            answer = message["content"] + self.stop
        else:
            upto = messages[: turn + 1]
            upto += [{"role": "user", "content": "x"}] if think == "strip" else []
            said = self.text(upto, tools, prompt=False)
            ends = said.rindex(self.stop)
            ends = said.rindex(self.stop, 0, ends) if think == "strip" else ends
            answer = said[len(prompt) : ends + len(self.stop)]
        return Served(turn, prompt, answer)

    def forged(self, messages: list[dict[str, Any]], tools: Any) -> bool:
        """Whether control tokens stand in the data as text, which a server would parse as tokens."""

        def holds(text: str | None, tokens: list[str]) -> bool:
            return bool(text) and any(token in str(text) for token in tokens)

        everywhere = [m.get(k) for m in messages for k in ("content", "reasoning_content")]
        everywhere += [json.dumps(m.get("tool_calls"), ensure_ascii=False) for m in messages if m.get("tool_calls")]
        everywhere.append(json.dumps(tools, ensure_ascii=False) if tools else None)
        others = [m["content"] for m in messages if m["role"] != "assistant"]
        return any(holds(t, self.special) for t in everywhere) or any(holds(t, self.tags) for t in others)


def reasoning_of(message: dict[str, Any]) -> str:
    if message.get("reasoning_content"):
        return str(message["reasoning_content"]).strip()
    before, tag, _ = message["content"].partition("</think>")
    return before.replace("<think>", "").strip() if tag else ""


def _without_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    if message["role"] != "assistant":
        return message
    content = message["content"]
    content = content.rpartition("</think>")[2].lstrip("\n") if "</think>" in content else content
    return {k: v for k, v in message.items() if k != "reasoning_content"} | {"content": content}


def conversation_of(row: dict[str, Any]) -> tuple[list[dict[str, Any]], Any]:
    messages = _plain(row["messages"])
    if row["think"] in ("strip", "empty_masked", "empty_trained"):
        messages = [_without_reasoning(m) for m in messages]
    return messages, json.loads(row["tools"]) if row["tools"] else None


def candidates(
    row: dict[str, Any], manifest: dict[str, Any], server: Server, seen: set[tuple[str, int]]
) -> Iterator[Served]:
    """What a server could have been asked for of this conversation, turn by turn, as far as not yet met."""
    messages, tools = conversation_of(row)
    wanted = answers(messages)[-1:] if manifest["loss"] == "last" else answers(messages)
    turns = [i for i in wanted if (row["row"], i) not in seen]
    for turn in turns:
        yield server.served(messages, tools, turn, row["think"])
    if manifest["too_long"] != "split":
        return
    system = messages[:1] if messages[0]["role"] == "system" else []
    for turn in turns:  # cut in two somewhere before: the server has forgotten the earlier exchanges
        for start in range(turn - 1, len(system), -1):
            if messages[start]["role"] == "user":
                part = server.served(system + messages[start:], tools, len(system) + turn - start, row["think"])
                yield Served(turn, part.prompt, part.answer)


def answers(messages: list[dict[str, Any]]) -> list[int]:
    return [i for i, m in enumerate(messages) if m["role"] == "assistant" and m.get("train") is not False]


def _plain(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages as a server hands them to the template: call arguments as objects, not as text."""
    sent = []
    for message in messages:
        one = {"role": message["role"], "content": message["content"] or ""}
        one |= {"reasoning_content": message["reasoning"]} if message["reasoning"] is not None else {}
        one |= {key: message[key] for key in ("name", "train") if message[key] is not None}
        one |= {"train": False} if message["weight"] == 0 else {}
        if message["tool_calls"] is not None:
            one["tool_calls"] = json.loads(message["tool_calls"])
            for call in one["tool_calls"]:
                inner = call.get("function", call)
                with contextlib.suppress(TypeError, ValueError):
                    inner["arguments"] = json.loads(inner["arguments"])
        sent.append(one)
    return sent
