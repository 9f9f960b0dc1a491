"""Peers behind slow roads: not asked while they are heard, asked seldom when they are not, dead only after long.

Beacons bring presence and nothing else, and on quick roads not even that counts against what is seen there.
"""

from __future__ import annotations

import itertools
from random import Random

from offgrid_node.protocol.mesh.quiet import DEAD_FACTOR, PROBE_BYTES, PROBE_SHARE, Quiet
from offgrid_node.protocol.mesh.swim import ALIVE, BOOT_SHIFT, BOOTS_AHEAD_MAX, DEAD, SUSPECT, News, Swim
from offgrid_node.protocol.pace import FREE, Pace

RADIO = Pace(frame_us=45_000, byte_us=1_500, wait_ms=50, frame_bytes=254)
BLE = Pace(frame_us=1_500, byte_us=15, frame_bytes=2_048)
SLOW = {"barn", "mill"}
ROADS = {**dict.fromkeys(SLOW, RADIO), "shed": BLE}
APART_MS = RADIO.apart_ms(PROBE_BYTES, PROBE_SHARE)
INTERVAL_MS, AGAIN_MS = 1_000, 35_000
LASTS_MS = 3 * AGAIN_MS
LIFE = 1 << BOOT_SHIFT


def swim_with(*peers: str) -> tuple[Swim, Random]:
    swim = Swim("self", 1, INTERVAL_MS, 0, Quiet(lambda node: ROADS.get(node, FREE)))
    for peer in peers:
        swim.watch(peer, 0)
        swim.heard(peer, LIFE, 0)
    return swim, Random(1)


def asked(swim: Swim, rng: Random, from_ms: int, to_ms: int) -> list[tuple[int, str]]:
    """Whom it asks, and when, if ticks come in time."""
    return [(now_ms, each) for now_ms in range(from_ms, to_ms, INTERVAL_MS) for each in swim.tick(now_ms, rng)]


def test_who_is_heard_is_not_asked_and_who_is_near_is_all_the_same() -> None:
    swim, rng = swim_with("barn", "attic")
    for now_ms in range(0, 600_000, AGAIN_MS):
        swim.on_beacon("barn", LIFE, LASTS_MS, now_ms)
        assert {each for _, each in asked(swim, rng, now_ms, now_ms + AGAIN_MS)} == {"attic"}
    assert swim.liveness("barn") == ALIVE


def test_who_is_heard_no_more_is_asked_once_enough_beacons_are_missed_and_then_seldom() -> None:
    swim, rng = swim_with("barn", "mill")
    for peer in SLOW:
        swim.on_beacon(peer, LIFE, LASTS_MS, 0)
    times = [now_ms for now_ms, _ in asked(swim, rng, 0, LASTS_MS + 5 * APART_MS)]
    assert times[0] == LASTS_MS
    assert all(later - earlier >= APART_MS for earlier, later in itertools.pairwise(times))


def test_it_is_suspect_for_as_long_as_it_takes_to_ask_again_and_the_dead_are_asked_less_often() -> None:
    swim, rng = swim_with("barn")
    swim.silent("barn", 0)
    asked(swim, rng, 0, APART_MS)
    assert swim.liveness("barn") == SUSPECT
    times = [now_ms for now_ms, _ in asked(swim, rng, APART_MS, 3 * DEAD_FACTOR * APART_MS)]
    assert swim.liveness("barn") == DEAD
    assert times[-1] - times[-2] >= DEAD_FACTOR * APART_MS


def test_a_beacon_brings_the_dead_back_in_the_life_that_was_known() -> None:
    swim, _ = swim_with("barn")
    swim.learn([News("barn", DEAD, LIFE)], 60_000)
    swim.tick(120_000, Random(1))
    swim.on_beacon("barn", 7 * LIFE, LASTS_MS, 120_000)
    assert (swim.liveness("barn"), swim.incarnation_of("barn")) == (ALIVE, LIFE), "whoever made it up"


def test_who_seems_to_have_begun_anew_is_asked_for_that_once_though_it_is_heard() -> None:
    swim, rng = swim_with("barn", "mill")
    for peer in SLOW:
        swim.on_beacon(peer, LIFE, LASTS_MS, 0)
    swim.on_beacon("barn", 2 * LIFE, LASTS_MS, 1)
    assert [each for _, each in asked(swim, rng, 1, LASTS_MS)] == ["barn"]
    swim.heard("barn", 2 * LIFE, LASTS_MS - 1)
    swim.on_beacon("barn", 2 * LIFE, LASTS_MS, LASTS_MS)
    swim.on_beacon("mill", LIFE, LASTS_MS, LASTS_MS)
    assert asked(swim, rng, LASTS_MS, 2 * LASTS_MS) == []


def test_of_one_never_heard_the_first_beacon_is_believed_as_anybodys_word_is() -> None:
    swim = Swim("self", 1, INTERVAL_MS, 0, Quiet(lambda node: RADIO))
    swim.watch("barn", 0)
    swim.on_beacon("barn", BOOTS_AHEAD_MAX * LIFE + LIFE, LASTS_MS, 10)
    swim.on_beacon("barn", 0, LASTS_MS, 10)
    assert swim.liveness("barn") == SUSPECT
    swim.on_beacon("barn", 7 * LIFE, LASTS_MS, 20)
    swim.on_beacon("barn", 9 * LIFE, LASTS_MS, 30)
    assert (swim.liveness("barn"), swim.incarnation_of("barn")) == (ALIVE, 7 * LIFE)


def test_on_a_quick_link_beacons_keep_nobody_from_being_asked_and_outvote_nothing() -> None:
    swim, rng = swim_with("shed", "attic")
    swim.on_beacon("shed", LIFE, 0, 0)
    assert {each for _, each in asked(swim, rng, 0, 3_000)} == {"shed", "attic"}
    swim.silent("shed", 3_000)
    assert swim.liveness("shed") == SUSPECT
    asked(swim, rng, 3_000, 7_000)
    assert swim.liveness("shed") == DEAD, "in the time that anybody has"
    swim.on_beacon("shed", LIFE, 0, 7_000)
    assert swim.liveness("shed") == DEAD
    assert "shed" in {each for _, each in asked(swim, rng, 7_000, 9_000)}, "it is asked soon"


def test_when_the_connection_to_it_ends_what_was_heard_before_counts_no_more() -> None:
    swim, _ = swim_with("barn")
    swim.on_beacon("barn", LIFE, LASTS_MS, 0)
    swim.silent("barn", 10)
    assert swim.liveness("barn") == ALIVE
    swim.road_lost("barn")
    swim.silent("barn", 20)
    assert swim.liveness("barn") == SUSPECT
    swim.on_beacon("barn", LIFE, LASTS_MS, 30)
    assert swim.liveness("barn") == ALIVE


def test_nobodys_word_counts_against_a_beacon_that_is_heard_here() -> None:
    swim, _ = swim_with("barn")
    swim.on_beacon("barn", LIFE, LASTS_MS, 0)
    swim.learn([News("barn", SUSPECT, LIFE), News("barn", DEAD, LIFE)], 10_000)
    assert swim.liveness("barn") == ALIVE
    swim.learn([News("barn", SUSPECT, LIFE)], LASTS_MS)
    assert swim.liveness("barn") == SUSPECT
