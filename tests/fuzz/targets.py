"""What is fuzzed: from the bytes of an input to one call of an oracle. Its first bytes choose, the rest is content."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pyarrow.parquet as pq
from tests.fuzz.oracles import Choice, check, hold, loads
from tests.rows.test_table_containers import workbook

from qdata import plugin, recipe
from qdata.cli_base import column_map
from qdata.errors import QdataError
from qdata.rows import catalog, formats, registry, renaming, source
from qdata.rows.detect import detect
from qdata.tokens.template import Template

HEAD = 8  # bytes that choose
ENDINGS = (*source.suffixes(), "")
COMPRESSED = ("", "", "", ".gz", ".zst", ".bz2", ".xz")  # most inputs are plain: their bytes are the reader's own
DOCUMENTS = (None, None, "lines", "paragraphs", "file")
BROKEN, TABLE, LOSSY = 1, 2, 4  # flags
SAMPLES = [row for name in plugin.names(formats) for row in plugin.find(formats, name).sample]


def head(ending: int, compressed: int = 0, flags: int = 0, size: int = 20) -> bytes:
    """The first bytes of an input for `files`."""
    return bytes([ending, compressed, flags, size, 0, 0, 0, 0])


def dialects(data: bytes, folder: Path) -> str:
    """As `files`, and its rows are loaded and written."""
    return files(data, folder, deep=True)


def files(data: bytes, folder: Path, *, deep: bool = False) -> str:
    """A file of any kind: `check`. With TABLE, the content is JSON lines, and the file is a table of them."""
    if len(data) < HEAD:
        return "short"
    ending, compressed, flags, size, dialect, to, out, documents = data[:HEAD]
    content = data[HEAD:]
    suffix = ENDINGS[ending % len(ENDINGS)]
    if flags & TABLE:
        content = as_table(content, suffix, folder, size % 3 + 1)
    kind = COMPRESSED[compressed % len(COMPRESSED)]
    if not flags & BROKEN:
        content = packed(content, kind)
    path = folder / f"in{suffix}{kind}"
    path.write_bytes(content)
    documents_as = DOCUMENTS[documents % len(DOCUMENTS)] if suffix in (".txt", "") else None
    return check(path, folder, Choice(1 + size, dialect, to, out, bool(flags & LOSSY), documents_as), deep=deep)


def packed(content: bytes, kind: str) -> bytes:
    """The content, compressed."""
    if kind == ".zst":
        out = pa.BufferOutputStream()
        with pa.CompressedOutputStream(out, "zstd") as stream:
            stream.write(content)
        return bytes(out.getvalue().to_pybytes())
    level: dict[str, Callable[[bytes], bytes]] = {
        "": bytes,
        ".gz": lambda b: gzip.compress(b, 1),
        ".bz2": lambda b: bz2.compress(b, 1),
        ".xz": lambda b: lzma.compress(b, preset=0),
    }
    return level[kind](content)


def rows_in(content: bytes) -> list[dict[str, Any]]:
    """The objects among JSON lines, or in one array."""
    found: list[dict[str, Any]] = []
    for text in [*content.split(b"\n"), *([content] if content.lstrip().startswith(b"[") else [])]:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            continue
        found += [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, dict)]
    whole = json.dumps(found, ensure_ascii=False).encode("utf-8", "replace")  # no half of a surrogate pair
    return json.loads(whole)  # type: ignore[no-any-return]


def as_table(content: bytes, suffix: str, folder: Path, batch: int) -> bytes:
    """The objects of JSON lines as a valid table; the content as it is where Arrow has no type for them."""
    rows = rows_in(content)
    if not rows or suffix not in (".parquet", ".arrow", ".feather", ".ipc", ".xlsx"):
        return content
    if suffix == ".xlsx":
        return _sheet(rows, folder)
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = [_column([row.get(name) for row in rows]) for name in names]
    try:
        table = pa.Table.from_arrays(columns, names=names)
        out = io.BytesIO()
        if suffix == ".parquet":
            pq.write_table(table, out, row_group_size=batch)
        else:
            with (pa.ipc.new_file if batch % 2 else pa.ipc.new_stream)(out, table.schema) as writer:
                writer.write_table(table, max_chunksize=batch)
    except (pa.ArrowException, ValueError, OverflowError):
        return content
    return out.getvalue()


def _column(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowException, ValueError, OverflowError, TypeError):
        return pa.array([v if v is None or isinstance(v, str) else json.dumps(v) for v in values], pa.large_string())


def _sheet(rows: list[dict[str, Any]], folder: Path) -> bytes:
    def cell(value: Any) -> Any:
        text = value if isinstance(value, (str, int, type(None))) else json.dumps(value)
        return "".join(c for c in text if c >= " " or c in "\t\n") if isinstance(text, str) else text

    names = list(dict.fromkeys(name for row in rows for name in row))[:7]
    sheet = [[cell(name) for name in names], *([cell(row.get(name)) for name in names] for row in rows)]
    try:
        return workbook(folder / "made.xlsx", sheet).read_bytes()
    except (UnicodeEncodeError, zlib.error):
        return b""


def of_registry(data: bytes, folder: Path) -> str:
    """dataset_info.json: entries, and what each of them finds in files of all dialects' sample rows."""
    file = folder / registry.NAME
    file.write_bytes(data)
    _data_beside(folder)
    try:
        entries = registry.read(file)
    except QdataError as error:
        hold(str(file) in str(error), "a message that does not name the file", error)
        return "refused"
    far = "read"
    for name, entry in list(entries.items())[:4]:
        hold(bool(entry.format) is not bool(entry.unsupported), "an entry with neither dialect nor reason", entry)
        try:
            found = catalog.resolve([recipe.Source(path=f"{file}:{name}")])
        except QdataError:
            continue
        for one in found:
            _loads_with(one.path, dict(one.rename), one.format)
            far = "loaded"
    return far


def _data_beside(folder: Path) -> None:
    if not (folder / "data.json").exists():
        (folder / "data.json").write_text(json.dumps(SAMPLES), encoding="utf-8")


def of_map(data: bytes, folder: Path) -> str:
    """`--map`: the words of the command line, applied to all dialects' sample rows."""
    _data_beside(folder)
    text = data.decode("utf-8", "replace")
    command = click.Command("x")
    try:
        rename = column_map(click.Context(command), click.Option(["--map"]), text)
    except QdataError as error:
        hold("--map" in str(error), "a message that does not name the option", error)
        return "refused"
    if renaming.twice(rename):
        return "twice"
    return _loads_with(folder / "data.json", rename, None)


def _loads_with(path: Path, rename: dict[str, str], dialect: str | None) -> str:
    parts = list(source.parts_of(path, "s", path.name))
    found = source.read(parts[0])
    far = "renamed"
    for name in [dialect] if dialect else [n for n in plugin.names(formats) if _claims(n, found.rows, rename)]:
        far = "loaded" if loads(path, parts, parts, found, name, Choice(rename=rename)) else far
    try:
        detect(found.rows, str(path), rename, dialect)
    except QdataError as error:
        hold(str(path) in str(error), "a message that does not name the file", error)
    return far


def _claims(name: str, rows: list[dict[str, Any]], rename: dict[str, str]) -> bool:
    form = plugin.find(formats, name)
    return any(set(rename) & {column.partition("[")[0]} for column in form.columns) and any(
        form.claims(renaming.renamed(row, rename)) for row in rows
    )


def of_recipe(data: bytes, folder: Path) -> str:
    """A recipe's TOML, and its `[data]`; the first line may be a --set."""
    file = folder / "r.toml"
    overrides, _, content = data.partition(b"\n") if data.startswith(b"--set ") else (b"", b"", data)
    file.write_bytes(content)
    words = [overrides.removeprefix(b"--set ").decode("utf-8", "replace")] if overrides else []
    mistakes: list[str] = []
    try:
        table = recipe.read_toml(file, words)
        found = recipe.structure(recipe.DataRecipe, table.get("data", {}), "data", mistakes)
        hold((found is None) == bool(mistakes), "a mistake that is not told", mistakes)
        recipe.refuse(file, mistakes)
    except QdataError as error:
        hold(str(file) in str(error) or "--set" in str(error), "a message that does not name the file", error)
        return "refused"
    return "read"


def of_template(data: bytes, folder: Path) -> str:
    """A chat template: loaded, and a conversation rendered with it."""
    file = folder / "t.jinja"
    file.write_bytes(data)
    try:
        Template.load(str(file)).render(SAMPLES[0].get("messages") or [{"role": "user", "content": "q"}])
    except QdataError as error:
        hold(str(file) in str(error) or "template t:" in str(error), "a message that does not name the file", error)
        return "refused"
    return "rendered"


TARGETS: dict[str, Callable[[bytes, Path], str]] = {
    "files": files,
    "dialects": dialects,
    "registry": of_registry,
    "map": of_map,
    "recipe": of_recipe,
    "template": of_template,
}
