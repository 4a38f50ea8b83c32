"""JSON lines and arrays: what stands in a file is read or told, row by row, however it is cut."""

from __future__ import annotations

import json
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.rows.test_containers import COMPRESSED, NESTED, SIZES, Row, written
from tests.rows.test_exact import WHOLE
from tests.rows.test_source import rows_of, write
from tests.test_schema import JSON, TEXT

from qdata.errors import QdataError
from qdata.rows import json_scan, source
from qdata.rows.parts import Rows


@pytest.mark.parametrize("name", ["f.jsonl", "f.ndjson", "f.json"])
@settings(max_examples=60, deadline=None)
@given(st.lists(NESTED, min_size=1, max_size=5), SIZES, st.sampled_from(COMPRESSED))
def test_json_comes_back_as_it_was_written(name: str, rows: list[Row], size: int, packed: str) -> None:
    """Any objects, in lines or in an array, compressed or not, read in parts of any size."""
    with tempfile.TemporaryDirectory() as folder:
        found = rows_of(written(Path(folder), name + packed, rows), size)
    assert found == Rows(list(range(1, len(rows) + 1)), rows, [])
    assert json.dumps(found.rows) == json.dumps(rows), "also the order of keys, and 1 is not 1.0"


@settings(max_examples=150, deadline=None)
@given(
    st.lists(JSON, min_size=1, max_size=5),
    st.sampled_from([None, 1, "\t"]),
    st.booleans(),
    st.lists(SIZES, min_size=1, max_size=2),
)
@example([{"a": '"\\'}, {"a\\": "[{,"}, {"}": 1}], None, True, [1])
def test_an_array_is_the_same_however_it_is_cut(items: list[Any], indent: Any, bom: bool, sizes: list[int]) -> None:
    """Brackets, commas, quotes and backslashes inside strings are no borders; items that are no objects are told."""
    text = json.dumps(items, indent=indent, ensure_ascii=False).encode()
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), "f.json", (b"\xef\xbb\xbf \n" if bom else b"") + text + b"\n ")
        for size in sizes:
            found = rows_of(path, size)
            assert dict(zip(found.ordinals, found.rows, strict=True)) == {
                n: item for n, item in enumerate(items, 1) if isinstance(item, dict)
            }
            assert [bad.ordinal for bad in found.bad] == [n for n, x in enumerate(items, 1) if not isinstance(x, dict)]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(TEXT, JSON), max_size=3), st.integers(1, 7))
def test_items_and_keys_are_found_by_bytes(pairs: list[tuple[str, Any]], step: int) -> None:
    """Items as the parser sees them, whatever the blocks; as many keys as pairs, at any depth."""
    objects = [{key: value} for key, value in pairs]
    for ascii_only in (True, False):
        text = json.dumps(objects, ensure_ascii=ascii_only).encode()
        blocks = [text[i : i + step] for i in range(0, len(text), step)]
        found = [json.loads(text[item.start : item.stop] or b"null") for item in json_scan.items(blocks)]
        assert found == (objects or [None])
        assert json_scan.keys(text) == _keys(objects)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text('"\\\\{}[],: a第', max_size=90), max_size=9), st.integers(1, 300))
@example(["\\" * 63, '"' * 64, "\\" * 128 + '"'], 64)
def test_borders_are_those_a_walk_over_the_text_finds(texts: list[str], step: int) -> None:
    """Character by character, in blocks that are longer and shorter than what is looked at at once."""
    text = json.dumps([{"a": [one, {one: 1}]} for one in texts], ensure_ascii=False).encode()
    blocks = [text[i : i + step] for i in range(0, len(text), step)]
    assert [at for some in json_scan.borders(blocks) for at in some.tolist()] == _walk(text)


def _walk(text: bytes) -> list[int]:
    """The bracket that opens the array, its own commas, the bracket that closes it."""
    found, depth, in_string, escaped = [], 0, False, False
    for at, char in enumerate(text.decode("latin-1")):
        if in_string:
            in_string = escaped or char != '"'
            escaped = not escaped and char == "\\"
        elif char == '"':
            in_string = True
        elif char in "[{":
            depth += 1
            found += [at] if depth == 1 else []
        elif char in "]},":
            found += [at] if depth == 1 else []
            depth -= char != ","
    return found


@settings(max_examples=100, deadline=None)
@given(st.lists(st.dictionaries(TEXT, JSON | WHOLE | st.text("0123456789,", max_size=30), max_size=3)), SIZES)
def test_long_integers_of_an_array_are_read_exactly(rows: list[Row], size: int) -> None:
    """In whichever items they stand; digits in texts are only digits."""
    text = json.dumps(rows, indent=1)
    with tempfile.TemporaryDirectory() as folder:
        found = rows_of(write(Path(folder), "f.json", text), size)
    assert found == Rows(list(range(1, len(rows) + 1)), json.loads(text), [])


def _keys(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(_keys, value.values()))
    return sum(map(_keys, value)) if isinstance(value, list) else 0


@pytest.mark.parametrize("name", ["f.jsonl", "f.json"])
@pytest.mark.parametrize("size", [1, 30, source.PART_BYTES])
def test_one_broken_row_costs_that_row(tmp_path: Path, name: str, size: int) -> None:
    """The others are read; in an array the reason names line and column of the file."""
    items = ['{"a": 1}', '{"a": }', '{"a": NaN}', '{"a": 2, "b": {"c": 1, "c": 1}}', "[1]", '{"a": 3}']
    text = "\n".join(items) if name == "f.jsonl" else "[\n" + ",\n".join(items) + "\n]"
    found = rows_of(write(tmp_path, name, text), size)
    assert (found.ordinals, found.rows) == ([1, 6], [{"a": 1}, {"a": 3}])
    assert [(bad.ordinal, bad.code) for bad in found.bad] == [
        (2, "not_json"), (3, "nan"), (4, "key_twice"), (5, "no_object"),
    ]  # fmt: skip
    assert ("line 3, column 7" if name == "f.json" else "column 7") in found.bad[0].reason
    assert [bad.raw for bad in found.bad] == items[1:5]
    assert "'c' stands twice" in found.bad[2].reason


@pytest.mark.parametrize("name", ["f.jsonl", "f.json"])
@pytest.mark.parametrize("depth", [253, 254, 900, 1022, 2000])
def test_a_row_nested_too_deep_costs_that_row(tmp_path: Path, name: str, depth: int) -> None:
    """orjson reads 1024 levels and writes 254, and the standard library gives up in between."""
    items = ['{"a": 1}', '{"a": ' + "[" * depth + "]" * depth + "}", '{"a": 12345678901234567890123}']
    text = "\n".join(items) if name == "f.jsonl" else "[" + ",\n".join(items) + "]"
    found = rows_of(write(tmp_path, name, text))
    if depth == 253:
        assert found.ordinals == [1, 2, 3]
        return
    assert found.rows == [{"a": 1}, {"a": 12345678901234567890123}]
    assert [(bad.ordinal, bad.code) for bad in found.bad] == [(2, "too_deep" if depth < 1024 else "not_json")]


@pytest.mark.parametrize(
    ("line", "is_twice"),
    [
        ('{"a": 1, "a": 1}', True),
        ('{"a": 1, "\\u0061": 2}', True),
        ('{"a" : 1, "a"\t:2}', True),
        ('{"m": [{"role": "x", "role": "y"}]}', True),
        ('{"a": "\\"a\\": 1, \\"a\\": 2"}', False),
        ('{"a": {"a": {"a": 1}}, "b": [{"a": 1}, {"a": 1}]}', False),
        ('{":": ":", "a:": ["x:", ":y"]}', False),
        ('{"a\\\\": 1, "b": "\\\\"}', False),
    ],
)
@pytest.mark.parametrize("neighbours", [[], ['{"m": [{"x": 1}, {"x": 2}]}'], ["{", "nul"]])
def test_a_key_written_twice_loses_no_value_silently(
    tmp_path: Path, line: str, is_twice: bool, neighbours: list[str]
) -> None:
    """Whatever stands beside it: also broken rows, whose quotes do not pair."""
    found = rows_of(write(tmp_path, "f.jsonl", "\n".join([*neighbours, line, *neighbours])))
    twice = [bad.ordinal for bad in found.bad if bad.code == "key_twice"]
    assert twice == ([len(neighbours) + 1] if is_twice else [])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('[{"a": 1}, {"a": "x}, {"a": 2}]', "f.json, line 1"),
        ('[{"a": 1}, {"a": 2}', "f.json, line 1"),
        ('[{"a": 1}, {"a": 2}}', "f.json, line 1"),
        ('[{"a": 1}, {"a": 2}]\n[]', "f.json, line"),
        ('[{"a": 1},, {"a": 2}]', "f.json, line 1: not valid JSON: wanted an item beside each comma"),
        ('[{"a": 1}, {"a": 2}, ]', "f.json, line 1: not valid JSON: wanted an item beside each comma"),
    ],
)
@pytest.mark.parametrize("size", [1, source.PART_BYTES])
def test_an_array_that_is_broken_as_a_whole_is_refused(tmp_path: Path, text: str, wanted: str, size: int) -> None:
    """Where it cannot be told which item is broken; never half a file."""
    with pytest.raises(QdataError) as caught:
        rows_of(write(tmp_path, "f.json", text), size)
    assert wanted in str(caught.value)


def test_memory_is_bounded_by_the_part(tmp_path: Path) -> None:
    """An array of 12 MB, read in parts of 64 KB, never takes as much as a third of its size."""
    path = write(tmp_path, "f.json", json.dumps([{"prompt": "q" * 600, "n": n} for n in range(20_000)]))
    assert path.stat().st_size > 12e6
    count, peak = _walked(path, 1 << 16)
    assert count == 20_000
    assert peak < 4e6


def _walked(path: Path, size: int) -> tuple[int, int]:
    tracemalloc.start()
    try:
        count = sum(len(source.read(part).rows) for part in source.parts_of(path, "s", "f", size))
        return count, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
