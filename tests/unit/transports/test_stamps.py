"""Stamps only rise, whatever clocks do and over restarts; a made-up one keeps nobody out for ever."""

from __future__ import annotations

import itertools

from offgrid_transports.keep import Done, MemoryKeep
from offgrid_transports.stamps import AHEAD_MS, CLOCK_MAX, FORGOTTEN_MS, NEWEST_MAX, STAMP_MAX, Newest, Stamps

NOW = 1_790_000_000_000
YEAR_MS = 365 * 86_400_000


class Clock:
    def __init__(self, now_ms: int = NOW) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


class FullDisk(MemoryKeep):
    def load(self, name: str) -> bytes | None:
        raise OSError("unreadable")

    def save(self, name: str, data: bytes, done: Done) -> None:
        done(OSError("full"))


def test_they_are_the_clocks_while_it_goes_on_and_rise_by_one_when_it_was_set_back() -> None:
    clock = Clock()
    stamps = Stamps(clock, MemoryKeep())
    assert stamps() == NOW
    clock.now_ms += 10_000
    assert stamps() == NOW + 10_000
    clock.now_ms -= YEAR_MS
    assert [stamps(), stamps()] == [NOW + 10_001, NOW + 10_002]
    clock.now_ms += 2 * YEAR_MS
    assert stamps() == clock.now_ms


def test_they_rise_over_a_restart_with_a_clock_that_was_set_back() -> None:
    clock, keep, last = Clock(), MemoryKeep(), 0
    for _ in range(5):
        stamps = Stamps(clock, keep)
        for _ in range(100):
            assert stamps() > last
            last = stamps()
            clock.now_ms += AHEAD_MS // 40
        clock.now_ms = 0


def test_they_are_noted_seldom() -> None:
    clock, keep, noted = Clock(), MemoryKeep(), set[bytes | None]()
    stamps = Stamps(clock, keep)
    for _ in range(360):
        stamps()
        clock.now_ms += 10_000
        noted.add(keep.load("stamps"))
    assert len(noted) <= 3, "an hour of beacons"


def test_a_clock_that_is_centuries_ahead_leaves_room_for_the_time_after_it() -> None:
    clock = Clock(STAMP_MAX + 5)
    stamps = Stamps(clock, MemoryKeep())
    assert stamps() == CLOCK_MAX
    clock.now_ms = NOW
    assert stamps() == CLOCK_MAX + 1


def test_a_disk_that_takes_nothing_and_a_note_that_is_none_do_no_harm() -> None:
    assert Stamps(Clock(), FullDisk())() == NOW
    keep = MemoryKeep()
    keep.kept["stamps"] = b"seven b"
    assert Stamps(Clock(), keep)() == NOW


def test_what_does_not_lie_behind_the_last_is_a_recording() -> None:
    newest = Newest(Clock())
    assert newest.is_new(0, "barn", NOW)
    assert not newest.is_new(1, "barn", NOW)
    assert not newest.is_new(1, "barn", NOW - 1)
    assert newest.is_new(1, "mill", NOW - 1)
    assert newest.is_new(2, "barn", NOW + 1)


def test_a_recording_stays_one_however_long_its_node_was_silent() -> None:
    clock = Clock()
    newest = Newest(clock)
    assert newest.is_new(0, "barn", NOW)
    clock.now_ms += YEAR_MS
    assert not newest.is_new(YEAR_MS, "barn", NOW)
    assert newest.is_new(YEAR_MS, "barn", NOW + 1)


def test_a_made_up_stamp_of_the_far_future_keeps_its_node_out_for_an_hour() -> None:
    newest = Newest(Clock())
    assert newest.is_new(0, "barn", STAMP_MAX)
    assert not newest.is_new(FORGOTTEN_MS - 1, "barn", NOW)
    assert newest.is_new(FORGOTTEN_MS, "barn", NOW)
    assert not newest.is_new(FORGOTTEN_MS + 1, "barn", NOW)


def test_of_too_many_names_the_one_heard_longest_ago_is_forgotten() -> None:
    newest, names = Newest(Clock()), itertools.count()
    for _ in range(NEWEST_MAX):
        newest.is_new(0, next(names), 7)
    newest.is_new(1, 0, 8)
    newest.is_new(1, next(names), 7)
    assert not newest.is_new(2, 0, 8)
    assert newest.is_new(2, 1, 7)
