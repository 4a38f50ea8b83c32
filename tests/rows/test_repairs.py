"""The steps that repair turns: what each one does to which shape, and that the rows of real files are explained."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.rows.test_steps import FRAMES, after
from tests.test_schema import conversation, frame, turn

from qdata import pipeline
from qdata.part import process
from qdata.recipe import DataRecipe, Source
from qdata.rows import ledger
from qdata.rows.steps.empty_role import EmptyRole
from qdata.rows.steps.first_turn_only import FirstTurnOnly
from qdata.rows.steps.leading_answer import LeadingAnswer
from qdata.rows.steps.merge_turns import MergeTurns
from qdata.rows.steps.trailing_question import TrailingQuestion
from qdata.rows.steps.unanswered_call import UnansweredCall

ROLES = {"s": "system", "u": "user", "a": "assistant", "t": "tool", "c": "assistant"}
CALL = '[{"name":"f","arguments":{}}]'


def chat(letters: str) -> list[dict[str, Any]]:
    """`suac` as messages, each with its place as its text; `c` is an assistant that calls a tool."""
    return [
        turn(ROLES[letter], None if letter == "c" else str(i), tool_calls=CALL if letter == "c" else None)
        for i, letter in enumerate(letters)
    ]


def left(step: Any, letters: str, **more: Any) -> str:
    """The texts that stand after a step, with `|` between turns, or the reason of a drop."""
    (row,) = after(step, frame([conversation(chat(letters), **more)])).to_dicts()
    return row["drop"] or "|".join(m["content"] or "c" for m in row["messages"])


@pytest.mark.parametrize(
    ("letters", "wanted"),
    [
        ("uaua", "0|1|2|3"),
        ("uua", "0+1|2"),
        ("uuuaau", "0+1+2|3+4|5"),
        ("ssuua", "0|1|2+3|4"),
        ("uctta", "0|c|2|3|4"),
        ("uca", "0|c|2"),
        ("uaca", "0|1|c|3"),
        ("aa", "0+1"),
        ("u", "0"),
    ],
)
def test_turns_are_merged(letters: str, wanted: str) -> None:
    """Runs of questions and of answers; not system messages, results of tools, or calls."""
    assert left(MergeTurns(separator="+"), letters) == wanted
    repeated = "+" in wanted
    assert (left(MergeTurns(do="drop"), letters) == "merge_turns.repeated_role") is repeated


@pytest.mark.parametrize("field", [{"train": False}, {"weight": 0.5}, {"name": "n"}, {"reasoning": "r"}])
def test_turns_that_differ_stay_two(field: dict[str, Any]) -> None:
    """What is trained differently, said by another, or reasoned about, is no turn in two pieces."""
    turns = [turn("user", "q"), turn("assistant", "a"), turn("assistant", "b", **field)]
    before = frame([conversation(turns)])
    assert after(MergeTurns(), before).equals(before)
    both = frame([conversation([turn("user", "q"), *(turn("assistant", t, weight=0.5) for t in "ab")])])
    assert after(MergeTurns(), both)["messages"][0].to_list()[1] == turn("assistant", "a\nb", weight=0.5)


@settings(max_examples=60, deadline=None)
@given(FRAMES)
def test_merging_is_what_a_loop_would_do(before: pl.DataFrame) -> None:
    """The expressions agree with a plain loop over each conversation."""

    def slow(messages: Sequence[dict[str, Any]] | None) -> Any:
        if messages is None:
            return None
        key = [
            (m["role"], m["name"], m["train"], m["weight"])
            if m["role"] in ("user", "assistant")
            and m["content"] is not None
            and m["tool_calls"] is None
            and m["reasoning"] is None
            else i
            for i, m in enumerate(messages)
        ]
        runs = [list(run) for _, run in groupby(range(len(messages)), key=lambda i: key[i])]
        return [
            messages[run[0]] | ({"content": "\n".join(messages[i]["content"] for i in run)} if len(run) > 1 else {})
            for run in runs
        ]

    wanted = [slow(row["messages"]) for row in before.to_dicts()]
    assert [row["messages"] for row in after(MergeTurns(), before).to_dicts()] == wanted


@pytest.mark.parametrize(
    ("letters", "wanted"),
    [("ua", "0|1"), ("aua", "1|2"), ("saua", "0|2|3"), ("ctaua", "3|4"), ("sa", "0"), ("a", ""), ("asua", "1|2|3")],
)
def test_a_leading_answer_is_taken_away(letters: str, wanted: str) -> None:
    """All that is said before the first question, but for system messages."""
    assert left(LeadingAnswer(), letters) == wanted
    same = len(re.findall(r"\w", wanted)) == len(letters)
    assert (left(LeadingAnswer(do="drop"), letters) == "leading_answer.no_question") is not same


@pytest.mark.parametrize(
    ("letters", "wanted"), [("ua", "0|1"), ("uau", "0|1"), ("uauus", "0|1"), ("uct", "0|c"), ("u", "0"), ("su", "0|1")]
)
def test_a_trailing_question_is_taken_away(letters: str, wanted: str) -> None:
    """What stands after the last answer; a conversation without any is left to `complete`."""
    assert left(TrailingQuestion(), letters) == wanted
    cut = wanted.count("|") + 1 < len(letters)
    assert (left(TrailingQuestion(do="drop"), letters) == "trailing_question.unanswered") is cut


def test_the_prompt_of_a_preference_pair_ends_on_a_question() -> None:
    """That is no fault, and its first turn is not all of it."""
    more = {"chosen": [turn("assistant", "x")], "rejected": [turn("assistant", "y")]}
    assert left(TrailingQuestion(), "uau", **more) == left(TrailingQuestion(do="drop"), "uau", **more) == "0|1|2"
    assert left(FirstTurnOnly(), "uau", **more) == "0|1|2"


@pytest.mark.parametrize(
    ("letters", "middle", "last"), [("ucta", 0, 0), ("uca", 1, 1), ("uc", 0, 1), ("uctc", 0, 1), ("uccta", 1, 1)]
)
def test_calls_without_a_result(letters: str, middle: int, last: int) -> None:
    """In the middle always a fault, at the end only where that is asked for."""
    reason = "unanswered_call.no_result"
    assert (left(UnansweredCall(), letters) == reason) == bool(middle)
    assert (left(UnansweredCall(last=True), letters) == reason) == bool(last)
    empty = [turn("user", "q"), turn("assistant", "a", tool_calls=" [ ] "), turn("user", "q"), turn("assistant", "b")]
    assert after(UnansweredCall(), frame([conversation(empty)]))["drop"].to_list() == [None]


@pytest.mark.parametrize(
    ("letters", "wanted"),
    [("suaua", "0|1|2"), ("ua", "0|1"), ("uctaua", "0|c|2|3"), ("aua", "0|1|2"), ("uuaa", "0|1|2"), ("su", "0|1")],
)
def test_the_first_turn(letters: str, wanted: str) -> None:
    """Up to the first answer to a question, tools and all."""
    assert left(FirstTurnOnly(), letters) == wanted


def test_nobody_speaks() -> None:
    """An empty or missing role, an empty name; a name that is not there is none."""
    rows = [[turn(r, "x", name=n), turn("assistant", "a")] for r, n in (("", None), (" ", None), ("user", ""))]
    out = after(EmptyRole(), frame([conversation(r) for r in [*rows, chat("ua"), None]]))
    assert out["drop"].to_list() == ["empty_role.no_role", "empty_role.no_role", "empty_role.no_name", None, None]
    missing = after(EmptyRole(), frame([conversation([turn("x", "x") | {"role": None}])]))
    assert missing["drop"].to_list() == ["empty_role.no_role"]


@settings(max_examples=40, deadline=None)
@given(st.text("suatc", max_size=6))
def test_after_all_repairs_turns_alternate(letters: str) -> None:
    """Merged and trimmed, a conversation begins with a question, ends on an answer, and nobody speaks twice."""
    made = frame([conversation(chat(letters.replace("c", "a").replace("t", "u").replace("s", "")))])
    for step in (LeadingAnswer(), TrailingQuestion(), MergeTurns()):
        made = after(step, made)
    roles = [m["role"] for m in made["messages"][0]]
    if "assistant" in roles:
        assert (roles[0], roles[-1]) == ("user", "assistant")
        assert all(a != b for a, b in pairwise(roles))


def test_the_odd_rows_of_sharegpt_zh_are_explained(real_data: Path, tmp_path: Path) -> None:
    """Seven rows do not alternate: six end on a question and lose it, one has no answer at all. The ledger says so."""
    source = Source(path=str(real_data / "multiturn" / "sharegpt_zh_1K_format.jsonl"))
    plain, edited = (
        process(next(pipeline.works_of(DataRecipe(sources=(source,), steps=steps), Path(), tmp_path, None)[1]))
        for steps in ((), ({"step": "leading_answer"}, {"step": "trailing_question"}, {"step": "merge_turns"}))
    )

    def odd(frame: pl.DataFrame) -> list[str]:
        codes = frame.select("row", code=pl.col("messages").list.eval(pl.element().struct.field("role").str.head(1)))
        turns = codes.with_columns(pl.col("code").list.join(""))
        return [row for row, code in turns.iter_rows() if not re.fullmatch("s?(ua)+", code)]

    before = odd(plain.conversations())
    assert len(before) == 7
    kept = edited.conversations().filter(pl.col("drop").is_null())
    assert odd(kept) == []
    none = pl.DataFrame(schema={"row": pl.String, "shard": pl.String, "index": pl.Int64})
    book = ledger.ledger(edited.conversations().select("row", "content_hash", "drop"), edited.edits(), none)
    told = book.filter(pl.col("row").is_in(before)).select("action", "step", "reason").rows()
    assert sorted(told, key=str) == [
        ("dropped", "complete", "no_answer"),
        *[("edited", "trailing_question", None)] * 6,
    ]
    assert book.filter(pl.col("action") != "kept").height == 7, "and no other row is touched"
