"""Frames in a stream: however it is cut, the same frames come out, and what is no stream is told at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_transports.stream_frames import HELLO_BYTES, Deframer, Garbage, framed, hello
from offgrid_transports.transport import FRAME_BYTES_MAX, LINK_BYTE

MOST = 100
FRAMES = st.lists(st.binary(min_size=1, max_size=MOST).filter(lambda frame: frame[0] < LINK_BYTE), max_size=20)


def all_of(deframer: Deframer) -> list[bytes]:
    return list(iter(deframer.take, None))


@given(FRAMES, st.lists(st.integers(1, 60), min_size=1))
def test_however_a_stream_is_cut_the_same_frames_come_out(frames: list[bytes], cuts: list[int]) -> None:
    stream = hello(MOST) + b"".join(map(framed, frames))
    deframer, got, at = Deframer(MOST), [], 0
    while at < len(stream):
        step = cuts[at % len(cuts)]
        deframer.feed(stream[at : at + step])
        at += step
        got += all_of(deframer)
        assert deframer.held <= MOST + 2 + 60
    assert got == frames
    assert (deframer.offered, deframer.held) == (MOST, 0)


@pytest.mark.parametrize(
    ("stream", "says"),
    [
        (b"G", "OGL1"),
        (b"GET / HTTP/1.1\r\n", "OGL1"),
        (b"OGL2\x10\x00", "OGL1"),
        (b"OGL1\x00\x3f", "64 to 65507"),
        (b"OGL1\xff\xff", "64 to 65507"),
        (hello(MOST) + b"\x00\x00", "1 to 100"),
        (hello(MOST) + b"\x00\x65", "1 to 100"),
        (hello(MOST) + b"\x00\x05\xf0", "below 0xf0"),
    ],
)
def test_what_is_no_stream_is_told_before_any_more_is_waited_for(stream: bytes, says: str) -> None:
    deframer = Deframer(MOST)
    deframer.feed(stream)
    for _ in range(2):
        with pytest.raises(Garbage, match=says):
            deframer.take()


def test_the_longest_frame_is_carried() -> None:
    deframer = Deframer(FRAME_BYTES_MAX)
    deframer.feed(hello(FRAME_BYTES_MAX) + framed(bytes(FRAME_BYTES_MAX)))
    assert [len(frame) for frame in all_of(deframer)] == [FRAME_BYTES_MAX]


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_any_bytes_give_frames_or_garbage_and_nothing_else(chunks: list[bytes]) -> None:
    deframer = Deframer(MOST)
    try:
        for chunk in [hello(MOST)[: HELLO_BYTES - 1], *chunks]:
            deframer.feed(chunk)
            assert all(0 < len(frame) <= MOST for frame in all_of(deframer))
    except Garbage:
        pass
