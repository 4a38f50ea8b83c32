"""Tab-separated values with a header: CSV with another comma."""

from __future__ import annotations

from typing import ClassVar

from qdata.rows.containers.csv import Csv


class Tsv(Csv):
    """As CSV: a cell with a tab, a quote or a line break in it is quoted."""

    suffixes: ClassVar = (".tsv",)
    comma: ClassVar = "\t"
