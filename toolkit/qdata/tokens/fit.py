"""What becomes of samples longer than `max_length`: views that shorten, never tokens that change.

Whole turns go first. A sample is only ever shortened at its end, so that every answer left stands behind exactly the
prompt its server builds, and the system prompt stays.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from qdata.tokens.samples import Samples

LENGTHS = tuple(2**n for n in range(8, 18))


class Fitted(NamedTuple):
    """The samples that fit, and what was lost of the others.

    `cut_answers` lost their end, and with it their stop token; `lost_answers` are gone, of `lost_conversations`.
    """

    samples: Samples
    cut_answers: int
    lost_answers: int
    lost_conversations: int


def fit(samples: Samples, max_length: int | None, policy: str) -> Fitted:
    """Applies a `too_long` policy: `drop`, `truncate_turns` (whole turns from the end), `truncate` (at the token).

    Under `split` and `error` what is still too long here is dropped: the one was split before, the other is refused.
    Samples with nothing left to train are dropped under every policy.
    """
    if max_length is None or not len(samples):
        return Fitted(samples, 0, 0, 0)
    long, length, cut = samples.length > max_length, samples.length.copy(), 0
    if policy == "truncate_turns":
        ends = np.where(samples.piece_answers & (samples.piece_end <= max_length), samples.piece_end, 0)
        length[long] = np.maximum.reduceat(ends, samples.pieces[:-1])[long]
    elif policy == "truncate":
        length[long] = max_length
        inside = samples.piece_answers & (samples.piece_start < max_length) & (samples.piece_end > max_length)
        cut = int(inside.sum())
    else:
        length[long] = 0
    shortened = replace(samples, length=length)
    lost = samples.answers_within(samples.length) - samples.answers_within(length)
    conversations = len(np.unique(samples.conversation[lost > 0]))
    left = shortened.take(np.flatnonzero(shortened.trained_length))
    return Fitted(left, cut, int(lost.sum()), conversations)


def lost(samples: Samples) -> dict[int, float]:
    """For each usual `max_length`: the share of trained tokens that stand beyond it."""
    total, longest = int(samples.trained_length.sum()), int(samples.length.max(initial=0))
    shares = {}
    for length in LENGTHS:
        kept = int(samples.trained_within(np.minimum(samples.length, length)).sum())
        shares[length] = round(1 - kept / total, 6) if total else 0.0
        if length >= longest:
            break
    return shares
