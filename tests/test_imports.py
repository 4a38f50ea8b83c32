"""Who may import whom (house.md), read from the source of every module, and what `--help` may not load."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "toolkit"
MODULES = sorted((ROOT / "qdata").rglob("*.py"))
HEAVY = {"torch", "trl", "peft", "datasets", "accelerate"}
FLOORS = {"cli", "pipeline", "part", "assemble", "convert", "manifest", "report", "workspace", "engine",
          "decide", "gather", "stepping", "output", "reporting"}  # fmt: skip


GROUND = ("polars", "numpy", "pyarrow", "qdata.schema", "qdata.errors")  # what plugins stand on


def name_of(file: Path) -> str:
    """`toolkit/qdata/rows/source.py` → `qdata.rows.source`."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(source: str, module: str, is_package: bool = False) -> Iterator[str]:
    """Every module a source imports, anywhere in it. `from a import b` may mean the module `a.b`: both are told."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: len(module.split(".")) - node.level + is_package] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def imports_of(file: Path) -> set[str]:
    return set(imports(file.read_text(encoding="utf-8"), name_of(file), file.name == "__init__.py"))


def below(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def ours(file: Path) -> set[str]:
    return {name for name in imports_of(file) if below(name, "qdata", "qtrain")}


def files(folder: str) -> list[Path]:
    found = [file for file in MODULES if below(name_of(file), folder)]
    assert found, folder
    return found


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("import torch.nn as nn", "torch.nn"),
        ("from qdata.tokens import shards", "qdata.tokens.shards"),
        ("from qdata.tokens.shards import write", "qdata.tokens.shards"),
        ("def f():\n    from torch import nn", "torch"),
        ("if TYPE_CHECKING:\n    from qdata import tokens", "qdata.tokens"),
        ("from . import columns", "qdata.rows.columns"),
        ("from .columns import x", "qdata.rows.columns"),
        ("from ..tokens import shards", "qdata.tokens.shards"),
    ],
)
def test_every_way_to_import_is_seen(source: str, wanted: str) -> None:
    """The reader below finds imports in functions, under TYPE_CHECKING and relative ones."""
    assert wanted in set(imports(source, "qdata.rows.load"))
    assert "qdata.rows.load.x" in set(imports("from .load import x", "qdata.rows", is_package=True))


def test_the_wings_never_import_each_other() -> None:
    """A row crosses from rows/ to tokens/ as a frame in pipeline, never by an import."""
    assert not {(f.name, n) for f in files("qdata.rows") for n in ours(f) if below(n, "qdata.tokens")}
    assert not {(f.name, n) for f in files("qdata.tokens") for n in ours(f) if below(n, "qdata.rows")}


@pytest.mark.parametrize("wing", ["rows", "tokens"])
def test_the_wings_never_look_up(wing: str) -> None:
    """cli → pipeline → the two wings → schema → errors: nothing in a wing imports what is above it."""
    above = tuple(f"qdata.{floor}" for floor in FLOORS)
    assert all(Path(ROOT / "qdata" / floor).is_dir() or (ROOT / "qdata" / f"{floor}.py").is_file() for floor in FLOORS)
    assert not {(f.name, n) for f in files(f"qdata.{wing}") for n in ours(f) if below(n, *above)}


@pytest.mark.parametrize("folder", ["qdata.rows.formats", "qdata.rows.steps", "qdata.rows.global_steps"])
def test_plugins_see_polars_and_the_schema_only(folder: str) -> None:
    """A format or a step imports what it computes with, the standard library, the ground floor and `_helpers`.

    A layout of pairs or judged answers may be built on the dialect of chats that its prompt is written in.
    """
    for file in files(folder):
        helpers = tuple(f"{folder}.{f.stem}" for f in file.parent.glob("_*.py") if f.stem != "__init__")
        if "    kind = " in file.read_text(encoding="utf-8"):
            helpers += tuple(f"{folder}.{f.stem}" for f in file.parent.glob("[!_]*.py"))
        for name in imports_of(file):
            known = below(name, *GROUND, *helpers) or name.split(".")[0] in sys.stdlib_module_names
            assert known, f"{name_of(file)} imports {name}"


def test_schema_and_errors_are_the_ground_floor() -> None:
    """errors imports nothing of ours; schema, recipe, plugin and paths nothing but errors."""
    assert not ours(ROOT / "qdata" / "errors.py")
    for ground in ("schema", "recipe", "plugin", "paths"):
        seen = ours(ROOT / "qdata" / f"{ground}.py")
        assert all(below(name, "qdata.errors") for name in seen), (ground, seen)


def test_each_heavy_library_stands_behind_its_one_door() -> None:
    """torch, trl, peft and datasets nowhere; transformers only in tokens/serving.py; ray only in engine/ray.py."""
    doors = {"transformers": {"qdata.tokens.serving"}, "ray": {"qdata.engine.ray"}}
    for file in MODULES:
        tops = {name.split(".")[0] for name in imports_of(file)}
        assert not tops & HEAVY, f"{name_of(file)} imports {tops & HEAVY}"
        for library, door in doors.items():
            assert library not in tops or name_of(file) in door, f"{name_of(file)} imports {library}"
    assert "transformers" in imports_of(ROOT / "qdata" / "tokens" / "serving.py"), "the door itself is seen"


def test_qdata_never_imports_qtrain() -> None:
    """The trainer stands on the toolkit, not the other way round."""
    assert not {(f.name, n) for f in MODULES for n in ours(f) if below(n, "qtrain")}


def test_the_proof_is_independent() -> None:
    """verify and the proofs import neither render nor tokenize, so that they cannot share their mistakes."""
    made_by = [
        f"qdata.tokens.{name}" for name in ("render", "tokenize", "kind", "kinds", "answers", "layout", "samples")
    ]
    proofs = [file for file in files("qdata.tokens") if file.stem.startswith(("verify", "proof", "serving"))]
    assert len(proofs) == 7
    assert not {(file.name, name) for file in proofs for name in imports_of(file) if below(name, *made_by)}


@pytest.mark.parametrize("command", [[], ["convert"], ["dedup"], ["render"], ["fetch"], ["report"]], ids=" ".join)
def test_help_answers_at_once(command: list[str]) -> None:
    """`qdata [COMMAND] --help` loads none of torch, transformers, ray, datasets, polars."""
    words = [sys.executable, "-X", "importtime", "-m", "qdata.cli", *command, "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    loaded = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "Usage: " in done.stdout
    assert {"click", "qdata"} <= loaded, "the list of loaded modules was not understood"
    assert not loaded & {"torch", "transformers", "ray", "datasets", "polars", "pyarrow", "huggingface_hub", "jinja2"}
