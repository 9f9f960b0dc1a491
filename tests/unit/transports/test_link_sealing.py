"""Sealed frames: each opens once, in any order within the window; nothing else opens or changes anything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_transports.sealing import (
    COUNTER_MAX,
    EPOCH_FRAMES,
    WINDOW_FRAMES,
    NotOpened,
    Opener,
    Sealer,
    Suite,
)

KEY = bytes(range(32))
HEAD = b"\x00id"
SUITES = pytest.mark.parametrize("suite", list(Suite))


def pair(suite: Suite = Suite.AES_CCM_8) -> tuple[Sealer, Opener]:
    return Sealer(suite, KEY), Opener(suite, KEY)


def frame_of(sealer: Sealer, count: int) -> bytes:
    """As if all before it had been sealed, each epoch's first among them: those renew the key."""
    while sealer.count <= count:
        first_of_next = (sealer.count // EPOCH_FRAMES + 1) * EPOCH_FRAMES
        if sealer.count % EPOCH_FRAMES:
            sealer.count = min(count, first_of_next)
        frame = sealer.seal(HEAD, b"%d" % (sealer.count,))
    return frame


def frames_of(*counts: int) -> dict[int, bytes]:
    """Those that have these counters; `counts` rise."""
    sealer = Sealer(Suite.AES_CCM_8, KEY)
    return {count: frame_of(sealer, count) for count in counts}


@SUITES
@pytest.mark.parametrize("clear", [b"", b"in the clear", bytes(300)])
def test_what_is_sealed_opens_and_costs_a_counter_and_a_tag(suite: Suite, clear: bytes) -> None:
    sealer, opener = pair(suite)
    frame = sealer.seal(HEAD, clear)
    assert len(frame) == len(HEAD) + 2 + len(clear) + suite.tag_bytes
    assert opener.open(frame, len(HEAD)) == (0, clear)
    assert clear[:8] == b"" or clear[:8] not in frame


@SUITES
def test_no_bit_of_a_frame_can_be_another_one(suite: Suite) -> None:
    sealer, opener = pair(suite)
    opener.open(sealer.seal(HEAD, b""), len(HEAD))
    frame, before = sealer.seal(HEAD, b"words"), (opener.newest, opener.seen)
    for bit in range(8 * len(frame)):
        bad = bytearray(frame)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(NotOpened):
            opener.open(bytes(bad), len(HEAD))
    for end in range(len(frame)):
        with pytest.raises(NotOpened):
            opener.open(frame[:end], len(HEAD))
    assert (opener.newest, opener.seen) == before
    assert opener.open(frame, len(HEAD)) == (1, b"words")


@pytest.mark.parametrize("other", [Opener(Suite.AES_CCM_8, bytes(32)), Opener(Suite.CHACHA20_POLY1305, KEY)])
def test_another_key_and_another_suite_open_nothing(other: Opener) -> None:
    with pytest.raises(NotOpened):
        other.open(Sealer(Suite.AES_CCM_8, KEY).seal(HEAD, bytes(20)), len(HEAD))


@given(st.permutations(range(40)), st.lists(st.integers(0, 39)))
def test_each_opens_once_in_any_order(order: list[int], replayed: list[int]) -> None:
    sealer, opener = pair()
    frames = [sealer.seal(HEAD, b"%d" % count) for count in range(40)]
    for at, count in enumerate(order):
        assert opener.open(frames[count], len(HEAD)) == (count, b"%d" % count)
        for again in replayed:
            if again in order[: at + 1]:
                with pytest.raises(NotOpened):
                    opener.open(frames[again], len(HEAD))
    assert opener.seen == (1 << 40) - 1
    assert opener.forged == 0, "what was here before is not even tried"


def test_what_was_overtaken_by_more_than_the_window_is_too_old_to_tell() -> None:
    frames = frames_of(0, 1, WINDOW_FRAMES)
    opener = Opener(Suite.AES_CCM_8, KEY)
    opener.open(frames[WINDOW_FRAMES], len(HEAD))
    assert opener.open(frames[1], len(HEAD))[0] == 1
    with pytest.raises(NotOpened):
        opener.open(frames[0], len(HEAD))


@given(
    st.lists(st.integers(1, 32_000), min_size=2, max_size=12),
    st.lists(st.integers(0, 11), max_size=8),
)
def test_counters_are_told_from_their_low_half_over_lost_runs_and_epochs(steps: list[int], again: list[int]) -> None:
    """Half of 65,536 may be lost in a row; three epochs and more pass by."""
    sealer, opener, count, frames = *pair(), -1, []
    for step in steps:
        count += step
        frames.append((count, frame_of(sealer, count)))
        assert opener.open(frames[-1][1], len(HEAD)) == (count, b"%d" % count)
    for at in again:
        with pytest.raises(NotOpened):
            opener.open(frames[at % len(frames)][1], len(HEAD))


def test_frames_of_the_epoch_before_still_open_in_the_new_one() -> None:
    late, first = EPOCH_FRAMES - 5, EPOCH_FRAMES + 100
    frames = frames_of(30_000, 60_000, late, EPOCH_FRAMES - 1, first)
    opener = Opener(Suite.AES_CCM_8, KEY)
    for count in (30_000, 60_000, EPOCH_FRAMES - 1, first, late):
        assert opener.open(frames[count], len(HEAD)) == (count, b"%d" % count)


def test_each_epoch_has_a_key_of_its_own_and_only_two_are_kept() -> None:
    sealer, opener = pair()
    for epoch in range(4):
        for count in (EPOCH_FRAMES * epoch, EPOCH_FRAMES * epoch + 30_000, EPOCH_FRAMES * epoch + 60_000):
            opener.open(frame_of(sealer, count), len(HEAD))
    assert sorted(opener._keys) == [2, 3]
    assert len({sealer._key, KEY, *(key for key, _ in opener._keys.values())}) == 3


def test_a_frame_of_the_first_epoch_does_not_open_as_the_one_due_in_the_next_that_ends_alike() -> None:
    sealer, opener = pair()
    for count in (30_000, 60_000, EPOCH_FRAMES + 6):
        opener.open(frame_of(sealer, count), len(HEAD))
    with pytest.raises(NotOpened):
        opener.open(frames_of(7)[7], len(HEAD))


def test_a_forged_frame_from_the_next_epoch_keeps_no_key() -> None:
    sealer, opener = pair()
    frame_of(sealer, 60_000)
    for count in (30_000, 60_000):
        opener.open(frame_of(Sealer(Suite.AES_CCM_8, KEY), count), len(HEAD))
    forged = HEAD + (5).to_bytes(2) + bytes(20)  # would be 65,541
    for number in range(3):
        with pytest.raises(NotOpened):
            opener.open(forged, len(HEAD))
        assert (opener.newest, sorted(opener._keys), opener.forged) == (60_000, [0], number + 1)
    assert opener.open(frame_of(sealer, EPOCH_FRAMES + 5), len(HEAD))[0] == EPOCH_FRAMES + 5


def test_what_is_forgotten_counts_as_not_received_and_opens_once_more() -> None:
    sealer, opener = pair()
    frames = [sealer.seal(HEAD, b"") for _ in range(3)]
    for frame in frames:
        opener.open(frame, len(HEAD))
    opener.forget(1)
    assert opener.seen == 0b101
    assert opener.open(frames[1], len(HEAD))[0] == 1
    with pytest.raises(NotOpened):
        opener.open(frames[1], len(HEAD))
    opener.forget(7)
    opener.forget(-WINDOW_FRAMES)
    assert opener.seen == 0b111


def test_the_last_counter_is_the_last() -> None:
    sealer, _ = pair()
    sealer.count = COUNTER_MAX
    assert not sealer.used_up
    sealer.seal(HEAD, b"")
    assert sealer.used_up
    with pytest.raises(OverflowError):
        sealer.seal(HEAD, b"")
