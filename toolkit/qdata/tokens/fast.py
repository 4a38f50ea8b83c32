"""`fastokens`, an encoder twenty times as fast as `tokenizers`, and the gate it has to pass to be used at all.

It promises the ids of `tokenizers`; we do not believe it. Of each tokenizer.json the texts below, made to be hard, are
encoded by both before the first build, and a few texts of every part of every build are again (encoder.py). Where one
id differs, or it cannot read the tokenizer, `tokenizers` does the work.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import random
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int64]


class Engine(Protocol):
    """Texts → ids."""

    def __call__(self, texts: list[str]) -> tuple[Ids, Offsets]:
        """The ids of all texts in one array, and the len(texts) + 1 offsets of each text in it."""


def version() -> str | None:
    """Of fastokens; None where it is not installed (there is no wheel for this machine)."""
    try:
        return importlib.metadata.version("fastokens")
    except importlib.metadata.PackageNotFoundError:
        return None


def load(file: Path) -> Engine:
    """The engine of a tokenizer.json; takes a second, most of it without Python's lock.

    Raises ValueError where fastokens cannot read the file.
    """
    from fastokens import Tokenizer

    try:
        made: Any = Tokenizer.from_file(str(file))
    except Exception as error:  # what it raises is not documented
        raise ValueError(str(error)) from None
    made.no_padding()
    made.no_truncation()

    def encode(texts: list[str]) -> tuple[Ids, Offsets]:
        ids, offsets = made.encode_batch_flat(texts, add_special_tokens=False)
        return np.frombuffer(ids, np.uint32).view(np.int32), np.frombuffer(offsets, np.uint64).astype(np.int64)

    return encode


def first_difference(one: tuple[Ids, Offsets], other: tuple[Ids, Offsets], texts: list[str]) -> str | None:
    """The first text of which two engines made different ids, its beginning; or None."""
    if np.array_equal(one[0], other[0]) and np.array_equal(one[1], other[1]):
        return None
    first, second = (np.split(ids, offsets[1:-1]) for ids, offsets in (one, other))
    alike = (np.array_equal(ours, theirs) for ours, theirs in zip(first, second, strict=True))
    return texts[next(place for place, is_alike in enumerate(alike) if not is_alike)][:160]


def hard_texts(added: tuple[str, ...]) -> list[str]:
    """Texts on which encoders disagree, if they do: about 300 kB; `added` are the tokenizer's added tokens.

    Every pair of kinds of character, runs of white space and of digits, marks that compose and marks out of order,
    joined emoji, code, lines of 100 kB, added tokens whole, broken and side by side, and noise of all planes.
    """
    draw = random.Random("hard texts")
    joints = ["".join(pair) for pair in itertools.product(_KINDS, repeat=2)]
    runs = [
        c * n for c in (" ", "\n", "\t", "\r\n", "\u3000", "\u00a0", "a", "7", "你", "!", "é") for n in (2, 3, 9, 64)
    ]
    words = [f"{space}{text}" for space in ("", " ", "\n", "  ", "\n\n ") for text in _TEXTS]
    tokens = [
        form
        for one, next_one in itertools.pairwise((*added, *added[:1]))
        for form in (one, f"a{one}b", f" {one} \n", one[:-1], one[1:], one + next_one, one.upper(), f"<{one}>")
    ]
    planes = [(0x20, 0x7F), (0xA0, 0x24F), (0x300, 0x36F), (0x400, 0x52F), (0x600, 0x6FF), (0xE00, 0xE7F)]
    planes += [(0x1100, 0x11FF), (0x1F00, 0x206F), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3)]
    planes += [
        (0x0, 0x1F),
        (0xF900, 0xFB4F),
        (0xFE00, 0xFEFF),
        (0x1D400, 0x1D7FF),
        (0x1F300, 0x1FAFF),
        (0xE000, 0xE0FF),
    ]
    noise = ["".join(chr(draw.randint(*draw.choice(planes))) for _ in range(draw.randint(1, 40))) for _ in range(2000)]
    lines = ["all work and no play " * 4800, "春眠不觉晓处处闻啼鸟" * 10_000, "x" * 3000, "0123456789" * 300]
    return [*joints, *runs, *words, *tokens, *noise, *lines]


_KINDS = (
    *"aZé\u0301\u0338ßſİıñ你好のア가\u1112\u1161ไ\u0e33اक\u094d07٣²½!?.,;:'\"-_/\\|<>()[]{}@#$%^&*+=~`·…—“”，。！？、《》",
    *" \t\n\r\u000b\u000c\u0085\u00a0\u1680\u2003\u2028\u3000\u200b\u200d\u00ad\ufeff\ufe0f\x00\x07\x7f",
    *"😀👍🏽🇨🇳☃ℵ™Å\u212bﬁ𝒜\U000e0061\ue000",
)
_TEXTS = (
    "I'm you're HE'S 'Tis don’t rock'n'roll",
    'def f(x: int) -> str:\n\treturn f"{x!r:>10}"  # 注释\n\n\nclass A(B):\n    pass\n',
    '{"a": [1, 2.50, -3e-7], "b": null, "c": "\\u4f60\\n"}',
    "for (int i=0;i<10;++i){a[i]+=i*i;} // <=> != && ||",
    "https://example.com/a?b=c&d=%20#e user@example.com 192.168.0.1",
    "1234567890 3.14159 1,000,000 0x1F 10⁻⁴ ½ ٣٤ 一二三 ①②",
    "中文，标点。English混排123测试！日本語のテスト 한국어 ไทย العربية हिन्दी",
    "👩‍👩‍👧‍👦 👍🏽 🇨🇳 ☺️ ✈︎ e\u0301 a\u0323\u0307 a\u0307\u0323 \u1112\u1161\u11ab",
    "| a | b |\n|---|:-:|\n| 1 | 2 |\n\n- [x] **bold** _it_ `code`\n> quote\n\n---\n",
    "\\frac{a}{b} \\sum_{i=0}^{n} $x^2$ \\\\ \\begin{align}",
    '<p class="a">&nbsp;&lt;tag/&gt;</p><!-- c --><|not_a_token|>',
)
