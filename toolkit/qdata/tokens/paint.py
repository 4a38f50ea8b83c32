"""Tokens of a shard row, told apart by whether they are trained: for the terminal, or as text with brackets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from rich.text import Text

from qdata.errors import QdataError
from qdata.tokens import shards

# Neighbouring tokens alternate between two shades, so that each can be seen.
TRAINED = ("black on green3", "black on pale_green3")
UNTRAINED = ("grey62", "grey78")


class Token(NamedTuple):
    """One or more ids that only together make text (a character may span several), and whether they are trained."""

    ids: list[int]
    text: str
    trained: bool


def row_of(directory: Path, split: str, wanted: str) -> tuple[int, dict[str, Any]]:
    """A shard row by its number in the split, or by a row id that is packed into it, with that number.

    Raises QdataError with the reason when there is no such row; a dropped one is named with its reason.
    """
    splits = shards.manifest_of(directory)["splits"]
    if split not in splits:
        raise QdataError(f"{directory}: no split {split!r}; it has {', '.join(splits)}")
    seen = 0
    number = int(wanted) if re.fullmatch(r"-?[0-9]+", wanted) else None
    if number is not None and number < 0:
        number += splits[split]["rows"]
    for batch in shards.read_split(directory, split):
        if number is not None and seen <= number < seen + batch.num_rows:
            return number, batch.slice(number - seen, 1).to_pylist()[0]
        if number is None:
            for at, ids in enumerate(batch["rows"].to_pylist()):
                if wanted in ids:
                    return seen + at, batch.slice(at, 1).to_pylist()[0]
        seen += batch.num_rows
    if number is not None:
        rows = f"it has {seen:,}, from 0 to {seen - 1:,}; -1 is the last" if seen else "it has none"
        raise QdataError(f"{directory}: no row {wanted} in {split}; {rows}")
    raise QdataError(f"{directory}: {_whereabouts(directory, wanted)}")


def _whereabouts(directory: Path, row: str) -> str:
    book = pl.scan_parquet(directory / "ledger.parquet", glob=False)
    line = book.filter(pl.col("row") == row).collect()
    if not line.height:
        some = book.head(1).collect()["row"].to_list()
        return f"no row {row!r} in the ledger; row ids look like {some[0]!r}"
    facts = line.row(0, named=True)
    if facts["action"] == "dropped":
        return f"row {row} was dropped: {facts['step']}.{facts['reason']}"
    return f"row {row} is in {facts['shard']}, row {facts['index']}; pass --split {facts['shard'].split('/')[0]}"


def titles_of(row: dict[str, Any]) -> list[str]:
    """What stands above each of `tokens_of`: the row id, and of a pair or a judged answer which part of it."""
    if "input_ids" in row:
        return list(row["rows"])
    verdict = {_JUDGED: " (good)" if row.get("label") else " (bad)"}
    return [f"{row['rows'][0]} · {n.removesuffix('_ids')}{verdict.get(n, '')}" for n in _PARTS if n in row]


_JUDGED = "completion_ids"
_PARTS = ("prompt_ids", "chosen_ids", "rejected_ids", _JUDGED)


def tokens_of(row: dict[str, Any], directory: Path) -> Iterator[list[Token]]:
    """The tokens of each sequence packed into a row, in order; of a pair, its prompt and its answers."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer" / "tokenizer.json"))
    if "input_ids" not in row:
        for name in _PARTS:
            ids = row.get(name)
            if ids is not None:
                yield list(_tokens(ids, [shards.IGNORED] * len(ids) if name == "prompt_ids" else ids, tokenizer))
        return
    start = 0
    for length in row["seq_lengths"]:
        ids, labels = (row[c][start : start + length] for c in ("input_ids", "labels"))
        yield list(_tokens(ids, labels, tokenizer))
        start += length


def _tokens(ids: list[int], labels: list[int], tokenizer: Any) -> Iterator[Token]:
    added = {i: token.content for i, token in tokenizer.get_added_tokens_decoder().items()}
    waiting, data = [], b""
    for at, (one, label) in enumerate(zip(ids, labels, strict=True)):
        waiting.append(one)
        data += added[one].encode() if one in added else _bytes(tokenizer.id_to_token(one))
        last = at + 1 == len(ids) or (labels[at + 1] == shards.IGNORED) != (label == shards.IGNORED)
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            if not last and error.reason == "unexpected end of data":
                continue  # a character that goes on in the next token
            text = data.decode(errors="replace")
        yield Token(waiting, text, label != shards.IGNORED)
        waiting, data = [], b""


def _bytes(token: str) -> bytes:
    """The bytes of a token written in GPT-2's byte-level alphabet, or its text where it is written in none."""
    if all(letter in _ALPHABET for letter in token):
        return bytes(_ALPHABET[letter] for letter in token)
    return token.encode()


# Bytes that print stand for themselves, the others for the code points from 256 on, in order.
_PRINTING = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS = [byte for byte in range(256) if byte not in _PRINTING]
_ALPHABET = {chr(byte): byte for byte in _PRINTING} | {chr(256 + n): byte for n, byte in enumerate(_OTHERS)}


def painted(tokens: list[Token]) -> Text:
    """Coloured text: trained tokens on green, the others grey; a newline is made visible."""
    out = Text()
    for number, token in enumerate(tokens):
        style = (TRAINED if token.trained else UNTRAINED)[number % 2]
        out.append(token.text.replace("\n", "⏎\n"), style)
    return out


def bracketed(tokens: list[Token]) -> str:
    """The same without colours: trained stretches stand in ⟦ ⟧."""
    out, inside = [], False
    for token in tokens:
        if token.trained != inside:
            out.append("⟦" if token.trained else "⟧")
            inside = token.trained
        out.append(token.text)
    return "".join(out) + ("⟧" if inside else "")
