"""The checksum of a put's plaintext: the same for the same bytes, however they come, and another for others."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from offgrid.plaintext import CHECKSUM_BYTES, PlaintextChecksum, checksum_of


def test_golden_vector() -> None:
    """It lies in rows, and clients of other versions say it."""
    assert checksum_of(b"offgrid").hex() == "79d09c37ab8e99c52efab10400eb8a33"


@given(data=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200)))
def test_the_pieces_leave_no_trace(data: bytes, cuts: list[int]) -> None:
    checksum, places = PlaintextChecksum(), sorted({0, *(min(cut, len(data)) for cut in cuts), len(data)})
    for begin, end in pairwise(places):
        checksum.update(data[begin:end])
    assert checksum.value() == checksum_of(data)
    assert checksum.value() == checksum_of(data), "it may be asked for again"
    assert len(checksum.value()) == CHECKSUM_BYTES


@given(data=st.binary(max_size=200), at=st.integers(0), bit=st.integers(0, 7))
def test_a_flipped_bit_and_another_length_show(data: bytes, at: int, bit: int) -> None:
    assert checksum_of(data) != checksum_of(data + b"\0")
    if data:
        other = bytearray(data)
        other[at % len(data)] ^= 1 << bit
        assert checksum_of(bytes(other)) != checksum_of(data)
