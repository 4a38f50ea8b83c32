"""The folder is the registry: a format, a step or a global step is one module with one public class.

The module's name is the name users type (`steps/min_turns.py` is the step `min_turns`); no decorator, no table
to keep in step. A module is imported only when its name is asked for, so a folder of a hundred steps costs
nothing at start.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import Any

from qdata.errors import QdataError, did_you_mean


def names(package: ModuleType) -> list[str]:
    """The names of all plugins in `package`, sorted; modules beginning with `_` are helpers, not plugins."""
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))


@functools.cache
def find(package: ModuleType, name: str) -> type[Any]:
    """The one public class of module `name` in `package`.

    Raises QdataError when there is no such module, TypeError when the module has not exactly one public class.
    """
    if name not in names(package):
        kind = package.__name__.rsplit(".", 1)[-1].replace("_", " ").removesuffix("s")
        raise QdataError(f"no {kind} is called {name!r}.{did_you_mean(name, names(package))}")
    module = importlib.import_module(f"{package.__name__}.{name}")
    public = [
        cls
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if cls.__module__ == module.__name__ and not cls.__name__.startswith("_")
    ]
    if len(public) != 1:
        raise TypeError(f"{module.__name__} must hold exactly one public class, found {len(public)}")
    return public[0]
