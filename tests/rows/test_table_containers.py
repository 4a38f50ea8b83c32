"""CSV, Parquet, Arrow and workbooks: cells and columns come back, whatever the size of groups, batches and parts."""

from __future__ import annotations

import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.rows.test_containers import COMPRESSED, NESTED, SIZES, Row, written
from tests.rows.test_source import rows_of, write
from tests.test_schema import TEXT

from qdata.errors import QdataError
from qdata.rows import source
from qdata.rows.parts import Rows

CELLS = st.dictionaries(st.sampled_from(["a", "b", "ä ö", 'c"', "d,\n"]), TEXT, min_size=1)


@pytest.mark.parametrize("name", ["f.csv", "f.tsv"])
@settings(max_examples=80, deadline=None)
@given(st.lists(CELLS, min_size=1, max_size=5), SIZES, st.sampled_from(COMPRESSED))
@example([{"a": "x\ry\n\r\n", "b": '"'}, {"b": "\ufeffz"}, {"a": "", "c": ""}], 1, "")
def test_cells_come_back_as_they_were_written(name: str, rows: list[Row], size: int, packed: str) -> None:
    """Text cells, quoted line breaks too, cut anywhere; a missing cell is an empty one."""
    with tempfile.TemporaryDirectory() as folder:
        found = rows_of(written(Path(folder), name + packed, rows), size)
    names = list(dict.fromkeys(name for row in rows for name in row))
    assert found == Rows(list(range(1, len(rows) + 1)), [{n: row.get(n, "") for n in names} for row in rows], [])


@pytest.mark.parametrize("size", [1, 10, source.PART_BYTES])
def test_csv_complaints_are_the_same_however_it_is_cut(tmp_path: Path, size: int) -> None:
    """Rows of another width, and bytes that are not UTF-8, cost their row; blank lines are no rows."""
    data = b'\xef\xbb\xbfa,b\r\n1,"x\r\n\r\ny"\r\n\r\n2\r\n3,\xff\r\n4,"\xef\xbb\xbfz"'
    found = rows_of(write(tmp_path, "f.csv", data), size)
    assert (found.ordinals, found.rows) == ([1, 4], [{"a": "1", "b": "x\r\n\r\ny"}, {"a": "4", "b": "\ufeffz"}])
    assert [(bad.ordinal, bad.code, bad.raw) for bad in found.bad] == [
        (2, "fields", '["2"]'), (3, "not_utf8", '["3", "\\\\xff"]'),
    ]  # fmt: skip
    with pytest.raises(QdataError, match="in the row that begins at line 3"):
        rows_of(write(tmp_path, "g.csv", b'a,b\n1,2\n3,"4\n5,6\n'), size)


MESSAGES = {"messages": pl.List(pl.Struct({"role": pl.String, "content": pl.String, "tool_calls": pl.String})),
            "tools": pl.String}  # fmt: skip
MESSAGE = st.fixed_dictionaries({"role": TEXT}, optional={"content": TEXT, "tool_calls": st.lists(NESTED, max_size=2)})
ROWS = st.fixed_dictionaries(
    {"messages": st.lists(MESSAGE, max_size=3)},
    optional={"tools": st.lists(NESTED), "id": st.integers(), "x": TEXT, "n": st.integers(-9, 9) | st.just(0.5)},
)


@settings(max_examples=100, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=4), SIZES)
@example([{"messages": [{"role": "a", "tool_calls": [{"n": 2**70}]}], "id": 2**70}], 1)
def test_parquet_holds_messages_as_lists_and_schemas_as_text(rows: list[Row], size: int) -> None:
    """Real lists of objects where the dialect has them; nothing is lost, and no null key stands beside a call's own."""
    with tempfile.TemporaryDirectory() as folder:
        found = rows_of(written(Path(folder), "f.parquet", rows, MESSAGES), size)
        kind = pq.read_schema(Path(folder) / "f.parquet").field("messages").type
    assert (pa.types.is_large_list(kind) or pa.types.is_list(kind)) == any(row["messages"] for row in rows)
    for row, back in zip(rows, found.rows, strict=True):
        if isinstance(back["messages"], str):
            assert back["messages"] == "[]"
        else:
            for message, said in zip(row["messages"], back["messages"], strict=True):
                given = {k: v for k, v in said.items() if v is not None}
                assert given | {k: json.loads(v) for k, v in given.items() if k == "tool_calls"} == message
        for key in row.keys() - {"messages"}:
            said = back[key]
            assert said == row[key] or json.loads(said) == row[key], key


def test_parquet_keeps_what_its_types_have_no_place_for(tmp_path: Path) -> None:
    """A message with a key that the dialect does not know: the column is JSON text, as in CSV."""
    rows = [{"messages": [{"role": "user", "content": "q", "id": 7}]}, {"messages": [{"role": "user"}]}]
    back = rows_of(written(tmp_path, "f.parquet", rows, MESSAGES)).rows
    assert [json.loads(row["messages"]) for row in back] == [row["messages"] for row in rows]


@pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
@settings(max_examples=60, deadline=None)
@given(st.lists(CELLS, min_size=1, max_size=6), st.integers(1, 4), SIZES)
def test_tables_are_the_same_however_they_lie_and_are_cut(kind: str, rows: list[Row], batch: int, size: int) -> None:
    """Row groups or record batches of any size, parts of any size; a null is a missing key."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = pa.table({name: pa.array([row.get(name) for row in rows], pa.string()) for name in names})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"f.{'parquet' if kind == 'parquet' else 'arrow'}"
        if kind == "parquet":
            pq.write_table(table, path, row_group_size=batch)
        else:
            make = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
            with make(path, table.schema) as writer:
                writer.write_table(table, max_chunksize=batch)
        parts = list(source.parts_of(path, "s", path.name, size))
        found = rows_of(path, size)
    assert found.ordinals == list(range(1, len(rows) + 1))
    assert found.rows == [{name: row[name] for name in names if name in row} for row in rows]
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]


def test_what_a_table_says_is_no_number_is_told(tmp_path: Path) -> None:
    """NaN is no null: it comes out as text, for JSON has no word for it."""
    table = pa.table({"text": ["a", "b", "c"], "x": [1.5, float("nan"), None]})
    pq.write_table(table, tmp_path / "f.parquet")
    assert rows_of(tmp_path / "f.parquet").rows == [{"text": "a", "x": 1.5}, {"text": "b", "x": "nan"}, {"text": "c"}]


def test_numbers_that_are_none_are_told_inside_of_lists_too(tmp_path: Path) -> None:
    """As JSON they would be null, silently."""
    half = pa.array([[2.5, float("nan")]], pa.list_(pa.float16()))
    table = pa.table({"x": [[1.5, float("nan")]], "y": [{"z": float("-inf")}], "h": half})
    pq.write_table(table, tmp_path / "f.parquet")
    assert rows_of(tmp_path / "f.parquet").rows == [{"x": [1.5, "nan"], "y": {"z": "-inf"}, "h": [2.5, "nan"]}]


NOT_UTF8 = pa.array([b"a", b"\xff"]).view(pa.string())
TWICE = pa.StructArray.from_arrays([pa.array([1, 2]), pa.array([3, 4])], ["a", "a"])
FAR = pa.array([0, 2**31 - 1], pa.int32()).view(pa.date32())
NO_LISTS = pa.Array.from_buffers(
    pa.list_(pa.int8()), 2, [None, pa.array([0, 9, 1], pa.int32()).buffers()[1]], children=[pa.array([1], pa.int8())]
)


@pytest.mark.parametrize("column", [NOT_UTF8, TWICE, FAR, NO_LISTS], ids=["utf8", "name twice", "date", "offsets"])
@pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
def test_values_that_no_row_can_hold_are_refused(tmp_path: Path, column: pa.Array, kind: str) -> None:
    """Bytes that are not what their types say, which polars panics at, and values that Python has no word for."""
    path, table = tmp_path / f"f.{kind}", pa.table({"c": column})
    if kind == "parquet" and column is NO_LISTS:
        return  # Arrow itself does not write it
    if kind == "parquet":
        pq.write_table(table, path)
    else:
        with (pa.ipc.new_file if kind == "file" else pa.ipc.new_stream)(path, table.schema) as writer:
            writer.write_table(table)
    with pytest.raises(QdataError, match=rf"f\.{kind}.* not (a )?readable"):
        rows_of(path)


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_no_byte_of_an_arrow_file_makes_it_crash(tmp_path: Path, kind: str) -> None:
    """Names, offsets, counts and sizes: each byte changed, the rows are read or the file is refused."""
    rows = [{"a": "x", "m": [{"role": "u", "said": None}]}, {"a": None, "m": None}, {"a": "yy", "m": []}]
    table, path = pa.Table.from_pylist(rows), tmp_path / "f.arrow"
    with (pa.ipc.new_file if kind == "file" else pa.ipc.new_stream)(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    data, refused = path.read_bytes(), 0
    for at in range(len(data)):
        for other in {0xFF, data[at] ^ 1} - {data[at]}:
            path.write_bytes(data[:at] + bytes([other]) + data[at + 1 :])
            try:
                rows_of(path, 30)
            except QdataError:
                refused += 1
    assert len(data) < refused < 2 * len(data)


def test_a_nul_in_a_name(tmp_path: Path) -> None:
    """Inside of a column it is read whole; a column of Parquet cannot be called so, which is said, and no panic."""
    column = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["a\0b", "a\0c"])
    with pa.ipc.new_file(tmp_path / "f.arrow", pa.schema([("c", column.type)])) as writer:
        writer.write_table(pa.table({"c": column}))
    assert rows_of(tmp_path / "f.arrow").rows == [{"c": {"a\0b": 1, "a\0c": 2}}]
    with pytest.raises(QdataError, match=r"a column is called 'a\\x00b'"):
        written(tmp_path, "f.parquet", [{"a\0b": 1}])


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    """One of them would be lost."""
    with pa.ipc.new_file(tmp_path / "f.arrow", pa.schema([("a", pa.int8()), ("a", pa.int8())])) as writer:
        writer.write_table(pa.Table.from_arrays([pa.array([1], pa.int8())] * 2, names=["a", "a"]))
    with pytest.raises(QdataError, match="two columns are called 'a'"):
        rows_of(tmp_path / "f.arrow")


def test_a_part_has_not_too_many_rows(tmp_path: Path) -> None:
    """Where all values are alike, a row group of any number of rows says that it is small."""
    pq.write_table(pa.table({"a": ["x"] * 300_000}), tmp_path / "f.parquet", row_group_size=300_000)
    sizes = [part.stop - part.start for part in source.parts_of(tmp_path / "f.parquet", "s", "f")]
    assert sum(sizes) == 300_000 and max(sizes) <= 1 << 17


# Workbooks.


def workbook(path: Path, *sheets: list[list[Any]]) -> Path:
    """A workbook by hand: strings inline, numbers as numbers, None as no cell."""
    with zipfile.ZipFile(path, "w") as book:
        formats = "http://schemas.openxmlformats.org"
        office = f"{formats}/officeDocument/2006/relationships"
        package, main = f"{formats}/package/2006", f"{formats}/spreadsheetml/2006/main"
        numbers = range(1, len(sheets) + 1)
        listed = "".join(f'<sheet name="s{n}" sheetId="{n}" r:id="r{n}"/>' for n in numbers)
        related = [_relation(f"r{n}", f"{office}/worksheet", f"worksheets/s{n}.xml") for n in numbers]
        kinds = '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        kinds += '<Default Extension="xml" ContentType="application/xml"/>'
        files = {
            "[Content_Types].xml": f'<Types xmlns="{package}/content-types">{kinds}</Types>',
            "_rels/.rels": _relation("r1", f"{office}/officeDocument", "xl/workbook.xml"),
            "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>{listed}</sheets></workbook>',
            "xl/_rels/workbook.xml.rels": "".join(related),
        }
        for name, text in files.items():
            is_related = name.endswith(".rels")
            root = f'<Relationships xmlns="{package}/relationships">{text}</Relationships>' if is_related else text
            book.writestr(name, root)
        for n, rows in enumerate(sheets, 1):
            data = f'<worksheet xmlns="{main}"><sheetData>{_xml(rows)}</sheetData></worksheet>'
            book.writestr(f"xl/worksheets/s{n}.xml", data)
    return path


def _relation(name: str, kind: str, target: str) -> str:
    return f'<Relationship Id="{name}" Type="{kind}" Target="{target}"/>'


def _xml(rows: list[list[Any]]) -> str:
    def cell(value: Any, at: str) -> str:
        if isinstance(value, str):
            return f'<c r="{at}" t="inlineStr"><is><t xml:space="preserve">{escape(value)}</t></is></c>'
        return "" if value is None else f'<c r="{at}"><v>{value}</v></c>'

    return "".join(
        f'<row r="{y}">' + "".join(cell(value, f"{'ABCDEFG'[x]}{y}") for x, value in enumerate(row)) + "</row>"
        for y, row in enumerate(rows, 1)
    )


def test_a_workbook_is_read_sheet_by_sheet(tmp_path: Path) -> None:
    """Cells as text, whatever types the rows have; ordinals are the rows as Excel shows them; nothing is guessed."""
    pytest.importorskip("fastexcel")
    first = [
        ["prompt", "response", "n"],
        ["你好\n2", "a < b", 1],
        ["q", None, "one"],
        [None, None, None],
        ["q3", "a", 2.5],
    ]
    path = workbook(tmp_path / "f.xlsx", first, [], [["text"], ["t", "beyond"], ["u"]])
    found = rows_of(path)
    assert found.rows == [
        {"prompt": "你好\n2", "response": "a < b", "n": "1"},
        {"prompt": "q", "n": "one"},
        {"prompt": "q3", "response": "a", "n": "2.5"},
        {"text": "u"},
    ]
    assert found.ordinals == [2, 3, 5, 8]
    assert [(bad.ordinal, bad.code) for bad in found.bad] == [(7, "fields")]


def test_without_the_extra_a_workbook_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the extra."""
    monkeypatch.setitem(__import__("sys").modules, "fastexcel", None)
    with pytest.raises(QdataError, match=r"f\.xlsx: .* pip install 'qdata\[xlsx\]'"):
        rows_of(workbook(tmp_path / "f.xlsx", [["a"], ["b"]]))
