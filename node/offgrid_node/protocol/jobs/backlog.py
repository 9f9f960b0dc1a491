"""Orders that wait at a broker for a free slot: the one of the highest priority first, then the oldest.

Orders that are alike (`Group`) stand in one lane, so that a look at a lane's front tells of all of them. A core may
have so many lanes, and of the whole room a share that shrinks as room gets scarce (a dynamic threshold, Choudhury and
Hahne 1998): one core that floods leaves room to others, and a core that is alone has all of it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from itertools import takewhile

from offgrid_node.protocol.jobs.clearing import Group
from offgrid_node.protocol.jobs.orders import ClaimKey, JobOrder

LANES_MAX = 256  # of one core: kinds of orders that wait at a time
SHARE = 4  # a core among others may have so many times the room that is left


class Lane:
    """Alike orders, by priority; each priority's in the order in which they came."""

    def __init__(self) -> None:
        self._by_priority: dict[int, dict[ClaimKey, int]] = {}
        self._best: int | None = None

    def __bool__(self) -> bool:
        return bool(self._by_priority)

    def add(self, order: JobOrder, number: int) -> None:
        self._by_priority.setdefault(order.priority, {})[order.key] = number
        if self._best is None or order.priority > self._best:
            self._best = order.priority

    def remove(self, order: JobOrder) -> None:
        line = self._by_priority[order.priority]
        del line[order.key]
        if not line:
            del self._by_priority[order.priority]
            self._best = max(self._by_priority, default=None)

    def number_of(self, order: JobOrder) -> int:
        return self._by_priority[order.priority][order.key]

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
    """Waiting orders by their keys, and lanes by their group."""

    def __init__(self, queue_max: int) -> None:
        self._queue_max = queue_max
        self._orders: dict[ClaimKey, JobOrder] = {}
        self._lanes: dict[Group, Lane] = {}
        self._lanes_of: dict[str, int] = {}
        self._count_of: dict[str, int] = {}
        self._number = 0

    def __len__(self) -> int:
        return len(self._orders)

    def __contains__(self, key: object) -> bool:
        return key in self._orders

    def __iter__(self) -> Iterator[tuple[JobOrder, int]]:
        """Each with its place in line."""
        return iter([(order, self._lanes[Group.of(order)].number_of(order)) for order in self._orders.values()])

    def of_core(self, core: str) -> list[ClaimKey]:
        return [key for key in self._orders if key[0] == core] if core in self._count_of else []

    def refusal(self, order: JobOrder, *, alone: bool) -> str:
        """Why there is no room for this one; empty when there is. `alone`: no other core is there to use it."""
        count, room = self._count_of.get(order.core, 0), self._queue_max - len(self._orders)
        if room <= 0:
            return f"the queue holds {self._queue_max} orders already"
        if not alone and count >= max(1, SHARE * room):
            return f"{count} of this core's orders wait; the room that is left is for others"
        if self._lanes_of.get(order.core, 0) >= LANES_MAX and Group.of(order) not in self._lanes:
            return f"this core's orders wait with {LANES_MAX} different terms; more are not told apart"
        return ""

    def add(self, order: JobOrder, number: int = 0) -> int:
        """Its place in line; `number` where it had one before."""
        self._number = max(self._number + 1, number) if not number else max(self._number, number)
        group = Group.of(order)
        lane = self._lanes.get(group)
        if lane is None:
            lane = self._lanes[group] = Lane()
            self._lanes_of[order.core] = self._lanes_of.get(order.core, 0) + 1
        lane.add(order, number or self._number)
        self._orders[order.key] = order
        self._count_of[order.core] = self._count_of.get(order.core, 0) + 1
        return number or self._number

    def pop(self, key: ClaimKey) -> JobOrder | None:
        order = self._orders.pop(key, None)
        if order is None:
            return None
        group = Group.of(order)
        lane = self._lanes[group]
        lane.remove(order)
        _less(self._count_of, order.core)
        if not lane:
            del self._lanes[group]
            _less(self._lanes_of, order.core)
        return order

    def clear(self, award: Callable[[Group, list[JobOrder]], int], most: int, passed: Callable[[str], bool]) -> None:
        """Hands orders that are alike and next in line to `award`, which says how many of them found a slot, until no
        lane finds one or `most` have; those that did are taken out of line. Lanes of a core that is `passed` over
        wait."""
        heap = [(lane.front(), group) for group, lane in self._lanes.items() if not passed(group.core)]
        heapq.heapify(heap)
        while heap and most > 0:
            _, group = heap[0]
            lane = self._lanes[group]
            keys = list(lane.first(self._run(heap, lane, most)))
            won = award(group, [self._orders[key] for key in keys])
            for key in keys[:won]:
                self.pop(key)
            most -= won
            if won < len(keys) or not lane:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (lane.front(), group))

    def _run(self, heap: list[tuple[tuple[int, int], Group]], lane: Lane, most: int) -> int:
        """How many of this lane go before the next lane's first: alike orders are best cleared together."""
        others = heapq.nsmallest(2, heap)[1:]
        if not others:
            return most
        priority, _ = lane.front()
        (other, number), _ = others[0]
        return most if priority < other else lane.count_before(number, most)


def _less(counts: dict[str, int], core: str) -> None:
    counts[core] -= 1
    if not counts[core]:
        del counts[core]
