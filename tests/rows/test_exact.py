"""JSON without rounding: what is read and written again is the same, whole numbers of any length included."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.test_schema import JSON

from qdata.rows import exact

WHOLE = st.integers(-(10**40), 10**40) | st.integers(2**63 - 3, 2**64 + 3)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(st.sampled_from("abc"), JSON | WHOLE | st.lists(WHOLE, max_size=2)))
def test_what_is_written_is_read_again(value: Any) -> None:
    """dumps and loads are each other's inverse, and say what the standard library says."""
    made = exact.dumps(value)
    assert exact.loads(made) == value == json.loads(made)
    assert exact.text(value) == made.decode()


@settings(max_examples=200, deadline=None)
@given(
    st.integers(10**18, 10**25),
    st.sampled_from(
        ["%d", '{"a":%d}', "[1,%d]", '{"a" :\n\t -%d }', " " * 99 + "%d", '[""]\n[%d]', '{"a": 1,\r\n"b": [%d]}']
    ),
    st.text("x0:", max_size=9),
)
def test_the_quick_look_misses_no_long_number(number: int, around: str, before: str) -> None:
    """Wherever a number may stand in JSON lines it is seen; where none may begin, digits are only digits."""
    assert exact.has_long_digits(json.dumps(before).encode() + b"\n" + (around % number).encode())
    for no_number in (f'"x{number}"', f'{{"a": 0.{number}}}', f'["第{number}号"]', f'["a: {number}"]'):
        assert not exact.has_long_digits(no_number.encode())


@pytest.mark.parametrize("text", [b'{"a": NaN, "b": 12345678901234567890123}', b'{"a": 12345678901234567890123', b"["])
def test_it_is_no_more_lenient_than_orjson(text: bytes) -> None:
    """Long digits do not open a door to what is no JSON."""
    with pytest.raises(orjson.JSONDecodeError):
        exact.loads(text)
