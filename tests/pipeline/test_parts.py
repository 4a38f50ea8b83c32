"""Parts are found while others are worked on: how many processes there are, and how far each is, changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.pipeline.test_build import cold, small_parts, tree

from qdata import pipeline
from qdata.convert import convert
from qdata.errors import QdataError
from qdata.recipe import DataRecipe, Source
from qdata.rows import source
from qdata.rows.parts import Part

__all__ = ["cold"]  # a fixture
ROWS = [{"instruction": f"Say {n}", "input": "", "output": str(n) * (1 + n % 9)} for n in range(400)]


def files(folder: Path) -> list[Path]:
    """The rows in a container each."""
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    (folder / "lines.jsonl").write_text(lines, encoding="utf-8")
    (folder / "array.json").write_text(json.dumps(ROWS, indent=1), encoding="utf-8")
    pl.DataFrame(ROWS).write_parquet(folder / "table.parquet", row_group_size=150)
    return [folder / name for name in ("lines.jsonl", "array.json", "table.parquet")]


def test_any_number_of_workers_writes_the_bytes_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cold: Callable[[], Path]
) -> None:
    """The file, its manifest and its ledger, of every container."""
    small_parts(monkeypatch, 3000)
    inputs = [Source(path=str(file)) for file in files(tmp_path)]
    found = []
    for workers in (1, 2, 3):
        cold()
        folder = tmp_path / str(workers)
        folder.mkdir()
        made = convert(inputs, "messages", folder / "out.jsonl", workers=workers)
        assert [len(one["parts"]) > 3 for one in made.manifest["inputs"]] == [True] * 3
        found.append(tree(folder))
    assert len(found[0]["out.jsonl"].splitlines()) == 3 * len(ROWS)
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_array_that_is_broken_far_behind_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cold: Callable[[], Path], workers: int
) -> None:
    """When parts before were written already: with the line, and nothing is left but the input."""
    small_parts(monkeypatch, 100_000)
    text = ",\n".join(
        json.dumps(row | {"output": "a" * 4000}) for row in ROWS
    )  # more than is looked at for its dialect
    (tmp_path / "a.json").write_text(f"[{text}\n", encoding="utf-8")
    with pytest.raises(QdataError, match=rf"a\.json, line {len(ROWS) + 1}: not valid JSON: the array does not end"):
        convert([Source(path=str(tmp_path / "a.json"))], "messages", tmp_path / "out.jsonl", workers=workers)
    assert [one.name for one in tmp_path.iterdir() if one.name != "cache0"] == ["a.json"]


def test_parts_are_found_as_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless rows are drawn from all of them."""
    files(tmp_path)
    found = list[Part]()
    parts_of = source.parts_of

    def counted(*given: Any, **named: Any) -> Iterator[Part]:
        for part in parts_of(*given, **named | {"part_bytes": 3000}):
            found.append(part)
            yield part

    monkeypatch.setattr(source, "parts_of", counted)
    for count, wanted in ((None, 1), (5, 7)):
        recipe = DataRecipe(sources=(Source(path=str(tmp_path / "lines.jsonl"), max_samples=count),))
        _, works = pipeline.works_of(recipe, tmp_path, tmp_path / "cache", None)
        found.clear()  # the first was looked at, for its dialect
        first = next(works)
        assert (len(found) >= wanted, found[0]) == (True, first.part)
        assert count is not None or len(found) == 1
        assert len([first, *works]) == len(found) > 5


def test_how_many_parts_there_will_be_is_known_before_they_are_found(tmp_path: Path) -> None:
    """Nearly: a part ends with its last line or item. Never more; tables tell only when they are read."""
    lines, array, table = files(tmp_path)
    for size in (500, 3000, source.PART_BYTES):
        for file in (lines, array):
            found = len(list(source.parts_of(file, "s", "f", size)))
            assert found <= (source.parts_expected(file, part_bytes=size) or 0) <= 1.3 * found
    assert source.parts_expected(table) is None
