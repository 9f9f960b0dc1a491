"""Orders that wait at a broker for a free slot: the one of the highest priority first, then the oldest.

Orders that are alike (`Group`) stand in one lane, so that a look at a lane's front tells of all of them. A core may
have so many lanes, and of the whole room a share that shrinks as room gets scarce (a dynamic threshold, Choudhury and
Hahne 1998): one core that floods leaves room to others, and a core that is alone has all of it.

What waits is kept as it was sent, and read when its turn comes: a broker that starts with a long line only sorts it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import overload

from offgrid_node.protocol.jobs.clearing import Group
from offgrid_node.protocol.jobs.orders import ClaimKey, JobOrder, alike_and_priority

LANES_MAX = 256  # of one core: kinds of orders that wait at a time
SHARE = 4  # a core among others may have so many times the room that is left


class Lane:
    """Alike orders, by priority; each priority's in the order in which they came."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self._by_priority: dict[int, dict[ClaimKey, int]] = {}
        self._best: int | None = None

    def __bool__(self) -> bool:
        return bool(self._by_priority)

    def add(self, key: ClaimKey, priority: int, number: int) -> None:
        line = self._by_priority.get(priority)
        if line is None:
            line = self._by_priority[priority] = {}
            if self._best is None or priority > self._best:
                self._best = priority
        line[key] = number

    def remove(self, key: ClaimKey, priority: int) -> None:
        line = self._by_priority[priority]
        del line[key]
        if not line:
            del self._by_priority[priority]
            self._best = max(self._by_priority, default=None)

    def number_of(self, key: ClaimKey, priority: int) -> int:
        return self._by_priority[priority][key]

    def front(self) -> tuple[int, int]:
        """(less the priority, number) of the first: a smaller pair goes first."""
        assert self._best is not None
        return -self._best, next(iter(self._by_priority[self._best].values()))

    def first(self, most: int) -> Iterator[ClaimKey]:
        """The first ones of the highest priority; at most so many."""
        assert self._best is not None
        for key, _ in zip(self._by_priority[self._best], range(most), strict=False):
            yield key

    def count_before(self, number: int, most: int) -> int:
        """How many of the highest priority came before that number; at most so many."""
        assert self._best is not None
        line = zip(self._by_priority[self._best].values(), range(most), strict=False)
        return sum(1 for _ in takewhile(lambda each: each[0] < number, line))


class Backlog:
    """Waiting orders, encoded, by their keys, and lanes by what their orders have in common."""

    def __init__(self, queue_max: int) -> None:
        self._queue_max = queue_max
        self._bodies: dict[ClaimKey, bytes] = {}
        self._lanes: dict[bytes, Lane] = {}
        self._lanes_of: dict[str, int] = {}
        self._count_of: dict[str, int] = {}
        self._number = 0

    def __len__(self) -> int:
        return len(self._bodies)

    def __contains__(self, key: object) -> bool:
        return key in self._bodies

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        """Each with its place in line."""
        for key, body in self._bodies.items():
            alike, priority = alike_and_priority(body)
            yield body, self._lanes[alike].number_of(key, priority)

    @property
    def cores(self) -> list[str]:
        """Those whose orders wait."""
        return list(self._count_of)

    def of_core(self, core: str) -> list[ClaimKey]:
        return [key for key in self._bodies if key[0] == core] if core in self._count_of else []

    def orders(self, keys: Sequence[ClaimKey]) -> Sequence[JobOrder]:
        """Of these, each read as it is asked for: most of a long line will not be."""
        return _Unread([self._bodies[key] for key in keys])

    def refusal(self, core: str, body: bytes, *, alone: bool) -> str:
        """Why there is no room for this one; empty when there is. `alone`: no other core is there to use it."""
        count, room = self._count_of.get(core, 0), self._queue_max - len(self._bodies)
        if room <= 0:
            return f"the queue holds {self._queue_max} orders already"
        if not alone and count >= max(1, SHARE * room):
            return f"{count} of this core's orders wait; the room that is left is for others"
        if self._lanes_of.get(core, 0) >= LANES_MAX and alike_and_priority(body)[0] not in self._lanes:
            return f"this core's orders wait with {LANES_MAX} different terms; more are not told apart"
        return ""

    def add(self, key: ClaimKey, body: bytes, number: int = 0) -> int:
        """Its place in line; `number` where it had one before."""
        self._number = number = max(self._number, number) if number else self._number + 1
        core = key[0]
        alike, priority = alike_and_priority(body)
        lane = self._lanes.get(alike)
        if lane is None:
            lane = self._lanes[alike] = Lane(Group.of(JobOrder.decode(body)))
            self._lanes_of[core] = self._lanes_of.get(core, 0) + 1
        lane.add(key, priority, number)
        self._bodies[key] = body
        self._count_of[core] = self._count_of.get(core, 0) + 1
        return number

    def pop(self, key: ClaimKey) -> bool:
        """Whether it was here."""
        body = self._bodies.pop(key, None)
        if body is None:
            return False
        alike, priority = alike_and_priority(body)
        lane = self._lanes[alike]
        lane.remove(key, priority)
        _less(self._count_of, key[0])
        if not lane:
            del self._lanes[alike]
            _less(self._lanes_of, key[0])
        return True

    def clear(self, award: Callable[[Group, list[ClaimKey]], int], most: int, passed: Callable[[str], bool]) -> None:
        """Hands orders that are alike and next in line to `award`, which says how many of them found a slot, until no
        lane finds one or `most` have; those that did are taken out of line. Lanes of a core that is `passed` over
        wait."""
        heap = [(lane.front(), alike) for alike, lane in self._lanes.items() if not passed(lane.group.core)]
        heapq.heapify(heap)
        while heap and most > 0:
            _, alike = heap[0]
            lane = self._lanes[alike]
            keys = list(lane.first(self._run(heap, lane, most)))
            won = award(lane.group, keys)
            for key in keys[:won]:
                self.pop(key)
            most -= won
            if won < len(keys) or not lane:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (lane.front(), alike))

    def _run(self, heap: list[tuple[tuple[int, int], bytes]], lane: Lane, most: int) -> int:
        """How many of this lane go before the next lane's first: alike orders are best cleared together."""
        others = heapq.nsmallest(2, heap)[1:]
        if not others:
            return most
        priority, _ = lane.front()
        (other, number), _ = others[0]
        return most if priority < other else lane.count_before(number, most)


class _Unread(Sequence[JobOrder]):
    def __init__(self, bodies: list[bytes]) -> None:
        self._bodies = bodies

    def __len__(self) -> int:
        return len(self._bodies)

    @overload
    def __getitem__(self, index: int) -> JobOrder: ...

    @overload
    def __getitem__(self, index: slice) -> _Unread: ...

    def __getitem__(self, index: int | slice) -> JobOrder | _Unread:
        if isinstance(index, slice):
            return _Unread(self._bodies[index])
        return JobOrder.decode(self._bodies[index])


def _less(counts: dict[str, int], core: str) -> None:
    counts[core] -= 1
    if not counts[core]:
        del counts[core]
