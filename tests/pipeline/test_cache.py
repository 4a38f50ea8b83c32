"""What is kept between builds is believed only with the bytes that were written, and can be thrown away."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from qdata import cache, pipeline
from qdata.cli import main
from qdata.recipe import DataRecipe, Source


@pytest.fixture
def build(tmp_path: Path, qwen2: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, str]]:
    """Builds the shards of a file in a folder of this name; gives the SHA-256 of each of its files."""
    monkeypatch.setenv("QDATA_CACHE_DIR", str(tmp_path / "cache"))
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"instruction": f"say {n}", "output": f"{n}!"}) + "\n" for n in range(50)))

    def built(name: str) -> dict[str, str]:
        recipe = DataRecipe(sources=(Source(path=str(rows)),), template="qwen2", tokenizer=str(qwen2))
        made: dict[str, str] = pipeline.build(recipe, tmp_path / name)["files"]
        return made

    return built


def _part(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / "cache/parts").glob("*/*")
    return folder


@pytest.mark.parametrize("file", ["tokens.arrow", "conversations.parquet", "edits.parquet", "facts"])
@pytest.mark.parametrize("harm", ["flipped", "cut", "gone"])
def test_a_corrupted_part_is_made_again(build: Callable[[str], Any], tmp_path: Path, file: str, harm: str) -> None:
    before = build("before")
    held = _part(tmp_path) / file
    whole = held.read_bytes()
    middle = len(whole) // 2
    if harm == "gone":
        held.unlink()
    else:
        held.write_bytes(
            whole[:middle] + (bytes([whole[middle] ^ 1]) + whole[middle + 1 :] if harm == "flipped" else b"")
        )
    assert build("after") == before
    assert held.read_bytes() == whole


def test_a_finished_part_is_not_made_again(
    build: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = build("before")
    long_ago = time.time() - 1000
    os.utime(_part(tmp_path) / "facts", (long_ago, long_ago))
    monkeypatch.setattr("qdata.part.conversations", lambda work: pytest.fail("read again"))
    assert build("after") == before
    (one,) = (entry for entry in cache.entries() if entry.kind == cache.PARTS)
    assert one.used > long_ago + 900


def test_what_is_held_is_told_and_thrown_away(build: Callable[[str], Any], tmp_path: Path) -> None:
    before = build("before")
    told = json.loads(CliRunner().invoke(main, ["cache", "--json"]).stdout)
    assert told["kinds"]["parts"]["entries"] == 1
    assert told["kinds"]["parts"]["bytes"] == sum(f.stat().st_size for f in _part(tmp_path).iterdir())
    shown = CliRunner().invoke(main, ["cache"])
    assert shown.exit_code == 0 and str(tmp_path / "cache")[-20:] in shown.output.replace("\n", "")
    assert "0 entries" in CliRunner().invoke(main, ["cache", "prune", "--older-than", "1d"]).output
    assert CliRunner().invoke(main, ["cache", "prune", "--all"]).exit_code == 0
    assert not list(cache.entries())
    assert build("after") == before


def test_what_was_longest_not_used_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QDATA_CACHE_DIR", str(tmp_path))
    for age, name in enumerate(["new", "middle", "old"]):
        folder = tmp_path / "parts" / name[:2] / name
        folder.mkdir(parents=True)
        (folder / "facts").write_bytes(b"x" * 100)
        os.utime(folder / "facts", (time.time() - 3600 * age,) * 2)
    assert [one.path.name for one in cache.prune(max_bytes=250)] == ["old"]
    assert [one.path.name for one in cache.prune(older_than=1800)] == ["middle"]
    assert [one.path.name for one in cache.entries()] == ["new"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "say what may go"),
        (["--all", "--max-size", "1GB"], "say what may go"),
        (["--max-size", "20"], "such as 20GB"),
        (["--older-than", "last week"], "such as 12h or 30d"),
    ],
)
def test_nothing_goes_by_accident(words: list[str], told: str) -> None:
    done = CliRunner().invoke(main, ["cache", "prune", *words])
    assert done.exit_code == 2 and told in done.output
