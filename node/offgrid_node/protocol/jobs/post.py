"""Effects of one step, with calls to the same node put together: one RPC carries what a whole batch has to say.

What nobody waits for is written late: it goes along with the next transaction, or makes one of its own once it has
waited LATE_MS. A crash before that loses it, so only that is late which comes about again by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import msgspec
from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2, state_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Call, Delete, DropBlob, Effect, Execute, Fill, Put, Raise, Record, Reply, Stop
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.jobs.closing import Closing, Over
from offgrid_node.protocol.jobs.orders import ORDERS, AttemptKey, ClaimKey
from offgrid_node.protocol.jobs.receipts import RECEIPTS
from offgrid_node.protocol.jobs.settings import JobsSettings

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

CALL_ITEMS_MAX = 256
CALL_BYTES_MAX = 3_000_000  # under gRPC's 4 MB default, with room for framing
START_FRAME_BYTES = 32  # of a StartJob: its price, tags and lengths
CALL_TIMEOUT_MS, CALL_TIMEOUT_MAX_MS = 5_000, 90_000
LINK_BYTES_PER_S = 50_000  # the slowest link that a call of CALL_BYTES_MAX still gets over in its time
LATE_MS = 200
LATE_MAX = 4_096  # effects


class Tag(msgspec.Struct, frozen=True):
    """What a coalesced call was about, so that its end finds the way back. Of a heartbeat's, `said_ms` is when."""

    what: str
    node: str
    keys: tuple[AttemptKey, ...]
    said_ms: int = 0


class Starting(NamedTuple):
    """What one StartJob says; the message is made once, in its call."""

    order: bytes
    payload: bytes
    price_micro: int

    @property
    def size_bytes(self) -> int:
        """About what it takes in the call."""
        return len(self.order) + len(self.payload) + START_FRAME_BYTES


Item: TypeAlias = bytes | Starting | Message  # an order is bytes


class Heap(msgspec.Struct):
    """What there is to say to one node by one method."""

    keys: list[AttemptKey]
    items: list[Any]
    sizes: list[int]


class Post:
    """Collects a step's effects; `take` closes the step."""

    def __init__(self, settings: JobsSettings) -> None:
        self._settings = settings
        self._effects: list[Effect] = []
        self._calls: list[Effect] = []
        self._works: dict[ClaimKey, Execute] = {}
        self._replies: list[Effect] = []
        self._late: dict[tuple[str, bytes], Put | Delete] = {}
        self._late_events: list[Record] = []
        self._late_ms: int | None = None
        self._durable = False
        self._heaps: dict[tuple[str, str], Heap] = {}
        self._doubtful: set[AttemptKey] = set()
        self._made: set[str] = set()
        self.closing = Closing(CALL_ITEMS_MAX)  # at brokers
        self.settling = Closing(CALL_ITEMS_MAX)  # at hosts

    # ---- what becomes durable

    def record(self, etype: EventType, subject: str, **data: Any) -> None:
        """One journal event; `data` names the case of Event's oneof."""
        self._durable = True
        self._effects.append(Record(state_pb2.Event(etype=etype, subject=subject, **data)))

    def tell_of(self, event: Record) -> None:
        """One journal event, made already; it is not to be changed any more."""
        self._durable = True
        self._effects.append(event)

    def tell_of_late(self, event: Record, now: Now) -> None:
        self._late_events.append(event)
        self._wait(now)

    def put(self, table: str, key: bytes, row: Message) -> None:
        self.put_bytes(table, key, row.SerializeToString())

    def put_bytes(self, table: str, key: bytes, value: bytes) -> None:
        self._durable = True
        self._late.pop((table, key), None)
        self._effects.append(Put(table, key, value))

    def delete(self, table: str, key: bytes) -> None:
        self._durable = True
        self._late.pop((table, key), None)
        self._effects.append(Delete(table, key))

    def put_late(self, table: str, key: bytes, value: bytes, now: Now) -> None:
        self._later(Put(table, key, value), now)

    def delete_late(self, table: str, key: bytes, now: Now) -> None:
        self._later(Delete(table, key), now)

    # ---- what leaves

    def reply(self, ticket: int, outcome: Message | Fault) -> None:
        self._replies.append(Reply(ticket, outcome))

    def tell(self, domain: str, event: object) -> None:
        """Hands an event to another domain's machine, in this very batch."""
        self._effects.append(Raise(domain, event))

    def execute(self, work: Execute) -> None:
        self._works[work[:3]] = work

    def withdraw(self, key: ClaimKey) -> bool:
        """Whether the execution was to begin with this step; then it will not."""
        return self._works.pop(key, None) is not None

    def stop(self, work: Stop) -> None:
        self._effects.append(work)

    def fill(self, work: Fill) -> None:
        self._effects.append(work)

    def drop_blob(self, object_id: str) -> None:
        self._effects.append(DropBlob(object_id))

    def call(
        self, node: str, method: str, request: Message, tag: Tag, *, early: bool = False, size_bytes: int | None = None
    ) -> None:
        """`size_bytes` is about what it takes, where that is known: else it is counted, field by field."""
        size_bytes = request.ByteSize() if size_bytes is None else size_bytes
        timeout_ms = min(CALL_TIMEOUT_MAX_MS, CALL_TIMEOUT_MS + transfer_ms(size_bytes))
        self._calls.append(Call("jobs", node, f"offgrid.v1.MarketService/{method}", request, tag, timeout_ms, early))

    def add(self, method: str, node: str, key: AttemptKey, item: Item) -> None:
        """Queues one item for the coalesced call of `method` to `node`."""
        heap = self._heaps.get((method, node))
        if heap is None:
            heap = self._heaps[method, node] = Heap([], [], [])
        heap.keys.append(key)
        heap.items.append(item)
        heap.sizes.append(_size_of(item))

    def made(self, job_id: str) -> None:
        """The job began to be in this step: nobody knows of it."""
        self._made.add(job_id)

    def doubt(self, key: AttemptKey) -> None:
        """The order of this attempt, in this step, is not to be awarded anew."""
        self._doubtful.add(key)

    def add_alone(self, method: str, node: str, key: AttemptKey, item: Item) -> None:
        """The same in a call of its own: nothing else waits for its answer."""
        self.call(node, method, BUILDERS[method](self, node, [key], [item]), Tag(method, node, (key,)))

    # ---- the end of a step

    def deadline_ms(self) -> int | None:
        """When what is late, or unsaid, must go by itself."""
        dues = (self._late_ms, self.closing.due_ms, self.settling.due_ms)
        return min((due for due in dues if due is not None), default=None)

    def take(self, now: Now) -> list[Effect]:
        """Everything so far: calls first, for others wait for them longest, and replies last."""
        for (method, node), heap in self._heaps.items():
            build = BUILDERS[method]
            for start, end in _parts(heap.sizes):
                keys = tuple(heap.keys[start:end])
                early = method == "SubmitJobs" and self._may_leave_early(keys)
                request = build(self, node, keys, heap.items[start:end])
                size_bytes = sum(heap.sizes[start:end])  # ends of leases that go along are few bytes beside it
                self.call(node, method, request, Tag(method, node, keys), early=early, size_bytes=size_bytes)
        for broker, over in self.closing.take_due(now.mono_ms):
            closing = jobs_pb2.CloseLeasesRequest()
            add_closed(closing.leases, over)
            self.call(broker, "CloseLeases", closing, closed(broker))
        for host, over in self.settling.take_due(now.mono_ms):
            settling = jobs_pb2.StartJobsRequest()
            add_over(settling.settled, over)
            self.call(host, "StartJobs", settling, settled(host))
        many = len(self._late) + len(self._late_events) > LATE_MAX
        if self._late_ms is not None and (self._durable or many or now.mono_ms >= self._late_ms):
            self._effects += self._late.values()
            self._effects += self._late_events
            self._late, self._late_events, self._late_ms = {}, [], None
        effects = [*self._calls, *self._effects, *self._works.values(), *self._replies]
        self._calls, self._effects, self._works, self._replies = [], [], {}, []
        self._heaps, self._doubtful, self._durable = {}, set(), False
        self._made, self.closing.is_fresh = set(), False
        return effects

    # ---- inside

    def _may_leave_early(self, keys: Sequence[AttemptKey]) -> bool:
        """Orders of jobs that are made in this very step: should its batch be lost, there never were such jobs, and an
        award of one is closed as that of a stranger. Ends of leases that go along must be durable themselves."""
        return not self.closing.is_fresh and all(job_id in self._made for job_id, _ in keys)

    def _later(self, effect: Put | Delete, now: Now) -> None:
        self._late[effect.table, effect.key] = effect
        self._wait(now)

    def _wait(self, now: Now) -> None:
        if self._late_ms is None:
            self._late_ms = now.mono_ms + LATE_MS

    def _submit(self, broker: str, keys: Sequence[AttemptKey], orders: list[bytes]) -> Message:
        signature = ORDERS.sign(orders, self._settings.signer, self._settings.salt)
        doubtful = leases_of([key for key in keys if key in self._doubtful]) if self._doubtful else ()
        request = jobs_pb2.SubmitJobsRequest(orders=orders, root_signature=signature, doubtful=doubtful)
        add_closed(request.closed, self.closing.take(broker))
        return request

    def _deliver(self, core: str, keys: Sequence[AttemptKey], awards: list[jobs_pb2.Clearing]) -> Message:
        return jobs_pb2.DeliverAwardsRequest(awards=awards)

    def _start(self, host: str, keys: Sequence[AttemptKey], starts: list[Starting]) -> Message:
        signature = ORDERS.sign([start.order for start in starts], self._settings.signer, self._settings.salt)
        request = jobs_pb2.StartJobsRequest(root_signature=signature)
        add = request.starts.add
        for order, payload, price_micro in starts:
            add(order=order, payload=payload, price_micro=price_micro)
        add_over(request.settled, self.settling.take(host))
        return request

    def _report(self, core: str, keys: Sequence[AttemptKey], reports: list[jobs_pb2.AttemptReport]) -> Message:
        return jobs_pb2.ReportResultsRequest(reports=reports, root_signature=self.sign_reports(reports))

    def _cancel(self, host: str, keys: Sequence[AttemptKey], attempts: list[jobs_pb2.LeaseKey]) -> Message:
        return jobs_pb2.CancelStartsRequest(attempts=attempts)

    def sign_reports(self, reports: Sequence[jobs_pb2.AttemptReport]) -> bytes:
        """One signature over all their receipts."""
        bodies = [report.result.receipt.body for report in reports if report.HasField("result")]
        return RECEIPTS.sign(bodies, self._settings.signer, self._settings.salt)


BUILDERS: dict[str, Callable[[Post, str, Sequence[AttemptKey], list[Any]], Message]] = {
    "SubmitJobs": Post._submit,
    "DeliverAwards": Post._deliver,
    "StartJobs": Post._start,
    "ReportResults": Post._report,
    "CancelStarts": Post._cancel,
}


def closed(broker: str) -> Tag:
    """Nothing follows from the end of such a call: the next offer of each host heals whatever was lost."""
    return Tag("CloseLeases", broker, ())


def settled(host: str) -> Tag:
    """Nothing follows from the end of such a call either: the host reports again what it has not been told of."""
    return Tag("Settled", host, ())


def leases_of(keys: Sequence[AttemptKey]) -> list[jobs_pb2.LeaseKey]:
    return [jobs_pb2.LeaseKey(job_id=job_id, attempt=attempt) for job_id, attempt in keys]


def add_over(leases: RepeatedCompositeFieldContainer[jobs_pb2.LeaseKey], over: Sequence[Over]) -> None:
    add = leases.add  # in their place: a message that is made apart is copied there, at twice the price
    for job_id, attempt, _ in over:
        add(job_id=job_id, attempt=attempt)


def add_closed(leases: RepeatedCompositeFieldContainer[jobs_pb2.ClosedLease], over: Sequence[Over]) -> None:
    add = leases.add
    for job_id, attempt, end in over:
        add(job_id=job_id, attempt=attempt, end=end)


def transfer_ms(size_bytes: int) -> int:
    """How long so much may be under way on a modest link."""
    return size_bytes * 1_000 // LINK_BYTES_PER_S


def _size_of(item: Item) -> int:
    if isinstance(item, bytes):
        return len(item)
    return item.size_bytes if isinstance(item, Starting) else item.ByteSize()


def _parts(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """From where to where the items of each call go, by number and by bytes; a larger one goes alone."""
    parts, start, room = [], 0, CALL_BYTES_MAX
    for index, size in enumerate(sizes):
        if index > start and (index - start >= CALL_ITEMS_MAX or size > room):
            parts.append((start, index))
            start, room = index, CALL_BYTES_MAX
        room -= size
    parts.append((start, len(sizes)))
    return parts
