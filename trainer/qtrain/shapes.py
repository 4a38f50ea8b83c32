"""The published shapes of the dense Qwen models, for planning where not even a config.json can be had.

From the config.json of each model on the hub; `tests/train/test_plan.py` holds their sums against the parameter counts
that the model cards state.
"""

from __future__ import annotations

import re
from typing import Any

# hidden_size, layers, attention heads, key-value heads, intermediate_size, vocab_size, head_dim, tied
_QWEN2 = {
    "0.5B": (896, 24, 14, 2, 4864, 151_936, 64, True),
    "1.5B": (1536, 28, 12, 2, 8960, 151_936, 128, True),
    "3B": (2048, 36, 16, 2, 11_008, 151_936, 128, True),
    "7B": (3584, 28, 28, 4, 18_944, 152_064, 128, False),
    "14B": (5120, 48, 40, 8, 13_824, 152_064, 128, False),
    "32B": (5120, 64, 40, 8, 27_648, 152_064, 128, False),
    "72B": (8192, 80, 64, 8, 29_568, 152_064, 128, False),
}
_QWEN3 = {
    "0.6B": (1024, 28, 16, 8, 3072, 151_936, 128, True),
    "1.7B": (2048, 28, 16, 8, 6144, 151_936, 128, True),
    "4B": (2560, 36, 32, 8, 9728, 151_936, 128, True),
    "8B": (4096, 36, 32, 8, 12_288, 151_936, 128, False),
    "14B": (5120, 40, 40, 8, 17_408, 151_936, 128, False),
    "32B": (5120, 64, 64, 8, 25_600, 151_936, 128, False),
}
_KEYS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size",
         "vocab_size", "head_dim", "tie_word_embeddings")  # fmt: skip


def config(name: str) -> Any | None:
    """transformers' configuration of a published dense Qwen model by its hub id; None for any other.

    >>> config("Qwen/Qwen2.5-14B-Instruct").num_hidden_layers, config("Qwen/Qwen3-8B").hidden_size, config("x/y")
    (48, 4096, None)
    """
    found = re.fullmatch(r"Qwen/Qwen(2|2\.5|3)(?:-Coder|-Math)?-([\d.]+B)(?:-Instruct|-Base)?(?:-2507)?", name)
    table = {"3": _QWEN3}.get(found[1], _QWEN2) if found else {}
    if found is None or found[2] not in table:
        return None
    from transformers import Qwen2Config, Qwen3Config

    return (Qwen3Config if found[1] == "3" else Qwen2Config)(**dict(zip(_KEYS, table[found[2]], strict=True)))
