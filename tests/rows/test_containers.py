"""Every container: what was written is read, the same however it is cut, and no bytes at all make it crash."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.rows.test_source import rows_of, write
from tests.test_schema import JSON, TEXT

from qdata import plugin
from qdata.errors import QdataError
from qdata.rows import compression, containers, exact, source
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
            take(exact.dumps(row) + b"\n")
    return folder / name


def compressed(data: bytes, suffix: str) -> bytes:
    """By other code than ours."""
    if suffix == ".zst":
        out = pa.BufferOutputStream()
        with pa.CompressedOutputStream(out, "zstd") as stream:
            stream.write(data)
        return out.getvalue().to_pybytes()
    return {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[suffix](data)


NESTED = st.dictionaries(TEXT, JSON, max_size=4)


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


LINES = st.sampled_from(["", " ", "\t", "a", "b c", " d ", "\u2028", "[", "\ufeff"])


def documents(path: Path, how: str, size: int) -> Rows:
    """All rows of a text file, cut into parts of about `size` bytes."""
    out = Rows([], [], [])
    for part in source.parts_of(path, "s", path.name, size, how):
        for mine, found in zip(out, source.read(part), strict=True):
            mine.extend(found)  # type: ignore[arg-type]
    return out


@settings(max_examples=100, deadline=None)
@given(st.lists(LINES, max_size=12), SIZES, st.booleans(), st.booleans())
@example(["a", "", "", "b", "c", " ", "d"], 1, False, False)
def test_paragraphs_are_documents(lines: list[str], size: int, crlf: bool, mark: bool) -> None:
    """Against the rule said plainly, however the file is cut; ordinals are the lines where documents begin."""
    text = "\ufeff" * mark + "first\n" + "\n".join(lines)
    wanted: dict[int, list[str]] = {}
    begins = None
    for number, line in enumerate(["first", *lines], 1):
        begins = (begins or number) if line.encode().strip() else None
        if begins:
            wanted.setdefault(begins, []).append(line)
    with tempfile.TemporaryDirectory() as folder:
        file = write(Path(folder), "f.txt", text.replace("\n", "\r\n") if crlf else text)
        found, whole = documents(file, "paragraphs", size), documents(file, "file", size)
    assert dict(zip(found.ordinals, (row["text"].split("\n") for row in found.rows), strict=True)) == wanted
    assert found.bad == []
    assert whole.rows == [{"text": "\n".join(["first", *lines]).removesuffix("\n")}]
    assert whole.ordinals == [1]


def test_documents_are_asked_for_of_text_only(tmp_path: Path) -> None:
    """Lines are the default; a compressed text is text, a table is none; a broken document is told with its line."""
    text = "a\nb\n\nc\n"
    for name in ("f.txt", "f.text", "f"):
        file = write(tmp_path, name, text)
        assert documents(file, "paragraphs", 9).rows == [{"text": "a\nb"}, {"text": "c"}]
    assert documents(write(tmp_path, "f.txt", text), "lines", 9) == rows_of(write(tmp_path, "f.txt", text), 9)
    assert documents(write(tmp_path, "g.txt", '{"a": 1}\n\n{"b": 2}\n'), "paragraphs", 9).ordinals == [1, 3]
    assert documents(write(tmp_path, "f.txt.gz", gzip.compress(text.encode())), "file", 9).rows == [{"text": text[:-1]}]
    assert documents(write(tmp_path, "f.txt", "\n \n"), "file", 9) == Rows([], [], [])
    for how in ("lines", "paragraphs", "file"):
        with pytest.raises(QdataError, match=rf"f\.jsonl: documents = {how} is for plain text only \(\.txt, \.text\)"):
            documents(write(tmp_path, "f.jsonl", '{"text": "a"}\n'), how, 9)
    found = documents(write(tmp_path, "f.txt", b"a\n\nb\n\xff\n\nc\n"), "paragraphs", 1)
    assert [(b.ordinal, b.reason) for b in found.bad] == [(3, "not UTF-8 (byte 0xff in line 4)")]
    assert found.ordinals == [1, 6]


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


def test_a_file_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In words, with the reason of the system; also where the cache has no room for a decompressed copy."""

    def refused(path: Path) -> Path:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(compression, "plain", refused)
    with pytest.raises(QdataError, match=r"f\.jsonl: cannot be read \(Permission denied"):
        rows_of(write(tmp_path, "f.jsonl", "{}"))


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


def test_every_ending_is_one_containers(tmp_path: Path) -> None:
    """No two of them claim a name."""
    assert len(ENDINGS) == len(set(ENDINGS))
    assert set(source.writable()) == {".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"}
    for name in ("f.xlsx", "f", "f.gz", "f.jsonl.zip"):
        with pytest.raises(QdataError, match=r"wanted a name ending in"), source.sink(tmp_path / name, name, {}):
            pass
