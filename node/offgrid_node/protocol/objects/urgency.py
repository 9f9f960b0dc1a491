"""What comes first where there is more to do than can be done at once: what is nearest to loss.

How near, is the weight of living hosts whose loss would lose an object now (`quorum/survival.py`). What is not durable
yet lies with this node, which counts as one usual host: it comes after what the next host's death would lose, and
before what survives that. What cannot be had back from those who are alive now comes last: to try costs seconds and a
slot each time, and nothing is nearer to loss for waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heappop, heappush

from offgrid_node.protocol.objects.parcels import Parcel
from offgrid_node.protocol.quorum.survival import survival_milli

NOT_DURABLE_MILLI = 1_001
OUT_OF_REACH_MILLI = 2**32 - 1


def spare_milli(parcel: Parcel, is_alive: Callable[[str], bool]) -> int:
    """The least weight whose loss loses it."""
    if not parcel.durable:
        return NOT_DURABLE_MILLI
    living = [node for node in parcel.held if node in parcel.weights and is_alive(node)]
    if not parcel.local and sum(len(parcel.held[node]) for node in living) < parcel.shards_needed:
        return OUT_OF_REACH_MILLI
    return survival_milli(living, parcel.weights, parcel.held, parcel.shards_needed)


class Urgent:
    """Parcels that wait for something, each once; the most urgent first, of equal ones who came first."""

    def __init__(self, urgency: Callable[[str], int]) -> None:
        self._urgency = urgency
        self._heap: list[tuple[int, int, str]] = []
        self._waiting: dict[str, tuple[int, int]] = {}  # what counts of each; else the heap has it from before
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, object_id: str) -> None:
        """One that waits already keeps its place, unless it has become more urgent."""
        urgency, waiting = self._urgency(object_id), self._waiting.get(object_id)
        if waiting is None or urgency < waiting[0]:
            self._count += 1
            self._waiting[object_id] = urgency, self._count
            heappush(self._heap, (urgency, self._count, object_id))

    def update(self, object_ids: Iterable[str]) -> None:
        for object_id in object_ids:
            self.add(object_id)

    def first(self) -> int:
        """How urgent the first of at least one is."""
        while True:
            urgency, number, object_id = self._heap[0]
            if self._waiting.get(object_id) == (urgency, number):
                return urgency
            heappop(self._heap)

    def pop(self) -> str:
        """Of at least one."""
        self.first()
        _, _, object_id = heappop(self._heap)
        del self._waiting[object_id]
        return object_id
