"""What a server makes of a conversation, through transformers: the reference that shards are compared with.

Nothing of render.py, thinking.py, injection.py or tokenize.py is used here: a prompt is what `apply_chat_template`
makes of the turns so far, tokenised in one go, with the tokenizer and the template that lie in the folder.
"""

from __future__ import annotations

import contextlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from qdata.errors import QdataError

Messages = list[dict[str, Any]]
_QUOTED = 0xF0000  # first of the private characters that stand for control tokens of the data; one per added token


class Served(NamedTuple):
    """What a server sees before one answer, and what the model must then say."""

    turn: int
    prompt: str
    answer: str


class Server:
    """Renders and tokenises as a server does, with what lies in a folder: a tokenizer and `chat_template.jinja`."""

    def __init__(self, directory: Path, stop: str) -> None:
        try:
            from transformers import AutoTokenizer
            from transformers.utils.chat_template_utils import render_jinja_template
        except ImportError:
            raise QdataError("qdata verify renders with transformers: pip install 'qdata[train]'") from None
        self.tokenizer = AutoTokenizer.from_pretrained(directory)
        if not isinstance(self.tokenizer.chat_template, str):
            raise QdataError(f"{directory}: its tokenizer has no chat template (or several under names); wanted one")
        self.template: str = self.tokenizer.chat_template
        self.stop = stop
        self._render = render_jinja_template
        self._file: dict[str, Any] = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
        self._added = [token["content"] for token in self._file["added_tokens"]]
        self._special = [token["content"] for token in self._file["added_tokens"] if token["special"]]

    def text(self, messages: Messages, tools: Any, *, prompt: bool, thinking: bool | None = None) -> str:
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
        """The ids of a text, tokenised in one go; what was quoted in it (see `quoted`) as the plain text it is."""
        if not _MARK.search(text):
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        ids: list[int] = []
        for part in re.split("(" + "|".join(map(re.escape, self._added)) + ")", text):
            one = self.tokenizer.convert_tokens_to_ids(part) if part in self._added else None
            ids += self._plain.encode(self._unquoted(part), add_special_tokens=False).ids if one is None else [one]
        return ids

    def read(self, text: str) -> str:
        """A rendered text as its decoded ids read: nothing quoted, composed as the tokenizer composes."""
        return unicodedata.normalize("NFC", self._unquoted(text))

    def decode(self, ids: Any) -> str:
        """The text of ids."""
        return str(self.tokenizer.decode(ids))

    def controls(self, ids: Iterable[int]) -> Counter[str]:
        """How often each special token stands in ids."""
        numbers = {token["id"]: token["content"] for token in self._file["added_tokens"] if token["special"]}
        return Counter(numbers[one] for one in map(int, ids) if one in numbers)

    def document(self, text: str, specials: str) -> list[int]:
        """The ids of a document and of the end of text; under `text`, control tokens in it are text."""
        if specials == "text" and any(token in text for token in self._added):
            ids = self._plain.encode(text, add_special_tokens=False).ids
        else:
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [*ids, self._end]

    @cached_property
    def _end(self) -> int:
        """The id of the end of text, by its name or as the tokenizer's eos token."""
        return int(self.tokenizer.get_vocab().get("<|endoftext|>", self.tokenizer.eos_token_id))

    def served(
        self, messages: Messages, tools: Any, turn: int, think: str, beside: Sequence[dict[str, Any]] = ()
    ) -> Served:
        """The prompt of one assistant turn and the answer, under a thinking policy.

        `beside`: messages to which the prompt belongs as much, so that under `keep` it is that of thinking where one of
        them has reasoning.
        """
        message = messages[turn]
        thinks = any(_reasoning_of(one) for one in (message, *beside))
        thinking = {"keep": thinks, "none": None, "empty_masked": False}.get(think, True)
        prompt = self.text(messages[:turn], tools, prompt=True, thinking=thinking)
        if think == "strip" and not message.get("tool_calls"):
            return Served(turn, prompt, message["content"] + self.stop)
        upto = messages[: turn + 1]
        upto += [{"role": "user", "content": "x"}] if think == "strip" else []
        said = self.text(upto, tools, prompt=False)
        ends = said.rindex(self.stop)
        ends = said.rindex(self.stop, 0, ends) if think == "strip" else ends
        return Served(turn, prompt, said[len(prompt) : ends + len(self.stop)])

    def quoted(self, messages: Messages, tools: Any) -> tuple[Messages, Any, bool]:
        """The conversation with control tokens of the data replaced by private characters, and whether there were any.

        A server that tokenises the rendered text would parse them as the tokens they look like: turn tokens wherever
        they stand, tags such as `<think>` where the model did not write them.
        """
        changed = False

        def quote(value: Any, tokens: list[str]) -> Any:
            nonlocal changed
            if isinstance(value, list):
                return [quote(one, tokens) for one in value]
            if isinstance(value, dict):
                return {quote(key, tokens): quote(one, tokens) for key, one in value.items()}
            for token in tokens if isinstance(value, str) else ():
                if token in value:
                    changed, value = True, value.replace(token, chr(_QUOTED + self._added.index(token)))
            return value

        out = []
        for message in messages:
            one = {k: quote(v, self._special) if k != "role" else v for k, v in message.items()}
            if message["role"] != "assistant":
                one["content"] = quote(one["content"], self._added)
            out.append(one)
        return out, quote(tools, self._special), changed

    def _unquoted(self, text: str) -> str:
        return _MARK.sub(lambda mark: self._added[ord(mark[0]) - _QUOTED], text)

    @cached_property
    def _plain(self) -> Any:
        """The tokenizer without its added tokens: to it `<|im_end|>` is text like any other."""
        from tokenizers import Tokenizer

        return Tokenizer.from_str(json.dumps(self._file | {"added_tokens": [], "post_processor": None}))


_MARK = re.compile(f"[{chr(_QUOTED)}-{chr(_QUOTED + 0x3FF)}]")


class Conversation:
    """A row of conversations.parquet as its server meets it, turn by turn."""

    def __init__(self, row: Mapping[str, Any], manifest: Mapping[str, Any], server: Server) -> None:
        self.row: str = row["row"]
        self.think: str = row["think"]
        self.weights: list[float] = [1.0 if m["weight"] is None else m["weight"] for m in row["messages"]]
        messages = _plain(row["messages"])
        if self.think in ("strip", "empty_masked", "empty_trained"):
            messages = [_without_reasoning(m) for m in messages]
        tools = _as_sent(json.loads(row["tools"])) if row["tools"] else None
        self.forged = False
        if manifest["specials"] == "text":
            messages, tools, self.forged = server.quoted(messages, tools)
        self.messages, self.tools = messages, tools
        self._server, self._manifest = server, manifest
        self._served: dict[int, Served] = {}

    @property
    def answers(self) -> list[int]:
        """The turns that are to be trained, whatever the loss policy says of them."""
        return [i for i, m in enumerate(self.messages) if m["role"] == "assistant" and m.get("train") is not False]

    @property
    def wanted(self) -> list[int]:
        """The turns that are to be trained under the loss policy."""
        return self.answers[-1:] if self._manifest["loss"] == "last" else self.answers

    def served(self, turn: int) -> Served:
        """One turn as it is served; rendered once, however often it is asked for."""
        if turn not in self._served:
            self._served[turn] = self._server.served(self.messages, self.tools, turn, self.think)
        return self._served[turn]

    def whole(self) -> str:
        """The text of all turns."""
        return self._server.text(self.messages, self.tools, prompt=False)

    @property
    def silent(self) -> list[int]:
        """The answers that must not be trained."""
        return [i for i, m in enumerate(self.messages) if m["role"] == "assistant" and m.get("train") is False]

    def candidates(self, turns: Sequence[int]) -> Iterator[Served]:
        """What a server could have been asked for at these turns of the conversation."""
        yield from map(self.served, turns)
        if self._manifest["too_long"] != "split":
            return
        system = self.messages[:1] if self.messages[0]["role"] == "system" else []
        for turn in turns:  # cut in two somewhere before: the server has forgotten the earlier exchanges
            for start in range(turn - 1, len(system), -1):
                if self.messages[start]["role"] == "user":
                    rest, place = system + self.messages[start:], len(system) + turn - start
                    part = self._server.served(rest, self.tools, place, self.think)
                    yield Served(turn, part.prompt, part.answer)


def _reasoning_of(message: dict[str, Any]) -> str:
    if message.get("reasoning_content"):
        return str(message["reasoning_content"]).strip()
    before, tag, _ = message["content"].partition("</think>")
    return before.replace("<think>", "").strip() if tag else ""


def _without_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    if message["role"] != "assistant":
        return message
    content = message["content"]
    if "</think>" in content and not message.get("reasoning_content"):
        content = content.rpartition("</think>")[2].lstrip("\n")
    bare = {k: v for k, v in message.items() if k != "reasoning_content"} | {"content": content}
    said_more = content != message["content"] or message.get("reasoning_content")
    return bare | {"train": False} if said_more and not (content.strip() or message.get("tool_calls")) else bare


def _as_sent(tools: Any) -> Any:
    """Tools as a client sends them: OpenAI's protocol knows no bare functions."""
    sent = []
    for tool in tools if isinstance(tools, list) else ():
        is_bare = isinstance(tool, dict) and "name" in tool and "function" not in tool and "type" not in tool
        sent.append({"type": "function", "function": tool} if is_bare else tool)
    return sent or tools


def _plain(messages: Messages) -> Messages:
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
