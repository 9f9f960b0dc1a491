"""The frame's parser: whatever it accepts it would write again, and it accepts nothing out of bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_transports.framing import BITMAP_BYTES_MAX, FRAGMENTS_MAX, Frame, FrameError, Kind, Reset, decode, encode

GOOD = [
    Frame(Kind.REQUEST, 7, 1, 0, 1, 1, True, b"x"),
    Frame(Kind.RESPONSE, 2**32 - 1, 2**32 - 1, FRAGMENTS_MAX - 1, FRAGMENTS_MAX, 255, False, b"x"),
    Frame(Kind.REQUEST_ACK, 7, 1, 3, 3, 1),
    Frame(Kind.RESPONSE_ACK, 7, 1, 0, 3, 1, payload=b"\xe0"),
    Frame(Kind.PROBE, 7, 1),
    Frame(Kind.RESET, 7, 1, payload=bytes([Reset.GONE])),
]
BAD = {
    "call 0": Frame(Kind.PROBE, 7, 0),
    "an empty fragment": Frame(Kind.REQUEST, 7, 1, 0, 1),
    "an index beyond the total": Frame(Kind.REQUEST, 7, 1, 1, 1, payload=b"x"),
    "too many fragments": Frame(Kind.RESPONSE, 7, 1, 0, FRAGMENTS_MAX + 1, payload=b"x"),
    "an acknowledgement of nothing": Frame(Kind.REQUEST_ACK, 7, 1, 0, 0),
    "a base beyond the total": Frame(Kind.REQUEST_ACK, 7, 1, 4, 3),
    "a bitmap too long": Frame(Kind.RESPONSE_ACK, 7, 1, 0, 3, payload=bytes(BITMAP_BYTES_MAX + 1)),
    "an acknowledgement that asks": Frame(Kind.RESPONSE_ACK, 7, 1, 0, 3, poll=True),
    "a probe with a payload": Frame(Kind.PROBE, 7, 1, payload=b"x"),
    "an unknown reset": Frame(Kind.RESET, 7, 1, payload=b"\x04"),
    "a reset without a reason": Frame(Kind.RESET, 7, 1),
}


@pytest.mark.parametrize("frame", GOOD, ids=lambda frame: frame.kind.name)
def test_what_is_written_is_read(frame: Frame) -> None:
    assert decode(encode(frame)) == frame


@pytest.mark.parametrize("frame", BAD.values(), ids=BAD.keys())
def test_what_is_out_of_bounds_is_refused(frame: Frame) -> None:
    with pytest.raises(FrameError):
        decode(encode(frame))


def test_another_version_reserved_bits_and_unknown_kinds_are_refused() -> None:
    good = encode(GOOD[0])
    for first in (good[0] ^ 0x20, good[0] | 2, 1 << 5 | 6 << 2, 1 << 5 | 7 << 2):
        with pytest.raises(FrameError):
            decode(bytes([first]) + good[1:])


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_is_exactly_what_would_be_written(data: bytes) -> None:
    try:
        frame = decode(data)
    except FrameError:
        return
    assert encode(frame) == data
