"""Row groups of Parquet files as plain dicts. Values that JSON has no word for become text, so that nothing crashes
on the way out and nothing is lost."""

from __future__ import annotations

import base64
import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from qdata.errors import QdataError


def row_groups(path: Path) -> list[int]:
    """The number of rows of each row group. Raises QdataError for what is no Parquet file."""
    try:
        meta = pq.ParquetFile(path).metadata
    except Exception as error:
        raise QdataError(f"{path}: not a readable Parquet file ({error})") from None
    return [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]


def rows_of(path: Path, group: int) -> list[dict[str, Any]]:
    """The rows of a row group; a null is a missing key. Raises QdataError where the group cannot be read."""
    try:
        table = pq.ParquetFile(path).read_row_group(group)
        listed: list[dict[str, Any]] = table.to_pylist()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise QdataError(f"{path}: row group {group} is not readable ({error})") from None
    odd = [field.name for field in table.schema if not _is_plain(field.type)]
    for row in listed if odd else ():
        row.update({name: _said(row[name]) for name in odd})
    return [{k: v for k, v in row.items() if v is not None} for row in listed]


def _is_plain(kind: Any) -> bool:
    """Whether every value of an Arrow type is one JSON has a word for."""
    if pa.types.is_nested(kind):
        return all(_is_plain(kind.field(i).type) for i in range(kind.num_fields))
    simple = (pa.types.is_string, pa.types.is_large_string, pa.types.is_boolean, pa.types.is_integer,
              pa.types.is_floating, pa.types.is_null, pa.types.is_string_view)  # fmt: skip
    return any(one(kind) for one in simple)


def _said(value: Any) -> Any:
    """A value with everything JSON has no word for as text: times in ISO 8601, decimals in full, bytes as the UTF-8
    they are, else in base64."""
    if isinstance(value, dict):
        return {key: _said(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_said(one) for one in value]
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return base64.b64encode(value).decode("ascii")
    if isinstance(value, (datetime.date, datetime.time)):  # a datetime is a date
        return value.isoformat()
    return value if value is None or isinstance(value, (str, int, float)) else str(value)
