"""Plain text with `documents = paragraphs`: a blank line stands between two documents, as in wiki dumps and novels."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

from qdata.rows.containers._head import Head
from qdata.rows.containers._lines import lines_of
from qdata.rows.parts import Part, Rows, not_utf8


class Paragraphs:
    """Rows are `{"text": document}`, its lines joined by a newline. Ordinals are the numbers of their first lines."""

    suffixes: ClassVar = ()  # nothing in a file tells it from one document a line: it is asked for
    unit: ClassVar = "line"
    is_table: ClassVar = False

    @staticmethod
    def likeness(head: Head) -> int:
        """Never by itself."""
        return 0

    @staticmethod
    def parts(part: Part, part_bytes: int) -> Iterator[Part]:
        """Byte ranges that end with a blank line, so that no document is cut."""
        with part.bytes_at.open("rb") as file:
            start, ordinal = 0, 1
            while block := file.read(part_bytes):
                lines = [] if block.endswith(b"\n") else [file.readline()]
                while line := file.readline():
                    lines.append(line)
                    if line.isspace():
                        break
                block += b"".join(lines)
                stop = start + len(block)
                yield replace(part, start=start, stop=stop, first=ordinal, sha256=hashlib.sha256(block).hexdigest())
                start, ordinal = stop, ordinal + block.count(b"\n")

    @staticmethod
    def read(part: Part) -> Rows:
        """A document that is not UTF-8 is Bad. A carriage return before a newline belongs to the line's end."""
        out = Rows([], [], [])
        numbered = enumerate(zip(*lines_of(part), strict=True))  # blank lines are left out: where one was, numbers jump
        for _, group in itertools.groupby(numbered, lambda one: one[1][0] - one[0]):
            told = [line for _, line in group]
            ordinal, document = told[0][0], b"\n".join(line.removesuffix(b"\r") for _, line in told)
            if (bad := not_utf8(document, ordinal, ordinal)) is not None:
                out.bad.append(bad)
                continue
            out.ordinals.append(ordinal)
            out.rows.append({"text": document.decode("utf-8")})
        return out
