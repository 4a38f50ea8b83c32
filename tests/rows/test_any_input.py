"""Every reader, whatever it is given: each file of containers/ and formats/ is tried with no more than its name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz import oracles, targets
from tests.test_schema import JSON, TEXT

from qdata import plugin
from qdata.convert import convert
from qdata.recipe import Source
from qdata.rows import containers, formats
from qdata.rows.columns import struct_fields

pytestmark = pytest.mark.slow  # tests/rows/test_formats.py and test_containers.py ask the same of fewer inputs

FORMATS = {name: plugin.find(formats, name) for name in plugin.names(formats)}
each_format = pytest.mark.parametrize("name", FORMATS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """For all examples; what is decompressed or written is cached below it."""
    path = tmp_path_factory.mktemp("any_input")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QDATA_CACHE_DIR", str(path / "cache"))
        yield path


LINES = st.one_of(
    st.dictionaries(TEXT, JSON, max_size=3).map(lambda row: json.dumps(row, ensure_ascii=False).encode()),
    st.sampled_from(targets.SAMPLES).map(lambda row: json.dumps(row, ensure_ascii=False).encode()),
    st.sampled_from([b"", b" ", b"{", b"[1]", b"7", b'"\xff"', b'{"a": 1, "a": 2}', b"\xef\xbb\xbf"]),
    st.sampled_from([253, 999, 2000]).map(lambda depth: b'{"a":' + b"[" * depth + b"]" * depth + b"}"),
)
CHOICES = st.tuples(st.sampled_from(range(len(targets.COMPRESSED))), st.integers(0, 3), st.integers(1, 200))


@pytest.mark.parametrize("ending", targets.ENDINGS)
@settings(max_examples=40, deadline=None)
@given(st.lists(LINES, max_size=5), st.sampled_from([b"\n", b"\r\n", b",", b"\t"]), CHOICES)
def test_each_line_item_and_row_is_read_or_told_of(
    folder: Path, ending: str, lines: list[bytes], between: bytes, choice: tuple[int, int, int]
) -> None:
    """However the file is packed and cut; counted by other code. Half of the files are tables of the lines' objects."""
    content = between.join(lines)
    if ending == ".json" and between == b",":
        content = b"[" + content + b"]"
    targets.files(targets.head(targets.ENDINGS.index(ending), *choice) + content, folder)


def test_each_container_with_an_ending_is_counted() -> None:
    """A new container gets its own count in oracles.py; Excel's rows have no other reader here."""
    known = {name for name in plugin.names(containers) if plugin.find(containers, name).suffixes}
    assert known - oracles.COUNTS.keys() == {"xlsx"}


@st.composite
def rows(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """A sample row of a dialect in which something else stands in some places, at any depth."""
    form = FORMATS[name]
    fields = [key for dtype in form.columns.values() for key in struct_fields(dtype)]
    keys = st.sampled_from([*form.columns, *fields, "score", "label", "rejected", "image"]) | TEXT
    values = JSON | st.sampled_from([one for row in form.sample for one in row.values()])

    def other(value: Any, depth: int) -> Any:
        if depth and isinstance(value, dict) and value:
            at = draw(st.sampled_from(list(value)))
            return value | {at: other(value[at], depth - 1)}
        if depth and isinstance(value, list) and value:
            at = draw(st.integers(0, len(value) - 1))
            return [*value[:at], other(value[at], depth - 1), *value[at + 1 :]]
        if isinstance(value, dict):
            return value | {draw(keys): draw(values)}
        return draw(values)

    row = draw(st.sampled_from(form.sample))
    for _ in range(draw(st.integers(0, 2))):
        row = other(row, draw(st.integers(0, 4)))
    return row  # type: ignore[no-any-return]


@each_format
@settings(max_examples=12, deadline=None)
@given(st.data(), st.builds(oracles.Choice, st.integers(1, 400), to=st.integers(0, 255), ending=st.integers(0, 7)))
def test_each_row_is_read_or_told_of_and_comes_back(
    name: str, folder: Path, data: st.DataObject, choice: oracles.Choice
) -> None:
    """Any JSON in any place of a row: it is claimed or not, loaded or bad, and what is written is read as it was."""
    file = folder / "rows.jsonl"
    made = data.draw(st.lists(rows(name), min_size=1, max_size=5))
    file.write_text("".join(json.dumps(row) + "\n" for row in [*FORMATS[name].sample, *made]), encoding="utf-8")
    oracles.check(file, folder, choice, deep=True)


@each_format
@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet"])
def test_a_table_is_recognised_as_what_was_written(name: str, ending: str, folder: Path) -> None:
    """Lists, objects and verdicts are text in cells: the dialect is told from them without --from, and nothing lost."""
    sample = FORMATS[name].sample
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sample), encoding="utf-8")
    there, back = folder / f"there{ending}", folder / "back.jsonl"
    convert([Source(path=str(folder / "in.jsonl"))], name, there, replace=True)
    (found,) = convert([Source(path=str(there))], name, back, replace=True).inputs
    assert found.detection.format == name
    plain = folder / "plain.jsonl"
    convert([Source(path=str(folder / "in.jsonl"))], name, plain, replace=True)
    assert back.read_text(encoding="utf-8") == plain.read_text(encoding="utf-8")
