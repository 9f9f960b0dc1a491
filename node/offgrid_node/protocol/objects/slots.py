"""How much the outbox has under way, at each host and altogether, and which parcels wait for their turn at one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from offgrid_node.protocol.objects.urgency import Urgent

SHIPS_MAX, SHIPS_PER_HOST_MAX = 32, 8  # under way at once
FETCHES_MAX = 2  # under way at once
HERE = ""  # as a host that parcels wait for: this node itself, for a Fetch


class Slots:
    """Ships, rebuilds and fetches take one each."""

    def __init__(self, urgency: Callable[[str], int]) -> None:
        self._urgency = urgency
        self.at_host: Counter[str] = Counter()
        self._taken = 0
        self.blocked: dict[str, Urgent] = {}  # host → parcels that wait for one of its slots

    @property
    def full(self) -> bool:
        """Whatever a host has free."""
        return self._taken >= SHIPS_MAX

    def has(self, node_id: str) -> bool:
        return self.at_host[node_id] < (SHIPS_PER_HOST_MAX if node_id != HERE else FETCHES_MAX)

    def take(self, node_id: str) -> None:
        self.at_host[node_id] += 1
        self._taken += 1

    def give_back(self, node_id: str) -> None:
        self.at_host[node_id] -= 1
        self._taken -= 1

    def wait(self, node_id: str, object_id: str) -> None:
        """Until the host has one free."""
        self.blocked.setdefault(node_id, Urgent(self._urgency)).add(object_id)

    def next(self, ready: Urgent) -> str | None:
        """The most urgent of those that could go, taken out: of equals, who waits for a slot came before `ready`."""
        waiting = self._could_go(ready)
        return min(waiting, key=Urgent.first).pop() if waiting else None

    def has_next(self, ready: Urgent) -> bool:
        return bool(self._could_go(ready))

    def _could_go(self, ready: Urgent) -> list[Urgent]:
        if self.full or not (ready or self.blocked):
            return []
        free = (waiting for node, waiting in self.blocked.items() if self.has(node))
        return [each for each in (*free, ready) if each]
