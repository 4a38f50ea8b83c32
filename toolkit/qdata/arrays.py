"""NumPy ↔ Arrow for plain numbers, without copies.

pyarrow's own ways, `pa.array` and `to_numpy`, import pandas where it is installed: half a second for nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def to_arrow(values: npt.NDArray[Any]) -> pa.Array:
    """A one-dimensional array of numbers as Arrow sees it: the same bytes, no nulls."""
    assert values.dtype != np.bool_  # Arrow's are bits
    held = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(held.dtype), len(held), [None, pa.py_buffer(held)])


def to_numpy(array: pa.Array) -> npt.NDArray[Any]:
    """The numbers of an Arrow array without nulls: the same bytes, read only."""
    assert array.null_count == 0 and not pa.types.is_boolean(array.type)
    if not len(array):
        return np.zeros(0, array.type.to_pandas_dtype())
    dtype = np.dtype(array.type.to_pandas_dtype())
    return np.frombuffer(array.buffers()[1], dtype, len(array), array.offset * dtype.itemsize)
