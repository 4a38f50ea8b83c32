"""Folders: which files hold rows, what is left out, and that nothing is lost of the real ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.rows.test_containers import Row
from tests.rows.test_source import rows_of, write

from qdata.errors import QdataError
from qdata.rows import source


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
    folder = saved_dataset(tmp_path / "data/hub", {"train": one, "more": [[{"prompt": "q3"}]]})
    write(folder.parent, "more.jsonl", '{"prompt": "q4"}')
    wanted = ["train/data-00000-of-00002.arrow", "train/data-00001-of-00002.arrow", "more/data-00000-of-00001.arrow"]
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
