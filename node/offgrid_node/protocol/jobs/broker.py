"""The broker's part: a book of standing offers in memory, orders cleared against it, what must wait kept durable.

A host that had an earlier attempt of a job gets the next one only if no other can: whatever went wrong between core
and host, which a broker cannot see, should not go wrong again.

The broker only matches: it tells the core which host won and the core starts the work there itself, so a broker may
die, double or be replaced without an attempt being run or paid twice. A host's use of slots is what this broker
awarded and nobody has closed, together with what the host says it holds; the host's next offer heals any difference.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from offgrid.v1 import common_pb2, jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered, Rows
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.jobs.commands import CloseLeases, PostOffer, SubmitJobs
from offgrid_node.protocol.jobs.host import claim_of, price_of
from offgrid_node.protocol.jobs.orders import ClaimKey, JobOrder, row_key
from offgrid_node.protocol.jobs.peers import Peers
from offgrid_node.protocol.jobs.post import Post, Tag
from offgrid_node.protocol.jobs.settings import JobsSettings
from offgrid_node.protocol.timers import Timers

QUEUE, LEASES = "broker_queue", "broker_leases"
LEASE_GRACE_MS = 5_000  # an award needs this long at most to become a lease that its host holds
LEASE_MARGIN_MS = 120_000  # past the job's own time-out a lease is certainly dead
AWARD_RETRY_MS = 2_000
CORE_GRACE_MS = 60_000  # the orders of a core that is not alive wait so long; once it is back it says them again
TRIED_REMEMBERED = 10_000  # jobs
ATTEMPT_DIGITS_MAX = 10

JobKey = tuple[str, str]  # (core, job id)


@dataclass(slots=True)
class Standing:
    """A host's offer and what this broker has awarded to it: attempt → when. `seq` is the newest of its present life:
    one that was restored from a backup counts from below."""

    offer: jobs_pb2.Offer
    seq: int = 0
    awarded: dict[ClaimKey, int] = field(default_factory=dict)
    held: frozenset[ClaimKey] = frozenset()

    @property
    def slots_free(self) -> int:
        return max(0, self.offer.slots - len(self.held | self.awarded.keys()))

    def could_run(self, order: JobOrder) -> bool:
        return self.offer.slots > 0 and order.kind in self.offer.kinds and order.needs in self.offer.executors


class Broker:
    """Clears orders by price; the winner is paid the runner-up's price (Vickrey 1961), its own when it stands alone."""

    def __init__(self, settings: JobsSettings, peers: Peers, post: Post) -> None:
        self._settings, self._peers, self._post = settings, peers, post
        self._book: dict[str, Standing] = {}
        self._queue: dict[ClaimKey, tuple[JobOrder, common_pb2.Signed]] = {}
        self._leases: dict[ClaimKey, jobs_pb2.BrokerLease] = {}
        self._newest: dict[JobKey, ClaimKey] = {}
        self._tried: OrderedDict[JobKey, tuple[str, ...]] = OrderedDict()
        self._timers: Timers[tuple[str, ClaimKey]] = Timers()
        self._clear_due = False

    def load(self, rows: Rows, now: Now) -> None:
        for _, value in rows.scan(QUEUE):
            row = jobs_pb2.BrokerOrder.FromString(value)
            order = JobOrder.decode(row.order.body)
            self._queue[order.key] = order, row.order
            self._await_core(order.core, now)
            self._newest[order.key[:2]] = order.key
        for _, value in rows.scan(LEASES):
            lease = jobs_pb2.BrokerLease.FromString(value)
            key = claim_of(lease)
            self._leases[key] = lease
            self._newest[key[:2]] = key
            self._timers.set(("expire", key), now.mono_ms + lease.timeout_ms + LEASE_MARGIN_MS)
            if not lease.delivered:
                self._timers.set(("deliver", key), now.mono_ms)

    # ---- questions

    def deadline_ms(self) -> int | None:
        return self._timers.next_ms()

    def book(self) -> Iterator[jobs_pb2.BookEntry]:
        for host, standing in sorted(self._book.items()):
            alive = self._peers.is_alive(host)
            yield jobs_pb2.BookEntry(offer=standing.offer, slots_free=standing.slots_free, alive=alive)

    @property
    def queued(self) -> int:
        return len(self._queue)

    # ---- inputs

    def on_offer(self, ticket: int, command: PostOffer, now: Now) -> None:
        offer = command.offer
        standing = self._book.get(offer.host)
        if standing is None:
            standing = self._book[offer.host] = Standing(offer, awarded=self._awarded_to(offer.host, now))
        if offer.seq >= standing.seq:
            standing.offer, standing.seq, standing.held = offer, offer.seq, frozenset(_held(offer))
            self._release_unheld(standing, now)
            self._clear_due = True
        self._post.reply(ticket, jobs_pb2.PostOfferResponse())

    def on_submit(self, ticket: int, command: SubmitJobs, now: Now) -> None:
        clearings = [self._submit(command.core, order, signed, now) for order, signed in command.orders]
        self._post.reply(ticket, jobs_pb2.SubmitJobsResponse(clearings=clearings))

    def on_close(self, ticket: int, command: CloseLeases) -> None:
        for job_id, attempt in command.leases:
            key = command.core, job_id, attempt
            lease = self._leases.get(key)
            if lease is not None:
                self._remember_tried(lease)
            self._drop_lease(key)
            self._drop_order(key)
        self._post.reply(ticket, jobs_pb2.CloseLeasesResponse())

    def on_awards_answered(self, tag: Tag, answer: Answered, now: Now) -> None:
        for job_id, attempt in tag.keys:
            key = tag.node, job_id, attempt
            lease = self._leases.get(key)
            if lease is None:
                continue
            if answer.fault is None:
                lease.delivered = True
                self._post.put(LEASES, row_key(key), lease)
            else:
                self._timers.set(("deliver", key), now.mono_ms + AWARD_RETRY_MS)

    def on_peer_up(self, node_id: str) -> None:
        """A new life, or new roles. Its offer may have come before the mesh said so, its orders may wait here."""
        standing = self._book.get(node_id)
        if standing is not None:
            standing.seq = 0
        self._clear_due = True

    def on_peer_down(self, node_id: str, now: Now) -> None:
        """A dead host's leases are the core's to award again, with a new number; its offer is void."""
        self._await_core(node_id, now)
        self._book.pop(node_id, None)
        for key in [key for key, lease in self._leases.items() if lease.host == node_id]:
            self._drop_lease(key)

    def on_wake(self, now: Now) -> None:
        for what, key in self._timers.take_due(now.mono_ms):
            if what == "core":
                self._drop_orders_of(key[0])
            lease = self._leases.get(key)
            if lease is None:
                continue
            if what == "expire":
                self._drop_lease(key)
            elif not lease.delivered:
                self._deliver(lease, now)

    def clear(self, now: Now) -> None:
        """Awards what waits, oldest first, as far as free slots go. Orders of a core that is down wait for it."""
        if not self._clear_due:
            return
        self._clear_due = False
        free = sum(standing.slots_free for _, standing in self._live())
        taken: set[tuple[str, str]] = set()  # what every able host is too busy for; slots only get fewer in here
        won: list[jobs_pb2.BrokerLease] = []
        for order, _ in self._queue.values():
            if len(won) >= free:
                break
            wants = order.kind, order.needs
            if wants in taken or self._peers.is_down(order.core):
                continue
            match = self._match(order)
            if match is None:
                taken.add(wants)
            else:
                won.append(self._award(order, *match, now))
        for lease in won:
            key = claim_of(lease)
            del self._queue[key]
            self._post.delete(QUEUE, row_key(key))
            self._deliver(lease, now)

    # ---- inside

    def _submit(self, core: str, order: JobOrder, signed: common_pb2.Signed, now: Now) -> jobs_pb2.Clearing:
        key = order.key
        newest = self._newest.get(key[:2])
        if newest is not None and newest[2] > order.attempt:
            return _clearing(order, jobs_pb2.CLEARING_KIND_REFUSED, detail="a later attempt is known here")
        if newest is not None and newest != key:
            if newest in self._leases:
                self._remember_tried(self._leases[newest])
            self._drop_lease(newest)
            self._drop_order(newest)
        lease = self._leases.get(key)
        if lease is not None:
            return _award_clearing(lease)
        won = None if key in self._queue else self._match(order)
        if won is not None:
            lease = self._award(order, *won, now)
            self._timers.set(("deliver", key), now.mono_ms + AWARD_RETRY_MS)  # should this answer get lost
            return _award_clearing(lease)
        if not any(standing.could_run(order) for _, standing in self._live()):
            self._drop_order(key)  # those it waited for are gone
            detail = f"no live host offers {order.needs!r} for kind {order.kind!r}"
            return _clearing(order, jobs_pb2.CLEARING_KIND_NO_HOST, detail=detail)
        if key in self._queue:
            return _clearing(order, jobs_pb2.CLEARING_KIND_QUEUED)
        if len(self._queue) >= self._settings.queue_max:
            detail = f"the queue holds {self._settings.queue_max} orders already"
            return _clearing(order, jobs_pb2.CLEARING_KIND_REFUSED, detail=detail)
        self._queue[key] = order, signed
        self._await_core(core, now)
        self._newest[key[:2]] = key
        self._post.put(QUEUE, row_key(key), jobs_pb2.BrokerOrder(order=signed, core=core))
        self._event(EventType.JOB_QUEUED, order, "", 0)
        return _clearing(order, jobs_pb2.CLEARING_KIND_QUEUED)

    def _live(self) -> Iterator[tuple[str, Standing]]:
        """Offers of hosts that the mesh calls alive; one may have come in when its host was gone already."""
        return ((host, standing) for host, standing in self._book.items() if self._peers.is_alive(host))

    def _match(self, order: JobOrder) -> tuple[str, int] | None:
        """The cheapest live host with a free slot, and the price that the runner-up would have taken."""
        tried = self._tried.get(order.key[:2], ())
        able = (
            (host in tried, standing.offer.price_micro, -standing.slots_free, host)
            for host, standing in self._live()
            if standing.could_run(order) and standing.slots_free
        )
        best = heapq.nsmallest(2, able)
        if not best:
            return None
        _, own_price, _, winner = best[0]
        return winner, price_of(max(own_price, best[-1][1]), order.size_tokens)

    def _remember_tried(self, lease: jobs_pb2.BrokerLease) -> None:
        job = lease.core, lease.job_id
        tried = self._tried.get(job, ())
        if lease.host not in tried:
            self._tried[job] = (*tried, lease.host)
        if len(self._tried) > TRIED_REMEMBERED:
            self._tried.popitem(last=False)

    def _award(self, order: JobOrder, host: str, price_micro: int, now: Now) -> jobs_pb2.BrokerLease:
        key = order.key
        lease = jobs_pb2.BrokerLease(
            core=key[0],
            job_id=key[1],
            attempt=key[2],
            host=host,
            price_micro=price_micro,
            timeout_ms=order.timeout_ms,
        )
        self._leases[key] = lease
        self._newest[key[:2]] = key
        self._book[host].awarded[key] = now.mono_ms
        self._timers.set(("expire", key), now.mono_ms + order.timeout_ms + LEASE_MARGIN_MS)
        self._post.put(LEASES, row_key(key), lease)
        self._event(EventType.JOB_AWARDED, order, host, price_micro)
        return lease

    def _deliver(self, lease: jobs_pb2.BrokerLease, now: Now) -> None:
        key = claim_of(lease)
        self._post.add("DeliverAwards", lease.core, key[1:], _award_clearing(lease))
        self._timers.set(("deliver", key), now.mono_ms + 5 * AWARD_RETRY_MS)  # should the end of the call get lost

    def _awarded_to(self, host: str, now: Now) -> dict[ClaimKey, int]:
        return {key: now.mono_ms for key, lease in self._leases.items() if lease.host == host}

    def _release_unheld(self, standing: Standing, now: Now) -> None:
        """An award that had time to arrive and that its host does not hold has ended, or never began."""
        for key, since_ms in list(standing.awarded.items()):
            if key not in standing.held and since_ms + LEASE_GRACE_MS <= now.mono_ms:
                del standing.awarded[key]

    def _drop_lease(self, key: ClaimKey) -> None:
        lease = self._leases.pop(key, None)
        if lease is None:
            return
        standing = self._book.get(lease.host)
        if standing is not None:
            standing.awarded.pop(key, None)
            standing.held -= {key}
        self._forget(key)
        self._post.delete(LEASES, row_key(key))
        self._clear_due = True

    def _drop_order(self, key: ClaimKey) -> None:
        if self._queue.pop(key, None) is not None:
            self._forget(key)
            self._post.delete(QUEUE, row_key(key))

    def _await_core(self, core: str, now: Now) -> None:
        """Gives a core that is not alive its time to come back."""
        if not self._peers.is_alive(core):
            self._timers.set(("core", (core, "", 0)), now.mono_ms + CORE_GRACE_MS)

    def _drop_orders_of(self, core: str) -> None:
        if not self._peers.is_alive(core):
            for key in [key for key in self._queue if key[0] == core]:
                self._drop_order(key)

    def _forget(self, key: ClaimKey) -> None:
        if self._newest.get(key[:2]) == key:
            del self._newest[key[:2]]
        self._timers.cancel(("expire", key))
        self._timers.cancel(("deliver", key))

    def _event(self, etype: EventType, order: JobOrder, host: str, price_micro: int) -> None:
        event = jobs_pb2.AttemptEvent(
            job_id=order.job_id, attempt=order.attempt, core=order.core, host=host, price_micro=price_micro
        )
        self._post.record(etype, order.job_id, attempt=event)


def _held(offer: jobs_pb2.Offer) -> Iterator[ClaimKey]:
    for text in offer.held:
        core, _, rest = text.partition("/")
        job_id, _, attempt = rest.rpartition("/")
        if job_id and attempt.isdecimal() and len(attempt) <= ATTEMPT_DIGITS_MAX:
            yield core, job_id, int(attempt)


def _clearing(order: JobOrder, kind: jobs_pb2.ClearingKind.ValueType, detail: str = "") -> jobs_pb2.Clearing:
    return jobs_pb2.Clearing(job_id=order.job_id, attempt=order.attempt, kind=kind, detail=detail)


def _award_clearing(lease: jobs_pb2.BrokerLease) -> jobs_pb2.Clearing:
    return jobs_pb2.Clearing(
        job_id=lease.job_id,
        attempt=lease.attempt,
        kind=jobs_pb2.CLEARING_KIND_AWARDED,
        host=lease.host,
        price_micro=lease.price_micro,
    )
