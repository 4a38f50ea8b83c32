"""`max_samples`: exactly N rows, the same whoever works on them and wherever parts are cut, and the ledger closes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from qdata import pipeline
from qdata.cli import main
from qdata.convert import convert
from qdata.errors import QdataError
from qdata.recipe import DataRecipe, Source
from qdata.rows import draw, source


def write(path: Path, rows: int, blank_every: int = 0) -> Path:
    lines = [json.dumps({"prompt": f"问题{i}", "response": f"回答{i}"}, ensure_ascii=False) for i in range(rows)]
    if blank_every:
        lines = [line + ("\n" if i % blank_every == 0 else "") for i, line in enumerate(lines)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def drawn(folder: Path, part_bytes: int, count: int, seed: int = 0) -> list[int]:
    """The ordinals of the drawn rows of a folder's one file, its parts cut at `part_bytes`."""
    (file,) = source.files_of(folder)
    parts = list(source.parts_of(file, "s", file.name, part_bytes))
    one = draw.of_parts(parts, count, seed)
    kept: list[int] = []
    for part in parts:
        ordinals = source.read(part).ordinals
        frame = pl.DataFrame({"row": [f"s/{file.name}#{o}" for o in ordinals], "drop": None}, {"row": str, "drop": str})
        kept += [o for o, why in zip(ordinals, one(frame, part)["drop"], strict=True) if why is None]
    return kept


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(1, 70), st.integers(0, 5), st.sampled_from([1, 40, 100, 1 << 20]))
def test_exactly_n_rows_wherever_parts_are_cut(
    tmp_path_factory: pytest.TempPathFactory, rows: int, count: int, seed: int, cut: int
) -> None:
    """N of the rows, or all; blank lines are none; parts change nothing."""
    folder = write(tmp_path_factory.mktemp("d") / "a.jsonl", rows, blank_every=3).parent
    found = drawn(folder, cut, count, seed)
    assert len(found) == min(rows, count)
    assert found == drawn(folder, 1 << 20, count, seed)


def test_a_larger_draw_holds_the_smaller_and_a_seed_changes_it(tmp_path: Path) -> None:
    """So that an experiment grows; and it is never the first N."""
    folder = write(tmp_path / "a.jsonl", 1000).parent
    ten, hundred = set(drawn(folder, 999, 10)), set(drawn(folder, 999, 100))
    assert ten < hundred
    assert hundred != set(drawn(folder, 999, 100, seed=1))
    assert hundred != set(range(1, 101))


def test_every_row_is_as_likely(tmp_path: Path) -> None:
    """The numbers are even over their range and no two of a file are alike; files of other names get others."""
    ordinals = np.arange(1, 100_001, dtype=np.uint64)
    numbers = draw.numbers(0, "a.jsonl", ordinals)
    assert len(np.unique(numbers)) == len(ordinals)
    counts = np.histogram((numbers >> np.uint64(32)).astype(np.int64), bins=100, range=(0, 1 << 32))[0]
    assert counts.min() > 800 and counts.max() < 1200
    first = (numbers[:50_000] < np.uint64(1 << 63)).mean()
    assert 0.49 < first < 0.51
    assert not (numbers == draw.numbers(0, "b.jsonl", ordinals)).any()


def test_convert_draws_of_each_source_and_tells_the_rest(tmp_path: Path) -> None:
    """N of each source over all of its files; in = kept + dropped; the same rows with any number of workers."""
    write(tmp_path / "a" / "x.jsonl", 30)
    write(tmp_path / "a" / "y.jsonl", 50)
    write(tmp_path / "b" / "z.jsonl", 4)
    sources = [Source(path=str(tmp_path / "a"), max_samples=11), Source(path=str(tmp_path / "b"), max_samples=11)]
    books = []
    for workers in (1, 2):
        out = tmp_path / f"{workers}.jsonl"
        done = convert(sources, "alpaca", out, workers=workers, seed=5)
        assert done.manifest["rows"] == {"in": 84, "kept": 15, "edited": 0, "dropped": {"max_samples.not_drawn": 69}}
        assert [i["max_samples"] for i in done.manifest["inputs"]] == [11, 11, 11]
        books.append(pl.read_parquet(tmp_path / f"{out.name}.qdata" / "ledger.parquet").drop("shard"))
    assert books[0].equals(books[1])
    kept = books[0].filter(pl.col("action") == "kept")["row"].to_list()
    assert {row.split("#")[0] for row in kept} == {"a/x.jsonl", "a/y.jsonl", "b/z.jsonl"}


def test_a_recipe_draws_before_its_steps(tmp_path: Path) -> None:
    """A drawn row that a step drops is not replaced: it stands in the ledger with its reason."""
    rows = [{"prompt": f"q{i}", "response": "" if i % 2 else "a"} for i in range(40)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe = DataRecipe(sources=(Source(path="a.jsonl", max_samples=20),))
    _, works = pipeline.works_of(recipe, tmp_path, tmp_path / "cache", None)
    (done,) = map(pipeline.process, works)
    counts: dict[Any, int] = dict(done.conversations()["drop"].value_counts().iter_rows())
    assert counts["max_samples.not_drawn"] == 20
    assert counts[None] + counts["complete.empty_answer"] == 20
    filled = DataRecipe(sources=recipe.sources, placeholders={"name": "N"})
    (tmp_path / "a.jsonl").write_text('{"prompt": "{{name}}", "response": "a"}\n' * 40, encoding="utf-8")
    (named,) = map(pipeline.process, pipeline.works_of(filled, tmp_path, tmp_path / "cache", None)[1])
    assert named.edits().height == 20, "steps do not touch what is not drawn"
    (other,) = pipeline.works_of(DataRecipe(sources=recipe.sources, seed=1), tmp_path, tmp_path / "cache", None)[1]
    assert other.key != done.work.key, "another draw is another result"


def test_rows_that_were_converted_are_drawn_from_anew(tmp_path: Path) -> None:
    """Rows that got back their first ids are drawn by their place in the file that is read."""
    write(tmp_path / "a.jsonl", 30)
    convert([Source(path=str(tmp_path / "a.jsonl"))], "alpaca", tmp_path / "o.jsonl")
    again = convert([Source(path=str(tmp_path / "o.jsonl"), max_samples=7)], "pairs", tmp_path / "p.jsonl")
    assert again.manifest["rows"]["kept"] == 7


def test_the_command_line_draws(tmp_path: Path) -> None:
    """`--max-samples N --seed S`; nothing below 1 is taken."""
    file = write(tmp_path / "a.jsonl", 30)
    words = ["convert", str(file), "--to", "alpaca", "-o", str(tmp_path / "o.jsonl"), "--overwrite", "--json"]
    done = CliRunner().invoke(main, [*words, "--max-samples", "7", "--seed", "3"], catch_exceptions=False)
    assert json.loads(done.stdout)["rows"]["kept"] == 7
    assert CliRunner().invoke(main, [*words, "--max-samples", "0"]).exit_code == 2
    with pytest.raises(QdataError, match="max_samples: wanted a whole number above 0, got -1"):
        convert([Source(path=str(file), max_samples=-1)], "alpaca", tmp_path / "n.jsonl")
