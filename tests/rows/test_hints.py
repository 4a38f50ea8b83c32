"""What a refusal says to do works when it is done: roles, mixed files, maps."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.rows.test_formats import FORMATS

from qdata.cli import main
from qdata.cli_base import column_map
from qdata.convert import convert
from qdata.errors import QdataError
from qdata.recipe import Source
from qdata.rows.detect import detect

PAIR = {"prompt": "q", "response": "a"}
CHAT = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)


def write(rows: list[dict[str, Any]]) -> list[Source]:
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return [Source(path="in.jsonl", name="s")]


def qdata(*words: str) -> Any:
    return CliRunner().invoke(main, list(words), catch_exceptions=False)


def written(rows: list[dict[str, Any]], **how: Any) -> list[list[tuple[str, str]]]:
    convert([Source(path=write(rows)[0].path, **how)], "messages", Path("o.jsonl"), replace=True)
    made = [json.loads(line) for line in Path("o.jsonl").read_text(encoding="utf-8").splitlines()]
    return [[(m["role"], m.get("content") or m["tool_calls"][0]["name"]) for m in row["messages"]] for row in made]


SPELLED = {
    "user": ["human", "Human", "USER", "user"],
    "assistant": ["gpt", "GPT", "ASSISTANT", "ChatGPT", "Bard"],
    "system": ["system", "System", "developer"],
    "tool": ["observation", "Tool", "tool_response"],
}


@pytest.mark.parametrize(("ours", "theirs"), [(ours, word) for ours, words in SPELLED.items() for word in words])
def test_sharegpt_roles_in_any_case(ours: str, theirs: str) -> None:
    """Told as ShareGPT, and read as the role that is meant."""
    rows = [{"conversations": [{"from": "human", "value": "q"}, {"from": theirs, "value": "x"}]}]
    assert detect(rows, "f").format == "sharegpt"
    assert written(rows) == [[("user", "q"), (ours, "x")]]


@pytest.mark.parametrize(("column", "form"), [("messages", "messages"), ("conversations", "conversations")])
def test_openai_roles_in_either_column(column: str, form: str) -> None:
    """`developer`, and ms-swift's calls and results beside OpenAI's own."""
    call = json.dumps({"name": "f", "arguments": {}})
    turns = [("developer", "s"), ("user", "q"), ("tool_call", call), ("tool_response", "r"), ("assistant", "a")]
    rows = [{column: [{"role": role, "content": text} for role, text in turns]}]
    assert detect(rows, "f").format == form
    wanted = [("system", "s"), ("user", "q"), ("assistant", "f"), ("tool", "r"), ("assistant", "a")]
    assert written(rows) == [wanted]
    rows[0][column][2]["content"] = "f()"
    with pytest.raises(QdataError, match=rf"{column}\[2\]: a tool_call: wanted the JSON text of a call"):
        written(rows)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"conversations": [{"from": "Kunde", "value": "q"}, {"from": "Bot", "value": "a"}]}, "conversations[0].from"),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "Bot", "value": "a"}]}, "conversations[1].from"),
        ({"messages": [{"role": "Human", "content": "q"}, {"role": "AI", "content": "a"}]}, "messages[0].role"),
        ({"conversations": [{"role": "Q", "content": "q"}, {"role": "A", "content": "a"}]}, "conversations[0].role"),
    ],
)
def test_the_advice_on_roles_works(row: dict[str, Any], told: str) -> None:
    """The first unknown role is named with its place; what the message says to type makes the row readable."""
    write([row])
    done = qdata("convert", "in.jsonl", "--to", "messages", "-o", "o.jsonl")
    assert done.exit_code == 2
    assert f"{told}: the role " in done.stderr
    advised = re.search(r"--map '[^']*'", done.stderr)
    assert advised
    again = qdata("convert", "in.jsonl", "--to", "messages", "-o", "o.jsonl", *shlex.split(advised[0]))
    assert again.exit_code == 0, again.stderr
    assert [m["role"] for m in json.loads(Path("o.jsonl").read_text())["messages"]] == ["user", "assistant"]


def test_formats_says_how_roles_are_read() -> None:
    """Of both layouts."""
    listed = qdata("formats").stdout
    assert "[conversations[].from: human, user → user; gpt, assistant, chatgpt" in listed
    assert "[messages[].role: system, developer → system; user → user; " in listed
    assert "conversations[].from.human=User" in qdata("formats", "--help").stdout
    assert "conversations[].from.human=User" in qdata("convert", "--help").stdout.replace("\n", "")


def test_a_mixed_file_is_told_by_its_counts() -> None:
    """How many rows speak what, and where the first other one is; --from reads one, and sets the others aside."""
    rows = [CHAT] * 2 + [PAIR] * 2 + [{"x": 1}] * 2
    with pytest.raises(QdataError) as caught:
        convert(write(rows), "messages", Path("o.jsonl"))
    told = str(caught.value)
    assert "Of the 6 looked at 2 are messages, 2 are pairs, 2 of no dialect we know" in told
    assert "row 3 (in files of lines: line 3) is the first that is not messages" in told
    assert "--from messages" in told
    one = [Source(path="in.jsonl", name="s", format="messages")]
    done = convert(one, "messages", Path("o.jsonl"))
    assert (done.manifest["rows"]["kept"], done.aside.count) == (2, 4)
    with pytest.raises(QdataError, match=r"in.jsonl, line 3: no messages"):
        convert(one, "messages", Path("p.jsonl"), strict=True)
    with pytest.raises(QdataError, match="rows that are not sharegpt"):
        convert([Source(path="in.jsonl", format="sharegpt")], "messages", Path("p.jsonl"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prompt=zz,response=a", "in.jsonl: --map prompt=zz: the file has no column 'zz'; it has q, a, ctx."),
        ("prompt=ctxt,response=a", "it has q, a, ctx. Did you mean 'ctx'?"),
        ("foo=q", "--map foo=q: no dialect has a column 'foo'."),
        ("promt=q", "--map promt=q: no dialect has a column 'promt'. Did you mean 'prompt'?"),
        ("messages[].rolle=q", "no dialect has a key 'rolle' in messages[]. Did you mean 'role'?"),
    ],
)
def test_a_wrong_name_in_a_map_is_told(text: str, told: str) -> None:
    """With what there is, and the nearest of it."""
    write([{"q": "x", "a": "y", "ctx": "z"}])
    done = qdata("convert", "in.jsonl", "--to", "messages", "-o", "o.jsonl", "--map", text)
    assert (done.exit_code, told in done.stderr) == (2, True), done.stderr


def test_a_column_that_comes_late_may_be_mapped() -> None:
    """One that none of the first hundred rows has is looked for in all of them before it is refused."""
    rows = [{"q": "x", "a": "y"}] * 150 + [{"q": "x", "a": "y", "sys": "s"}]
    column = column_map(None, None, "prompt=q,system=sys,completion=a")  # type: ignore[arg-type]
    assert FORMATS["completion"].claims({"prompt": "x", "completion": "y"})
    assert len(written(rows, map=column)) == 151
