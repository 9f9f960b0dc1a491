"""What a broker makes of how leases ended: for a host's reputation, and for who gets the job's next attempt.

A host that had an earlier attempt of a job gets the next one only if no other can: whatever went wrong between core
and host, which a broker cannot see, should not go wrong again.
"""

from __future__ import annotations

from collections import OrderedDict

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.jobs.awards import Lease
from offgrid_node.protocol.jobs.closing import BROKEN, DISAGREED, EXCUSED, REFUSED, REFUTED, SERVED
from offgrid_node.protocol.jobs.orders import ClaimKey
from offgrid_node.protocol.jobs.postings import Postings
from offgrid_node.protocol.jobs.reputation import Reputation

TRIED_REMEMBERED = 10_000  # jobs
UNJUDGED_REMEMBERED = 4_096  # leases that ended without a word on how they went; enough for a minute or so

JobKey = tuple[str, str]  # (core, job id)


class Judging:
    """Passes each end on to reputation and book, and remembers what the next attempt has to know."""

    def __init__(self, reputation: Reputation, postings: Postings) -> None:
        self._reputation, self._postings = reputation, postings
        self._tried: OrderedDict[JobKey, tuple[str, ...]] = OrderedDict()
        # Executions of redundant jobs among others, and claims that work failed: how they went is said once there are
        # other hosts' results to compare.
        self._unjudged: OrderedDict[ClaimKey, str] = OrderedDict()

    def last_for(self, key: ClaimKey) -> tuple[str, ...]:
        """Hosts that get the job only if no other can."""
        return self._tried.get(key[:2], ()) + self._reputation.distrusted(key[0])

    def on_end(self, lease: Lease, end: jobs_pb2.LeaseEnd.ValueType, now: Now) -> None:
        """As its core says; only of leases that were awarded here."""
        order = lease.order
        self._reputation.on_end(order.core, lease.host, end, now)
        if end == SERVED:
            took_ms = now.mono_ms - lease.since_ms
            self._reputation.on_served(order.core, lease.host, order.kind, order.needs, took_ms, now)
            self._tried.pop(order.key[:2], None)  # no further attempt will ask who had it
        elif end in (BROKEN, REFUSED, DISAGREED, REFUTED):
            self._postings.judge(lease.host, now)  # what is well takes effect with its next word
        elif end == EXCUSED:
            self._unjudged[order.key] = lease.host
            if len(self._unjudged) > UNJUDGED_REMEMBERED:
                self._unjudged.popitem(last=False)

    def on_verdict(self, key: ClaimKey, end: jobs_pb2.LeaseEnd.ValueType, now: Now) -> None:
        """The word on one that ended without it."""
        if end in (SERVED, DISAGREED, REFUTED) and (host := self._unjudged.pop(key, None)) is not None:
            self._reputation.on_end(key[0], host, end, now)
            self._postings.judge(host, now)

    def remember(self, lease: Lease) -> None:
        """Its host has had the job."""
        job = lease.order.key[:2]
        tried = self._tried.get(job, ())
        if lease.host not in tried:
            self._tried[job] = (*tried, lease.host)
        if len(self._tried) > TRIED_REMEMBERED:
            self._tried.popitem(last=False)
