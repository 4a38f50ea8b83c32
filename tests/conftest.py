"""What all tests share: where the real data lies, a cache of their own, and golden files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("no clock", deadline=None)  # how long an example takes says how busy the machine is
settings.load_profile("no clock")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--accept` writes golden files instead of comparing with them."""
    parser.addoption("--accept", action="store_true", help="write golden files anew")


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads or fills the user's cache, and none reaches for a hub that is not its own."""
    os.environ["QDATA_CACHE_DIR"] = str(tmp_path_factory.getbasetemp() / "cache")
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HOME"] = str(tmp_path_factory.getbasetemp() / "hf")


def _folder(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set: the real files are not here")
    return Path(value)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets."""
    return _folder("QDATA_REAL_DATA")


@pytest.fixture(scope="session")
def real_tokenizers() -> Path:
    """The folder of the published Qwen tokenizers and templates."""
    return _folder("QDATA_TOKENIZERS")


@pytest.fixture(scope="session")
def qwen2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2 tokenizer folder, built from the embedded vocabulary."""
    from qdata.tokens import vocabulary

    return vocabulary.build("qwen2", tmp_path_factory.getbasetemp().parent / "qwen2-vocabulary")
