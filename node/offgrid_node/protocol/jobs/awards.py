"""A broker's awards that nobody has closed yet: told to their cores until these have confirmed, and dead in the end.

They are in memory only, but for those whose orders stood in line: such a one is a row until its core has confirmed it.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered
from offgrid_node.protocol.jobs.book import Use
from offgrid_node.protocol.jobs.orders import ClaimKey, JobOrder, row_key
from offgrid_node.protocol.jobs.post import Post, Tag
from offgrid_node.protocol.pace import Paces, all_free

QUEUE = "broker_queue"
SWEEP_MS = 2_000  # how often leases are looked through for those that are over, or whose core has not confirmed
LEASE_MARGIN_MS = 120_000  # past the job's own time-out a lease is certainly dead
AWARD_RETRY_MS = 2_000
AWARD_BYTES = 200


class Lease(msgspec.Struct):
    """An award. `waited`: its order stood in the queue, and is a row until the award is delivered."""

    order: JobOrder
    host: str
    price_micro: int
    since_ms: int
    say_ms: int  # when it is delivered again
    delivered: bool = False
    waited: bool = False

    def row(self) -> jobs_pb2.BrokerOrder:
        """Of one that waited."""
        return jobs_pb2.BrokerOrder(order=self.order.encode(), host=self.host, price_micro=self.price_micro)

    def clearing(self) -> jobs_pb2.Clearing:
        """As its core is told."""
        return jobs_pb2.Clearing(
            job_id=self.order.job_id,
            attempt=self.order.attempt,
            kind=jobs_pb2.CLEARING_KIND_AWARDED,
            host=self.host,
            price_micro=self.price_micro,
        )

    @property
    def dies_ms(self) -> int:
        return self.since_ms + self.order.timeout_ms + LEASE_MARGIN_MS


class Awards:
    """Leases by their attempts."""

    def __init__(self, post: Post, paces: Paces = all_free) -> None:
        self._post, self._paces = post, paces
        self._leases: dict[ClaimKey, Lease] = {}
        self._sweep_ms: int | None = None

    def __len__(self) -> int:
        return len(self._leases)

    def load(self, row: jobs_pb2.BrokerOrder, now: Now) -> None:
        """One that waited, and whose core may not have heard: it is told again at once."""
        self.add(JobOrder.decode(row.order), row.host, row.price_micro, now.mono_ms, now).waited = True
        self._sweep_ms = now.mono_ms

    def deadline_ms(self) -> int | None:
        return self._sweep_ms

    def get(self, key: ClaimKey) -> Lease | None:
        return self._leases.get(key)

    def at_host(self, host: str) -> dict[ClaimKey, Use]:
        """What was awarded to it."""
        return {key: Use(lease.since_ms) for key, lease in self._leases.items() if lease.host == host}

    def rows(self) -> Iterator[jobs_pb2.BrokerOrder]:
        """What is on disk of them."""
        yield from (lease.row() for lease in self._leases.values() if lease.waited and not lease.delivered)

    def add(self, order: JobOrder, host: str, price_micro: int, say_ms: int, now: Now) -> Lease:
        """`say_ms`: when its core is told again at the earliest, a slow one later."""
        say_ms += self._longer_ms(order.core)
        lease = self._leases[order.key] = Lease(order, host, price_micro, now.mono_ms, say_ms)
        if self._sweep_ms is None:
            self._sweep_ms = now.mono_ms + SWEEP_MS
        return lease

    def keep(self, lease: Lease, now: Now) -> None:
        """Its order stood in line: its core is told, and it is a row until that has arrived."""
        lease.waited = True
        self._post.put(QUEUE, row_key(lease.order.key), lease.row())
        self._deliver(lease, now)

    def drop(self, key: ClaimKey) -> Lease | None:
        lease = self._leases.pop(key, None)
        if lease is not None and lease.waited and not lease.delivered:
            self._post.delete(QUEUE, row_key(key))
        return lease

    def on_answered(self, tag: Tag, answer: Answered, now: Now) -> None:
        """The end of a DeliverAwards."""
        for job_id, attempt in tag.keys:
            lease = self._leases.get((tag.node, job_id, attempt))
            if lease is None or lease.delivered:
                continue
            if answer.fault is not None:
                lease.say_ms = now.mono_ms + AWARD_RETRY_MS + self._longer_ms(tag.node)
                continue
            lease.delivered = True
            if lease.waited:
                self._post.delete_late(QUEUE, row_key(lease.order.key), now)

    def take_dead(self, now: Now) -> list[ClaimKey]:
        """Those to `drop`, if it is time to look; whose core has not confirmed is told again."""
        if self._sweep_ms is None or now.mono_ms < self._sweep_ms:
            return []
        dead: list[ClaimKey] = []
        for key, lease in self._leases.items():
            if lease.dies_ms <= now.mono_ms:
                dead.append(key)
            elif not lease.delivered and lease.say_ms <= now.mono_ms:
                self._deliver(lease, now)
        self._sweep_ms = now.mono_ms + SWEEP_MS if len(dead) < len(self._leases) else None
        return dead

    def _deliver(self, lease: Lease, now: Now) -> None:
        order = lease.order
        self._post.add("DeliverAwards", order.core, order.key[1:], lease.clearing())
        lease.say_ms = now.mono_ms + 5 * AWARD_RETRY_MS + self._longer_ms(order.core)  # should its end get lost

    def _longer_ms(self, core: str) -> int:
        return self._paces(core).longer_ms(AWARD_BYTES)
