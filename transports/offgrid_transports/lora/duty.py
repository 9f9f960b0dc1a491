"""Who may send how long: airtime in sliding windows, exact to the microsecond. Pure.

A band's rule is "at most B of air in any window of W", and it is kept as it is written: for every window there is,
not for fixed hours and not by a bucket that refills (which lets 2 B through in one window). As one radio's frames
follow each other, the fullest window that a new frame can make is the one that ends with it; if that one holds, all
others do.

When a frame really leaves is up to the modem, which waits for a free channel. Therefore a frame counts from the
moment in which it is handed over, and as long as nothing proves that it has left it counts in full, however old it
is. What is proven to be off the air by `latest_us` is counted as if it had ended just then, which is the worst case
for all windows to come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

import msgspec

from offgrid_transports.lora.regions import Limit
from offgrid_transports.transport import Priority

NEVER = 1 << 62
"""Later than any time."""
SHARES_PERCENT: Mapping[Priority, int] = {
    Priority.CONTROL: 100,
    Priority.PAYMENT: 100,
    Priority.JOB: 90,
    Priority.BULK: 80,
}
"""How much of a window each may fill, so that something is left for what cannot wait."""
SHARED_WINDOW_US = 600_000_000  # shorter windows are dwell times, of which nothing can be kept back


class Sent(msgspec.Struct):
    """One frame: how long, by when at the latest it was off the air, and for whom."""

    air_us: int
    latest_us: int
    priority: Priority
    who: str
    proven: bool = False  # that it was on the air, and for that long


class Window:
    """One limit and what counts against it. Entries are in the order of their ends."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.entries: deque[Sent] = deque()
        self.total_us = 0

    def share_us(self, priority: Priority) -> int:
        if self.limit.window_us < SHARED_WINDOW_US:
            return self.limit.used_us
        return self.limit.used_us * SHARES_PERCENT[priority] // 100

    def forget(self, now_us: int) -> None:
        """Drops what no window that ends now or later can hold."""
        entries, horizon_us = self.entries, now_us - self.limit.window_us
        while entries and entries[0].latest_us <= horizon_us:
            self.total_us -= entries.popleft().air_us

    def used_us(self, end_us: int) -> int:
        """The air that the window which ends at `end_us` may hold at worst."""
        used, start_us = self.total_us, end_us - self.limit.window_us
        for entry in self.entries:
            gone_us = start_us - (entry.latest_us - entry.air_us)
            if gone_us <= 0:
                break
            used -= min(gone_us, entry.air_us)
        return used

    def earliest_us(self, now_us: int, air_us: int, priority: Priority) -> int:
        """When a frame of `air_us` may be handed over; NEVER when it is too long, or before a frame is proven sent."""
        share_us = self.share_us(priority)
        if air_us > share_us:
            return NEVER
        if self.used_us(now_us + air_us) + air_us <= share_us:
            return now_us
        to_free_us, gone_us = self.total_us + air_us - share_us, 0
        for entry in self.entries:
            if entry.latest_us == NEVER:
                break
            to_free_us -= entry.air_us
            if to_free_us <= 0:
                end_us = max(gone_us, entry.latest_us + to_free_us) + self.limit.window_us
                return max(now_us, end_us - air_us)
            gone_us = entry.latest_us
        return NEVER


class Duty:
    """The airtime of one radio under all limits of its band. Times are in microseconds of any clock that only goes
    forward."""

    def __init__(self, limits: Iterable[Limit]) -> None:
        self.windows = tuple(Window(limit) for limit in limits)
        self.begun_us = 0
        """The air of all frames that were ever handed over."""
        self._open: deque[Sent] = deque()
        self._settled: deque[Sent] = deque()

    @property
    def open_us(self) -> int:
        """The air of frames of which nobody knows whether they have left yet."""
        return sum(entry.air_us for entry in self._open)

    @property
    def longest_us(self) -> int:
        """The longest single frame that may ever be sent, whatever its priority."""
        return min((window.share_us(Priority.BULK) for window in self.windows), default=NEVER)

    def may_send(self, now_us: int, air_us: int, priority: Priority) -> bool:
        """Whether a frame that is handed over now keeps every window."""
        return all(window.used_us(now_us + air_us) + air_us <= window.share_us(priority) for window in self.windows)

    def earliest_us(self, now_us: int, air_us: int, priority: Priority) -> int:
        """When it may be handed over, as far as is known now; NEVER when it is too long for the band."""
        return max((window.earliest_us(now_us, air_us, priority) for window in self.windows), default=now_us)

    def begin(self, now_us: int, air_us: int, priority: Priority, who: str) -> None:
        """A frame is handed to the modem. The caller has asked `may_send`."""
        self.begun_us += air_us
        self._open_up(Sent(air_us, NEVER, priority, who), now_us)

    def settle(self, count: int, latest_us: int, *, proven: bool = True) -> None:
        """The `count` oldest open frames are off the air by `latest_us`: `proven` to have been on it, or dropped
        perhaps."""
        for _ in range(min(count, len(self._open))):
            entry = self._open.popleft()
            entry.latest_us, entry.proven = latest_us, proven
            self._settled.append(entry)
        # one radio sends one frame after the other: what is followed by another one ended before that began
        for index in range(len(self._settled) - 1, 0, -1):
            later, earlier = self._settled[index], self._settled[index - 1]
            began_us = later.latest_us - (later.air_us if later.proven else 0)
            if earlier.latest_us <= began_us:
                break
            earlier.latest_us = began_us

    def settle_all(self, latest_us: int) -> None:
        """The modem is known to be empty now: what it had was sent or dropped."""
        self.settle(len(self._open), latest_us, proven=False)

    def recall(self, entries: Iterable[tuple[int, int]], open_us: int, now_us: int) -> None:
        """Takes over what an earlier run has used: (air_us, latest_us), oldest first, and what it may have had open."""
        for air_us, latest_us in entries:
            entry = Sent(air_us, latest_us, Priority.CONTROL, "earlier")
            self._settled.append(entry)
            self._add(entry, now_us)
        if open_us:
            self._open_up(Sent(open_us, NEVER, Priority.CONTROL, "earlier"), now_us)

    def settled(self) -> list[tuple[int, int]]:
        """(air_us, latest_us) of all that still counts and has left, oldest first."""
        return [(entry.air_us, entry.latest_us) for entry in self._settled]

    def left_us(self, now_us: int, priority: Priority) -> int:
        """What may be sent from now on at once; NEVER where there is no limit."""
        return min(
            (max(0, window.share_us(priority) - window.used_us(now_us)) for window in self.windows), default=NEVER
        )

    def used_by(self, now_us: int) -> dict[tuple[Priority, str], int]:
        """Microseconds in the longest window, by priority and by whom they were sent for."""
        used: dict[tuple[Priority, str], int] = {}
        self._forget(now_us)
        for window in sorted(self.windows, key=lambda window: window.limit.window_us)[-1:]:
            for entry in window.entries:
                key = (entry.priority, entry.who)
                used[key] = used.get(key, 0) + entry.air_us
        return used

    def _open_up(self, entry: Sent, now_us: int) -> None:
        self._open.append(entry)
        self._add(entry, now_us)

    def _add(self, entry: Sent, now_us: int) -> None:
        self._forget(now_us)
        for window in self.windows:
            window.entries.append(entry)
            window.total_us += entry.air_us

    def _forget(self, now_us: int) -> None:
        for window in self.windows:
            window.forget(now_us)
        horizon_us = now_us - max((window.limit.window_us for window in self.windows), default=0)
        while self._settled and self._settled[0].latest_us <= horizon_us:
            self._settled.popleft()
