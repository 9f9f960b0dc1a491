"""Frames: whatever pieces a stream comes in, the messages come out whole, in order, and none too long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid.frames import HEAD_BYTES, ROOM_BYTES, SLICE_BYTES, Frames, FrameTooLong, Outgoing, frame

MESSAGES = st.lists(st.binary(max_size=40), max_size=12)


def take(frames: Frames, data: bytes) -> list[bytes]:
    """What is whole once the data have come."""
    found = []
    while True:
        while (message := frames.next()) is not None:
            found.append(bytes(message))
        if not data:
            return found
        room = frames.room
        assert room, "there is always some"
        size = min(len(room), len(data))
        room[:size], data = data[:size], data[size:]
        frames.came(size)


@given(MESSAGES, st.lists(st.integers(0, 30), max_size=60))
def test_messages_survive_any_cut(messages: list[bytes], cuts: list[int]) -> None:
    wire = b"".join(map(frame, messages))
    frames, found = Frames(40), list[bytes]()
    for cut in (*cuts, len(wire)):
        piece, wire = wire[:cut], wire[cut:]
        found += take(frames, piece)
    assert found == messages


SIZES = st.lists(st.sampled_from([0, 1, 5, ROOM_BYTES - HEAD_BYTES, ROOM_BYTES, 3 * ROOM_BYTES]), max_size=6)


@given(SIZES, st.lists(st.integers(1, 4 * ROOM_BYTES), max_size=9))
def test_large_messages_come_between_small_ones(sizes: list[int], cuts: list[int]) -> None:
    messages = [bytes([index + 1]) * size for index, size in enumerate(sizes)]
    wire, frames, found = b"".join(map(frame, messages)), Frames(3 * ROOM_BYTES), list[bytes]()
    for cut in (*cuts, len(wire)):
        found, wire = found + take(frames, wire[:cut]), wire[cut:]
    assert found == messages


@given(st.lists(st.tuples(st.binary(max_size=9), st.sampled_from([0, 1, SLICE_BYTES - 5, SLICE_BYTES, 200_000]))))
def test_what_leaves_in_slices_is_the_same_stream(parts: list[tuple[bytes, int]]) -> None:
    outgoing = Outgoing()
    for head, size in parts:
        outgoing.put((head, bytes(size)))
    slices = []
    while outgoing:
        slices.append(bytes(outgoing.take()))
    assert not outgoing.take()
    assert all(0 < len(each) <= SLICE_BYTES for each in slices)
    assert b"".join(slices) == b"".join(frame(head + bytes(size)) for head, size in parts)


@given(st.binary(max_size=200))
def test_whatever_comes_gives_messages_or_is_refused(junk: bytes) -> None:
    try:
        found = take(Frames(16), junk)
    except FrameTooLong:
        return
    assert sum(HEAD_BYTES + len(message) for message in found) <= len(junk)


def test_a_message_that_would_be_too_long_is_refused_by_its_head() -> None:
    frames = Frames(10)
    assert take(frames, frame(bytes(10))) == [bytes(10)]
    with pytest.raises(FrameTooLong, match="11 bytes; at most 10"):
        take(frames, (11).to_bytes(HEAD_BYTES, "big"))
