"""Containers: the rows of a file and their ordinals are the same however it is cut, and every row is told of."""

from __future__ import annotations

import csv
import datetime
import decimal
import hashlib
import io
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.test_schema import JSON, TEXT

from qdata.errors import QdataError
from qdata.rows import source
from qdata.rows.source import Rows, parts_of, read

BOM = b"\xef\xbb\xbf"


def rows_of(path: Path, part_bytes: int = source.PART_BYTES) -> Rows:
    """All parts of a file, one after the other."""
    parts = [read(part) for part in parts_of(path, "s", path.name, part_bytes)]
    return Rows(*([item for part in parts for item in getattr(part, name)] for name in Rows._fields))


def write(folder: Path, name: str, data: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(data.encode() if isinstance(data, str) else data)
    return file


OBJECTS = st.dictionaries(TEXT, JSON, max_size=3)
LINES = st.one_of(
    OBJECTS.map(lambda row: orjson.dumps(row)),
    st.sampled_from([b"", b" ", b"\t", b"\x0b", b'{"a":\r1}']),  # blank, and a carriage return that ends no line
    st.sampled_from([b"{", b"{bad", b'{"a": NaN}', b'{"a": 1}}', b'"\xff"', b"\xc3\x28", rb'{"a": "\ud800"}', b"nul"]),
    st.sampled_from([b"[1]", b'"text"', b"7", b"null", b"true"]),  # JSON, but no object
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(LINES, max_size=7),
    st.sampled_from([b"\n", b"\r\n"]),
    st.booleans(),
    st.booleans(),
    st.lists(st.integers(1, 200), min_size=1, max_size=2),
)
@example([b'{"a": "1"}', b"", b"{", b"[1]", b'{"a": "\xe2\x80\xa8\xc2\x85"}'], b"\r\n", True, False, [1])
def test_jsonl_is_the_same_however_it_is_cut(
    rest: list[bytes], newline: bytes, bom: bool, ended: bool, sizes: list[int]
) -> None:
    """Line by line with the standard library, in one part, or in parts of any size: same rows, ordinals, complaints."""
    lines = [b'{"first": "a row, so that nobody takes the file for an array"}', *rest]
    data = (BOM if bom else b"") + newline.join(lines) + (newline if ended else b"")
    good: dict[int, Any] = {}
    bad = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line, parse_constant=lambda name: 1 / 0) if line.strip() else None
            json.dumps(row, ensure_ascii=False).encode()
        except (ValueError, ZeroDivisionError):
            bad.append(number)
            continue
        if isinstance(row, dict):
            good[number] = row
        elif line.strip():
            bad.append(number)
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), "f.jsonl", data)
        whole = rows_of(path)
        assert dict(zip(whole.ordinals, whole.rows, strict=True)) == good
        assert whole.ordinals == sorted(good)
        assert [b.ordinal for b in whole.bad] == bad
        assert all(b.reason for b in whole.bad)
        for size in sizes:
            assert rows_of(path, size) == whole
            parts = list(parts_of(path, "s", "f.jsonl", size))
            assert [p.start for p in parts] == [0, *(p.stop for p in parts[:-1])] and parts[-1].stop == len(data)
            for part in parts:
                assert part.sha256 == hashlib.sha256(data[part.start : part.stop]).hexdigest()
                assert part.first == data[: part.start].count(b"\n") + 1


@pytest.mark.parametrize("part_bytes", [1, 20, source.PART_BYTES])
def test_only_a_newline_ends_a_line(tmp_path: Path, part_bytes: int) -> None:
    """U+2028, U+0085, form feeds and lone carriage returns end no row; ordinals are line numbers."""
    texts = ["a\u2028b", "a\u2029b", "a\u0085b", "a\\fb", "a\\rb", "a\\nb", "\ufeffa"]
    data = BOM + "\r\n".join(f'{{"t": "{text}"}}\r\n' for text in texts).encode().removesuffix(b"\r\n")
    found = rows_of(write(tmp_path, "f.jsonl", data), part_bytes)
    assert [row["t"] for row in found.rows] == [json.loads(f'"{text}"') for text in texts]
    assert found.ordinals == [1, 3, 5, 7, 9, 11, 13], "a blank line between each two"
    assert not found.bad
    between = write(tmp_path, "g.jsonl", '{"a":\r1}\n{"a":\r2}\r\n')
    assert rows_of(between, part_bytes) == Rows([1, 2], [{"a": 1}, {"a": 2}], [])


@pytest.mark.parametrize("name", ["f.jsonl", "f.ndjson", "f.json", "f.txt", "f"])
def test_the_last_line_needs_no_newline(tmp_path: Path, name: str) -> None:
    """JSON lines are read by lines, whatever the file's name."""
    found = rows_of(write(tmp_path, name, '{"a": 1}\n{"a": 2}'))
    assert found == Rows([1, 2], [{"a": 1}, {"a": 2}], [])


@pytest.mark.parametrize("name", ["f.json", "f.jsonl", "f.txt"])
@pytest.mark.parametrize("text", ['[{"a": 1}, {"a": 2}]', '\ufeff \n[\n{"a": 1},\n\n{"a":\n2}\n]\n'])
def test_an_array_is_an_array_whatever_its_name(tmp_path: Path, name: str, text: str) -> None:
    """A `.jsonl` that holds one array is read as it; ordinals count its items."""
    assert rows_of(write(tmp_path, name, text), 1) == Rows([1, 2], [{"a": 1}, {"a": 2}], [])


def test_one_object_in_many_lines(tmp_path: Path) -> None:
    """A pretty-printed object in a `.json` file is one row."""
    row = {"a": {"b": [1, 2]}, "c": "x"}
    assert rows_of(write(tmp_path, "f.json", json.dumps(row, indent=2))) == Rows([1], [row], [])


def test_lines_in_a_json_file_however_long_the_first(tmp_path: Path) -> None:
    """JSON lines named `.json` (half the hub) are told by their first line, also when that is longer than 64 KiB."""
    lines = [{"a": "x" * 70_000}, {"a": "y"}]
    assert rows_of(write(tmp_path, "f.json", "\n".join(map(json.dumps, lines)))).rows == lines


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": 1', "not valid JSON"),
        (b"{'a': 1}", "not valid JSON: .* at column 2"),
        (b'{"a": 1} {"b": 2}', "not valid JSON: .* at column 10"),
        (b'{"a": NaN}', "NaN is no JSON .*; wanted a number or null"),
        (b'{"a": [-Infinity]}', "-Infinity is no JSON"),
        (rb'{"a": "\ud800"}', "not valid JSON"),
        (rb'{"a": "\x41"}', "not valid JSON"),
        (b'{"a": "\x01"}', "not valid JSON"),
        (b'{"a": "\xff"}', "not UTF-8 .byte 0xff at byte 8"),
        (b'{"a": "\xe4\xbd"}', "not UTF-8 .byte 0xe4 at byte 8"),
        (b"[1, 2]", r"wanted a JSON object, got \[1, 2\]"),
        (b'"text"', 'wanted a JSON object, got "text"'),
        (b"null", "wanted a JSON object, got null"),
        (b"prompt,response", "not valid JSON"),
    ],
)
def test_a_broken_line_is_told(tmp_path: Path, line: bytes, reason: str) -> None:
    """The line number, a reason a person can act on, and the raw text; its neighbours are read."""
    found = rows_of(write(tmp_path, "f.jsonl", b'{"a": 1}\n\n' + line + b'\n{"a": 2}\n'))
    assert (found.ordinals, found.rows) == ([1, 4], [{"a": 1}, {"a": 2}])
    (bad,) = found.bad
    assert bad.ordinal == 3
    assert re.match(reason, bad.reason), bad.reason
    assert bad.raw == line.decode("utf-8", errors="backslashreplace")


@pytest.mark.parametrize(
    ("name", "data", "wanted"),
    [
        ("f.json", b'[{"a": 1},\n{"a": 2}\n', r"f\.json, line \d, column \d+: not valid JSON"),
        ("f.json", b'[{"a": "\xff}]', r"f\.json, line 1: not UTF-8 \(byte 0xff\)"),
        ("f.json", b'[{"a": 1}] [', r"f\.json, line 1, column 12: not valid JSON"),
        ("f.json", b'[{"a": 1},\n{"a": 2},\n]', r"f\.json, line 2: not valid JSON: wanted an item beside each comma"),
        ("f.csv", b"a,\xff\n1,2\n", r"f\.csv, line 1: not UTF-8"),
        ("f.csv", b"a,b,a\n1,2,3\n", r"f\.csv: the header names 'a' twice"),
        ("f.csv", "a,b\n1,2\n".encode("utf-16"), r"f\.csv: the file is UTF-16; wanted UTF-8"),
        ("f.parquet", b"PAR1 no parquet at all", r"f\.parquet: not a readable Parquet file"),
        ("f.jsonl", '{"a": 1}\n'.encode("utf-16"), r"f\.jsonl: the file is UTF-16; wanted UTF-8"),
        ("f.jsonl", b"\xfe\xff" + '{"a": 1}\n'.encode("utf-16-be"), r"f\.jsonl: the file is UTF-16; wanted UTF-8"),
        ("f.json", '[{"a": 1}]'.encode("utf-16"), r"f\.json: the file is UTF-16; wanted UTF-8"),
        ("f.jsonl", b"", r"f\.jsonl: the file is empty"),
        ("f.json", b"", r"f\.json: the file is empty"),
        ("f.csv", b"", r"f\.csv: the file is empty"),
        ("f.parquet", b"", r"f\.parquet: the file is empty"),
        ("f.arrow", b"ARROW1\0\0\xff", r"f\.arrow: not a readable Arrow file"),
        ("f.arrow", b"\xff\xff\xff\xff\0", r"f\.arrow: not a readable Arrow file or stream"),
        ("f.xlsx", b"PK\3\4", r"f\.xlsx: not a readable workbook"),
        ("f.bin", b"a\0", r"f\.bin: not a text file; wanted one of \.arrow"),
        ("f.jsonl.gz", b"\x1f\x8b\x08\0\0\0\0\0", r"f\.jsonl\.gz: cannot be decompressed"),
        ("f.jsonl.gz", b'{"a": 1}', r"f\.jsonl\.gz: not compressed as its name says"),
    ],
)
def test_a_file_broken_as_a_whole_is_refused(tmp_path: Path, name: str, data: bytes, wanted: str) -> None:
    """One message that names the file and, where there is one, the line."""
    with pytest.raises(QdataError, match=wanted):
        rows_of(write(tmp_path, name, data))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """By name, before anything is read."""
    with pytest.raises(QdataError, match=r"gone\.jsonl: no such file"):
        rows_of(tmp_path / "gone.jsonl")


@pytest.mark.parametrize(("name", "comma"), [("f.csv", ","), ("f.tsv", "\t")])
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4), st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_csv_gives_back_what_was_written(
    name: str, comma: str, cells: list[tuple[str, str]], bom: bool, newline: str
) -> None:
    """Quotes, line breaks and commas inside cells, a BOM, either line end: the cells come back as text."""
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=comma, lineterminator=newline, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *cells])
    with tempfile.TemporaryDirectory() as folder:
        found = rows_of(write(Path(folder), name, (BOM if bom else b"") + text.getvalue().encode()))
    assert found.rows == [{"a": a, "b": b} for a, b in cells]
    assert found.ordinals == list(range(1, len(cells) + 1))


def test_a_csv_row_of_another_width_is_told(tmp_path: Path) -> None:
    """Too few or too many fields: the row's number and what the header says; the others are read."""
    found = rows_of(write(tmp_path, "f.csv", "a,b\n1,2\n1\n1,2,3\n3,4\n"))
    assert found.ordinals == [1, 4]
    assert [(b.ordinal, b.reason) for b in found.bad] == [
        (n, f"wanted 2 fields as in the header, got {c}") for n, c in ((2, 1), (3, 3))
    ]


def test_a_csv_quote_that_never_ends_is_told(tmp_path: Path) -> None:
    """An open quote must not swallow the rows after it in silence."""
    path = write(tmp_path, "f.csv", 'prompt,response\nq1,"a1\nq2,a2\nq3,a3\n')
    with pytest.raises(QdataError, match=r"f\.csv: not valid CSV .* in the row that begins at line 2; wanted"):
        rows_of(path)


def test_a_csv_cell_may_be_long(tmp_path: Path) -> None:
    """Answers longer than csv's default limit of 131,072 characters are read (or refused in words)."""
    row = {"prompt": "q", "response": "x" * 140_000}
    assert rows_of(write(tmp_path, "f.csv", f"prompt,response\nq,{row['response']}\n")).rows == [row]


@pytest.mark.parametrize("group", [1, 2, 100])
@pytest.mark.parametrize("size", [1, 300, source.PART_BYTES])
def test_parquet_is_the_same_however_it_is_cut(tmp_path: Path, group: int, size: int) -> None:
    """Whatever the size of row groups and parts: same rows, same ordinals; a null is a missing key."""
    values = [{"a": str(i), "b": i, "m": [{"role": "user", "content": str(i)}]} for i in range(5)]
    values[2]["b"] = None
    pq.write_table(pa.Table.from_pylist(values), tmp_path / "f.parquet", row_group_size=group)
    found = rows_of(tmp_path / "f.parquet", size)
    assert found.ordinals == [1, 2, 3, 4, 5]
    assert found.rows == [{k: v for k, v in row.items() if v is not None} for row in values]
    parts = len(list(parts_of(tmp_path / "f.parquet", "s", "f", size)))
    assert parts == 5 if size == 1 else parts == 1 if size > 300 else 1 <= parts <= 5


def test_an_empty_row_group_is_no_rows(tmp_path: Path) -> None:
    """Ordinals go on after it, and it is no part of its own."""
    table = pa.table({"a": ["1"]})
    with pq.ParquetWriter(tmp_path / "f.parquet", table.schema) as writer:
        for one in (table, table.schema.empty_table(), table):
            writer.write_table(one)
    assert rows_of(tmp_path / "f.parquet").ordinals == [1, 2]
    parts = [(p.start, p.stop) for p in parts_of(tmp_path / "f.parquet", "s", "f", 1)]
    assert parts == [(0, 1), (1, 2)]


def test_what_json_has_no_word_for_is_text(tmp_path: Path) -> None:
    """Times in ISO 8601, decimals in full, bytes as UTF-8 or base64, also inside lists, objects and maps."""
    when = datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.UTC)
    odd = [[when.date()], {"b": b"\x00\xff"}, [("k", decimal.Decimal("1.50"))], b"text", datetime.timedelta(1), when]
    kinds = [pa.list_(pa.date32()), pa.struct({"b": pa.binary()}), pa.map_(pa.string(), pa.decimal128(5, 2)),
             pa.binary(), pa.duration("s"), pa.timestamp("ns", "UTC")]  # fmt: skip
    table = {f"c{i}": pa.array([value], kind) for i, (value, kind) in enumerate(zip(odd, kinds, strict=True))}
    pq.write_table(pa.table(table), tmp_path / "f.parquet")
    (row,) = rows_of(tmp_path / "f.parquet").rows
    said = [["2024-05-01"], {"b": "AP8="}, [["k", "1.50"]], "text", "1 day, 0:00:00", "2024-05-01T12:00:00+00:00"]
    assert [json.loads(json.dumps(value)) for value in row.values()][:4] == said[:4]
    assert row["c4"] in (said[4], "1 days 00:00:00") and row["c5"] == said[5]


def test_peek_looks_at_the_beginning(tmp_path: Path) -> None:
    """The first rows and the complaints before them; of a large JSONL no more than its beginning is read."""
    path = write(tmp_path, "f.jsonl", "{bad\n" + '{"a": 1}\n' * 500)
    head = source.peek(path, "s", "f.jsonl", rows=3)
    assert (head.ordinals, [b.ordinal for b in head.bad]) == ([2, 3, 4], [1])


def test_the_files_a_path_stands_for(tmp_path: Path) -> None:
    """A file, a folder with all below it, a glob; sorted; what is hidden or our own sidecar is left alone."""
    names = ["b.jsonl", "a/x.json", "a/deep/y.csv", "a/z.PARQUET", "a/.hidden.jsonl", ".cache/c.jsonl", "README.md"]
    for name in [*names, "b.jsonl.qdata/ledger.parquet"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path, name, "{}")

    def found(path: str) -> list[str]:
        return [p.relative_to(tmp_path).as_posix() for p in source.files_of(tmp_path / path)]

    assert found(".") == ["a/deep/y.csv", "a/x.json", "a/z.PARQUET", "b.jsonl"]
    assert found("a") == ["a/deep/y.csv", "a/x.json", "a/z.PARQUET"]
    assert found("b.jsonl") == ["b.jsonl"]
    assert found("README.md") == ["README.md"], "what is named is taken"
    assert found("a/*.json") == ["a/x.json"]
    assert found("a/**/*.csv") == ["a/deep/y.csv"]
    write(tmp_path, "[1].jsonl", "{}")
    assert found("[1].jsonl") == ["[1].jsonl"], "a name that looks like a glob is a name first"
    for nothing in ("gone", "a/*.ndjson", ".cache/none/*"):
        with pytest.raises(QdataError, match="no such file or folder"):
            found(nothing)
    (tmp_path / "empty").mkdir()
    with pytest.raises(QdataError, match=r"empty: wanted files ending in .*\.jsonl"):
        found("empty")
