"""The folder is the registry: names are modules, a module holds one public class, nothing is imported unasked."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from qdata import plugin
from qdata.errors import QdataError
from qdata.rows import formats, steps

MODULES = {
    "__init__.py": "",
    "lower.py": "from collections import OrderedDict\nclass _Helper: ...\nclass Lower:\n    'ours'\n",
    "upper.py": "class Upper: ...\n",
    "twice.py": "class One: ...\nclass Two: ...\n",
    "nothing.py": "def f(): ...\n",
    "_shared.py": "class Shared: ...\n",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A folder of plugins, some good and some not, under a name of its own."""
    name = f"{tmp_path.name}_sounds"
    folder = tmp_path / name
    folder.mkdir()
    for file, text in MODULES.items():
        (folder / file).write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return importlib.import_module(name)


def test_names_are_the_modules(package: ModuleType) -> None:
    """Sorted, without the modules that begin with an underscore."""
    assert plugin.names(package) == ["lower", "nothing", "twice", "upper"]


def test_a_new_file_is_a_new_name(package: ModuleType) -> None:
    """Adding a thing is adding one file: no list anywhere has to know it."""
    (Path(package.__path__[0]) / "middle.py").write_text("class Middle: ...\n", encoding="utf-8")
    importlib.invalidate_caches()
    assert "middle" in plugin.names(package)
    assert plugin.find(package, "middle").__name__ == "Middle"


def test_the_one_public_class_is_found(package: ModuleType) -> None:
    """Imported classes and those with an underscore do not count."""
    assert plugin.find(package, "lower").__doc__ == "ours"


def test_only_the_module_asked_for_is_imported(package: ModuleType) -> None:
    """A folder of a hundred steps costs nothing at start."""
    plugin.names(package)
    plugin.find(package, "lower")
    assert f"{package.__name__}.lower" in sys.modules
    assert f"{package.__name__}.upper" not in sys.modules


@pytest.mark.parametrize("name", ["twice", "nothing"])
def test_a_module_without_exactly_one_class_is_our_mistake(package: ModuleType, name: str) -> None:
    """A TypeError, not a message for users, names the module."""
    with pytest.raises(TypeError, match=rf"{name} must hold exactly one public class"):
        plugin.find(package, name)


@pytest.mark.parametrize("name", ["_shared", "", "Lower", "lower.upper", "../lower"])
def test_what_is_not_a_name_is_refused(package: ModuleType, name: str) -> None:
    """Helpers, empty words, other spellings and paths are no plugins."""
    with pytest.raises(QdataError, match=r"is called"):
        plugin.find(package, name)


def test_a_near_miss_is_named() -> None:
    """The message says of which kind, and which one was probably meant; far from all, it lists what there is."""
    with pytest.raises(QdataError, match=r"^no format is called 'alpacca'\. Did you mean 'alpaca' or 'kto_alpaca'\?$"):
        plugin.find(formats, "alpacca")
    with pytest.raises(QdataError, match=r"^no step is called 'stripp'\. Did you mean 'strip'\?$"):
        plugin.find(steps, "stripp")
    with pytest.raises(QdataError, match=r"Known: alpaca, .*messages, .*sharegpt"):
        plugin.find(formats, "zzz")


@pytest.mark.parametrize("folder", [formats, steps], ids=["formats", "steps"])
def test_every_shipped_plugin_loads(folder: ModuleType) -> None:
    """Each file of formats/ and steps/ holds one public class with a docstring."""
    assert plugin.names(folder)
    for name in plugin.names(folder):
        assert plugin.find(folder, name).__doc__, name
