"""Rows that come through a pipe: they are read more than once, so they are kept in the cache, under their hash."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import BinaryIO

from qdata.errors import QdataError
from qdata.paths import STDIN, spool_dir

NAME = STDIN  # the source of such rows, and the file's name
_BLOCK = 1 << 20


def spooled(stream: BinaryIO) -> Path:
    """The file that holds what `stream` gave; the same bytes are the same file, so that row ids and outputs are too.

    Raises QdataError where a keyboard is at the other end.
    """
    if stream.isatty():
        raise QdataError("-: nothing is piped into it; wanted as in: cat rows.jsonl | qdata convert - --to alpaca")
    folder = spool_dir()
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        while block := stream.read(_BLOCK):
            digest.update(block)
            file.write(block)
    kept = folder / digest.hexdigest() / NAME
    kept.parent.mkdir(exist_ok=True)
    return Path(file.name).replace(kept)
