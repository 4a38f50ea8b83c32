"""Plain text: one document a line, as the field reads it (`datasets`' text loader, LLaMA-Factory's wiki_demo.txt).

Where documents have several lines, `documents` says so: paragraphs.py, document.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from qdata.rows.containers._head import Head
from qdata.rows.containers._lines import line_parts, lines_of
from qdata.rows.parts import Part, Rows, not_utf8


class Text:
    """Rows are `{"text": line}`. Ordinals are line numbers; blank lines are skipped, everything else is kept."""

    suffixes: ClassVar = (".txt", ".text")
    unit: ClassVar = "line"
    is_table: ClassVar = False

    @staticmethod
    def likeness(head: Head) -> int:
        """By its name, unless it begins as JSON does."""
        return 3 if head.suffix in Text.suffixes and not head.looks_like_json() else 0

    @staticmethod
    def parts(part: Part, part_bytes: int) -> Iterator[Part]:
        """Byte ranges of whole lines."""
        return line_parts(part, part_bytes)

    @staticmethod
    def read(part: Part) -> Rows:
        """A line that is not UTF-8 is Bad. A carriage return before the newline belongs to the line's end."""
        out = Rows([], [], [])
        for ordinal, line in zip(*lines_of(part), strict=True):
            if (bad := not_utf8(line, ordinal)) is not None:
                out.bad.append(bad)
                continue
            out.ordinals.append(ordinal)
            out.rows.append({"text": line.removesuffix(b"\r").decode("utf-8")})
        return out
