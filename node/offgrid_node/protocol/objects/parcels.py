"""What the worker remembers of an object on its way; everything else about it is in its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from offgrid_node.protocol.objects.hosts import Hosts

RETRY_MS, RETRY_MAX_MS = 1_000, 60_000
FAILING = 3  # tries in a row that failed: the host is not counted on any more


@dataclass(slots=True)
class Failed:
    """A host's failures in a row; they count while it lives the life in which they happened."""

    times: int
    due_ms: int
    life: int


@dataclass(slots=True)
class Parcel:
    """`size_bytes` is what a host needs for its part, nearly. `epoch` is 0 until the quorum is open; `weights` are its
    members'. `flights` are Ships under way, with the epoch whose ack they will bring. One that is given up is
    remembered for these alone."""

    number: int
    object_id: str
    required_milli: int
    copies: int
    size_bytes: int
    durable: bool
    given_up: bool = False
    epoch: int = 0
    weights: Mapping[str, int] = field(default_factory=dict)
    held: dict[str, tuple[int, ...]] = field(default_factory=dict)  # who has acked, and what
    flights: dict[str, int] = field(default_factory=dict)
    failed: dict[str, Failed] = field(default_factory=dict)

    def fails(self, node_id: str, now_ms: int, hosts: Hosts) -> None:
        """The same host is tried again after a delay that doubles."""
        life, before = hosts.lives(node_id), self.failed.get(node_id)
        times = before.times + 1 if before is not None and before.life == life else 1
        delay_ms = min(RETRY_MAX_MS, RETRY_MS << min(times - 1, 10))
        self.failed[node_id] = Failed(times, now_ms + delay_ms, life)

    def waits(self, node_id: str, now_ms: int, hosts: Hosts) -> int | None:
        """Until when the host is left alone; None when it may be tried."""
        failed = self.failed.get(node_id)
        if failed is None or failed.life != hosts.lives(node_id) or failed.due_ms <= now_ms:
            return None
        return failed.due_ms

    def failing(self, hosts: Hosts) -> set[str]:
        return {n for n, failed in self.failed.items() if failed.times >= FAILING and failed.life == hosts.lives(n)}
