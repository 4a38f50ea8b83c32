"""Parts of files in which a line is a row. Only a newline ends a line: not U+2028, not a lone carriage return."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

from qdata.rows.containers._head import BOM
from qdata.rows.parts import Part


def line_parts(part: Part, part_bytes: int) -> Iterator[Part]:
    """Blocks of at most `part_bytes`, alike in size, each and the end of its last line. Ordinals are line numbers."""
    size = part.stop // -(-part.stop // part_bytes) + 1
    with part.bytes_at.open("rb") as file:
        start, ordinal = 0, 1
        while block := file.read(size):
            if not block.endswith(b"\n"):
                block += file.readline()
            stop = start + len(block)
            sha256 = hashlib.sha256(block).hexdigest()
            yield replace(part, start=start, stop=stop, first=ordinal, sha256=sha256)
            start, ordinal = stop, ordinal + block.count(b"\n")


def lines_of(part: Part) -> tuple[list[int], list[bytes]]:
    """The ordinals and bytes of all lines of a part that are not blank."""
    data = part.data()
    lines = (data.removeprefix(BOM) if part.start == 0 else data).split(b"\n")
    if all(lines[:-1]) and not lines[-1]:
        lines.pop()
    if all(lines) and not any(map(bytes.isspace, lines)):
        return list(range(part.first, part.first + len(lines))), lines
    numbers = [n for n, line in enumerate(lines, part.first) if line and not line.isspace()]
    return numbers, [line for line in lines if line and not line.isspace()]
