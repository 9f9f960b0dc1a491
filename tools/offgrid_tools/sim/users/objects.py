"""Who keeps things: puts objects and enqueues small data, waits until they are durable, and reads them back."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Sequence
from functools import partial

import msgspec
from google.protobuf.message import Message

from offgrid.pieces import as_a
from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Fault, NotFound
from offgrid_node.protocol.etypes import EventType
from offgrid_tools.sim.engine import SECOND, Engine
from offgrid_tools.sim.monitor import Monitor
from offgrid_tools.sim.monitor.evidence import Violation
from offgrid_tools.sim.process import STRIPE_BYTES, Process
from offgrid_tools.sim.users.person import RETRY_US, Person
from offgrid_tools.sim.users.putting import PUT_BYTES_MAX, Put, Upload
from offgrid_tools.sim.users.reader import Reader

POLL_US, LOOK_US = SECOND, 3 * SECOND
PAUSE_MAX_US = 4 * SECOND
SIZES = (0, 100, STRIPE_BYTES, STRIPE_BYTES + 1, 2 * STRIPE_BYTES, 3 * STRIPE_BYTES + 17, 4 * STRIPE_BYTES)
MARK_EVERY = 256  # bytes
EARLY_CHANCE = 0.5  # that what is to be deleted is so before it was read, or durable
SHARES_CHANCE = 0.5
AGAIN_CHANCE = 0.2  # a client that has forgotten that it was answered
AUDITS_CHANCE = 0.5  # of what was read
GONE = ("ObjectNotFound", "ObjectDeleted")  # reasons of faults
EXPIRES_MS = (15_000, 45_000)

Code = tuple[int, int]  # shards needed, and in total
COPIES = (1, 1)


class Thing(msgspec.Struct):
    """What is to be kept, and how far that has come."""

    request_id: str
    data: bytes
    required_milli: int
    enqueued: bool
    code: Code = COPIES
    expires_after_ms: int = 0
    expires: bool = False  # so that it can be seen
    object_id: str = ""
    leaves: bool = False  # it is to be deleted, once it was answered for or later
    leaving: bool = False  # that has been asked for
    deleted: bool = False
    read: bool = False
    shares: bool = False  # somebody else is to read it
    unshares: bool = False  # and to be no reader any more then
    shared: bool = False  # he has, and is none any more where that was wanted

    @property
    def is_coded(self) -> bool:
        return self.code != COPIES

    @property
    def passes(self) -> bool:
        """It is gone in the end."""
        return self.leaves or self.expires

    @property
    def done(self) -> bool:
        return self.deleted or (self.read and self.shared == self.shares and not self.passes)


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
        reader: Process | None = None,
        expires: bool = False,
        unshares: float = 0.0,
    ) -> None:
        """`required`: the weights that may be asked for. `mark` stands again and again in what is kept; with the chance
        `deletes` a thing is deleted in the end. What is uploaded is under one of the `codes`, should there be any, and
        then has to weigh as little as may be asked for. Some of it is shared with `reader`, who with the chance
        `unshares` is to be none any more then; the first thing `expires`, maybe."""
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
        self._reader = Reader(engine, monitor, reader, self) if reader else None
        self._audits = bool(codes)
        for thing in self._things if reader else ():
            thing.shares = rng.random() < SHARES_CHANCE
            thing.unshares = bool(unshares) and rng.random() < unshares
        for thing in self._things if codes else ():
            thing.code = COPIES if thing.enqueued else rng.choice(codes)
            if thing.is_coded:
                thing.required_milli = min(required)
        if expires:
            self._let_expire(self._things[0])
        owner.when_back.append(self._on_back)

    def _let_expire(self, thing: Thing) -> None:
        """No client deletes, enqueues or shares it."""
        thing.expires, thing.expires_after_ms = True, self._engine.rng.randint(*EXPIRES_MS)
        thing.leaves = thing.enqueued = thing.shares = False

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
            done = partial(self._on_enqueued, thing, thing.request_id)
            self._call("ObjectService/Enqueue", request, done, self.gone(thing))
        elif len(thing.data) <= PUT_BYTES_MAX:
            Put(self, thing).put()
        else:
            Upload(self, thing).open()

    def call(
        self, method: str, request: Message, done: Callable[[Message], None], refused: Callable[[Fault], bool]
    ) -> None:
        """As everything that this person asks for."""
        self._call(method, request, done, refused)

    def _place_of(self, thing: Thing) -> str:
        """The id that it has by now."""
        return self._monitor.resealing.place_of(self.node, thing.object_id)

    def later(self, step: Callable[[], None]) -> None:
        """After the pause of whoever was refused."""
        self._engine.after(RETRY_US, step)

    def _on_enqueued(self, thing: Thing, request_id: str, reply: Message) -> None:
        assert isinstance(reply, objects_pb2.EnqueueResponse)
        self.on_kept(thing, reply.entry.object_id, request_id)

    def on_kept(self, thing: Thing, object_id: str, request_id: str) -> None:
        """The node has answered for it, asked by this id."""
        if request_id != thing.request_id:
            return  # it went on with another disk meanwhile, and the thing was put anew
        first, place_of = not thing.object_id, partial(self._monitor.resealing.place_of, self.node)
        if not first and place_of(thing.object_id) != place_of(object_id):
            raise Violation(f"request {thing.request_id} made two objects: {thing.object_id} and {object_id}")
        thing.object_id = thing.object_id or object_id
        self._monitor.objects.on_acked(self.node, place_of(object_id), thing.required_milli)
        if first:
            if thing.leaves and self._engine.rng.random() < EARLY_CHANCE:
                at_once = self._engine.rng.random() ** 4  # or nearly so: while it is on its way to its hosts
                self._engine.after(int(at_once * PAUSE_MAX_US), partial(self._delete, thing))
            if self._engine.rng.random() < AGAIN_CHANCE:
                self._keep(thing)
            self._poll(thing)
            if thing.expires_after_ms:
                self._engine.after(1_000 * thing.expires_after_ms, partial(self._look_whether_gone, thing))

    def _poll(self, thing: Thing) -> None:
        if not thing.object_id:
            return  # it is being put anew, and then asked about
        request, asked = objects_pb2.GetObjectRequest(object=thing.object_id), thing.request_id
        done = partial(self._on_state, thing, asked)
        self._call("ObjectService/GetObject", request, done, self.gone(thing))

    def _on_state(self, thing: Thing, asked: str, reply: Message) -> None:
        assert isinstance(reply, objects_pb2.GetObjectResponse)
        if asked != thing.request_id:
            return  # it was put anew meanwhile
        if reply.object.state == objects_pb2.OBJECT_STATE_DURABLE:
            if not thing.leaving:
                self._monitor.objects.on_durable(self.node, reply.object.object_id)
            self.read(thing)
        else:
            self._engine.after(POLL_US, lambda: self._poll(thing))

    def read(self, thing: Thing, got: bytes = b"") -> None:
        """From the beginning to the end; whatever comes must be what was put in."""
        request = objects_pb2.ReadObjectRequest(object=thing.object_id, offset=len(got))
        self._call(
            "ObjectService/ReadObject", request, lambda reply: self._on_read(thing, got, reply), self.gone(thing)
        )

    def _on_read(self, thing: Thing, got: bytes, reply: Message) -> None:
        part = as_a(objects_pb2.ReadObjectResponse, reply)
        assert part is not None
        got += part.data
        if part.size_bytes != len(thing.data) or got != thing.data[: len(got)]:
            raise Violation(f"{thing.object_id} was read and is not what was put")
        if len(got) == len(thing.data):
            thing.read = True
            if self._audits and self._engine.rng.random() < AUDITS_CHANCE:
                self._audit(thing)
            if thing.shares and not thing.shared:
                self._share(thing)
            elif thing.leaves:
                self._delete(thing)
        else:
            self.read(thing, got)

    # ---- lets somebody else read it

    def _share(self, thing: Thing) -> None:
        assert self._reader is not None, "there is somebody to share it with"
        self._reader.let_read(thing, self._on_shared)

    def _on_shared(self, thing: Thing) -> None:
        thing.shared = True
        if thing.leaves and not thing.leaving:
            self._delete(thing)

    # ---- and is rid of it

    def _delete(self, thing: Thing) -> None:
        if not thing.object_id:
            self.later(partial(self._delete, thing))
            return
        thing.leaving = True
        self._monitor.deletions.on_asked(self.node, thing.object_id)
        request = objects_pb2.DeleteObjectRequest(object=thing.object_id)
        self._call(
            "ObjectService/DeleteObject", request, lambda _: self._on_deleted(thing), partial(self._unknown, thing)
        )

    def _unknown(self, thing: Thing, fault: Fault) -> bool:
        """Its node goes on with a disk that has never had it."""
        thing.deleted = thing.deleted or isinstance(fault, NotFound)
        return isinstance(fault, NotFound)

    def _on_deleted(self, thing: Thing) -> None:
        thing.deleted = True
        self._monitor.deletions.on_told(self.node, thing.object_id)

    def _look_whether_gone(self, thing: Thing) -> None:
        """Until it is, by its node's clock; that is not for a long time where somebody has set that."""
        if self._process.clock_sets:
            thing.expires = False
        elif not thing.deleted:
            request = objects_pb2.GetObjectRequest(object=thing.object_id)
            again = partial(self._engine.after, LOOK_US, partial(self._look_whether_gone, thing))
            self._call("ObjectService/GetObject", request, lambda reply: again(), self.gone(thing))

    def gone(self, thing: Thing) -> Callable[[Fault], bool]:
        """Whether a fault says what was to be expected of a thing that is deleted, has expired, or was put anew."""
        asked = thing.request_id

        def is_gone(fault: Fault) -> bool:
            if asked != thing.request_id:
                return True
            if not isinstance(fault, NotFound):
                return False
            if thing.leaving or fault.reason not in GONE:
                return thing.leaving
            if not self._monitor.deletions.has_expired(self.node, self._place_of(thing)):
                return False
            self._on_deleted(thing)
            return True

        return is_gone

    # ---- whose node goes on with another disk

    def _on_back(self) -> None:
        """What that disk does not know is said to it again."""
        for thing in self._things:
            if thing.deleted and not self._monitor.deletions.is_told(self.node, thing.object_id):
                thing.deleted = False
                self._delete(thing)
            elif (
                thing.object_id
                and not thing.leaving
                and not self._monitor.objects.is_acked(self.node, self._place_of(thing))
            ):
                self._put_anew(thing)
            elif thing.shares and thing.read:
                thing.shared = False
                self.read(thing)

    def _put_anew(self, thing: Thing) -> None:
        """By another id: of the first one the node may know still, and has lost the bytes."""
        self._monitor.deletions.on_asked(self.node, thing.object_id)
        lost = objects_pb2.DeleteObjectRequest(object=thing.object_id)
        self._call("ObjectService/DeleteObject", lost, lambda _: None, lambda fault: isinstance(fault, NotFound))
        self._monitor.met.counts["objects put anew"] += 1
        thing.request_id += "."
        thing.object_id, thing.read, thing.shared = "", False, False
        self._keep(thing)

    # ---- asks whether all of it is there

    def _audit(self, thing: Thing, times: int = 2) -> None:
        """And at once anew. Whoever gets no answer asks no more."""
        place = self._place_of(thing)
        before = self._monitor.audits.whole(self.node, place)

        def ended(outcome: Message | Fault) -> None:
            if isinstance(outcome, objects_pb2.AuditObjectResponse):
                self._monitor.met.counts["audits answered"] += 1
                if outcome.object.object_id == place:
                    self._monitor.audits.on_audited(self.node, before, outcome)
                if times > 1:
                    self._audit(thing, times - 1)

        request = objects_pb2.AuditObjectRequest(object=thing.object_id)
        self._process.admin("offgrid.v1.ObjectService/AuditObject", request, ended)

    # ---- and once more

    def read_again(self, wanted: Container[str] | None = None, lost: Container[str] = ()) -> None:
        """All things once more, or those `wanted`, from wherever they are by now; what is `lost` cannot be, and that
        must be said."""
        for thing in self._things:
            if thing.leaving or thing.deleted or thing.expires_after_ms:
                continue
            place = self._place_of(thing)
            if place in lost:
                thing.read = False
                self._miss(thing)
            elif wanted is None or place in wanted:
                thing.read = False
                self.read(thing)

    def _miss(self, thing: Thing) -> None:
        request = objects_pb2.ReadObjectRequest(object=thing.object_id)
        self._process.admin("offgrid.v1.ObjectService/ReadObject", request, lambda end: self._on_missed(thing, end))

    def _on_missed(self, thing: Thing, end: Message | Fault) -> None:
        said = end.message if isinstance(end, Fault) and end.reason == "NoReplica" else ""
        if not _names_what_is_missing(self._place_of(thing), thing.code, said):
            raise Violation(f"{thing.object_id} has too few shards left to be read, and its owner says: {end!r}")
        thing.read = True


def _names_what_is_missing(object_id: str, code: Code, said: str) -> bool:
    """The object, the hosts and, of a coded one, shards, of which fewer can be had than are needed."""
    needed, total = code
    if object_id not in said or "host-" not in said:
        return False
    counted = re.search(rf"of its {total} shards {needed} are needed, (\d+) can be had; shards? \d", said)
    return code == COPIES or (counted is not None and int(counted[1]) < needed)


def _marked(data: bytes, mark: bytes) -> bytes:
    """With the mark in every part of it."""
    return b"".join(mark + data[at + len(mark) : at + MARK_EVERY] for at in range(0, len(data), MARK_EVERY))
