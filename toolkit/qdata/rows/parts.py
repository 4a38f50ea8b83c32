"""A part of an input file and its rows: what containers give, and all others take."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from qdata.paths import shown

PART_BYTES = 16 << 20
Write = Callable[[bytes], object]  # takes rows on their way to a file: their JSON texts, a line each


@dataclass(frozen=True)
class Part:
    """A piece of one input file that is read, processed, cached and scheduled as a whole."""

    source: str
    relative: str  # path below the source's root, as it stands in row ids
    path: Path  # as the user knows it
    container: str  # a module of containers/
    start: int  # first byte, uncompressed; of tables the first row, of workbooks the sheet
    stop: int
    first: int  # ordinal of the first row
    sha256: str  # of the part's bytes; of tables and workbooks: of the file's
    plain: Path | None = None  # where the uncompressed bytes of a compressed file lie

    @property
    def label(self) -> str:
        """How messages name the file."""
        return shown(self.path)

    @property
    def bytes_at(self) -> Path:
        """The file whose bytes `start` and `stop` count."""
        return self.plain or self.path

    def data(self) -> bytes:
        """The part's bytes."""
        with self.bytes_at.open("rb") as file:
            file.seek(self.start)
            return file.read(self.stop - self.start)

    def lines_before(self) -> int:
        """How many line ends stand before the part: for messages that name a line."""
        count, left = 0, self.start
        with self.bytes_at.open("rb") as file:
            while left and (block := file.read(min(left, 1 << 20))):
                count, left = count + block.count(b"\n"), left - len(block)
        return count


class Bad(NamedTuple):
    """A row that could not be read: its ordinal, what is wrong in words, the raw text, and the kind of mistake.

    The ledger counts rows by `code`; the words name the place and would be another reason for every row.
    """

    ordinal: int
    reason: str
    raw: str
    code: str = "misfit"


class Rows(NamedTuple):
    """The rows of one part as plain dicts beside their ordinals, and the rows that could not be read."""

    ordinals: list[int]
    rows: list[dict[str, Any]]
    bad: list[Bad]


def short(value: Any) -> str:
    """A value as JSON for a message, cut to 60 characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"


def raw_text(data: bytes) -> str:
    """Bytes of a broken row as text for people: what is not UTF-8 is shown escaped."""
    return data.decode("utf-8", errors="backslashreplace")


def not_utf8(data: bytes, ordinal: int, first_line: int | None = None) -> Bad | None:
    """The row as `Bad` where its bytes are not UTF-8; `first_line`: where it begins, if it is no line of its own."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        at = error.start
        place = f"at byte {at + 1} of the line" if first_line is None else f"in line {first_line + data[:at].count(10)}"
        where = f"byte 0x{data[at]:02x} {place}"
        return Bad(ordinal, f"not UTF-8 ({where})", raw_text(data), "not_utf8")
    return None
