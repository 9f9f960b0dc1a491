"""Numbers of the prototype's answers have no exponent; all else is what json.dumps makes of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.gateway.plain_json import plain_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text('ae1-+é"\\'),
    lambda within: st.lists(within) | st.dictionaries(st.text(), within),
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4e-06, "0.000004"), (1e-06, "0.000001"), (-1.5e-07, "-0.00000015"), (1e22, "10000000000000000000000.0"),
        ({"size": 4e-06, "say": "4e-06", "1e-5": [0.25, 1e-05, None, True]},
         '{"size":0.000004,"say":"4e-06","1e-5":[0.25,0.00001,null,true]}'),
    ],
    ids=repr,
)  # fmt: skip
def test_small_and_large_numbers_are_written_out(value: object, text: str) -> None:
    assert plain_json(value) == text.encode()


@given(VALUES)
def test_it_reads_as_what_it_was(value: object) -> None:
    assert json.loads(plain_json(value)) == value


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        plain_json({"x": float("nan")})
