"""The token table: what tokenize.py writes once for each part, and every view (samples.py) reads.

It holds ids and where the pieces of a sample end, not labels: what is trained is a view over it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

UNTRAINED = -1  # the turn of a piece that is no answer: trained only where the whole text is
MUTED = -2  # the turn of a piece that is never trained: an answer with `train: false` or weight 0

TABLE = pa.schema(
    [
        ("index", pa.uint32()),  # of the conversation in its part
        ("skipped", pa.int32()),  # messages that `too_long = split` cut off in front of this sample; else 0
        ("input_ids", pa.large_list(pa.int32())),
        ("piece_ends", pa.list_(pa.int32())),  # token offset where each piece ends
        ("turns", pa.list_(pa.int32())),  # of each piece: the message it answers with, UNTRAINED or MUTED
        ("weights", pa.list_(pa.float32())),  # of each piece: what its tokens weigh in the loss
    ]
)


def gather(starts: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Indices that copy the runs beginning at `starts` one behind the other, so that run i fills offsets[i:i+1]."""
    lengths = np.diff(offsets)
    return np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
