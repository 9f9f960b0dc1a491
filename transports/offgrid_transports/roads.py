"""The roads to one peer: which paths lead there, what is known of each, and which is best for what is to be sent.

What a road costs is counted in milliseconds: how long a message and the shortest answer take there, what the peer takes
beyond the link's own time, more where frames are lost, and a price for the air of a shared medium, which others cannot
use meanwhile. Pure: the caller gives the time, as monotonic milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from offgrid_transports.path import SHORT_BYTES, Path
from offgrid_transports.transport import Priority, Transport

ROADS_MAX = 8
FRESH_MS = 600_000.0  # so long a road that nobody was heard on is kept before others
MARGIN = 1.5  # a road is left for one that costs so much less
PRICE_SHARED = 4.0  # of a millisecond of a shared medium's air, in milliseconds of waiting
LOSS_MAX = 0.9
WEIGHTS: Mapping[Priority, float] = {
    Priority.CONTROL: 0.25,
    Priority.PAYMENT: 0.5,
    Priority.JOB: 1.0,
    Priority.BULK: 4.0,
}
"""Of the price, by urgency: what can wait saves air, what cannot pays for it."""


class Measured(NamedTuple):
    """What was seen of a path: the peer's time beyond the link's own, the share of frames that were lost, and how many
    bytes a millisecond it takes, infinite where nothing has limited that yet."""

    delay_ms: float
    loss: float = 0.0
    rate: float = math.inf


class Road(msgspec.Struct):
    path: Path
    heard_ms: float
    """When a frame of the peer last came there."""
    failed_ms: float = -math.inf
    """When there was last no word though there was time for it."""
    measured: Measured | None = None
    proved: bool = False
    """What was sent there was answered from there; else somebody has said that the peer is there, or sent a copy."""

    @property
    def usable(self) -> bool:
        """Its link may send, and since it failed it was heard."""
        transport = self.path.transport
        return transport.up and transport.wait_ms(1, Priority.CONTROL) < math.inf and self.heard_ms > self.failed_ms

    @property
    def rtt_ms(self) -> float:
        """Of the shortest message and the answer to it, with nothing queued."""
        transport = self.path.transport
        delay_ms = self.measured.delay_ms if self.measured else self.path.guess_ms
        return 2 * (transport.airtime_ms(SHORT_BYTES) + transport.access_ms) + delay_ms

    def cost_ms(self, length: int, priority: Priority, price: float) -> float:
        """Of a message of so many bytes."""
        path, measured = self.path, self.measured or Measured(self.path.guess_ms)
        time_ms = path.answered_ms(length, priority) + measured.delay_ms + length / measured.rate
        return time_ms / (1 - min(measured.loss, LOSS_MAX)) + price * WEIGHTS[priority] * path.air_ms(length)


class Roads:
    """Of one peer. `price` is that of a link's air."""

    def __init__(self, price: Callable[[Transport], float]) -> None:
        self._price = price
        self._roads: dict[Path, Road] = {}  # the one heard longest ago first

    def __len__(self) -> int:
        return len(self._roads)

    def all(self) -> list[Road]:
        """The one that costs least for a short message first; what cannot be taken last."""
        return sorted(self._roads.values(), key=lambda road: (not road.usable, self._cost(road, SHORT_BYTES)))

    def get(self, path: Path) -> Road | None:
        return self._roads.get(path)

    def heard(self, now_ms: float, path: Path, *, proved: bool) -> None:
        """A frame of the peer came there, or somebody says so. One too many takes the place of one that cannot be
        taken, else of one that is not proved or was not heard for FRESH_MS, else of any other; of several of the one
        heard longest ago. Whoever says falsely where a peer is drives out no road that leads there."""
        road = self._roads.pop(path, None) or Road(path, now_ms)
        road.heard_ms = max(road.heard_ms, now_ms)
        if road.heard_ms == road.failed_ms:
            road.failed_ms = -math.inf
        road.proved |= proved
        self._roads[path] = road
        if len(self._roads) > ROADS_MAX:
            del self._roads[min(self._roads, key=lambda each: self._standing(now_ms, self._roads[each]))]

    def measured(self, path: Path, measured: Measured) -> None:
        road = self._roads.get(path)
        if road is not None:
            road.measured = measured

    def failed(self, now_ms: float, path: Path) -> None:
        """It brought no word."""
        road = self._roads.get(path)
        if road is not None:
            road.failed_ms = now_ms

    def first(self) -> Path | None:
        """To begin a session with: one that is proved, if there is one."""
        proved = [road for road in self._roads.values() if road.usable and road.proved]
        return min(proved, key=lambda road: self._cost(road, SHORT_BYTES)).path if proved else self.best()

    def best(self, length: int = SHORT_BYTES, priority: Priority = Priority.JOB) -> Path | None:
        """For a message of so many bytes; where none is usable the one that failed longest ago, of those whose link
        is up."""
        usable = [road for road in self._roads.values() if road.usable]
        if usable:
            return min(usable, key=lambda road: self._cost(road, length, priority)).path
        up = [road for road in self._roads.values() if road.path.transport.up]
        return min(up, key=lambda road: road.failed_ms).path if up else None

    def better(self, path: Path, length: int = SHORT_BYTES, priority: Priority = Priority.JOB) -> Path | None:
        """One that is clearly better than `path`, which is in use; None where there is none."""
        best, own = self.best(length, priority), self._roads.get(path)
        if best is None or best == path:
            return None
        if own is None:  # it was chosen, and nothing has come there yet
            return None
        if not own.usable:
            return best
        margin = MARGIN * self._cost(self._roads[best], length, priority)
        return best if margin < self._cost(own, length, priority) else None

    def _standing(self, now_ms: float, road: Road) -> tuple[bool, bool]:
        return road.usable, road.proved and now_ms - road.heard_ms <= FRESH_MS

    def _cost(self, road: Road, length: int, priority: Priority = Priority.JOB) -> float:
        return road.cost_ms(length, priority, self._price(road.path.transport))
