"""Frames: whatever pieces a stream comes in, the messages come out whole, in order, and none too long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.services.frames import HEAD_BYTES, Frames, FrameTooLong, frame

MESSAGES = st.lists(st.binary(max_size=40), max_size=12)


@given(MESSAGES, st.lists(st.integers(0, 30), max_size=60))
def test_messages_survive_any_cut(messages: list[bytes], cuts: list[int]) -> None:
    wire = b"".join(map(frame, messages))
    frames, found = Frames(40), list[bytes]()
    for cut in (*cuts, len(wire)):
        piece, wire = wire[:cut], wire[cut:]
        frames.feed(piece)
        while (message := frames.next()) is not None:
            found.append(message)
    assert found == messages


@given(st.binary(max_size=200))
def test_whatever_comes_gives_messages_or_is_refused(junk: bytes) -> None:
    frames = Frames(16)
    frames.feed(junk)
    taken = 0
    try:
        while (message := frames.next()) is not None:
            taken += HEAD_BYTES + len(message)
    except FrameTooLong:
        return
    assert taken <= len(junk)


def test_a_message_that_would_be_too_long_is_refused_by_its_head() -> None:
    frames = Frames(10)
    frames.feed(frame(bytes(10)))
    assert frames.next() == bytes(10)
    frames.feed((11).to_bytes(HEAD_BYTES, "big"))
    with pytest.raises(FrameTooLong, match="11 bytes; at most 10"):
        frames.next()
