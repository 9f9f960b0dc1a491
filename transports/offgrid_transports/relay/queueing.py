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
    """`who` is for whom it takes the link's time; `handed_on`: it is of others."""

    flow: Hashable
    address: str
    frame: bytes
    priority: Priority
    who: str
    handed_on: bool = False


def leaves_as(priority: Priority, *, handed_on: bool) -> Priority:
    """What a link keeps for control and payments is this node's own: how urgent a frame of others is, is a guess, and
    anybody may make it look so."""
    return max(priority, Priority.JOB) if handed_on else priority


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

    def holds_up(self, leaves: Priority) -> bool:
        """One of this node's own that leaves so has to wait for what is here: not for what is handed on, if it is more
        urgent than that ever leaves."""
        return any(leaves >= Priority.JOB or not each.handed_on for each in self._frames)

    def first(self, *, own: bool = False) -> Queued | None:
        """What leaves next; None for nothing. `own`: of what is not handed on."""
        urgency: dict[Hashable, Priority] = {}
        heads: dict[Hashable, Queued] = {}
        for each in (each for each in self._frames if not (own and each.handed_on)):
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
