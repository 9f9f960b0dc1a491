"""The rules of `transport.Transport`, each as a test on two ends of one adapter."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise

import pytest

from offgrid_transports.conformance.live import PATIENCE_S, End, Live
from offgrid_transports.registry import TransportRegistry
from offgrid_transports.transport import BROADCAST, FRAME_BYTES_MAX, LINK_BYTE, Priority

TRIES = 20  # a link may lose a frame, but not one length for ever
FLOOD_FRAMES_MAX = 5000
FLOOD_S_MAX = 20.0
CLOCK_MS = 20.0  # between two questions


@pytest.fixture
def registry() -> TransportRegistry:
    return TransportRegistry.installed()


@pytest.fixture
def descriptions(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Both ends' descriptions, from the command line."""
    given: list[str] = request.config.getoption("--transport")
    if len(given) not in (1, 2):
        pytest.fail("name the adapter: --transport DESCRIPTION, twice when its two ends differ", pytrace=False)
    return given[0], given[-1]


@pytest.fixture
def live(registry: TransportRegistry) -> Iterator[Live]:
    """Ends with both links closed, and says what went wrong behind the test's back."""
    lives = Live(registry)
    try:
        yield lives
    finally:
        lives.close()
    assert lives.faults == [], "an exception that nobody took"
    assert sum(end.nested for end in lives.ends) == 0, "a callback came from within a call"


@pytest.fixture
def pair(live: Live, descriptions: tuple[str, str]) -> tuple[End, End]:
    return live.pair(*descriptions)


def pattern(length: int) -> bytes:
    """A frame of this length that is unlike one of another length."""
    return (length.to_bytes(4, "big") * (length // 4 + 1))[-length:].replace(bytes([LINK_BYTE]), b"\1")[:length]


def carry(one: End, other: End, frame: bytes) -> None:
    """Sends it until it is heard."""
    before = len(other.frames)
    for _ in range(TRIES):
        sent = one.send(one.peer, frame)
        wait_s = 0.5 + 3 * one.live.takes_s(one, len(frame))
        if sent and one.live.waits(lambda: frame in other.frames[before:], wait_s):
            return
        one.live.run(0 if sent else min(wait_s, 0.1))
    pytest.fail(f"a frame of {len(frame)} bytes did not arrive in {TRIES} tries")


def test_they_find_each_other_by_broadcast(pair: tuple[End, End]) -> None:
    for end in pair:
        assert end.transport.up
        if end.transport.shared:
            assert {address for address, _ in end.heard} == {BROADCAST}, "on a shared medium there are no addresses"


def test_frames_of_all_lengths_arrive_whole(pair: tuple[End, End]) -> None:
    for one, other in (pair, pair[::-1]):
        mtu = one.mtu_bytes()
        lengths = sorted({1, 2, 3, 7, 64, mtu // 2, mtu - 1, mtu} & set(range(1, mtu + 1)))
        sent = [b"\1" if length == 1 else b"\2" + pattern(length - 1) for length in lengths]
        for frame in sent:
            carry(one, other, frame)
        assert set(other.frames) <= set(sent), "a frame arrives whole or not at all"


def test_every_byte_is_carried_as_it_is(pair: tuple[End, End]) -> None:
    one, other = pair
    every = bytes(range(256)) + bytes((0xC0, 0xDB, 0xDC, 0xDD, 0xC0, 0xC0, 0x94, 0xC3, 0, 0, 0xFF, 0xFF))
    step = one.mtu_bytes() - 1
    for begin in range(0, len(every), step):
        carry(one, other, b"\3" + every[begin : begin + step])


def test_a_frame_that_is_too_long_is_refused(pair: tuple[End, End]) -> None:
    one, other = pair
    for address in (one.peer, BROADCAST):
        mtu = one.call(lambda address=address: one.transport.mtu_bytes(address))  # type: ignore[misc]
        with pytest.raises(ValueError, match=str(mtu + 1)):
            one.send(address, bytes(mtu + 1))
    carry(one, other, b"\4after")


def test_a_full_queue_says_no_and_later_that_it_has_room(pair: tuple[End, End]) -> None:
    one, other = pair
    link, frame = one.transport, b"\5" + bytes(min(one.mtu_bytes(), 1000) - 1)

    def flood() -> bool:
        """Whether it said no."""
        most = max(20, int(FLOOD_S_MAX * 1000 / max(link.airtime_ms(len(frame)), 0.001)))
        return not all(link.send(one.peer, frame) for _ in range(min(FLOOD_FRAMES_MAX, most)))

    one.rooms = 0
    refused = one.call(flood)
    if refused:
        assert one.live.waits(lambda: one.rooms, PATIENCE_S + one.live.takes_s(one, len(frame))), "no on_room came"
    one.live.waits(lambda: False, min(FLOOD_S_MAX, one.live.takes_s(one, len(frame))))
    carry(one, other, b"\5after")


def test_what_it_says_of_itself_is_of_the_promised_shape(pair: tuple[End, End]) -> None:
    for end in pair:
        link = end.transport
        mtu = end.mtu_bytes()
        assert isinstance(mtu, int)
        assert 1 < mtu <= FRAME_BYTES_MAX
        assert link.up is True
        assert link.shared in (True, False)
        assert isinstance(link.bitrate_bps, int)
        assert link.bitrate_bps >= 0
        assert 0 <= link.access_ms < math.inf
        neighbours = end.call(link.neighbours)
        assert isinstance(neighbours, tuple)
        assert all(isinstance(name, str) for name in neighbours)
        figures = end.call(link.figures)
        assert isinstance(figures, Mapping)
        for name, value in figures.items():
            assert isinstance(name, str)
            assert isinstance(value, str | int | float), name


def test_airtime_grows_with_length(pair: tuple[End, End]) -> None:
    for end in pair:
        link, mtu = end.transport, end.mtu_bytes()
        times = end.call(lambda link=link, mtu=mtu: [link.airtime_ms(n) for n in range(1, mtu + 1)])  # type: ignore[misc]
        assert times == sorted(times)
        assert times[0] >= 0
        assert times[-1] < math.inf
        if link.bitrate_bps:
            assert times[0] < times[-1]


def test_waiting_is_never_below_nothing_nor_longer_for_who_goes_first(pair: tuple[End, End]) -> None:
    one, _ = pair
    link = one.transport
    waits = one.call(lambda: [link.wait_ms(10, priority) for priority in Priority])
    assert waits[0] >= 0
    assert all(first <= later + CLOCK_MS for first, later in pairwise(waits)), "time goes on while they are asked"


def test_both_send_at_once(pair: tuple[End, End]) -> None:
    a, b = pair
    for number in range(4):
        frame = bytes((6, number)) * 8
        b.send(b.peer, frame)
        carry(a, b, frame)
    carry(b, a, b"\6" * 8)


def test_closing_is_final_and_may_be_done_twice(pair: tuple[End, End]) -> None:
    a, b = pair
    b.send(b.peer, b"\7on its way")
    a.close()
    heard, rooms, changes = len(a.heard), a.rooms, a.changes
    a.close()
    assert not a.transport.up
    assert not a.send(a.peer, b"\7late")
    assert not a.send(BROADCAST, b"\7late")
    for _ in range(3):
        b.send(b.peer, b"\7nobody there")
    a.live.run(0.2)
    assert (len(a.heard), a.rooms, a.changes) == (heard, rooms, changes), "a closed end says nothing"
    assert a.call(a.transport.neighbours) == ()
    assert isinstance(a.call(a.transport.figures), Mapping)


def test_a_closed_end_can_be_opened_again(live: Live, pair: tuple[End, End], descriptions: tuple[str, str]) -> None:
    a, b = pair
    a.close()
    live.run(0.1)
    again = live.open(descriptions[0])
    b.heard.clear()
    live.meet(again, b)
    carry(again, b, b"\x08again")
