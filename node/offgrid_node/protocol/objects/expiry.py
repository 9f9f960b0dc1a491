"""Objects that may expire: their owner deletes them at their time, a host drops them by itself a day later.

A time of day is only as good as the clock that tells it, and clocks off the grid leap. So nothing expires by a clock
that has just leapt ahead: it is believed again once the node has run a day under it, or when it has been set back. A
host is a day late in any case, so clocks that are hours apart lose nothing.
"""

from __future__ import annotations

from collections.abc import Callable

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
ACTS_MAX = 256  # in one step; the others in the next


class TrustedClock:
    """Whether the wall clock may be believed, with regard to what it said before."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._noted_us = 0  # what it said when it was last believed, as a row says; 0 before there is any
        self._noted_ms: int | None = None  # when that was, in this life
        self._probation_ms: int | None = None  # since when it has been wrong, in this life

    def load(self, rows: Rows) -> None:
        self._noted_us = number_of(rows.get(META, SEEN_CLOCK) or b"")
        self._noted_ms = self._probation_ms = None

    def believed(self, now: Now) -> bool:
        if self._noted_us and self._leap_us(now) > 0:
            self._probation_ms = now.mono_ms if self._probation_ms is None else self._probation_ms
            if now.mono_ms < self._probation_ms + PROBATION_MS:
                return False
        self._probation_ms = None
        if self._noted_ms is None or now.mono_ms >= self._noted_ms + NOTE_MS or self._leap_us(now) > 0:
            self._noted_us, self._noted_ms = max(1, now.utc_us), now.mono_ms
            self._draft.put_bytes(META, SEEN_CLOCK, number_key(self._noted_us))
        return True

    def _leap_us(self, now: Now) -> int:
        """How far it is beyond what it may say; not above 0 where it is not."""
        if self._noted_ms is None:
            return now.utc_us - self._noted_us - AWAY_MAX_US
        return now.utc_us - self._noted_us - (now.mono_ms - self._noted_ms) * 1_000 - LEAP_MAX_US


class Expiry:
    """What expires when: a table whose keys are a time (8 bytes, big-endian, µs UTC) and a name."""

    def __init__(
        self, draft: Draft, clock: TrustedClock, table: str, late_us: int, act: Callable[[str, Now], None]
    ) -> None:
        """`act` is told a name whose time has been over for `late_us`; it removes the row as well."""
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
            if number_of(key[:NUMBER_BYTES]) + self._late_us > now.utc_us:
                return
            if self._draft.get(self._table, key) is None:
                continue
            if acts == ACTS_MAX:
                self._look_ms = now.mono_ms + 1
                return
            try:
                self._act(key[NUMBER_BYTES:].decode(), now)
            except Fault:
                continue  # looked at again; others do not wait for it
            acts += 1
