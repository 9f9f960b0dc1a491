"""Peers behind slow roads: not asked while they are heard, asked seldom when they are not, dead only after long."""

from __future__ import annotations

import itertools
from random import Random

from offgrid_node.protocol.mesh.quiet import BEACONS_MISSED, DEAD_FACTOR, PROBE_BYTES, PROBE_SHARE, Quiet
from offgrid_node.protocol.mesh.swim import ALIVE, BOOT_SHIFT, DEAD, SUSPECT, News, Swim
from offgrid_node.protocol.pace import FREE, Pace

RADIO = Pace(frame_us=45_000, byte_us=1_500, wait_ms=50, frame_bytes=254)
SLOW = {"barn", "mill"}
APART_MS = RADIO.apart_ms(PROBE_BYTES, PROBE_SHARE)
INTERVAL_MS, AGAIN_MS = 1_000, 35_000


def swim_with(*peers: str) -> tuple[Swim, Random]:
    swim = Swim("self", 1, INTERVAL_MS, 0, Quiet(lambda node: RADIO if node in SLOW else FREE))
    for peer in peers:
        swim.watch(peer, 0)
        swim.heard(peer, 1 << BOOT_SHIFT, 0)
    return swim, Random(1)


def asked(swim: Swim, rng: Random, from_ms: int, to_ms: int) -> list[tuple[int, str]]:
    """Whom it asks, and when, if ticks come in time."""
    return [(now_ms, each) for now_ms in range(from_ms, to_ms, INTERVAL_MS) for each in swim.tick(now_ms, rng)]


def test_who_is_heard_is_not_asked_and_who_is_near_is_all_the_same() -> None:
    swim, rng = swim_with("barn", "attic")
    for now_ms in range(0, 600_000, AGAIN_MS):
        swim.on_beacon("barn", 1 << BOOT_SHIFT, AGAIN_MS, now_ms)
        assert {each for _, each in asked(swim, rng, now_ms, now_ms + AGAIN_MS)} == {"attic"}
    assert swim.liveness("barn") == ALIVE


def test_who_is_heard_no_more_is_asked_once_enough_beacons_are_missed_and_then_seldom() -> None:
    swim, rng = swim_with("barn", "mill")
    for peer in SLOW:
        swim.on_beacon(peer, 1 << BOOT_SHIFT, AGAIN_MS, 0)
    times = [now_ms for now_ms, _ in asked(swim, rng, 0, BEACONS_MISSED * AGAIN_MS + 5 * APART_MS)]
    assert times[0] == BEACONS_MISSED * AGAIN_MS
    assert all(later - earlier >= APART_MS for earlier, later in itertools.pairwise(times))


def test_it_is_suspect_for_as_long_as_it_takes_to_ask_again_and_the_dead_are_asked_less_often() -> None:
    swim, rng = swim_with("barn")
    swim.silent("barn", 0)
    asked(swim, rng, 0, APART_MS)
    assert swim.liveness("barn") == SUSPECT
    times = [now_ms for now_ms, _ in asked(swim, rng, APART_MS, 3 * DEAD_FACTOR * APART_MS)]
    assert swim.liveness("barn") == DEAD
    assert times[-1] - times[-2] >= DEAD_FACTOR * APART_MS


def test_a_beacon_brings_the_dead_back_and_tells_of_a_restart() -> None:
    swim, _ = swim_with("barn")
    swim.learn([News("barn", DEAD, 1 << BOOT_SHIFT)], 60_000)
    swim.tick(120_000, Random(1))
    swim.on_beacon("barn", 2 << BOOT_SHIFT, AGAIN_MS, 120_000)
    assert (swim.liveness("barn"), swim.boot_of("barn")) == (ALIVE, 2)


def test_nobodys_word_counts_against_a_beacon_that_is_heard_here() -> None:
    swim, _ = swim_with("barn")
    swim.on_beacon("barn", 1 << BOOT_SHIFT, AGAIN_MS, 0)
    swim.learn([News("barn", SUSPECT, 1 << BOOT_SHIFT), News("barn", DEAD, 1 << BOOT_SHIFT)], 10_000)
    assert swim.liveness("barn") == ALIVE
    swim.learn([News("barn", SUSPECT, 1 << BOOT_SHIFT)], BEACONS_MISSED * AGAIN_MS)
    assert swim.liveness("barn") == SUSPECT
