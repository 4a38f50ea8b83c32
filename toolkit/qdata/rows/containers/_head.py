"""What is seen of a file before it is known what it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

HEAD_BYTES = 1 << 16
BOM = b"\xef\xbb\xbf"
_JSON = re.compile(rb'\s*(?:\[\s*[\[{\]]|\{\s*["}])')


class Head(NamedTuple):
    """The first bytes of an uncompressed file, and the name it had before it was compressed."""

    suffix: str  # lower case, with the dot; without what says how it is compressed
    data: bytes  # without a byte order mark
    path: Path

    def looks_like_json(self) -> bool:
        """Whether the text begins as an array of objects or as an object does."""
        return _JSON.match(self.data) is not None

    def is_array(self) -> bool:
        """Whether the first thing that is not blank opens an array."""
        return self.data.lstrip().startswith(b"[")

    def first_line(self) -> bytes:
        """The first line that is not blank, however long it is."""
        start = self.data.lstrip()
        if b"\n" not in start:
            with self.path.open("rb") as file:
                file.seek(HEAD_BYTES)
                start += file.readline()
        return start.split(b"\n", 1)[0]
