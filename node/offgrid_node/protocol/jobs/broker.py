"""The broker's part: a book of standing offers in memory, orders cleared against it, what must wait kept durable.

The broker only matches: it tells the core which host won and the core starts the work there itself, so a broker may
die, double or be replaced without an attempt being run or paid twice. That is why its awards are in memory only; one
that answers an order is written to the journal late. One that is forgotten is made anew, but for a core that has itself
restarted and cannot say that nothing has followed from it: then the attempt is over (FORGOTTEN). An order that had to
wait stays a row, from then on with its award, until its core has confirmed that. A host's use of slots is what this
broker awarded and nobody has closed, together with what the host says it holds; the host's next offer heals any
difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from offgrid.v1 import jobs_pb2, state_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered, Record, Rows
from offgrid_node.protocol.errors import Exhausted, InvalidRequest
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.events import CORE
from offgrid_node.protocol.jobs.awards import AWARD_RETRY_MS, QUEUE, Awards, Lease
from offgrid_node.protocol.jobs.backlog import Backlog
from offgrid_node.protocol.jobs.book import Book
from offgrid_node.protocol.jobs.classes import LOOKS_TO_EXPLAIN
from offgrid_node.protocol.jobs.clearing import Group, Won, clear
from offgrid_node.protocol.jobs.closing import SERVED, Over
from offgrid_node.protocol.jobs.commands import CloseLeases, PostOffers, SubmitJobs
from offgrid_node.protocol.jobs.judging import JobKey, Judging
from offgrid_node.protocol.jobs.needs import how_offered
from offgrid_node.protocol.jobs.orders import ClaimKey, JobOrder, key_of_row, row_key
from offgrid_node.protocol.jobs.peers import Peers
from offgrid_node.protocol.jobs.post import Post, Tag
from offgrid_node.protocol.jobs.postings import Postings
from offgrid_node.protocol.jobs.prices import price_of
from offgrid_node.protocol.jobs.reputation import Reputation
from offgrid_node.protocol.jobs.settings import JobsSettings
from offgrid_node.protocol.jobs.verdicts import against, explain
from offgrid_node.protocol.timers import Timers

CORE_GRACE_MS = 60_000  # the orders of a core that is not alive wait so long; once it is back it says them again
QUEUE_RETRY_MS = 2_000  # whom the queue has no room for comes back then
LEASES_MAX = 200_000  # open ones, about a kilobyte each: what is more waits, though its host may say it has free slots

UNSAID = jobs_pb2.Clearing()  # holds a place


class Broker:
    """Clears orders against the book, and keeps in line what must wait."""

    def __init__(self, settings: JobsSettings, peers: Peers, post: Post) -> None:
        self._settings, self._peers, self._post = settings, peers, post
        self.reputation = Reputation(post)
        self.book = Book()
        self._leases = Awards(post, peers.pace)
        self.postings = Postings(self.book, peers, post, self.reputation.handicap, self._leases.at_host)
        self._judging = Judging(self.reputation, self.postings)
        self._queue = Backlog(settings.queue_max)
        self._newest: dict[JobKey, ClaimKey] = {}
        self._timers: Timers[str] = Timers()  # by the core whose orders wait for it
        self._clear_due = False
        self._clear_ms: int | None = None  # when a class that was too much of late may be made
        self._now_ms = 0

    def load(self, rows: Rows, now: Now) -> None:
        self.postings.load(rows)
        self.reputation.load(rows)
        waiting: list[tuple[int, ClaimKey, bytes]] = []
        cores: dict[str, str] = {}
        for row_key_, value in rows.scan(QUEUE):
            row = jobs_pb2.BrokerOrder.FromString(value)
            core, job_id, attempt = key_of_row(row_key_)
            core = cores.setdefault(core, core)
            job = core, job_id
            key = self._newest[job] = (*job, attempt)
            if row.host:
                self._leases.load(row, now)
            else:
                waiting.append((row.number, key, row.order))
        waiting.sort()
        for number, key, body in waiting:
            self._queue.add(key, body, number)
        for core in self._queue.cores:
            self._await_core(core, now)

    # ---- questions

    def deadline_ms(self) -> int | None:
        parts = self.postings, self._leases, self.reputation
        dues = (self._clear_ms, self._timers.next_ms(), *(part.deadline_ms() for part in parts))
        return min((due for due in dues if due is not None), default=None)

    def entries(self) -> Iterator[jobs_pb2.BookEntry]:
        """The book, by host id."""
        for standing in self.book:
            yield jobs_pb2.BookEntry(
                profile=standing.profile,
                offers=[offer for _, offer in sorted(standing.offers.items())],
                slots_free=standing.slots_free,
                alive=standing.alive,
                paused=standing.paused,
                reputation=self.reputation.of(standing.host),
                latency_ms=self.reputation.late_ms(standing.host),
            )

    @property
    def queued(self) -> int:
        return len(self._queue)

    def waiting(self) -> Iterator[jobs_pb2.BrokerOrder]:
        """The orders in line, and those awarded from there whose cores have not confirmed it: what its rows say."""
        yield from (jobs_pb2.BrokerOrder(order=body, number=number) for body, number in self._queue)
        yield from self._leases.rows()

    def group_of(self, order: JobOrder) -> Group:
        """As it is cleared now: hosts that had the job, or that broke leases of its core, come last."""
        return Group.of(order, self._judging.last_for(order.key))

    def explain(self, order: JobOrder) -> jobs_pb2.ExplainOrderResponse:
        """Raises Exhausted and InvalidRequest: a class that is asked about is made as one that is ordered, and each
        host is looked at."""
        self.book.check_class(order, self._now_ms)
        self.book.classes.spend(order.core, LOOKS_TO_EXPLAIN * len(self.book), self._now_ms)
        return explain(self.book, order, self.group_of(order))

    # ---- inputs

    def begin(self, now: Now) -> None:
        """Before anything else in a step."""
        self.postings.begin(now)

    def on_offers(self, ticket: int, command: PostOffers, now: Now) -> None:
        self._post.reply(ticket, self.postings.on_offers(command.request, now))
        self._clear_due = True

    def on_submit(self, ticket: int, command: SubmitJobs, now: Now) -> None:
        self._now_ms = now.mono_ms
        self._close(command.core, command.closed, now)
        self.clear(now, command.core)  # who waits goes before whoever comes now
        clearings: dict[ClaimKey, jobs_pb2.Clearing] = {}
        fresh: dict[Group, list[JobOrder]] = {}
        for order in command.orders:
            key = order.key
            if key in clearings:
                continue
            known = self._known(order, now, doubtful=key[1:] in command.doubtful) or self._refused_class(order, now)
            if known is None:
                fresh.setdefault(self.group_of(order), []).append(order)
            clearings[key] = known or UNSAID
        self.clear(now, command.core)  # an earlier attempt's slot may have become free
        for group, orders in fresh.items():
            for order, clearing in zip(orders, self._clear_fresh(group, orders, now), strict=True):
                clearings[order.key] = clearing
        answer = jobs_pb2.SubmitJobsResponse(
            clearings=[clearings[order.key] for order in command.orders],
            queued=len(self._queue),
            broker_epoch=self.postings.epoch,
        )
        self._post.reply(ticket, answer)

    def on_close(self, ticket: int, command: CloseLeases, now: Now) -> None:
        self._close(command.core, command.leases, now)
        self._post.reply(ticket, jobs_pb2.CloseLeasesResponse())

    def on_awards_answered(self, tag: Tag, answer: Answered, now: Now) -> None:
        self._leases.on_answered(tag, answer, now)

    def on_peer_up(self, node_id: str) -> None:
        """Its offer may have come before the mesh said so, its orders may wait here."""
        self.postings.on_peer_up(node_id)
        self._clear_due = True

    def on_peer_down(self, node_id: str, now: Now) -> None:
        """A dead host's offers are void. Its leases stay until their cores close them: whoever asks again hears of the
        same host, for that one may have begun, and numbers the next attempt anew."""
        self._await_core(node_id, now)
        self.postings.on_peer_down(node_id)

    def on_wake(self, now: Now) -> None:
        self._now_ms = now.mono_ms
        if self._clear_ms is not None and self._clear_ms <= now.mono_ms:
            self._clear_ms, self._clear_due = None, True
        for core in self._timers.take_due(now.mono_ms):
            self._drop_orders_of(core)
        self.reputation.on_wake(now)
        for key in self._leases.take_dead(now):
            self._drop_lease(key)

    def clear(self, now: Now, speaking: str = "") -> None:
        """Awards what waits as far as free slots go. Orders of a core that is down wait for it; one that is `speaking`
        now is not, whatever the mesh says."""
        revived = bool(speaking) and self._peers.is_down(speaking)
        if not (self._clear_due or (revived and speaking in self._queue.cores)):
            return
        self._clear_due = False
        if not self._queue:
            return

        def award(group: Group, keys: list[ClaimKey]) -> int:
            count = 0
            if self._is_too_new(self._queue.orders(keys[:1])[0], now):
                return 0
            for last, alike in groupby(keys, key=self._judging.last_for):
                orders = self._queue.orders(list(alike))
                won = self._award(group._replace(tried=last), orders, now)
                for lease in won:
                    self._award_late(lease, now)
                count += len(won)
                if len(won) < len(orders):
                    break
            return count

        self._queue.clear(award, self.book.slots_free, lambda core: core != speaking and self._peers.is_down(core))

    # ---- inside: orders

    def _known(self, order: JobOrder, now: Now, *, doubtful: bool) -> jobs_pb2.Clearing | None:
        """The answer to an order that is known here, or out of date; None: it is to be cleared."""
        key = order.key
        newest = self._newest.get(key[:2])
        if newest is not None and newest[2] > order.attempt:
            return _clearing(order, jobs_pb2.CLEARING_KIND_REFUSED, detail="a later attempt is known here")
        if newest is not None and newest != key:
            self._retire(newest)
        lease = self._leases.get(key)
        if lease is not None:
            return lease.clearing()
        if doubtful and key not in self._queue:
            return _clearing(order, jobs_pb2.CLEARING_KIND_FORGOTTEN)
        if key in self._queue:
            if self._is_too_new(order, now) or self._could_run(self.group_of(order), order):
                return _clearing(order, jobs_pb2.CLEARING_KIND_QUEUED)
            self._drop_order(key)  # those it waited for are gone
            return self._no_host(order)
        return None

    def _refused_class(self, order: JobOrder, now: Now) -> jobs_pb2.Clearing | None:
        """The answer to an order whose class cannot be looked up: its requirements cannot be read, or its core has had
        too many new classes of late."""
        try:
            self.book.check_class(order, now.mono_ms)
            self.book.seats(order)
        except InvalidRequest as fault:
            return _clearing(order, jobs_pb2.CLEARING_KIND_REFUSED, detail=fault.message)
        except Exhausted as fault:
            clearing = _clearing(order, jobs_pb2.CLEARING_KIND_REFUSED, detail=fault.message)
            clearing.retry_ms = fault.retry_ms or 0
            return clearing
        return None

    def _is_too_new(self, order: JobOrder, now: Now) -> bool:
        """Of one that waits: its class has been forgotten, and its core may not have it made again just now. What
        waits is looked at again when it may."""
        try:
            self.book.check_class(order, now.mono_ms)
        except Exhausted as fault:
            due_ms = now.mono_ms + (fault.retry_ms or 0)
            self._clear_ms = due_ms if self._clear_ms is None else min(self._clear_ms, due_ms)
            return True
        return False

    def _clear_fresh(self, group: Group, orders: list[JobOrder], now: Now) -> Iterator[jobs_pb2.Clearing]:
        """Awards what it can of orders that are alike, and puts the rest in line."""
        won = self._award(group, orders, now)
        for lease in won:
            self._post.tell_of_late(_event(EventType.JOB_AWARDED, lease.order, lease.host, lease.price_micro), now)
            yield lease.clearing()
        for order in orders[len(won) :]:
            yield self._enqueue(order, now) if self._could_run(group, order) else self._no_host(order)

    def _could_run(self, group: Group, order: JobOrder) -> bool:
        """Whether any live host could, were it free."""
        return any(map(group.admits, self.book.seats(order)))

    def _no_host(self, order: JobOrder) -> jobs_pb2.Clearing:
        detail = f"no live host offers {order.needs!r} for kind {order.kind!r}"
        if seats := self.book.seats(order._replace(requirements="")):
            reserve = order.price_max_micro
            asked = f"where {order.requirements}" if order.requirements else "to this core, of those that it may have"
            detail += f" {asked}" + (f", at {reserve / 1e6:g} per million tokens or less" if reserve else "")
            detail += "".join(f"; {said}" for said in against(seats, order, self.group_of(order)))
        elif self.book.is_anybody_alive:
            detail += how_offered(order.needs)
        else:
            detail += "; no host is alive: `offgrid peers` shows who is in reach"
        return _clearing(order, jobs_pb2.CLEARING_KIND_NO_HOST, detail=detail)

    def _enqueue(self, order: JobOrder, now: Now) -> jobs_pb2.Clearing:
        cores = self._peers.with_role(CORE)
        body = order.encode()
        refusal = self._queue.refusal(order.core, body, alone=not cores or cores == (order.core,))
        if refusal:
            clearing = _clearing(order, jobs_pb2.CLEARING_KIND_REFUSED, detail=refusal)
            clearing.retry_ms = QUEUE_RETRY_MS
            return clearing
        number = self._queue.add(order.key, body)
        self._await_core(order.core, now)
        self._newest[order.key[:2]] = order.key
        self._post.put(QUEUE, row_key(order.key), jobs_pb2.BrokerOrder(order=body, number=number))
        self._post.tell_of(_event(EventType.JOB_QUEUED, order))
        return _clearing(order, jobs_pb2.CLEARING_KIND_QUEUED, fresh=True)

    def _close(self, core: str, over: Sequence[Over], now: Now) -> None:
        for job_id, attempt, end in over:
            key = core, job_id, attempt
            lease = self._leases.get(key)
            if lease is None:
                self._judging.on_verdict(key, end, now)
            else:
                self._judging.on_end(lease, end, now)
                if end == SERVED:
                    self._drop_lease(key)
                    continue
            self._retire(key)

    def _retire(self, key: ClaimKey) -> None:
        """The attempt is over for its core."""
        lease = self._leases.get(key)
        if lease is not None:
            self._judging.remember(lease)
            self._drop_lease(key)
        else:
            self._drop_order(key)

    # ---- inside: leases

    def _award(self, group: Group, orders: Sequence[JobOrder], now: Now) -> list[Lease]:
        """Leases for as many of the first ones as there are slots, and room to remember them."""
        orders = orders[: max(0, LEASES_MAX - len(self._leases))]
        if not orders:
            return []
        return [self._lease_of(won, now) for won in clear(self.book.seats(orders[0]), group, orders, now.mono_ms)]

    def _lease_of(self, won: Won, now: Now) -> Lease:
        # Should its answer get lost: the core asks again after a while, the broker a little earlier.
        price_micro = price_of(won.price_micro, won.order.size_tokens)
        host, say_ms = won.bid.standing.host, now.mono_ms + AWARD_RETRY_MS
        lease = self._leases.add(won.order, host, price_micro, say_ms, now)
        self._newest[won.order.key[:2]] = won.order.key
        return lease

    def _award_late(self, lease: Lease, now: Now) -> None:
        """To one that stood in line."""
        self._leases.keep(lease, now)
        self._post.tell_of(_event(EventType.JOB_AWARDED, lease.order, lease.host, lease.price_micro))

    def _drop_lease(self, key: ClaimKey) -> None:
        lease = self._leases.drop(key)
        if lease is None:
            return
        standing = self.book.get(lease.host)
        if standing is not None:
            standing.give_back(key)
        self._forget(key)
        self._clear_due = True

    def _drop_order(self, key: ClaimKey) -> None:
        if self._queue.pop(key):
            self._forget(key)
            self._post.delete(QUEUE, row_key(key))

    def _await_core(self, core: str, now: Now) -> None:
        """Gives a core that is not alive its time to come back."""
        if not self._peers.is_alive(core):
            self._timers.set(core, now.mono_ms + CORE_GRACE_MS)

    def _drop_orders_of(self, core: str) -> None:
        if not self._peers.is_alive(core):
            for key in self._queue.of_core(core):
                self._drop_order(key)

    def _forget(self, key: ClaimKey) -> None:
        if self._newest.get(key[:2]) == key:
            del self._newest[key[:2]]


def _event(etype: EventType, order: JobOrder, host: str = "", price_micro: int = 0) -> Record:
    """Filled in place: made of two parts it costs three times as much."""
    event = state_pb2.Event(etype=etype, subject=order.job_id)
    said = event.attempt
    said.job_id, said.attempt, said.core = order.job_id, order.attempt, order.core
    said.host, said.price_micro = host, price_micro
    return Record(event)


def _clearing(
    order: JobOrder, kind: jobs_pb2.ClearingKind.ValueType, detail: str = "", *, fresh: bool = False
) -> jobs_pb2.Clearing:
    return jobs_pb2.Clearing(job_id=order.job_id, attempt=order.attempt, kind=kind, detail=detail, fresh=fresh)
