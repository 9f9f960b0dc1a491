"""Which carrier is asked first for a call to a node: those that brought no word lately come last, for a while.

One that is passed over is tried again with an echo once its time is over, beside the calls, so that none of them has to
find out whether it leads there again. Pure but for the clock that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import msgspec

from offgrid_node.protocol.errors import CONNECTION_REFUSED, NO_ROAD, Fault

AGAIN_FIRST_MS, AGAIN_MAX_MS = 1_000, 60_000  # twice as long after each failure in a row
LATE_MAX = 3  # answers in a row that are missing though it may be the peer that is slow
KNOWN_MAX = 8_192
UNREACHED = frozenset({"NotConnected", CONNECTION_REFUSED})
UNANSWERED = frozenset({"DeadlineExceeded", "NoAnswer"})
"""Reasons of faults that tell of the road, not of who is at its end. A connection that was lost tells nothing yet: the
next call makes another one, or cannot."""
OF_ROADS = UNREACHED | UNANSWERED | {
    NO_ROAD, "NotSent", "RoadBusy", "TooLargeForLane", "PeerRefused", "Stopping", "CallCancelled", "ConnectionLost",
}  # fmt: skip
"""Reasons with which a road ends a call by itself; whatever else is unavailable, its node has said so."""
_UNPROVED = OF_ROADS | {"UnknownMethod", "RequestTooLarge", "RoadFailed"}
"""With the last ones a road refuses what it could never send."""


class Named(Protocol):
    @property
    def name(self) -> str: ...


AnyRoad = TypeVar("AnyRoad", bound=Named)


class Seen(msgspec.Struct):
    """Of one carrier to one node, in milliseconds of the monotonic clock."""

    answered_ms: int | None = None
    """When it last brought an answer."""
    failures: int = 0
    late: int = 0
    try_again_ms: int = 0
    trying: bool = False
    rtt_ms: float | None = None
    """Of the last echo or probe."""

    @property
    def failing(self) -> bool:
        """It brought no word the last times."""
        return self.late >= LATE_MAX


class RoadBook:
    """What calls have shown of each carrier to each node."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.now_ms = now_ms
        self._seen: dict[tuple[str, str], Seen] = {}  # the one used longest ago first

    def seen(self, node: str, road: str) -> Seen:
        """An empty one where nothing is known."""
        return self._seen.get((node, road)) or Seen()

    def order(self, node: str, roads: Sequence[AnyRoad]) -> list[AnyRoad]:
        """Those first that have not failed lately; else as they were."""
        return sorted(roads, key=lambda road: self.seen(node, road.name).failing)

    def answered_lately(self, node: str, road: str, within_ms: int) -> bool:
        answered_ms = self.seen(node, road).answered_ms
        return answered_ms is not None and self.now_ms() - answered_ms <= within_ms

    def ended(self, node: str, road: str, outcome: object) -> None:
        """A call, by how it ended."""
        seen, now_ms = self._of(node, road), self.now_ms()
        if not isinstance(outcome, Fault) or outcome.reason not in _UNPROVED:
            seen.answered_ms, seen.failures, seen.late, seen.try_again_ms = now_ms, 0, 0, 0
            return
        if outcome.reason in UNREACHED:
            seen.late = LATE_MAX
        elif outcome.reason in UNANSWERED:
            seen.late += 1
        else:
            return
        if seen.failing and seen.try_again_ms <= now_ms:
            seen.failures += 1
            seen.try_again_ms = now_ms + min(AGAIN_MAX_MS, AGAIN_FIRST_MS << min(seen.failures - 1, 16))

    def timed(self, node: str, road: str, took_ms: float) -> None:
        """How long a short message and its answer took."""
        self._of(node, road).rtt_ms = took_ms

    def to_try(self, node: str, roads: Sequence[AnyRoad]) -> list[AnyRoad]:
        """Those that are passed over though their time is over; each is named once until `tried`."""
        now_ms, found = self.now_ms(), list[AnyRoad]()
        for road in roads:
            seen = self.seen(node, road.name)
            if seen.failing and seen.try_again_ms <= now_ms and not seen.trying:
                self._of(node, road.name).trying = True
                found.append(road)
        return found

    def tried(self, node: str, road: str, outcome: object, took_ms: float) -> None:
        """An echo, by how it ended."""
        self._of(node, road).trying = False
        self.ended(node, road, outcome)
        if not isinstance(outcome, Fault):
            self.timed(node, road, took_ms)

    # ---- inside

    def _of(self, node: str, road: str) -> Seen:
        seen = self._seen.pop((node, road), None) or Seen()
        self._seen[node, road] = seen
        if len(self._seen) > KNOWN_MAX:
            del self._seen[next(iter(self._seen))]
        return seen
