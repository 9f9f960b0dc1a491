"""KISS framing: what is encoded comes back whole, and nothing else does harm."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from offgrid_transports.lora.kiss import FRAME_BYTES_MAX, KissDecoder, encode

FRAMES = st.lists(st.tuples(st.integers(0, 255).filter(lambda c: c not in (0xC0, 0xDB)), st.binary(max_size=400)))
CUTS = st.lists(st.integers(0, 5000))


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(FRAMES, CUTS)
def test_frames_come_back_whole_however_they_are_cut(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    decoder = KissDecoder()
    heard = [frame for piece in pieces(b"".join(encode(*f) for f in frames), cuts) for frame in decoder.feed(piece)]
    assert heard == frames
    assert decoder.dropped_bytes == 0


@given(st.binary(max_size=3000), CUTS, st.binary(max_size=100))
def test_garbage_does_no_harm_and_the_next_frame_is_found(garbage: bytes, cuts: list[int], payload: bytes) -> None:
    decoder = KissDecoder()
    for piece in pieces(garbage, cuts):
        for command, body in decoder.feed(piece):
            assert 0 <= command <= 255
            assert len(body) < FRAME_BYTES_MAX
    assert decoder.feed(b"\xc0" + encode(0, payload))[-1] == (0, payload)


def test_frames_may_share_a_fend_and_empty_ones_are_none() -> None:
    decoder = KissDecoder()
    assert decoder.feed(b"\xc0\xc0\xc0\x08\x46\xc0\x50\x01\x56\xc0\xc0") == [(8, b"\x46"), (0x50, b"\x01\x56")]


def test_what_is_too_long_unframed_or_wrongly_escaped_is_dropped_and_counted() -> None:
    decoder = KissDecoder()
    assert decoder.feed(b"boot text\r\n\xc0" + bytes(FRAME_BYTES_MAX + 1)) == []
    assert decoder.feed(bytes(100) + b"\xc0\x01ok\xc0") == [(1, b"ok")]
    assert decoder.feed(b"\x00\xdb\x00\xc0\x00\xdb\xc0") == []
    assert decoder.dropped_bytes == 11 + FRAME_BYTES_MAX + 1 + 100 + 3 + 2
    assert decoder.feed(b"\x02\xdb\xdc\xdb\xdd\xc0") == [(2, b"\xc0\xdb")]
