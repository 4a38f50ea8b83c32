"""The door to the libraries of the `clean` extra: a base install has none of them, and no step loads one unasked."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from qdata.errors import QdataError


def require(name: str) -> None:
    """Raises QdataError where a library is not installed: when the step is made, before any work."""
    if importlib.util.find_spec(name) is None:
        raise QdataError(f"needs the library {name}, which is not installed: pip install 'qdata[clean]'")


def library(name: str) -> Any:
    """The library, loaded."""
    require(name)
    return importlib.import_module(name)
