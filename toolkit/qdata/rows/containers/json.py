"""One JSON array of objects, or a single object in a file of its own."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, BinaryIO, ClassVar

import numpy as np
import orjson

from qdata.errors import QdataError
from qdata.rows import exact, json_scan
from qdata.rows.containers._head import BOM, Head
from qdata.rows.containers._objects import Place, bad_json, has_all_keys, near, objects
from qdata.rows.parts import Part, Rows, Write

_BLOCK = 1 << 18


class Json:
    """Ordinals count the items. Small arrays are one part; of large ones a part is a byte range of whole items."""

    suffixes: ClassVar = (".json",)
    unit: ClassVar = "row"
    is_table: ClassVar = False

    @staticmethod
    def likeness(head: Head) -> int:
        """What begins with a bracket, also when it calls itself .jsonl; and .json files that are not JSON lines."""
        from qdata.rows.containers.jsonl import Jsonl

        return 2 if head.is_array() or (head.suffix == ".json" and not Jsonl.likeness(head)) else 0

    @staticmethod
    def parts(part: Part, part_bytes: int) -> Iterator[Part]:
        """Raises QdataError where a large file is no array after all."""
        if part.stop <= part_bytes or not _opens(part):
            yield replace(part, sha256=hashlib.sha256(part.data()).hexdigest())
            return
        start, ordinal, count, stop = -1, 1, 0, -1
        try:
            for some in json_scan.borders(_blocks(part)):
                borders = some
                if start < 0 and len(borders):  # the bracket before the first item
                    start, borders = int(borders[0]) + 1, borders[1:]
                while (cut := int(np.searchsorted(borders, start + part_bytes))) < len(borders):
                    stop, count = int(borders[cut]), count + cut + 1
                    yield _cut(part, start, stop, ordinal)
                    start, ordinal, count, borders = stop + 1, ordinal + count, 0, borders[cut + 1 :]
                count, stop = count + len(borders), int(borders[-1]) if len(borders) else stop
        except json_scan.BrokenArrayError as broken:
            raise _broken(part, broken) from None
        if count:
            yield _cut(part, start, stop, ordinal)

    @staticmethod
    def read(part: Part) -> Rows:
        """A broken item is Bad. Raises QdataError where it cannot be told which item is broken."""
        data = part.data()
        is_cut = part.start > 0
        text = b"[" + data + b"]" if is_cut else data.removeprefix(BOM)
        try:
            found = _loads(text)
        except (ValueError, RecursionError) as error:
            return _items(part, data, text, error)
        rows = found if isinstance(found, list) else [found]
        is_blank = is_cut and not rows  # behind a last comma
        are_objects = set(map(type, rows)) <= {dict} and not is_blank
        if are_objects and not exact.is_too_deep(rows) and has_all_keys(text, rows):
            return Rows(list(range(part.first, part.first + len(rows))), rows, [])
        return _items(part, data, text, None) if isinstance(found, list) else objects([part.first], [text])

    @staticmethod
    @contextmanager
    def sink(file: BinaryIO, _: Any) -> Iterator[Write]:
        """One array, an item a line."""
        before = itertools.chain([b"[\n"], itertools.repeat(b",\n"))

        def write(lines: bytes) -> None:
            if lines:
                file.write(next(before) + lines.removesuffix(b"\n").replace(b"\n", b",\n"))

        yield write
        file.write(b"\n]\n" if next(before) == b",\n" else b"[\n]\n")


def _loads(text: bytes) -> Any:
    """As `exact.loads`; of an array, only the items that may hold an integer beyond 64 bits are read again."""
    value, long = orjson.loads(text), list(exact.long_digits(text))
    if not long or not isinstance(value, list):
        return exact.loads(text) if long else value
    blocks = (text[at : at + _BLOCK] for at in range(0, len(text), _BLOCK))
    borders = np.concatenate(list(json_scan.borders(blocks)))
    for index in np.unique(np.searchsorted(borders, long) - 1).tolist():
        value[index] = exact.loads(text[borders[index] + 1 : borders[index + 1]])
    return value


def _opens(part: Part) -> bool:
    with part.bytes_at.open("rb") as file:
        return file.read(_BLOCK).removeprefix(BOM).lstrip().startswith(b"[")


def _blocks(part: Part) -> Iterator[bytes]:
    with part.bytes_at.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block


def _cut(part: Part, start: int, stop: int, ordinal: int) -> Part:
    cut = replace(part, start=start, stop=stop, first=ordinal)
    return replace(cut, sha256=hashlib.sha256(cut.data()).hexdigest())


def _items(part: Part, data: bytes, text: bytes, error: Exception | None) -> Rows:
    """Item by item, each with its place in the file."""
    if not text.lstrip().startswith(b"["):  # one object
        bad = bad_json(part.first, text, Place(1, 1))
        raise QdataError(f"{part.label}: {bad.reason}")
    skipped = 1 if part.start else 0  # the bracket set before what was cut out of the array
    try:
        blocks = [b"[", data, b"]"] if skipped else [data]
        found = [(item.start - skipped, item.stop - skipped) for item in json_scan.items(blocks)]
    except json_scan.BrokenArrayError as broken:
        if isinstance(error, orjson.JSONDecodeError) and not part.start and (told := _as_parsed(part, text, error)):
            raise told from None
        raise _broken(part, json_scan.BrokenArrayError(broken.at + part.start - skipped, str(broken))) from None
    texts = [data[start:stop].strip() for start, stop in found]
    if texts == [b""] and not part.start:
        texts, found = [], []
    line, behind, places = 1 + part.lines_before(), 0, []
    for (start, stop), one in zip(found, texts, strict=True):
        begins = start + (data[start:stop].find(one[:1]) if one else 0)
        line += data.count(b"\n", behind, begins)
        behind = begins
        places.append(Place(line, begins - (data.rfind(b"\n", 0, begins) + 1) + 1))
        if not one:
            raise QdataError(f"{part.label}, line {line}: not valid JSON: wanted an item beside each comma")
    return objects(range(part.first, part.first + len(texts)), texts, places)


def _as_parsed(part: Part, text: bytes, error: orjson.JSONDecodeError) -> QdataError | None:
    """Where the parser gave up, which says more than where the array does not end."""
    try:
        shown = text.decode("utf-8")
    except UnicodeDecodeError as bad:
        line = text.count(b"\n", 0, bad.start) + 1
        return QdataError(f"{part.label}, line {line}: not UTF-8 (byte 0x{text[bad.start]:02x})")
    where = f"{part.label}, line {error.lineno}, column {error.colno}"
    return QdataError(f"{where}: not valid JSON: {error.msg}, near {near(shown, error.pos)}")


def _broken(part: Part, broken: json_scan.BrokenArrayError) -> QdataError:
    line = replace(part, start=broken.at).lines_before() + 1
    return QdataError(f"{part.label}, line {line}: not valid JSON: {broken} (byte {broken.at + 1} of the file)")
