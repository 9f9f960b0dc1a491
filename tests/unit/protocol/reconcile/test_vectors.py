"""Version vectors: who lacks whose latest, and one way only to write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.reconcile import vectors
from offgrid_node.protocol.reconcile.vectors import decode_vector, digest_of, encode_vector, gap_between

ANN, BOB = b"a" * 20, b"b" * 20
HEIGHTS = st.dictionaries(st.binary(min_size=20, max_size=20), st.integers(1, 2**64 - 1), max_size=5)


def test_the_gap_is_by_origin_and_number() -> None:
    gap = gap_between({ANN: 5, BOB: 2}, {ANN: 7})
    assert gap.there == {ANN: (6, 7)}
    assert gap.here == {BOB: (1, 2)}


@given(HEIGHTS, HEIGHTS)
def test_the_gap_of_two_sides_is_the_same_seen_from_either(one: dict[bytes, int], other: dict[bytes, int]) -> None:
    gap, mirrored = gap_between(one, other), gap_between(other, one)
    assert (gap.here, gap.there) == (mirrored.there, mirrored.here)
    assert (digest_of(one) == digest_of(other)) == (not gap.here and not gap.there)


@given(HEIGHTS)
def test_a_vector_is_read_as_it_was_written(heights: dict[bytes, int]) -> None:
    assert decode_vector(encode_vector(heights)) == heights


@given(st.binary(max_size=80))
def test_what_is_read_is_written_so_again(raw: bytes) -> None:
    try:
        heights = decode_vector(raw)
    except PeerFault as fault:
        assert fault.reason == "BadVector"  # noqa: PT017 - most bytes are none
    else:
        assert encode_vector(heights) == raw


def test_one_of_too_many_origins_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "ORIGINS_MAX", 1)
    with pytest.raises(PeerFault, match="version vector"):
        decode_vector(encode_vector({ANN: 1, BOB: 1}))


def test_twice_the_same_origin_is_refused() -> None:
    one = encode_vector({ANN: 1})
    with pytest.raises(PeerFault, match="in its place"):
        decode_vector(one + one)
