"""Every container: what was written is read, the same however it is cut, and no bytes at all make it crash."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import tempfile
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.rows.test_source import rows_of, write
from tests.test_schema import JSON, TEXT

from qdata import plugin
from qdata.errors import QdataError
from qdata.rows import compression, containers, json_scan, source
from qdata.rows.parts import Rows

Row = dict[str, Any]
NAMES = plugin.names(containers)
ENDINGS = [suffix for name in NAMES for suffix in plugin.find(containers, name).suffixes]
COMPRESSED = ["", ".gz", ".zst", ".bz2", ".xz"]
SIZES = st.integers(1, 400)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decompressed copies go to a cache of this test's own."""
    monkeypatch.setenv("QDATA_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))


def written(folder: Path, name: str, rows: list[Row], columns: dict[str, Any] | None = None) -> Path:
    """A file as `qdata convert` writes it."""
    with source.sink(folder / name, name, columns or {}) as take:
        for row in rows:
            take(row)
    return folder / name


def compressed(data: bytes, suffix: str) -> bytes:
    """By other code than ours."""
    if suffix == ".zst":
        out = pa.BufferOutputStream()
        with pa.CompressedOutputStream(out, "zstd") as stream:
            stream.write(data)
        return out.getvalue().to_pybytes()
    return {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[suffix](data)


# JSON: lines and arrays.

NESTED = st.dictionaries(TEXT, JSON, max_size=4)


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


# Tables.

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


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    """One of them would be lost."""
    with pa.ipc.new_file(tmp_path / "f.arrow", pa.schema([("a", pa.int8()), ("a", pa.int8())])) as writer:
        writer.write_table(pa.Table.from_arrays([pa.array([1], pa.int8())] * 2, names=["a", "a"]))
    with pytest.raises(QdataError, match="two columns are called 'a'"):
        rows_of(tmp_path / "f.arrow")


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


# Plain text, compression, and bytes that are nothing.


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXT.map(lambda t: t.replace("\n", " ")), max_size=6), SIZES, st.booleans())
@example(["a\u2028b\x85c", "", "  ", " d ", "[XUL] e", "{f"], 1, True)
def test_plain_text_is_a_document_a_line(lines: list[str], size: int, crlf: bool) -> None:
    """Only a newline ends one; blank lines are none; what stands in a line is kept to the last blank."""
    text = "first\n" + ("\r\n" if crlf else "\n").join(lines)
    with tempfile.TemporaryDirectory() as folder:
        found = rows_of(write(Path(folder), "f.txt", text), size)
    wanted = {n: line.removesuffix("\r") for n, line in enumerate(text.split("\n"), 1) if line.encode().strip()}
    assert dict(zip(found.ordinals, (row["text"] for row in found.rows), strict=True)) == wanted


@pytest.mark.parametrize("suffix", COMPRESSED[1:])
def test_compressed_files_are_what_they_hold(tmp_path: Path, suffix: str) -> None:
    """Several streams one after the other are one file; a cut or foreign one is refused, never read by half."""
    lines = [f'{{"a": {n}}}\n'.encode() for n in range(2000)]
    data = compressed(b"".join(lines[:1000]), suffix) + compressed(b"".join(lines[1000:]), suffix)
    found = rows_of(write(tmp_path, f"f.jsonl{suffix}", data), 300)
    assert found.rows == [{"a": n} for n in range(2000)]
    assert rows_of(write(tmp_path, "g.jsonl", data)) == found, "told by its bytes, not by its name"
    for broken in (data[:-3], data[:20]):
        with pytest.raises(QdataError, match="cannot be decompressed"):
            rows_of(write(tmp_path, f"h.jsonl{suffix}", broken))
    with pytest.raises(QdataError, match="not compressed as its name says"):
        rows_of(write(tmp_path, f"h.jsonl{suffix}", b'{"a": 1}\n'))
    assert not [p for p in Path(compression.cache_dir()).rglob("*") if "partial" in p.name]


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_the_same_rows_are_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    """No time and no name in what is written."""
    (tmp_path / "sub").mkdir()
    rows = [{"a": "x"}, {"b": 1}]
    for name in (f"f.jsonl{suffix}", f"f.csv{suffix}", f"f.parquet{suffix}"):
        first = written(tmp_path, name, rows).read_bytes()
        assert written(tmp_path / "sub", name, rows).read_bytes() == first


HEADS = [b"", b"PAR1", b"ARROW1\0\0", b"\xff\xff\xff\xff", b"PK\x03\x04", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd",
         b"BZh91AY&SY", b"\xfd7zXZ\x00", b"[", b'{"a":', b"\xef\xbb\xbf", b'a,b\n"', b"[[[[", b'{"a":1}\n']  # fmt: skip


@pytest.mark.parametrize("ending", ENDINGS)
@settings(max_examples=60, deadline=None)
@given(st.sampled_from(HEADS), st.binary(max_size=60) | st.text('[]{}",:\\\n a1', max_size=60).map(str.encode), SIZES)
def test_no_bytes_make_it_crash(ending: str, head: bytes, rest: bytes, size: int) -> None:
    """Rows, bad rows, or one message: never a traceback; and if it is read, the same in parts of any size."""
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), f"f{ending}", head + rest)
        whole = _told(path, source.PART_BYTES)
        cut = _told(path, size)
    assert (whole is None) == (cut is None)
    if whole is not None and cut is not None:
        assert (cut.ordinals, cut.rows, [b[0] for b in cut.bad]) == (
            whole.ordinals, whole.rows, [b[0] for b in whole.bad],
        )  # fmt: skip


def _told(path: Path, size: int) -> Rows | None:
    try:
        return rows_of(path, size)
    except QdataError as error:
        assert str(path) in str(error)
        return None


# Folders.


def saved_dataset(folder: Path, splits: dict[str, list[list[Row]]]) -> Path:
    """A folder as `datasets` saves it: a stream a shard."""
    folder.mkdir(parents=True)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}), encoding="utf-8")
    for split, shards in splits.items():
        (folder / split).mkdir()
        names = [f"data-{n:05}-of-{len(shards):05}.arrow" for n in range(len(shards))]
        for name, rows in zip(names, shards, strict=True):
            table = pa.Table.from_pylist(rows)
            with pa.ipc.new_stream(folder / split / name, table.schema) as writer:
                writer.write_table(table)
        (folder / split / "state.json").write_text(json.dumps({"_data_files": [{"filename": n} for n in names]}))
        (folder / split / "dataset_info.json").write_text("{}")
    return folder


def test_a_saved_dataset_is_its_splits(tmp_path: Path) -> None:
    """Alone or among other files: its Arrow streams in their order, and none of the JSON beside them."""
    one = [[{"prompt": "q1"}], [{"prompt": "q2"}]]
    folder = saved_dataset(tmp_path / "data/hub", {"train": one, "test": [[{"prompt": "q3"}]]})
    write(folder.parent, "more.jsonl", '{"prompt": "q4"}')
    wanted = ["train/data-00000-of-00002.arrow", "train/data-00001-of-00002.arrow", "test/data-00000-of-00001.arrow"]
    assert [p.relative_to(folder).as_posix() for p in source.files_of(folder)] == wanted
    assert [p.relative_to(folder).as_posix() for p in source.files_of(folder / "train")] == wanted[:2]
    assert [rows_of(p).rows[0]["prompt"] for p in source.files_of(folder.parent)] == ["q1", "q2", "q3", "q4"]
    (folder / wanted[1]).unlink()
    with pytest.raises(QdataError, match=r"data-00001-of-00002\.arrow: no such file, and .*state\.json names it"):
        source.files_of(folder)
    (folder / "train/state.json").write_text('{"_data_files": [], "_indices_data_files": [{"filename": "x"}]}')
    with pytest.raises(QdataError, match="saved with an index over its rows"):
        source.files_of(folder)


def test_a_dataset_that_the_library_saved_is_read(tmp_path: Path) -> None:
    """Not only one that looks like it."""
    datasets = pytest.importorskip("datasets")
    rows = [{"prompt": f"q{n}", "m": [{"role": "user", "content": "x"}]} for n in range(5)]
    made = datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)})
    made.save_to_disk(tmp_path / "d", num_shards={"train": 2})
    found = [row for path in source.files_of(tmp_path / "d") for row in rows_of(path, 1).rows]
    assert found == rows


def test_what_is_left_out_of_a_folder_is_told(tmp_path: Path) -> None:
    """Shards that we made, what is about the data, a licence; hidden files and sidecars without a word."""
    for name in ("a.jsonl", "LICENSE.txt", "dataset_info.json", ".b.jsonl", "a.jsonl.qdata/x.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path, name, "{}")
    shards = saved_dataset(tmp_path / "shards", {"train": [[{"input_ids": [1]}]]})
    (shards / "manifest.json").write_text('{"command": "render"}')
    assert [p.name for p in source.files_of(tmp_path)] == ["a.jsonl"]
    assert {p.name: why.split(",")[0].split(";")[0] for p, why in source.left_out(tmp_path)} == {
        "shards": "shards that qdata render made",
        "LICENSE.txt": "plain text beside other files",
        "dataset_info.json": "about the data set",
    }
    with pytest.raises(QdataError, match="shards that qdata render made: tokens, no rows"):
        source.files_of(shards)
    assert [p.name for p in source.files_of(tmp_path / "*.jsonl")] == ["a.jsonl"]
    assert [p.name for p in source.files_of(tmp_path / ".*.jsonl")] == [".b.jsonl"], "what is named is taken"


# The real files.


def real(real_data: Path) -> Iterator[Path]:
    yield from sorted(p for p in real_data.rglob("*") if p.suffix in (".jsonl", ".json", ".parquet", ".txt", ".csv"))


def test_the_real_files_lose_nothing(real_data: Path) -> None:
    """Each is read without a bad row (but for those known), as many rows as an independent count finds."""
    for path in real(real_data):
        if path.stat().st_size > 3e6:
            continue
        found = rows_of(path)
        assert not found.bad, (path, found.bad[:2])
        text = path.read_bytes()
        if found.ordinals and path.suffix == ".txt":
            assert len(found.rows) == sum(bool(line.strip()) for line in text.split(b"\n")), path
        elif path.suffix == ".parquet":
            assert len(found.rows) == pq.read_metadata(path).num_rows
        elif path.suffix == ".jsonl" and not text.lstrip().startswith(b"["):
            assert found.rows == [json.loads(line) for line in text.split(b"\n") if line.strip()], path
        else:
            loaded = json.loads(text)
            assert found.rows == (loaded if isinstance(loaded, list) else [loaded]), path
        assert rows_of(path, 1 << 16) == found, path


def test_the_traps_of_the_real_files(real_data: Path) -> None:
    """What the readme of the data warns of."""
    array = real_data / "ruozhiba/EmoLLM"
    found = [rows_of(path) for path in sorted(array.rglob("*.jsonl")) if path.read_bytes().lstrip().startswith(b"[")]
    assert found and all(rows.rows and not rows.bad for rows in found), "a .jsonl that is an array"
    mmlu = rows_of(next(real_data.rglob("mmlu_test.jsonl")))
    odd = [row for row in mmlu.rows if any(c in json.dumps(row, ensure_ascii=False) for c in "\u2028\u2029\x85")]
    assert len(mmlu.rows) == 14_042 and len(odd) == 2, "only a newline ends a line"
    alpaca = real_data / "alpaca/alpaca_data.json"
    cut = rows_of(alpaca, 1 << 20)
    assert len(cut.rows) == 52_002 and cut.rows == json.loads(alpaca.read_bytes())
    assert len(list(source.parts_of(alpaca, "s", "f", 1 << 20))) > 15


def test_every_ending_is_one_containers(tmp_path: Path) -> None:
    """No two of them claim a name."""
    assert len(ENDINGS) == len(set(ENDINGS))
    assert set(source.writable()) == {".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"}
    for name in ("f.xlsx", "f", "f.gz", "f.jsonl.zip"):
        with pytest.raises(QdataError, match=r"wanted a name ending in"), source.sink(tmp_path / name, name, {}):
            pass
