"""Tools and tool calls as servers hand them to a template: in OpenAI's wrapping, arguments as objects.

Rows hold them as JSON text of whatever their file had. What no server could be sent is refused, with its place.
"""

from __future__ import annotations

import json
from typing import Any

from qdata.errors import QdataError


def tools_of(text: str | None) -> list[Any] | None:
    """The tools of a row; functions that a file lists bare are wrapped, since OpenAI's protocol knows no bare ones.

    Raises QdataError for what is no list of tools.
    """
    if not text:
        return None
    tools = _read(text, "tools")
    if not isinstance(tools, list) or not all(isinstance(tool, dict) and _is_named(tool) for tool in tools):
        raise QdataError(f"tools: wanted a list of objects, each a function with a name, got {_short(text)}")
    bare = ("name" in tool and not tool.keys() & {"type", "function"} for tool in tools)
    return [{"type": "function", "function": tool} if b else tool for tool, b in zip(tools, bare, strict=True)]


def _is_named(tool: dict[str, Any]) -> bool:
    """Whether a tool is a function with a name, or one of another type, which a server knows."""
    inner = tool.get("function", tool)
    return isinstance(inner, dict) and isinstance(inner.get("name", tool.get("type")), str)


def calls_of(text: str, turn: int) -> list[dict[str, Any]]:
    """The calls of message `turn`, their arguments as objects (clients send JSON text).

    Raises QdataError for what is no list of calls.
    """
    where = f"message {turn}: tool_calls"
    calls = _read(text, where)
    if not isinstance(calls, list):
        raise QdataError(f"{where}: wanted a list, got {_short(text)}")
    return [_call(call, f"{where}[{number}]") for number, call in enumerate(calls)]


def _call(call: Any, where: str) -> dict[str, Any]:
    inner = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str) or "arguments" not in inner:
        raise QdataError(f"{where}: wanted a name and arguments, got {_short(json.dumps(call, ensure_ascii=False))}")
    if isinstance(inner["arguments"], str):
        try:
            inner = {**inner, "arguments": json.loads(inner["arguments"])}
        except json.JSONDecodeError:
            return dict(call)  # text that the model wrote, and that no parser took
    return {**call, "function": inner} if "function" in call else inner


def _read(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise QdataError(f"{where}: not JSON: {_short(text)}") from None


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "…"
