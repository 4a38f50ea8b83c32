"""A verdict on an answer is one however it is spelled: what somebody judged bad is never trained as good."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.rows.test_formats import FORMATS, NAMES, loaded

from qdata.convert import convert
from qdata.errors import QdataError
from qdata.recipe import Source
from qdata.rows import kinds
from qdata.rows.detect import detect

JUDGED = [name for name in NAMES if kinds.kind(FORMATS[name]) == "judged"]
SPELLED: list[tuple[Any, bool]] = [(1, True), (0, False), (1.0, True), (0.0, False), ("1", True), ("0", False)]
SPELLED += [("true", True), ("false", False), ("True", True), ("False", False), (" TRUE ", True)]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)


def write(rows: list[dict[str, Any]], name: str = "kb.jsonl") -> list[Source]:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return [Source(path=name, name="s")]


def written(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("column", ["label", "kto_tag"])
@pytest.mark.parametrize("name", JUDGED)
def test_every_spelling_is_a_verdict(name: str, column: str, tmp_path: Path) -> None:
    """No dialect of chats claims such a row, its own does, and reads what is meant."""
    (sample,) = FORMATS[name].sample
    plain = {key: value for key, value in sample.items() if key not in ("label", "kto_tag")}
    rows = [plain | {column: spelled} for spelled, _ in SPELLED]
    for row in rows:
        assert [other for other in NAMES if FORMATS[other].claims(row)] == [name]
    frame, bad = loaded(rows, name, tmp_path)
    assert (frame["label"].to_list(), bad) == ([meant for _, meant in SPELLED], [])


@pytest.mark.parametrize("value", [2, -1, 0.5, "good", "2", "", "yes", [1], {"a": 1}, None])
def test_other_words_and_numbers_are_categories(value: Any) -> None:
    """As Infinity-Instruct has them; among judged answers they are told of."""
    row = {"prompt": "q", "completion": "a", "label": value}
    assert detect([row], "f").format == "completion"
    good = FORMATS["kto"].sample[0]
    wanted = "label: wanted true or false, got" if value is not None else "no label"
    with pytest.raises(QdataError, match=rf"line 2: {wanted}"):
        convert(write([good, row, good]), "kto", Path("o.jsonl"), strict=True)


def test_a_class_to_be_learnt_is_no_verdict() -> None:
    """A label of text is what `input_label` answers; of messages that nobody answers, 0 and 1 are classes."""
    assert detect([{"input": "x", "label": "1"}], "f").format == "input_label"
    with pytest.raises(QdataError, match="unknown dialect"):
        detect([{"messages": [{"role": "user", "content": "x"}], "label": 1}], "f")


def test_a_judged_row_among_chats_is_set_aside_however_it_is_spelled() -> None:
    """With what to do where the column means something else."""
    row = {"prompt": "q", "completion": "a"}
    rows = [row, row | {"label": 1}, row | {"kto_tag": "False"}, row, row]
    done = convert(write(rows), "messages", Path("o.jsonl"))
    assert done.manifest["rows"]["dropped"] == {"read.judged": 2}
    assert "(--map label= reads the row without label)" in done.aside.first[0]


def test_a_label_can_be_left_unread() -> None:
    """`--map label=`: the rows are chats, and what is written is none that is judged either."""
    rows = [{"prompt": "q", "completion": "a", "label": n % 2} for n in range(4)]
    sources = [Source(path=write(rows)[0].path, map={"label": ""})]
    assert convert(sources, "messages", Path("o.jsonl")).manifest["rows"]["kept"] == 4
    assert [row["label[]"] for row in written("o.jsonl")] == [0, 1, 0, 1]
    assert detect(written("o.jsonl"), "o").format == "messages"


def test_a_table_of_verdicts_comes_back() -> None:
    """JSON lines to CSV and back are the same rows."""
    rows = [{"prompt": f"q{n}", "completion": "a", "label": n % 2 == 0} for n in range(4)]
    convert(write(rows), "kto", Path("kb.csv"))
    convert([Source(path="kb.csv")], "kto", Path("back.jsonl"))
    assert written("back.jsonl") == rows
