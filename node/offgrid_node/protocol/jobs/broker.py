"""The broker's part: a book of standing offers in memory, orders cleared against it, what must wait kept durable.

A host that had an earlier attempt of a job gets the next one only if no other can: whatever went wrong between core
and host, which a broker cannot see, should not go wrong again.

The broker only matches: it tells the core which host won and the core starts the work there itself, so a broker may
die, double or be replaced without an attempt being run or paid twice. That is why its awards are in memory only; one
that answers an order is written to the journal late. One that is forgotten is made anew, but for a core that has itself
restarted and cannot say that nothing has followed from it: then the attempt is over (FORGOTTEN). An order that had to
wait stays a row, from then on with its award, until its core has confirmed that. A host's use of slots is what this
broker awarded and nobody has closed, together with what the host says it holds; the host's next offer heals any
difference.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered, Rows
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.jobs.closing import Over
from offgrid_node.protocol.jobs.commands import CloseLeases, PostOffer, SubmitJobs
from offgrid_node.protocol.jobs.orders import ClaimKey, JobOrder, row_key
from offgrid_node.protocol.jobs.peers import Peers
from offgrid_node.protocol.jobs.post import Post, Tag
from offgrid_node.protocol.jobs.prices import price_of
from offgrid_node.protocol.jobs.settings import JobsSettings
from offgrid_node.protocol.timers import Timers

QUEUE = "broker_queue"
LEASE_GRACE_MS = 5_000  # an award needs this long at most to become a lease that its host holds
SWEEP_MS = 2_000  # how often leases are looked through for those that are over, or whose core has not confirmed
LEASE_MARGIN_MS = 120_000  # past the job's own time-out a lease is certainly dead
AWARD_RETRY_MS = 2_000
CORE_GRACE_MS = 60_000  # the orders of a core that is not alive wait so long; once it is back it says them again
TRIED_REMEMBERED = 10_000  # jobs
ATTEMPT_DIGITS_MAX = 10

HELD = -(10**12)  # longer ago than any grace

JobKey = tuple[str, str]  # (core, job id)


@dataclass(slots=True)
class Lease:
    """An award. `waited`: its order stood in the queue, and is a row until the award is delivered."""

    order: JobOrder
    host: str
    price_micro: int
    dies_ms: int
    say_ms: int  # when it is delivered again
    delivered: bool = False
    waited: bool = False

    def row(self) -> jobs_pb2.BrokerOrder:
        """Of one that waited."""
        return jobs_pb2.BrokerOrder(order=self.order.encode(), host=self.host, price_micro=self.price_micro)


@dataclass(slots=True)
class Standing:
    """A host's offer and its slots in use: attempt → when this broker awarded it, HELD if only the host says so. `seq`
    is the newest of its present life: one that was restored from a backup counts from below."""

    offer: jobs_pb2.Offer
    seq: int = 0
    used: dict[ClaimKey, int] = field(default_factory=dict)

    @property
    def slots_free(self) -> int:
        return max(0, self.offer.slots - len(self.used))

    def could_run(self, order: JobOrder) -> bool:
        if self.offer.host in order.avoid:
            return False
        return self.offer.slots > 0 and order.kind in self.offer.kinds and order.needs in self.offer.executors


class Broker:
    """Clears orders by price; the winner is paid the runner-up's price (Vickrey 1961), its own when it stands alone."""

    def __init__(self, settings: JobsSettings, peers: Peers, post: Post) -> None:
        self._settings, self._peers, self._post = settings, peers, post
        self._book: dict[str, Standing] = {}
        self._queue: dict[ClaimKey, JobOrder] = {}
        self._leases: dict[ClaimKey, Lease] = {}
        self._newest: dict[JobKey, ClaimKey] = {}
        self._tried: OrderedDict[JobKey, tuple[str, ...]] = OrderedDict()
        self._timers: Timers[str] = Timers()  # by the core whose orders wait for it
        self._sweep_ms: int | None = None
        self._clear_due = False

    def load(self, rows: Rows, now: Now) -> None:
        for _, value in rows.scan(QUEUE):
            row = jobs_pb2.BrokerOrder.FromString(value)
            order = JobOrder.decode(row.order)
            if row.host:
                self._lease(order, row.host, row.price_micro, now.mono_ms, now).waited = True
                self._sweep_ms = now.mono_ms  # its core is told again at once
            else:
                self._queue[order.key] = order
                self._await_core(order.core, now)
            self._newest[order.key[:2]] = order.key

    # ---- questions

    def deadline_ms(self) -> int | None:
        return min((due for due in (self._timers.next_ms(), self._sweep_ms) if due is not None), default=None)

    def book(self) -> Iterator[jobs_pb2.BookEntry]:
        for host, standing in sorted(self._book.items()):
            alive = self._peers.is_alive(host)
            yield jobs_pb2.BookEntry(offer=standing.offer, slots_free=standing.slots_free, alive=alive)

    @property
    def queued(self) -> int:
        return len(self._queue)

    def waiting(self) -> Iterator[jobs_pb2.BrokerOrder]:
        """The orders in line, and those awarded from there whose cores have not confirmed it: what its rows say."""
        yield from (jobs_pb2.BrokerOrder(order=order.encode()) for order in self._queue.values())
        yield from (lease.row() for lease in self._leases.values() if lease.waited and not lease.delivered)

    # ---- inputs

    def on_offer(self, ticket: int, command: PostOffer, now: Now) -> None:
        offer = command.offer
        standing = self._book.get(offer.host)
        if standing is None:
            standing = self._book[offer.host] = Standing(offer, used=self._awarded_to(offer.host, now))
        if offer.seq >= standing.seq:
            standing.offer, standing.seq = offer, offer.seq
            standing.used = _in_use(standing.used, set(_held(offer)), now)
            self._clear_due = True
        self._post.reply(ticket, jobs_pb2.PostOfferResponse())

    def on_submit(self, ticket: int, command: SubmitJobs, now: Now) -> None:
        self._close(command.core, command.closed)
        doubtful = command.doubtful
        clearings = [self._submit(order, now, doubtful=order.key[1:] in doubtful) for order in command.orders]
        self._post.reply(ticket, jobs_pb2.SubmitJobsResponse(clearings=clearings, queued=len(self._queue)))

    def on_close(self, ticket: int, command: CloseLeases) -> None:
        self._close(command.core, command.leases)
        self._post.reply(ticket, jobs_pb2.CloseLeasesResponse())

    def on_awards_answered(self, tag: Tag, answer: Answered, now: Now) -> None:
        for job_id, attempt in tag.keys:
            lease = self._leases.get((tag.node, job_id, attempt))
            if lease is None or lease.delivered:
                continue
            if answer.fault is not None:
                lease.say_ms = now.mono_ms + AWARD_RETRY_MS
                continue
            lease.delivered = True
            if lease.waited:
                self._post.delete_late(QUEUE, row_key(lease.order.key), now)

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
        for core in self._timers.take_due(now.mono_ms):
            self._drop_orders_of(core)
        if self._sweep_ms is not None and now.mono_ms >= self._sweep_ms:
            self._sweep(now)

    def clear(self, now: Now) -> None:
        """Awards what waits, oldest first, as far as free slots go. Orders of a core that is down wait for it."""
        if not self._clear_due:
            return
        self._clear_due = False
        free = sum(standing.slots_free for _, standing in self._live())
        taken: set[tuple[str, str]] = set()  # what every able host is too busy for; slots only get fewer in here
        won: list[Lease] = []
        for order in self._queue.values():
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
                self._post.put(QUEUE, row_key(order.key), won[-1].row())
                self._post.record(EventType.JOB_AWARDED, order.job_id, attempt=_said(order, *match))
        for lease in won:
            lease.waited = True
            del self._queue[lease.order.key]
            self._deliver(lease, now)

    # ---- inside

    def _submit(self, order: JobOrder, now: Now, *, doubtful: bool) -> jobs_pb2.Clearing:
        key = order.key
        newest = self._newest.get(key[:2])
        if newest is not None and newest[2] > order.attempt:
            return _clearing(order, jobs_pb2.CLEARING_KIND_REFUSED, detail="a later attempt is known here")
        if newest is not None and newest != key:
            self._retire(newest)
        lease = self._leases.get(key)
        if lease is not None:
            return _award_clearing(lease)
        if doubtful and key not in self._queue:
            return _clearing(order, jobs_pb2.CLEARING_KIND_FORGOTTEN)
        won = None if key in self._queue else self._match(order)
        if won is not None:
            lease = self._award(order, *won, now)
            self._post.record_late(EventType.JOB_AWARDED, order.job_id, now, attempt=_said(order, *won))
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
        self._queue[key] = order
        self._await_core(order.core, now)
        self._newest[key[:2]] = key
        self._post.put(QUEUE, row_key(key), jobs_pb2.BrokerOrder(order=order.encode()))
        self._post.record(EventType.JOB_QUEUED, order.job_id, attempt=_said(order, "", 0))
        return _clearing(order, jobs_pb2.CLEARING_KIND_QUEUED, fresh=True)

    def _close(self, core: str, over: Sequence[Over]) -> None:
        for job_id, attempt, _ in over:
            self._retire((core, job_id, attempt))

    def _retire(self, key: ClaimKey) -> None:
        """The attempt is over for its core."""
        lease = self._leases.get(key)
        if lease is not None:
            self._remember_tried(lease)
            self._drop_lease(key)
        else:
            self._drop_order(key)

    def _live(self) -> Iterator[tuple[str, Standing]]:
        """Offers of hosts that the mesh calls alive; one may have come in when its host was gone already."""
        return ((host, standing) for host, standing in self._book.items() if self._peers.is_alive(host))

    def _match(self, order: JobOrder) -> tuple[str, int] | None:
        """The cheapest live host with a free slot, and the price that the runner-up would have taken."""
        tried = self._tried.get(order.key[:2], ())
        able = [
            (host in tried, standing.offer.price_micro, -standing.slots_free, host)
            for host, standing in self._live()
            if standing.slots_free and standing.could_run(order)
        ]
        if not able:
            return None
        best = heapq.nsmallest(2, able) if len(able) > 1 else able
        _, own_price, _, winner = best[0]
        return winner, price_of(max(own_price, best[-1][1]), order.size_tokens)

    def _remember_tried(self, lease: Lease) -> None:
        job = lease.order.key[:2]
        tried = self._tried.get(job, ())
        if lease.host not in tried:
            self._tried[job] = (*tried, lease.host)
        if len(self._tried) > TRIED_REMEMBERED:
            self._tried.popitem(last=False)

    def _award(self, order: JobOrder, host: str, price_micro: int, now: Now) -> Lease:
        # Should its answer get lost: the core asks again after a while, the broker a little earlier.
        lease = self._lease(order, host, price_micro, now.mono_ms + AWARD_RETRY_MS, now)
        self._newest[order.key[:2]] = order.key
        self._book[host].used[order.key] = now.mono_ms
        return lease

    def _lease(self, order: JobOrder, host: str, price_micro: int, say_ms: int, now: Now) -> Lease:
        dies_ms = now.mono_ms + order.timeout_ms + LEASE_MARGIN_MS
        lease = self._leases[order.key] = Lease(order, host, price_micro, dies_ms, say_ms)
        if self._sweep_ms is None:
            self._sweep_ms = now.mono_ms + SWEEP_MS
        return lease

    def _deliver(self, lease: Lease, now: Now) -> None:
        order = lease.order
        self._post.add("DeliverAwards", order.core, order.key[1:], _award_clearing(lease))
        lease.say_ms = now.mono_ms + 5 * AWARD_RETRY_MS  # should the end of the call get lost

    def _sweep(self, now: Now) -> None:
        for key, lease in list(self._leases.items()):
            if lease.dies_ms <= now.mono_ms:
                self._drop_lease(key)
            elif not lease.delivered and lease.say_ms <= now.mono_ms:
                self._deliver(lease, now)
        self._sweep_ms = now.mono_ms + SWEEP_MS if self._leases else None

    def _awarded_to(self, host: str, now: Now) -> dict[ClaimKey, int]:
        return {key: now.mono_ms for key, lease in self._leases.items() if lease.host == host}

    def _drop_lease(self, key: ClaimKey) -> None:
        lease = self._leases.pop(key, None)
        if lease is None:
            return
        standing = self._book.get(lease.host)
        if standing is not None:
            standing.used.pop(key, None)
        self._forget(key)
        if lease.waited and not lease.delivered:
            self._post.delete(QUEUE, row_key(key))
        self._clear_due = True

    def _drop_order(self, key: ClaimKey) -> None:
        if self._queue.pop(key, None) is not None:
            self._forget(key)
            self._post.delete(QUEUE, row_key(key))

    def _await_core(self, core: str, now: Now) -> None:
        """Gives a core that is not alive its time to come back."""
        if not self._peers.is_alive(core):
            self._timers.set(core, now.mono_ms + CORE_GRACE_MS)

    def _drop_orders_of(self, core: str) -> None:
        if not self._peers.is_alive(core):
            for key in [key for key in self._queue if key[0] == core]:
                self._drop_order(key)

    def _forget(self, key: ClaimKey) -> None:
        if self._newest.get(key[:2]) == key:
            del self._newest[key[:2]]


def _held(offer: jobs_pb2.Offer) -> Iterator[ClaimKey]:
    for text in offer.held:
        core, _, rest = text.partition("/")
        job_id, _, attempt = rest.rpartition("/")
        if job_id and attempt.isdecimal() and len(attempt) <= ATTEMPT_DIGITS_MAX:
            yield core, job_id, int(attempt)


def _in_use(used: dict[ClaimKey, int], held: set[ClaimKey], now: Now) -> dict[ClaimKey, int]:
    """What a host holds by its own word, and what was awarded to it so lately that it may not have arrived. An older
    award that it does not hold has ended, or never began."""
    kept = {key: since for key, since in used.items() if key in held or since + LEASE_GRACE_MS > now.mono_ms}
    return kept | dict.fromkeys(held - kept.keys(), HELD)


def _said(order: JobOrder, host: str, price_micro: int) -> jobs_pb2.AttemptEvent:
    return jobs_pb2.AttemptEvent(
        job_id=order.job_id, attempt=order.attempt, core=order.core, host=host, price_micro=price_micro
    )


def _clearing(
    order: JobOrder, kind: jobs_pb2.ClearingKind.ValueType, detail: str = "", *, fresh: bool = False
) -> jobs_pb2.Clearing:
    return jobs_pb2.Clearing(job_id=order.job_id, attempt=order.attempt, kind=kind, detail=detail, fresh=fresh)


def _award_clearing(lease: Lease) -> jobs_pb2.Clearing:
    return jobs_pb2.Clearing(
        job_id=lease.order.job_id,
        attempt=lease.order.attempt,
        kind=jobs_pb2.CLEARING_KIND_AWARDED,
        host=lease.host,
        price_micro=lease.price_micro,
    )
