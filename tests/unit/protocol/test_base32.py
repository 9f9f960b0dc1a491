"""Base32 as RFC 4648 has it, lower-case and without padding."""

from __future__ import annotations

import base64

from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.protocol.ids import base32, unbase32


@given(st.binary(max_size=80))
def test_it_is_what_the_standard_says_and_comes_back(data: bytes) -> None:
    assert base32(data) == base64.b32encode(data).decode().rstrip("=").lower()
    assert unbase32(base32(data)) == data
