"""NumPy ↔ Arrow: the same numbers both ways, as pyarrow itself would say, and no pandas."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdata.arrays import to_arrow, to_numpy


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64, np.float32])
@given(values=st.lists(st.integers(0, 2**31 - 1)), cut=st.integers(0, 3))
def test_there_and_back(dtype: type, values: list[int], cut: int) -> None:
    """Slices and strides too."""
    array = np.array(values, dtype)
    made = to_arrow(array[::2])
    made.validate(full=True)
    assert made.equals(pa.array(array[::2]))
    back = to_numpy(made.slice(cut))
    assert back.dtype == dtype and back.tolist() == array[::2][cut:].tolist()


def test_pandas_is_not_imported() -> None:
    code = (
        "import sys, numpy as np; from qdata.arrays import to_arrow, to_numpy\n"
        "to_numpy(to_arrow(np.arange(3))); print('pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
