"""Every step of global_steps/: its sketches do not see parts, what it decides sees no order; then each its own."""

from __future__ import annotations

import pickle
import re
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.test_schema import conversation, frame, turn

from qdata import decide, plugin, schema
from qdata.rows import global_steps
from qdata.rows.global_steps.exact import Exact
from qdata.rows.global_steps.prompt_cluster import PromptCluster

ALL = ("strip", "whitespace", "casefold")
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "exact": [
        {},
        *({"on": on} for on in ("prompt", "first_turn", "answer")),
        {"on": "prompt", "system": True, "normalize": ALL, "keep": "score.other"},
    ],
}
STEPS = {
    f"{name}/{number}" if number else name: plugin.find(global_steps, name)(**chosen)
    for name in plugin.names(global_steps)
    for number, chosen in enumerate(SETTINGS.get(name, [{}]))
}
each_step = pytest.mark.parametrize("name", STEPS)

# Few words, so that rows are often the same, or the same but for white space and capitals.
WORD = st.sampled_from(["a", "b", " a", "A", "a  b", "a b", "ß", "SS", "好"])
TURN = st.builds(turn, st.sampled_from(schema.ROLES), WORD, weight=st.none() | st.just(0.5))
ROW = st.builds(
    conversation,
    st.none() | st.lists(TURN, max_size=3),
    tools=st.none() | st.just("[]"),
    chosen=st.none() | st.lists(st.builds(turn, st.just("assistant"), WORD), min_size=1, max_size=1),
    label=st.none() | st.booleans(),
    text=st.none() | WORD,
    score=st.none() | st.fixed_dictionaries({"given": st.none() | st.sampled_from([1.0, 2.0])}),
)
FRAMES = st.lists(ROW, max_size=8).map(
    lambda rows: schema.with_content_hash(frame([r | {"row": f"s/{'fg'[i % 2]}#{i}"} for i, r in enumerate(rows)]))
)


def sketched(step: Any, rows: pl.DataFrame) -> pl.DataFrame:
    made: pl.DataFrame = step.sketch(rows.lazy()).collect()
    return made


def decided(step: Any, *parts: pl.DataFrame) -> pl.DataFrame:
    made: pl.DataFrame = step.decide(pl.concat([sketched(step, part) for part in parts]))
    return made


@each_step
@settings(max_examples=40, deadline=None)
@given(FRAMES, st.integers(0, 8))
def test_a_sketch_sees_no_borders(name: str, rows: pl.DataFrame, cut: int) -> None:
    """sketch(a ++ b) == sketch(a) ++ sketch(b); a row each, in order, and nothing nested: it is narrow."""
    step = STEPS[name]
    whole = sketched(step, rows)
    assert whole.equals(pl.concat([sketched(step, rows[:cut]), sketched(step, rows[cut:])]))
    assert whole["row"].equals(rows["row"])
    assert not any(dtype.is_nested() for dtype in whole.dtypes)


@each_step
@settings(max_examples=60, deadline=None)
@given(FRAMES, st.randoms(use_true_random=False))
def test_a_decision_sees_no_order(name: str, rows: pl.DataFrame, random: Any) -> None:
    """The same for every order of the rows; each row it names is there once, and who stays in its stead stays."""
    step = STEPS[name]
    made = decided(step, rows)
    order = random.sample(range(rows.height), rows.height)
    assert decided(step, rows[order]).equals(made)
    assert made["row"].is_unique().all() and set(made["row"]) <= set(rows["row"])
    writes = getattr(step, "scores", ())
    assert set(made.columns) - {"row", "drop", "by"} == set(writes)
    if "drop" in made.columns:
        assert made["drop"].null_count() == made["by"].null_count() == 0
        assert all(re.fullmatch(name.split("/")[0] + r"\.[a-z_]+", reason) for reason in made["drop"])
        assert set(made["by"]) <= set(rows["row"]) - set(made["row"]), "a survivor is a row that stays"


@each_step
@settings(max_examples=30, deadline=None)
@given(FRAMES)
def test_what_stays_is_left_alone_the_next_time(name: str, rows: pl.DataFrame) -> None:
    """Of the rows that are left none is dropped again; and the decision lands in `drop` and `score` only."""
    step = STEPS[name]
    made = decide.apply(rows, pl.concat([decide.DECISIONS.to_frame(), decided(step, rows)], how="diagonal"))
    assert made.drop("drop", "score").equals(rows.drop("drop", "score"))
    left = made.filter(pl.col("drop").is_null())
    again = decided(step, left)
    assert "drop" not in again.columns or again.is_empty()
    assert rows.is_empty() or left.height > 0


@each_step
def test_a_global_step_travels_to_a_worker(name: str) -> None:
    """It is frozen and picklable, and sketches there what it sketches here."""
    step, rows = STEPS[name], frame([conversation([turn("user", "a"), turn("assistant", "b")])])
    there = pickle.loads(pickle.dumps(step))
    assert there == step and sketched(there, rows).equals(sketched(step, rows))
    with pytest.raises(AttributeError):
        step.something = 1


def slow_key(row: dict[str, Any], step: Exact) -> Any:
    """What is compared, by plain Python; None where there is nothing."""

    def normal(text: str | None) -> str | None:
        if text is None:
            return None
        text = re.sub(r"\s+", " ", text) if "whitespace" in step.normalize else text
        text = text.strip() if "strip" in step.normalize else text
        return text.casefold() if "casefold" in step.normalize else text

    def said(messages: list[dict[str, Any]]) -> Any:
        fields = ("role", "content", "reasoning", "tool_calls", "name")
        return tuple(tuple(normal(m[f]) for f in fields) for m in messages)

    messages = row["messages"]
    answers = [i for i, m in enumerate(messages or []) if m["role"] == "assistant"]
    if step.on == "answer":
        chosen = [m for m in row["chosen"] or [] if m["role"] == "assistant"]
        mine = [messages[i] for i in answers] if messages is not None else None
        return (mine is None or said(mine), said(chosen)) if mine or chosen else None
    if step.on == "conversation":
        mine = messages and [m for m in messages if m["role"] != "system" or step.system]
        rest = (row["chosen"] and said(row["chosen"]), row["tools"], row["label"], normal(row["text"]))
        some = mine or row["chosen"] or row["text"] is not None
        return (messages is None or said(mine), *rest) if some else None
    if messages is None:
        return None
    end = answers[-1] if answers and not row["chosen"] else len(messages)
    asked = [(i, m) for i, m in enumerate(messages) if m["role"] == "system" or i < end]
    if step.on == "first_turn":
        first = next((i for i, m in enumerate(messages) if m["role"] == "user"), None)
        asked = [(i, m) for i, m in enumerate(messages) if m["role"] == "system" or i == first]
    mine = [m for _, m in asked if m["role"] != "system" or step.system]
    return (said(mine), row["tools"]) if mine else None


def slow_exact(rows: list[dict[str, Any]], step: Exact) -> dict[str, str]:
    """Dropped row → the row that stays."""

    def rank(row: dict[str, Any]) -> Any:
        name = step.keep.removeprefix("score.")
        score = (row["score"] or {}).get(name)
        turns = [m for c in ("messages", "chosen") for m in row[c] or [] if m["role"] == "assistant"]
        length = sum(len(m["content"] or "") for m in turns) + len(row["text"] or "")
        file, _, ordinal = row["row"].rpartition("#")
        return (score is None, -(score or 0), -length, file, int(ordinal))

    groups: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        if (key := slow_key(row, step)) is not None:
            groups.setdefault(key, []).append(row)
    out = {}
    for group in groups.values():
        best, *others = sorted(group, key=rank)
        out |= {other["row"]: best["row"] for other in others}
    return out


@pytest.mark.parametrize("name", [name for name in STEPS if name.startswith("exact")])
@settings(max_examples=150, deadline=None)
@given(FRAMES)
def test_exact_equals_the_slow_road(name: str, rows: pl.DataFrame) -> None:
    """Who falls, and to whom."""
    made = decided(STEPS[name], rows)
    assert dict(made.select("row", "by").iter_rows()) == slow_exact(rows.to_dicts(), STEPS[name])


@settings(max_examples=60, deadline=None)
@given(FRAMES)
def test_clusters_are_what_exact_finds(rows: pl.DataFrame) -> None:
    """The size of a cluster is one more than the rows that fall to the one that stays."""
    exact = Exact(on="prompt", normalize=ALL)
    sizes = dict(decided(PromptCluster(), rows).iter_rows())
    keys = {row["row"]: slow_key(row, exact) for row in rows.to_dicts()}
    counts = Counter(keys.values())
    assert sizes == {row: None if key is None else counts[key] for row, key in keys.items()}


def test_the_best_stays() -> None:
    """By score, then by the length of the answer, then by file and line; 10 comes after 9."""

    def kept(*rows: tuple[str, str, float | None], **how: Any) -> str:
        made = [
            conversation([turn("user", "q"), turn("assistant", answer)], row=row, score=score and {"given": score})
            for row, answer, score in rows
        ]
        gone = decided(Exact(on="prompt", **how), frame(made))
        (left,) = {row for row, *_ in rows} - set(gone["row"])
        assert set(gone["by"]) == {left}
        return left

    assert kept(("f#1", "long answer", 1.0), ("f#2", "a", 2.0), ("f#3", "longest answer", None)) == "f#2"
    assert kept(("f#1", "a", None), ("f#2", "long", None), ("f#3", "b", None)) == "f#2"
    assert kept(("f#10", "a", None), ("f#9", "b", None)) == "f#9"


@pytest.mark.parametrize("keep", ["given", "score.", "score.lang", "longest"])
def test_what_is_no_score_cannot_be_kept_by(keep: str) -> None:
    """A number of `score` only."""
    with pytest.raises(ValueError, match=r"keep: wanted score\.NAME"):
        Exact(keep=keep)


def test_steps_follow_each_other(tmp_path: Path) -> None:
    """What one drops the next does not see; scores come together; a row that is not asked about is not named."""
    said = [("a", "b"), ("a", "b"), ("a", "c"), ("d", "e"), ("a", "f")]
    rows = frame([conversation([turn("user", q), turn("assistant", a)], row=f"f#{i}") for i, (q, a) in enumerate(said)])
    steps = (Exact(), PromptCluster(), Exact(on="prompt"))
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder, part in zip(folders, (rows[:1], rows[1:]), strict=True):
        folder.mkdir()
        decide.write_sketches(part, steps, folder)
    made = decide.decide(steps, folders, rows["row"][:4]).sort("row")
    assert made.to_dict(as_series=False) == {
        "row": ["f#0", "f#1", "f#2", "f#3"],
        "drop": [None, "exact.duplicate", "exact.duplicate", None],
        "by": [None, "f#0", "f#0", None],
        "prompt_cluster": [2, None, 2, 1],
    }
    out = decide.apply(rows, made)
    assert out["drop"].to_list() == [None, "exact.duplicate", "exact.duplicate", None, None]
    assert [one["prompt_cluster"] for one in out["score"]] == [2, None, 2, 1, None]


def test_the_twins_of_muice(real_data: Path) -> None:
    """67 exact duplicate pairs and 535 repeated prompts, as its README says."""
    rows = pl.read_ndjson(real_data / "muice" / "muice_pairs.jsonl").select("prompt", "response").rows()
    made = frame(
        [conversation([turn("user", q), turn("assistant", a)], row=f"f#{i}") for i, (q, a) in enumerate(rows, 1)]
    )
    assert decided(Exact(), made).height == 67
    assert decided(Exact(on="prompt"), made).height == 535
