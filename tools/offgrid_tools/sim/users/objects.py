"""Who keeps things: puts objects and enqueues small data, waits until they are durable, and reads them back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from google.protobuf.message import Message

from offgrid.plaintext import checksum_of
from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Exhausted, Fault, NotFound, OutcomeUnknown, Unavailable
from offgrid_node.protocol.etypes import EventType
from offgrid_tools.sim.engine import SECOND, Engine
from offgrid_tools.sim.monitor import Monitor
from offgrid_tools.sim.monitor.evidence import Violation
from offgrid_tools.sim.process import STRIPE_BYTES, Process
from offgrid_tools.sim.users.person import RETRY_US, Person

POLL_US = SECOND
PAUSE_MAX_US = 4 * SECOND
PIECE_BYTES_MAX = 700  # no divisor of a stripe: pieces and stripes are two things
SIZES = (0, 100, STRIPE_BYTES, STRIPE_BYTES + 1, 2 * STRIPE_BYTES, 3 * STRIPE_BYTES + 17, 4 * STRIPE_BYTES)
MARK_EVERY = 256  # bytes
EARLY_CHANCE = 0.5  # that what is to be deleted is so before it was read, or durable
AGAIN_CHANCE = 0.2  # a client that has forgotten that it was answered


Code = tuple[int, int]  # shards needed, and in total
COPIES = (1, 1)


@dataclass(slots=True)
class Thing:
    """What is to be kept, and how far that has come."""

    request_id: str
    data: bytes
    required_milli: int
    enqueued: bool
    code: Code = COPIES
    object_id: str = ""
    leaves: bool = False  # it is to be deleted, once it was answered for or later
    leaving: bool = False  # that has been asked for
    deleted: bool = False
    read: bool = False

    @property
    def done(self) -> bool:
        return self.deleted or (self.read and not self.leaves)


class ObjectUser(Person):
    """One person at one node, with a number of things to keep."""

    wants = "objects"

    def __init__(
        self,
        engine: Engine,
        monitor: Monitor,
        owner: Process,
        things: int,
        required: Sequence[int],
        name: str,
        *,
        mark: bytes = b"",
        deletes: float = 0.0,
        codes: Sequence[Code] = (),
    ) -> None:
        """`required`: the weights that may be asked for. `mark` stands again and again in what is kept; with the chance
        `deletes` a thing is deleted in the end. What is uploaded is under one of the `codes`, should there be any, and
        then has to weigh as little as may be asked for."""
        super().__init__(engine, monitor, owner)
        rng = engine.rng
        self._things = [
            Thing(
                f"{name}-{number}",
                _marked(rng.randbytes(rng.choice(SIZES)), mark),
                rng.choice(required),
                enqueued=rng.random() < 0.5,
                leaves=bool(deletes) and rng.random() < deletes,
            )
            for number in range(things)
        ]
        for thing in self._things if codes else ():
            thing.code = COPIES if thing.enqueued else rng.choice(codes)
            if thing.code != COPIES:
                thing.required_milli = min(required)

    @property
    def content(self) -> bool:
        return all(thing.done for thing in self._things)

    @property
    def kept(self) -> int:
        """How many things the node has answered for."""
        return sum(bool(thing.object_id) for thing in self._things)

    def start(self) -> None:
        for thing in self._things:
            self._engine.after(int(self._engine.rng.random() * PAUSE_MAX_US), partial(self._keep, thing))

    def _keep(self, thing: Thing) -> None:
        if thing.enqueued:
            request = objects_pb2.EnqueueRequest(
                key=thing.request_id,
                data=thing.data,
                etype=EventType.OBJECT_STORED,
                required_acks_milli=thing.required_milli,
                request_id=thing.request_id,
            )
            self._call(
                "ObjectService/Enqueue", request, lambda reply: self._on_enqueued(thing, reply), self._gone(thing)
            )
        else:
            _Upload(self, thing).open()

    def _on_enqueued(self, thing: Thing, reply: Message) -> None:
        assert isinstance(reply, objects_pb2.EnqueueResponse)
        self._kept(thing, reply.entry.object_id)

    def _kept(self, thing: Thing, object_id: str) -> None:
        if thing.object_id and thing.object_id != object_id:
            raise Violation(f"request {thing.request_id} made two objects: {thing.object_id} and {object_id}")
        first, thing.object_id = not thing.object_id, object_id
        self._monitor.objects.on_acked(self.node, object_id, thing.required_milli)
        if first:
            if thing.leaves and self._engine.rng.random() < EARLY_CHANCE:
                at_once = self._engine.rng.random() ** 4  # or nearly so: while it is on its way to its hosts
                self._engine.after(int(at_once * PAUSE_MAX_US), partial(self._delete, thing))
            if self._engine.rng.random() < AGAIN_CHANCE:
                self._keep(thing)
            self._poll(thing)

    def _poll(self, thing: Thing) -> None:
        request = objects_pb2.GetObjectRequest(object=thing.object_id)
        self._call("ObjectService/GetObject", request, lambda reply: self._on_state(thing, reply), self._gone(thing))

    def _on_state(self, thing: Thing, reply: Message) -> None:
        assert isinstance(reply, objects_pb2.GetObjectResponse)
        if reply.object.state == objects_pb2.OBJECT_STATE_DURABLE:
            if not thing.leaving:
                self._monitor.objects.on_durable(self.node, thing.object_id)
            self.read(thing)
        else:
            self._engine.after(POLL_US, lambda: self._poll(thing))

    def read(self, thing: Thing, got: bytes = b"") -> None:
        """From the beginning to the end; whatever comes must be what was put in."""
        request = objects_pb2.ReadObjectRequest(object=thing.object_id, offset=len(got))
        self._call(
            "ObjectService/ReadObject", request, lambda reply: self._on_read(thing, got, reply), self._gone(thing)
        )

    def _on_read(self, thing: Thing, got: bytes, reply: Message) -> None:
        assert isinstance(reply, objects_pb2.ReadObjectResponse)
        got += reply.data
        if reply.size_bytes != len(thing.data) or got != thing.data[: len(got)]:
            raise Violation(f"{thing.object_id} was read and is not what was put")
        if len(got) == len(thing.data):
            thing.read = True
            if thing.leaves:
                self._delete(thing)
        else:
            self.read(thing, got)

    # ---- and is rid of it

    def _delete(self, thing: Thing) -> None:
        thing.leaving = True
        self._monitor.deletions.on_asked(self.node, thing.object_id)
        request = objects_pb2.DeleteObjectRequest(object=thing.object_id)
        self._call("ObjectService/DeleteObject", request, lambda reply: self._on_deleted(thing))

    def _on_deleted(self, thing: Thing) -> None:
        thing.deleted = True
        self._monitor.deletions.on_told(self.node, thing.object_id)

    def _gone(self, thing: Thing) -> Callable[[Fault], bool]:
        """Whether a fault says what was to be expected of a thing that is deleted."""
        return lambda fault: thing.leaving and isinstance(fault, NotFound)

    def read_again(self) -> None:
        """All things once more, from wherever they are by now."""
        for thing in self._things:
            if not thing.leaving:
                thing.read = False
                self.read(thing)


def _marked(data: bytes, mark: bytes) -> bytes:
    """With the mark in every part of it."""
    return b"".join(mark + data[at + len(mark) : at + MARK_EVERY] for at in range(0, len(data), MARK_EVERY))


class _Upload:
    """One put, from its opening on; begins anew whenever the node no longer knows the upload."""

    def __init__(self, person: ObjectUser, thing: Thing) -> None:
        self._person, self._thing = person, thing

    def open(self) -> None:
        request = objects_pb2.OpenUploadRequest(
            name=self._thing.request_id,
            required_milli=self._thing.required_milli,
            request_id=self._thing.request_id,
        )
        if self._thing.code != COPIES:
            request.code.needed, request.code.total = self._thing.code
        self._call("OpenUpload", request, self._on_open)

    def _on_open(self, reply: Message) -> None:
        assert isinstance(reply, objects_pb2.OpenUploadResponse)
        self._go_on(reply.upload_id, reply.offset)

    def _go_on(self, upload_id: str, offset: int) -> None:
        data = self._thing.data
        if offset >= len(data):
            request = objects_pb2.CommitUploadRequest(
                upload_id=upload_id, size_bytes=len(data), checksum=checksum_of(data)
            )
            self._call("CommitUpload", request, self._on_commit)
            return
        piece = data[offset : offset + PIECE_BYTES_MAX]
        write = objects_pb2.WriteUploadRequest(upload_id=upload_id, offset=offset, data=piece)

        def written(reply: Message) -> None:
            assert isinstance(reply, objects_pb2.WriteUploadResponse)
            self._go_on(upload_id, reply.offset)

        self._call("WriteUpload", write, written)

    def _on_commit(self, reply: Message) -> None:
        assert isinstance(reply, objects_pb2.CommitUploadResponse)
        self._person._kept(self._thing, reply.object.object_id)

    def _call(self, method: str, request: Message, done: Callable[[Message], None]) -> None:
        self._person._call(f"ObjectService/{method}", request, done, self._refused)

    def _refused(self, fault: Fault) -> bool:
        if self._thing.leaving and isinstance(fault, NotFound):
            return True
        if isinstance(fault, Unavailable | OutcomeUnknown | Exhausted):
            return False
        self._person._engine.after(RETRY_US, self.open)
        return True
