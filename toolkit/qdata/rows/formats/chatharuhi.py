"""ChatHaruhi: `{"dialogue": [{"role": …, "text": …}, …]}`, where the roles are names of characters."""

from __future__ import annotations

import re
from itertools import groupby
from typing import Any, ClassVar

import polars as pl

from qdata.rows.formats._lists import joined
from qdata.rows.formats._turns import is_preference, listed, split_system, system_of

_COLON = "："
_SPOKEN = re.compile(rf"([^\n{_COLON}]{{1,30}}){_COLON}")
_IS = re.compile(r"你是([^,。\n]+)。")
_NOBODY = "assistant"  # who answers where no character is named


class Chatharuhi:
    """Which character answers is said by `--character NAME` (or NAME,NAME: one under several names), or by the row.

    Its lines are the answers. Those of all others are the user's, each line as `NAME：text`, a line without a name as
    it is. Lines of one side that follow each other are one turn, a line of text for each. Its `name` is "" where a
    line's is: the step empty_role drops such rows. A role that is null means that no name is wanted. The system prompt
    is `你是NAME。` where the row has no `system` of its own ("" means none).
    """

    columns: ClassVar = {
        "dialogue": pl.List(pl.Struct({"role": pl.String, "text": pl.String})),
        "character": pl.String,
        "system": pl.String,
    }
    sample: ClassVar = [
        {
            "dialogue": [
                {"role": "店员", "text": "「要热的还是冰的？」"},
                {"role": "客人", "text": "「听她的。」"},
                {"role": "小满", "text": "「冰的，多放柠檬！」"},
            ],
            "character": "小满",
        }
    ]

    @staticmethod
    def claims(row: dict[str, Any]) -> bool:
        """A list of lines with role and text."""
        lines = row.get("dialogue")
        return (
            isinstance(lines, list)
            and bool(lines)
            and all(isinstance(line, dict) and {"role", "text"} <= line.keys() for line in lines)
            and not is_preference(row)
        )

    @staticmethod
    def lacks(frame: pl.DataFrame) -> str | None:
        """Why these rows cannot be read before somebody says which character answers: in words, or None."""
        if frame.is_empty():
            return None
        lines = frame.select("ordinal", "dialogue", names=_names()).explode("dialogue").unnest("dialogue")
        lines = lines.with_columns(pl.col("role").fill_null(""))
        if lines.select(pl.col("names").is_null().any()).item():
            wrong = "nothing says which character answers"
        elif not lines.select(pl.col("role").is_in(pl.col("names")).any()).item():
            wrong = f"no line is of {', '.join(lines['names'].explode().unique(maintain_order=True))}"
        else:
            return None
        counts = lines.filter(pl.col("role") != "").group_by("role", maintain_order=True).len().sort(
            "len", descending=True, maintain_order=True)  # fmt: skip
        shown = ", ".join(f"{name} {count}" for name, count in counts.head(12).iter_rows())
        more = f" and {len(counts) - 12} more" if len(counts) > 12 else ""
        empty = lines.filter(pl.col("role") == "")["ordinal"].n_unique()
        rows_have = "1 row has" if empty == 1 else f"{empty} rows have"
        nameless = f"; {rows_have} an empty role name" if empty else ""
        return (
            f"dialogues between characters, and {wrong}; say it with --character NAME (in a recipe: character), or "
            f"NAME,NAME for one under several names. Lines: {shown}{more}{nameless}."
        )

    @staticmethod
    def read(frame: pl.LazyFrame) -> pl.LazyFrame:
        """Lines become turns: those of the character answers, those of all others, joined, questions."""
        indexed = frame.with_columns(_names().alias("names")).with_row_index("at")
        lines = indexed.select("at", "names", "dialogue").explode("dialogue").unnest("dialogue")
        role = pl.col("role").fill_null("")
        answers = role.is_in(pl.col("names"))
        said = pl.when(answers | (role == "")).then("text").otherwise(pl.concat_str(role, pl.lit(_COLON), "text"))
        lines = lines.select(
            "at",
            said=said,
            name=pl.when((pl.col("role") == "") & ~answers).then(pl.lit("")),
            role=pl.when(answers).then(pl.lit("assistant")).otherwise(pl.lit("user")),
        ).with_columns(run=pl.struct("at", "role").rle_id())
        turns = lines.group_by("run", "at", "role", maintain_order=True).agg(
            content=pl.col("said").str.join("\n"), name=pl.col("name").min()
        )
        chats = turns.group_by("at", maintain_order=True).agg(messages=pl.struct("role", "content", "name"))
        text = pl.coalesce("system", pl.format("你是{}。", pl.col("names").list.first()))
        messages = joined(system_of(text), pl.col("messages"))
        whole = indexed.join(chats, on="at", how="left", maintain_order="left").with_columns(messages=messages)
        return whole.drop(*Chatharuhi.columns, "names", "at")

    @staticmethod
    def fault() -> pl.Expr:
        """No line at all, or a line without a text: which, in words, or null."""
        silent = pl.col("dialogue").list.eval(pl.element().struct.field("text").is_null())
        at = silent.list.arg_max()
        return (
            pl.when(pl.col("dialogue").list.len().fill_null(0) == 0)
            .then(pl.lit("dialogue: no lines"))
            .when(silent.list.any())
            .then(pl.format("dialogue[{}]: a line without a text", at))
        )

    @staticmethod
    def write(conversation: dict[str, Any]) -> dict[str, Any]:
        """A line for each answer and for each `NAME：text` of a question; `character` says who answers."""
        system, turns = split_system(conversation["messages"])
        is_one = _IS.fullmatch(system or "")
        character = is_one[1] if is_one else _NOBODY
        lines = [line for m in turns for line in _lines(m, character)]
        row: dict[str, Any] = {"dialogue": lines, "character": character}
        return row if is_one else row | {"system": system or ""}

    @staticmethod
    def loses(conversation: dict[str, Any]) -> str | None:
        """Tools, per-message fields, an empty system prompt, and two turns of one side after each other."""
        system, turns = split_system(conversation["messages"])
        roles = [m["role"] for m in turns]
        if conversation["tools"]:
            return "the tools"
        nameless = [
            m | {"name": None} if m["role"] == "user" and m["name"] == "" else m for m in conversation["messages"]
        ]
        if any(m[key] is not None for m in nameless for key in m.keys() - {"role", "content"}):
            return "reasoning, tool calls, names or training flags of messages"
        if system == "":
            return "an empty system prompt"
        if not roles or set(roles) - {"user", "assistant"} or any(len(list(same)) > 1 for _, same in groupby(roles)):
            return f"the order of turns {listed(roles)}; chatharuhi holds user and assistant in turn"
        return None


def _names() -> pl.Expr:
    return pl.col("character").str.split(",")


def _lines(message: dict[str, Any], character: str) -> list[dict[str, Any]]:
    """The lines whose reading is this turn; what begins like a line of the character's stays with the line before it.

    What follows a named line is part of it; in a turn of name "" it is a line without a name, of which there is one.
    """
    said, nobody = message["content"], message["name"]
    if message["role"] == "assistant":
        return [{"role": character, "text": said}]
    lines: list[dict[str, Any]] = []
    for piece in said.split("\n"):
        spoken = _SPOKEN.match(piece)
        if spoken and spoken[1] != character:
            lines.append({"role": spoken[1], "text": piece[spoken.end() :]})
        elif lines and nobody in (None, lines[-1]["role"]):
            lines[-1]["text"] += f"\n{piece}"
        else:
            lines.append({"role": nobody, "text": piece})
    return lines if nobody in (None, *(line["role"] for line in lines)) else [{"role": nobody, "text": said}]
