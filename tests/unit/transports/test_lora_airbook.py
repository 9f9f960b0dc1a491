"""Airtime is noted, durable, before it is used; and what a note says counts, whatever has happened since."""

from __future__ import annotations

import json

import pytest
from lora_world import EU, World

from offgrid_transports.keep import Done, MemoryKeep
from offgrid_transports.lora.airbook import NOTED_MAX, Airbook
from offgrid_transports.lora.duty import NEVER
from offgrid_transports.lora.regions import Limit
from offgrid_transports.transport import BROADCAST, Priority

S = 1_000_000
HOUR = Limit(3600 * S, 36 * S)
BAND = EU.bands[1]


class SlowKeep(MemoryKeep):
    """A disk that takes its time, and may fail at a writing."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[tuple[str, bytes, Done]] = []

    def save(self, name: str, data: bytes, done: Done) -> None:
        self.waiting.append((name, data, done))

    def finish(self, error: OSError | None = None) -> None:
        name, data, done = self.waiting.pop(0)
        if error is None:
            self.kept[name] = data
        done(error)


def book(note: bytes | None, clock: str = "run", now_us: int = 0) -> Airbook:
    made = Airbook([HOUR], clock)
    made.recall(note, now_us)
    return made


def test_nothing_leaves_before_its_airtime_is_noted() -> None:
    world, keep = World(), SlowKeep()
    link = world.rnode("a", band=BAND, keep=keep)
    world.run(1)
    assert link.up
    assert link.send(BROADCAST, b"waits for the disk")
    world.run(5)
    assert world.channel.counts.frames == 0
    keep.finish()
    world.run(2)
    assert world.channel.counts.frames == 1


def test_while_a_note_cannot_be_written_nothing_is_sent_and_that_is_said() -> None:
    world, keep = World(), SlowKeep()
    link = world.rnode("a", band=BAND, keep=keep)
    world.run(1)
    link.send(BROADCAST, b"waits")
    keep.finish(OSError(28, "No space left on device"))
    world.run(5)
    assert world.channel.counts.frames == 0
    assert "airtime cannot be noted, so nothing is sent: [Errno 28]" in str(link.figures()["trouble"])
    assert keep.waiting == []
    world.run(10)
    keep.finish()
    world.run(2)
    assert world.channel.counts.frames == 1
    assert "trouble" not in link.figures()


def test_killed_at_any_moment_what_may_have_left_counts() -> None:
    first = book(None)
    note = first.note(0)
    first.noted(ok=True)
    for number in range(4):
        assert first.covers(400_000)
        first.begin(number * S, 400_000, Priority.JOB, "")
        first.duty.settle(1, number * S + 400_000)
    assert not first.covers(400_000), "the stretch of 1.8 s is used up"
    second = book(note, now_us=10 * S)
    assert second.duty.open_us >= 4 * 400_000
    assert second.duty.left_us(10 * S, Priority.CONTROL) <= HOUR.used_us - 4 * 400_000


def test_a_note_that_came_to_nothing_gives_nothing() -> None:
    first = book(None)
    first.note(0)
    first.noted(ok=False)
    assert not first.covers(1)
    assert first.low(0)


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"clock":"run","sent":[[1]],"ahead_us":0}',
        b'{"clock":"run","sent":[],"ahead_us":-1}',
        b'{"clock":"run","sent":[[true,1]],"ahead_us":0}',
        b"[" * 50_000,
    ],
)
def test_a_note_that_cannot_be_read_counts_as_a_full_window(note: bytes) -> None:
    found = book(note)
    assert found.duty.left_us(0, Priority.CONTROL) == 0
    assert "cannot be read" in found.trouble


def test_the_same_clock_is_trusted_and_no_other() -> None:
    note = json.dumps({"clock": "run", "sent": [[10 * S, 100 * S]], "ahead_us": 0}).encode()
    later_us = 3710 * S
    assert book(note, "run", later_us).duty.left_us(later_us, Priority.CONTROL) == 36 * S
    for clock, now_us in (("another", later_us), ("", later_us), ("run", 99 * S)):
        found = book(note, clock, now_us)
        assert found.duty.left_us(now_us + 3590 * S, Priority.CONTROL) == 26 * S, "a clock that ran backwards neither"


def test_a_note_stays_small_and_loses_nothing() -> None:
    first = book(None)
    for number in range(1000):
        first.duty.begin(number * S, 30_000, Priority.JOB, "")
        first.duty.settle(1, number * S + 30_000)
    note = first.note(0)
    assert len(json.loads(note)["sent"]) <= NOTED_MAX
    found = book(note, now_us=1000 * S)
    assert found.duty.left_us(1000 * S, Priority.CONTROL) <= HOUR.used_us - 30 * S


def test_without_limits_nothing_is_noted() -> None:
    free = Airbook([], "run")
    assert free.covers(NEVER - 1)
    assert not free.low(10**12)
