"""Objects that may expire: their owner deletes them at their time, a host drops them by itself a day later.

A time of day is only as good as the clock that tells it, and clocks off the grid leap. So nothing expires by a clock
that has just leapt ahead: it is believed again once the node has run a day under it, in however many lives and without
another leap, or when it has been set back. A host is a day late in any case, so clocks that are hours apart lose
nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.objects.tables import META, NUMBER_BYTES, SEEN_CLOCK, number_key, number_of

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
HOST_LATE_US = DAY_MS * 1_000  # how long after its time a host drops what its owner has not
LOOK_MS = 30_000  # the wall clock may be set at any moment
LEAP_MAX_US = HOUR_MS * 1_000  # ahead of what the running node's own time says; a summer time, and no more
AWAY_MAX_US = 60 * DAY_MS * 1_000  # a node may well have been off for so long
PROBATION_MS = DAY_MS  # how long a clock that leapt has to go on by itself
NOTE_MS = HOUR_MS  # how often what the clock says is noted
DOUBT_NOTE_MS = 600_000  # how often likewise how long it has gone on since it leapt: what a start may lose of that
ACTS_MAX = 256  # in one step; the others in the next


class TrustedClock:
    """Whether the wall clock may be believed, with regard to what it said before."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._noted, self._doubted = _Reading(), _Reading()  # as it was last believed; as it says since it leapt
        self._served_ms = 0  # how long the node has run since it leapt, in all its lives
        self._written_ms = 0  # of that, as the row says

    def load(self, rows: Rows) -> None:
        row = rows.get(META, SEEN_CLOCK) or b""
        noted_us, doubted_us, self._served_ms = (
            number_of(row[at : at + NUMBER_BYTES]) for at in range(0, 3 * NUMBER_BYTES, NUMBER_BYTES)
        )
        self._noted, self._doubted, self._written_ms = _Reading(noted_us), _Reading(doubted_us), self._served_ms

    def believed(self, now: Now) -> bool:
        if self._noted.utc_us and self._noted.leap_us(now) > 0 and not self._has_served(now):
            return False
        doubted = bool(self._doubted.utc_us)
        if doubted or self._noted.mono_ms is None or now.mono_ms >= self._noted.mono_ms + NOTE_MS:
            self._noted, self._doubted, self._served_ms = _Reading(max(1, now.utc_us), now.mono_ms), _Reading(), 0
            self._write()
        return True

    def _has_served(self, now: Now) -> bool:
        """Whether a clock that leapt has gone on by itself for long enough. Another leap begins that anew, a start of
        the node does not: many run for some hours a day."""
        before = self._doubted
        fresh = not before.utc_us or before.leap_us(now) > 0
        if fresh:
            self._served_ms = 0
        elif before.mono_ms is not None:
            self._served_ms += now.mono_ms - before.mono_ms
        self._doubted = _Reading(max(1, now.utc_us), now.mono_ms)
        if fresh or self._served_ms >= self._written_ms + DOUBT_NOTE_MS:
            self._write()
        return self._served_ms >= PROBATION_MS

    def _write(self) -> None:
        self._written_ms = self._served_ms
        said = self._noted.utc_us, self._doubted.utc_us, self._served_ms
        self._draft.put_bytes(META, SEEN_CLOCK, b"".join(map(number_key, said)))


class _Reading(msgspec.Struct, frozen=True):
    """What the clock said, 0 before it has said anything; and when that was, in this life."""

    utc_us: int = 0
    mono_ms: int | None = None

    def leap_us(self, now: Now) -> int:
        """How far the clock is beyond what it may say by now; not above 0 where it is not."""
        if self.mono_ms is None:
            return now.utc_us - self.utc_us - AWAY_MAX_US
        return now.utc_us - self.utc_us - (now.mono_ms - self.mono_ms) * 1_000 - LEAP_MAX_US


class Expiry:
    """What expires when: a table whose keys are a time (8 bytes, big-endian, µs UTC) and a name."""

    def __init__(
        self, draft: Draft, clock: TrustedClock, table: str, late_us: int, act: Callable[[str, int, Now], None]
    ) -> None:
        """`act` is told a name, and its time, which has been over for `late_us`. The row goes with that; it may be all
        that is left of what it spoke of."""
        self._draft, self._clock, self._table, self._late_us, self._act = draft, clock, table, late_us, act
        self._look_ms: int | None = None

    def load(self, rows: Rows, now: Now) -> None:
        self._look_ms = now.mono_ms if next(iter(rows.scan(self._table)), None) is not None else None

    def arm(self, now: Now) -> None:
        """A row has been added."""
        if self._look_ms is None:
            self._look_ms = now.mono_ms + LOOK_MS

    def deadline_ms(self) -> int | None:
        return self._look_ms

    def close_step(self, now: Now) -> None:
        if self._look_ms is None or now.mono_ms < self._look_ms:
            return
        self._look_ms = now.mono_ms + LOOK_MS
        if not self._clock.believed(now):
            return
        acts = 0
        for key, _ in self._draft.committed(self._table, b""):
            expires_us = number_of(key[:NUMBER_BYTES])
            if expires_us + self._late_us > now.utc_us:
                return
            if self._draft.get(self._table, key) is None:
                continue
            if acts == ACTS_MAX:
                self._look_ms = now.mono_ms + 1
                return
            try:
                self._act(key[NUMBER_BYTES:].decode(), expires_us, now)
            except Fault:
                continue  # looked at again; others do not wait for it
            if self._draft.get(self._table, key) is not None:
                self._draft.delete(self._table, key)
            acts += 1
