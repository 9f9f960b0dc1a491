"""When beacons leave and how long they are believed, in virtual time on one slow shared link."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from random import Random

from offgrid_node.services.beaconing import (
    AGAIN_FACTOR,
    CHANNEL_SHARE,
    FIRST_FRAMES,
    MISSED_MAX,
    NODE_SHARE,
    Beaconing,
    Heard,
)
from offgrid_transports.beacons import AGAIN_S_MAX, BEACON_BYTES_MAX, Beacon, read_beacon, write_beacon
from offgrid_transports.path import Path
from offgrid_transports.transport import LinkHost, Transport

PSK = b"k" * 32
FRAME_MS = 100.0


class Slow:
    """A link on which each frame takes a tenth of a second."""

    up, bitrate_bps, access_ms = True, 5_000, 0.0

    def __init__(self, *, shared: bool = True) -> None:
        self.shared = shared

    def airtime_ms(self, length: int) -> float:
        return FRAME_MS + length / 100

    def mtu_bytes(self, address: str = "") -> int:
        return 222


class Ear:
    """As much of an endpoint as is asked for."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.said: list[tuple[int, Beacon]] = []
        self._now_ms = now_ms
        self.on_beacon: Callable[[Path, bytes], None] = lambda path, frame: None
        self.on_change: Callable[[Transport], None] = lambda transport: None

    def broadcast(self, transport: Transport, frame: bytes) -> None:
        beacon = read_beacon(PSK, frame)
        assert beacon is not None
        self.said.append((self._now_ms(), beacon))


class World:
    def __init__(self, *, shared: bool = True) -> None:
        self.now_ms, self._order = 0, itertools.count()
        self._due: list[tuple[int, int, Callable[[], object]]] = []
        self.link, self.stamps, self.heard = Slow(shared=shared), itertools.count(1), list[tuple[str, Heard]]()
        self.ear = Ear(lambda: self.now_ms)
        self.beaconing = Beaconing(
            PSK,
            b"tag of 8",
            self.ear,  # type: ignore[arg-type]
            LinkHost(Random(1), self._schedule, lambda: self.now_ms),
            lambda: next(self.stamps),
            bytes,
            lambda tag: tag.decode().strip(),
            lambda node, path, heard: self.heard.append((node, heard)),
        )

    def _schedule(self, delay_ms: int, callback: Callable[[], object]) -> None:
        heapq.heappush(self._due, (self.now_ms + delay_ms, next(self._order), callback))

    def begin(self) -> None:
        self.ear.on_change(self.link)  # type: ignore[arg-type]

    def run_for(self, time_ms: int) -> None:
        until_ms = self.now_ms + time_ms
        while self._due and self._due[0][0] <= until_ms:
            self.now_ms, _, callback = heapq.heappop(self._due)
            callback()
        self.now_ms = until_ms

    def hear(self, name: str, stamp: int, again_s: int = 35) -> None:
        frame = write_beacon(PSK, Beacon(name.ljust(8).encode(), stamp, again_s))
        self.ear.on_beacon(Path(self.link, "air"), frame)  # type: ignore[arg-type]


AIR_MS = Slow().airtime_ms(BEACON_BYTES_MAX)


def test_on_a_shared_link_the_first_comes_twice_and_then_they_take_their_share() -> None:
    world = World()
    world.begin()
    world.run_for(int(FIRST_FRAMES * AIR_MS))
    assert next(at_ms for at_ms, _ in world.ear.said) == 0
    assert len(world.ear.said) == 2
    world.run_for(3_600_000)
    assert (len(world.ear.said) - 2) * AIR_MS <= 1.15 * 3_600_000 / NODE_SHARE


def test_on_others_it_comes_once() -> None:
    world = World(shared=False)
    world.begin()
    world.run_for(int(FIRST_FRAMES * AIR_MS))
    assert len(world.ear.said) == 1


def test_for_a_while_who_is_in_reach_may_not_have_been_heard() -> None:
    world = World()
    link: Transport = world.link  # type: ignore[assignment]
    world.begin()
    assert world.beaconing.begins(link)
    world.run_for(int(2 * FIRST_FRAMES * AIR_MS) + 1)
    assert not world.beaconing.begins(link)


def test_the_more_are_heard_the_more_seldom_it_speaks() -> None:
    world = World()
    for number in range(9):
        world.hear(f"n{number}", 1)
    assert world.beaconing.again_ms(world.link) == int(10 * CHANNEL_SHARE * AIR_MS)  # type: ignore[arg-type]


def test_a_beacon_is_believed_until_three_are_missed_and_no_longer_than_such_a_link_makes_likely() -> None:
    world = World()
    world.hear("barn", 1, again_s=35)
    world.hear("mill", 1, again_s=AGAIN_S_MAX)
    likely_ms = AGAIN_FACTOR * int(NODE_SHARE * AIR_MS)
    assert [heard.lasts_ms for _, heard in world.heard] == [MISSED_MAX * 35_000, MISSED_MAX * likely_ms]


def test_what_does_not_lie_behind_the_last_is_not_heard() -> None:
    world = World()
    for stamp in (5, 5, 4, 6):
        world.hear("barn", stamp)
    assert len(world.heard) == 2
