"""What a relay has to send when its link has room again: the most urgent first, and among equals each in turn.

Frames of one flow, which are those of a circuit in one direction, leave in the order in which they came: what stands
before an urgent one becomes as urgent. When there is no room for more, whoever has most of what is least urgent loses
the last of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import NamedTuple

from offgrid_transports.transport import Priority

QUEUE_MAX = 64  # frames


class Queued(NamedTuple):
    """`who` is for whom it takes the link's time."""

    flow: Hashable
    address: str
    frame: bytes
    priority: Priority
    who: str


class Queue:
    def __init__(self) -> None:
        self._frames: list[Queued] = []  # as they came
        self._served: dict[str, int] = {}  # who, and when by this count
        self._serving = 0

    def __len__(self) -> int:
        return len(self._frames)

    def frames(self) -> list[Queued]:
        """As they came."""
        return list(self._frames)

    def add(self, queued: Queued) -> bool:
        """False where it is dropped itself."""
        self._frames.append(queued)
        if len(self._frames) <= QUEUE_MAX:
            return True
        dropped = self._least()
        self._frames.remove(dropped)
        return dropped is not queued

    def first(self) -> Queued | None:
        """What leaves next; None for nothing."""
        urgency: dict[Hashable, Priority] = {}
        heads: dict[Hashable, Queued] = {}
        for each in self._frames:
            heads.setdefault(each.flow, each)
            urgency[each.flow] = min(each.priority, urgency.get(each.flow, each.priority))
        return min(heads.values(), key=lambda each: (urgency[each.flow], self._served.get(each.who, 0)), default=None)

    def sent(self, queued: Queued) -> None:
        """It has left."""
        self._frames.remove(queued)
        waiting = {each.who for each in self._frames}
        self._serving += 1
        self._served = {who: at for who, at in self._served.items() if who in waiting}
        self._served[queued.who] = self._serving

    def clear(self) -> None:
        self._frames.clear()

    def _least(self) -> Queued:
        """The last one of whoever has most of what is least urgent."""
        least = max(each.priority for each in self._frames)
        count = Counter(each.who for each in self._frames if each.priority is least)
        most = max(count.values())
        return next(each for each in reversed(self._frames) if each.priority is least and count[each.who] == most)
