"""Text → ids: those of the Hugging Face `tokenizers` library, by a faster engine where that proves to give the same."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import random
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl

from qdata.errors import QdataError
from qdata.paths import whole
from qdata.tokens import fast
from qdata.tokens.fast import Engine, Ids, Offsets
from qdata.tokens.injection import Controls
from qdata.tokens.vocabulary import WORDS

TOKENIZERS, FAST = "tokenizers", "fastokens"
BATCH = 16_384  # texts handed to `tokenizers` at once; bounds the objects it holds
CHECKED = 16  # texts of each part that both engines encode


class DifferentIdsError(Exception):
    """The fast engine made other ids of a text than `tokenizers`; the message says of which."""


class Encoder:
    """The encoder of a folder that holds `tokenizer.json`; `engine` is FAST or TOKENIZERS."""

    def __init__(self, directory: Path, engine: str = TOKENIZERS) -> None:
        self.directory = directory
        self.engine = engine
        self._file = directory / "tokenizer.json"
        if not self._file.is_file():
            raise QdataError(f"{directory}: no tokenizer.json in it; wanted a folder saved by save_pretrained")
        self._bytes = self._file.read_bytes()
        self.checked = 0
        """Texts that both engines encoded alike."""
        self._loading: Future[Engine] | None = None
        try:
            self._added: list[dict[str, Any]] = orjson.loads(self._bytes).get("added_tokens", [])
        except orjson.JSONDecodeError as error:
            raise QdataError(f"{self._file}: not a tokenizer ({error})") from None
        self.controls = Controls.of(self._added)
        # Qwen's pre-tokeniser never joins a newline with a letter, a digit or an ideograph that follows it, and nothing
        # composes with a newline under NFC. Of another one we know nothing, and look at every joint.
        self.cuts_after_newline = json.dumps(WORDS)[1:-1].encode() in self._bytes or WORDS.encode() in self._bytes

    @cached_property
    def sha256(self) -> str:
        """Of tokenizer.json."""
        return hashlib.sha256(self._bytes).hexdigest()

    def warm(self) -> None:
        """Begin to load the fast engine; it is needed soon, and until then there is other work."""
        if self.engine == FAST and self._loading is None:
            thread = ThreadPoolExecutor(1)
            self._loading = thread.submit(fast.load, self._file)
            thread.shutdown(wait=False)

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        return self._load(lambda: Tokenizer.from_buffer(self._bytes))

    @cached_property
    def _plain(self) -> Any:
        """The same tokenizer without its added tokens: to it `<|im_end|>` is six tokens of text."""
        from tokenizers import Tokenizer

        bare = orjson.loads(self._bytes) | {"added_tokens": [], "post_processor": None}
        return self._load(lambda: Tokenizer.from_buffer(orjson.dumps(bare)))

    def _load(self, make: Callable[[], Any]) -> Any:
        try:
            made = make()
        except Exception as error:  # tokenizers raises plain Exception
            raise QdataError(f"{self._file}: not a tokenizer ({error})") from None
        made.no_padding()
        made.no_truncation()
        return made

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {token["content"]: token["id"] for token in self._added}

    def id_of(self, token: str) -> int | None:
        """The id of a token, or None when the vocabulary has no such token."""
        return self._ids[token] if token in self._ids else self._tokenizer.token_to_id(token)

    def encode_hidden(self, text: str) -> Ids:
        """The ids of one text in which control tokens were hidden (injection.py)."""
        plain = lambda part: list(self._plain.encode(part, add_special_tokens=False).ids)  # noqa: E731
        return np.array(self.controls.encode(text, plain, self.id_of), np.int32)

    def encode(self, texts: list[str]) -> tuple[Ids, Offsets]:
        """The ids of all texts in one int32 array, and the len(texts) + 1 offsets of each text in it."""
        if self.engine != FAST:
            return self.reference(texts)
        self.warm()
        assert self._loading is not None
        return self._loading.result()(texts)

    def reference(self, texts: list[str]) -> tuple[Ids, Offsets]:
        """As `encode`, by `tokenizers`."""
        return _by_tokenizers(self._tokenizer, texts)

    def encode_plain(self, texts: pl.Series) -> tuple[Ids, Offsets]:
        """As `encode`; but control tokens in the texts are text like any other."""
        # One that is looked for after normalisation might stand in a text by other characters.
        if self.engine != FAST or any(token["normalized"] for token in self._added):
            return _by_tokenizers(self._plain, texts.to_list())
        held = texts.str.contains_any(list(self._ids)) if self._ids else texts.is_null()
        return patched(self.encode(texts.to_list()), held, lambda at: _by_tokenizers(self._plain, [texts[at]])[0])

    def check(self, texts: pl.Series) -> None:
        """Encode some of the texts, others each time, with both engines.

        Raises DifferentIdsError where they do not agree.
        """
        if self.engine != FAST:
            return
        drawn = random.SystemRandom().sample(range(len(texts)), min(CHECKED, len(texts)))
        some = [texts[at] for at in drawn]
        told = fast.first_difference(self.encode(some), self.reference(some), some)
        if told is not None:
            raise DifferentIdsError(f"fastokens makes other ids of {told!r}")
        self.checked += len(drawn)


def patched(encoded: tuple[Ids, Offsets], which: pl.Series, encode: Callable[[int], Ids]) -> tuple[Ids, Offsets]:
    """Encoded texts with those marked in `which` (few) encoded anew, each by its place."""
    ids, offsets = encoded
    places = np.flatnonzero(which.to_numpy())
    if not len(places):
        return encoded
    runs = np.split(ids, offsets[1:-1])
    for place in places.tolist():
        runs[place] = encode(place)
    return np.concatenate(runs), np.concatenate([[0], np.cumsum([len(run) for run in runs])])


def _by_tokenizers(tokenizer: Any, texts: list[str]) -> tuple[Ids, Offsets]:
    flat: list[Ids] = []
    lengths = np.zeros(len(texts) + 1, np.int64)
    for start in range(0, len(texts), BATCH):
        batch = tokenizer.encode_batch_fast(texts[start : start + BATCH], add_special_tokens=False)
        ids = [np.array(encoding.ids, np.int32) for encoding in batch]
        lengths[start + 1 : start + 1 + len(ids)] = [len(i) for i in ids]
        flat += ids
    return (np.concatenate(flat) if flat else np.zeros(0, np.int32)), np.cumsum(lengths)


def load_encoder(directory: Path, engine: str = TOKENIZERS) -> Encoder:
    """The encoder of a folder; loaded once, as long as its tokenizer.json stays the same."""
    file = directory / "tokenizer.json"
    return _loaded(directory, engine, file.stat().st_mtime_ns if file.is_file() else 0)


def forget() -> None:
    """Let go of all encoders: they hold some hundred megabytes, which who trains has better use for."""
    _loaded.cache_clear()


@lru_cache(maxsize=2)
def _loaded(directory: Path, engine: str, stamp: int) -> Encoder:
    return Encoder(directory, engine)


def choose(directory: Path, cache: Path) -> tuple[Encoder, str | None]:
    """An encoder that is fast where that gives the ids of `tokenizers` for hard texts; where it is not, why.

    The verdict on a tokenizer is kept in the cache, as long as the versions of both and the test are the same.
    Raises QdataError for what is no tokenizer.
    """
    if (version := fast.version()) is None:
        return load_encoder(directory), "fastokens is not installed"
    encoder = load_encoder(directory, FAST)
    test = Path(fast.__file__).read_text(encoding="utf-8")
    facts = [encoder.sha256, version, importlib.metadata.version(TOKENIZERS), test]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    file = cache / "encoders" / f"{key}.json"
    if not file.is_file():
        verdict = _doubt(encoder, fast.hard_texts(encoder.controls.all))
        with whole(file, replace=True) as partial:
            partial.write_text(json.dumps(verdict) + "\n", encoding="utf-8")
    why = json.loads(file.read_text(encoding="utf-8"))
    return (encoder, None) if why is None else (load_encoder(directory), why)


def _doubt(encoder: Encoder, texts: list[str]) -> str | None:
    """Why the fast engine cannot be believed, or None."""
    encoder.warm()
    expected = encoder.reference(texts)  # raises, where this is no tokenizer at all
    try:
        told = fast.first_difference(encoder.encode(texts), expected, texts)
    except ValueError as error:
        return f"fastokens cannot read this tokenizer: {error}"
    return None if told is None else f"fastokens makes other ids of {told!r}"
