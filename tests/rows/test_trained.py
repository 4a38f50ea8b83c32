"""Which turns are trained, in the spellings of other tools: read alike, written as ours, and never guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.rows.test_formats import FORMATS, loaded, read
from tests.test_schema import TEXT, WEIGHTS, conversation

TRAIN = ("train", "training", "loss")
WEIGHT = ("weight", "loss_weight", "loss_scale")
TURNS = {"messages": ("messages", "role", "content"), "sharegpt": ("conversations", "from", "value")}
each_dialect = pytest.mark.parametrize("name", TURNS)


def row(name: str, *flags: dict[str, Any]) -> dict[str, Any]:
    """A question, and an answer for each of `flags`, which stand in it."""
    turns, role, content = TURNS[name]
    answers = [{role: {"messages": "assistant", "sharegpt": "gpt"}[name], content: "a"} | one for one in flags]
    return {turns: [{role: {"messages": "user", "sharegpt": "human"}[name], content: "q"}, *answers]}


@each_dialect
@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        *(({key: value}, (value, None)) for key in TRAIN for value in (True, False, None)),
        *(({key: value}, (None, value)) for key in WEIGHT for value in (0.0, 0.5, 2.0, None)),
        ({"weight": 0}, (None, 0.0)),
        ({"loss": True, "training": True, "loss_scale": 1, "loss_weight": 1.0}, (True, 1.0)),
        ({"train": None, "loss": False}, (False, None)),
        ({"train": True, "weight": 0.0}, (True, 0.0)),  # two things, and both are kept
    ],
    ids=str,
)
def test_every_spelling_is_read(name: str, flags: dict[str, Any], wanted: tuple[Any, Any], tmp_path: Path) -> None:
    """`train` and `weight` of the message, nothing of them in `extra`; written and read again they are the same."""
    frame, bad = loaded([row(name, flags)], name, tmp_path)
    assert not bad
    (answer,) = frame["messages"][0].to_list()[1:]
    assert (answer["train"], answer["weight"]) == wanted
    assert frame["extra"][0] is None
    (made,) = read([row(name, flags)], name, tmp_path)
    written = FORMATS[name].write(conversation(None) | made)
    assert read([written], name, tmp_path) == [made]
    given = dict(zip(("train", "weight"), wanted, strict=True))
    assert written == row(name, {key: value for key, value in given.items() if value is not None})


@each_dialect
@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ({"train": True, "loss": False}, "train is true and loss is false"),
        ({"training": False, "loss": True}, "training is false and loss is true"),
        ({"train": True, "training": False}, "train is true and training is false"),
        ({"weight": 1, "loss_scale": 0.5}, "weight is 1.0 and loss_scale is 0.5"),
        ({"loss_weight": 0.0, "loss_scale": 1.0}, "loss_weight is 0.0 and loss_scale is 1.0"),
        ({"loss": True, "train": True, "training": False}, "train is true and training is false"),
    ],
    ids=str,
)
def test_spellings_that_disagree_make_a_row_unreadable(
    name: str, flags: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    """Both are named with the turn and nothing is guessed; the row itself is kept whole, its neighbours are read."""
    rows = [row(name, {"loss": True}), row(name, {"loss": True}, flags), row(name, {"loss": False})]
    frame, bad = loaded(rows, name, tmp_path)
    assert frame["row"].to_list() == ["s/rows.jsonl#1", "s/rows.jsonl#3"]
    place = f"{TURNS[name][0]}[2]: {reason}, two spellings of one thing; wanted one of them, or both alike"
    assert [(b.ordinal, b.reason) for b in bad] == [(2, place)]
    assert json.loads(bad[0].raw) == rows[1]


FLAGS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(TRAIN, st.none() | st.booleans())
    | dict.fromkeys(WEIGHT, st.none() | WEIGHTS)
    | {"note": TEXT},
)


@each_dialect
@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(FLAGS, min_size=1, max_size=3), min_size=1, max_size=4))
def test_a_row_is_read_as_its_flags_agree(
    name: str, tmp_path_factory: pytest.TempPathFactory, rows: list[list[dict[str, Any]]]
) -> None:
    """Against the rule said plainly: each turn's one value where there is one, a bad row where there are two."""
    frame, bad = loaded([row(name, *flags) for flags in rows], name, tmp_path_factory.getbasetemp())
    values = [
        [[{one[k] for k in keys if one.get(k) is not None} for keys in (TRAIN, WEIGHT)] for one in flags]
        for flags in rows
    ]
    clear = [all(len(said) <= 1 for turn in turns for said in turn) for turns in values]
    assert [b.ordinal for b in bad] == [i for i, one in enumerate(clear, 1) if not one]
    got = [[(m["train"], m["weight"]) for m in one][1:] for one in frame["messages"].to_list()]
    assert got == [
        [tuple(next(iter(said), None) for said in turn) for turn in turns]
        for turns, one in zip(values, clear, strict=True)
        if one
    ]
    notes = [json.loads(extra)[f"{TURNS[name][0]}[]"] if extra else None for extra in frame["extra"]]
    kept = [flags for flags, one in zip(rows, clear, strict=True) if one]
    for note, flags in zip(notes, kept, strict=True):
        wanted = [{}] + [{"note": one["note"]} if "note" in one else {} for one in flags]
        assert note == (wanted if any(wanted) else None)
