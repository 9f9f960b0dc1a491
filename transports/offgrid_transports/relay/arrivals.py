"""Frames of one direction of a circuit as they come from the hop before: which are here for the first time, and what is
missing before one that asks.

Counters of a session rise by one from frame to frame, so a gap shows what the hop before should send again. A frame
that asks is kept until then, for what it asks would else be answered with what only this hop has missed.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum, auto

from offgrid_transports.relay.frames import MISSING_MAX, end_of
from offgrid_transports.session import MORE

SEEN_MAX = 256
KEPT_MAX = 4
WANTS_MAX = 2  # how often the hop before is asked for the same
_HALF = 0x8000


class Arrival(Enum):
    NEW = auto()
    AGAIN = auto()
    KEPT = auto()
    """It asks, and something before it is missing: `missing` says what."""


class Arrivals:
    """`forget_ms`: so long the hop before may send a frame again; what comes later is a new one with the same bytes."""

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, float] = OrderedDict()  # what no hop changes, to when it came
        self._newest: int | None = None
        self._missing: OrderedDict[int, None] = OrderedDict()
        self._kept: list[bytes] = []
        self._in_burst = False
        self._wants = 0

    @property
    def any(self) -> bool:
        """Something has come."""
        return bool(self._seen)

    @property
    def keeps(self) -> bool:
        return bool(self._kept)

    @property
    def missing(self) -> tuple[bytes, ...]:
        """Marks, in the order they were sent."""
        return tuple(number.to_bytes(2) for number in self._missing)

    def on_frame(self, now_ms: float, frame: bytes, *, counted: bool, asks: bool, forget_ms: float) -> Arrival:
        """`counted`: of a session, so bytes 3 and 4 are a counter."""
        key = end_of(frame)
        came_ms = self._seen.get(key)
        if came_ms is not None and (counted or came_ms + forget_ms > now_ms):
            return Arrival.AGAIN
        self._seen[key] = now_ms
        self._seen.move_to_end(key)
        if len(self._seen) > SEEN_MAX:
            self._seen.popitem(last=False)
        if counted:
            self._count(int.from_bytes(frame[3:5]))
            self._in_burst = self._in_burst or bool(frame[0] & MORE)
            if asks and not self._missing:
                self._in_burst = False
            if asks and self._in_burst and self._missing and len(self._kept) < KEPT_MAX:
                self._kept.append(frame)
                return Arrival.KEPT
        return Arrival.NEW

    def want(self) -> bool:
        """The hop before is asked for what is missing, once more; False when that was in vain often enough."""
        self._wants += 1
        return self._wants <= WANTS_MAX

    def take_kept(self) -> list[bytes]:
        """Those that waited: nothing is missing any more, or it will not come."""
        kept, self._kept, self._in_burst = self._kept, [], False
        self._missing.clear()
        self._wants = 0
        return kept

    @property
    def complete(self) -> bool:
        return not self._missing

    def _count(self, number: int) -> None:
        if self._newest is None:
            self._newest = number
            return
        ahead = (number - self._newest) & 0xFFFF
        if not 0 < ahead < _HALF:
            self._missing.pop(number, None)
            return
        if ahead - 1 <= MISSING_MAX:  # else it went on elsewhere meanwhile
            for back in range(ahead - 1, 0, -1):
                self._missing[(number - back) & 0xFFFF] = None
        while len(self._missing) > MISSING_MAX:
            self._missing.popitem(last=False)
        self._newest = number
