"""Plain text with `documents = file`: a file is one document."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

from qdata.rows.containers._head import BOM, Head
from qdata.rows.parts import Part, Rows, not_utf8


class Document:
    """One row `{"text": all of it}` with the ordinal 1; a file of blank lines only has none."""

    suffixes: ClassVar = ()  # nothing in a file tells it from one document a line: it is asked for
    unit: ClassVar = "line"
    is_table: ClassVar = False

    @staticmethod
    def likeness(head: Head) -> int:
        """Never by itself."""
        return 0

    @staticmethod
    def parts(part: Part, part_bytes: int) -> Iterator[Part]:
        """All of it, however large."""
        yield replace(part, sha256=hashlib.sha256(part.data()).hexdigest())

    @staticmethod
    def read(part: Part) -> Rows:
        """Bad where it is not UTF-8. A carriage return before a newline belongs to the line's end, as does the last."""
        text = part.data().removeprefix(BOM).replace(b"\r\n", b"\n").removesuffix(b"\n")
        if not text.strip():
            return Rows([], [], [])
        if (bad := not_utf8(text, part.first, part.first)) is not None:
            return Rows([], [], [bad])
        return Rows([part.first], [{"text": text.decode("utf-8")}], [])
