"""One node's store and the machine that cuts its journal, with hosts that keep what they are given."""

from __future__ import annotations

from random import Random

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Call, Delete, Put, Raise, Woke
from offgrid_node.protocol.errors import Unavailable
from offgrid_node.protocol.events import HOST, DropSegment, ObjectAdded, PeerUp, SegmentDurable, SegmentLost
from offgrid_node.protocol.objects.errands import KeepSegment, SegmentKept
from offgrid_node.protocol.objects.manifest import COPY, Manifest
from offgrid_node.protocol.objects.segments import SegmentHead
from offgrid_node.protocol.sound import sound
from offgrid_node.protocol.state.chain import Chain, Replay, newest_chain, writes_of
from offgrid_node.protocol.state.machine import INTERVAL_MS, StateMachine, StateSettings, Stirred
from offgrid_node.protocol.state.segment import packed, unpacked
from offgrid_node.protocol.state.tables import LEFT_OUT
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.noting import NotingStore
from offgrid_node.storage.store import Batch
from offgrid_tools.sim.crypto import SimSigner, sim_verify

SIGNER, SALT = SimSigner("owner"), bytes(16)
OWNER = SIGNER.node_id
Rows = dict[tuple[str, bytes], bytes]
State = tuple[Rows, dict[int, bytes]]


def state_of(store: MemoryStore | NotingStore) -> State:
    """The rows that segments are to bring back, and all events, by their numbers."""
    rows = {(table, key): value for table in store.tables - LEFT_OUT for key, value in sound(store.scan, table)}
    return rows, dict(store.events())


class Hosts:
    """What lies at hosts: heads and sealed segments by their object's id; `acked` is what its owner knows."""

    def __init__(self) -> None:
        self.heads: dict[str, SegmentHead] = {}
        self.sealed: dict[str, bytes] = {}
        self.bodies: dict[str, Manifest] = {}  # of all that ever lay there
        self.cut_at: dict[str, State] = {}

    def chain(self) -> Chain:
        return newest_chain(self.heads)

    def restore(self, into: MemoryStore) -> SegmentHead:
        """The newest state that is there."""
        chain, replay = self.chain(), Replay()
        for head in chain.heads:
            segment = unpacked(self.sealed[head.object_id])
            into.commit(Batch(replay.add(segment), dict(writes_of(segment)), replay.floor))
        replay.check_end(chain.newest.events)
        return chain.newest


class JournalWorld:
    """A node that changes rows as it is told, and cuts its journal by itself."""

    def __init__(self, hosts: Hosts | None = None, *, keys_max: int = 1_000) -> None:
        self.below, self.hosts, self.rng = MemoryStore(), hosts or Hosts(), Random(1)
        self.store = NotingStore(self.below, keys_max=keys_max)
        self.signer = SIGNER
        self.now_ms = 0
        self.cuts = 0
        self.calls: list[Call] = []
        self.dropped: list[str] = []
        self.waiting: list[KeepSegment] = []
        self.unacked: list[SegmentHead] = []
        self._states: dict[bytes, State] = {}
        self.start()

    # ---- the node

    def start(self) -> None:
        """Its machine, loaded anew from what is durable; whatever was under way is lost."""
        self.waiting.clear()
        self.machine = StateMachine(StateSettings(self.signer, sim_verify, SALT, 2_000), self.store)
        self.machine.load(self.store, self.now)

    @property
    def now(self) -> Now:
        return Now(self.now_ms, self.now_ms * 1_000)

    def see_host(self) -> None:
        self.step(PeerUp("h" * 32, "shed", frozenset({HOST}), 1_000))

    def write(self, *writes: tuple[str, bytes, bytes | None], events: int = 0) -> None:
        """One transaction of the node's own."""
        said = [b"event %d" % (self.store.journal_seq + at) for at in range(1, events + 1)]
        self.store.commit(Batch(said, {(table, key): value for table, key, value in writes}))
        if events:
            self.step(Stirred())

    def drop(self, count: int) -> None:
        """Of events that hosts have, some of the oldest go."""
        self.store.commit(Batch(floor=min(self.below.journal_floor + count, self.machine.safe_events)))

    def step(self, *inputs: object, lost: bool = False) -> None:
        """One step and its commit; with `lost` the process dies before that."""
        effects = self.machine.step(inputs, self.now, self.rng)
        if lost:
            self.start()
            return
        batch = Batch()
        for effect in effects:
            match effect:
                case Put(table, key, value):
                    batch.writes[table, key] = value
                case Delete(table, key):
                    batch.writes[table, key] = None
        for effect in effects:
            if isinstance(effect, KeepSegment):  # as of the commit before this one
                self._states[effect.token] = state_of(self.below)
        self.store.commit(batch)
        for effect in effects:
            match effect:
                case Call():
                    self.calls.append(effect)
                case KeepSegment():
                    self.cuts += 1
                    self.waiting.append(effect)
                case Raise("objects", ObjectAdded(manifest, _, _, _)):
                    self._ship(manifest)
                case Raise("objects", DropSegment(object_id)):
                    self.dropped.append(object_id)
                    for held in (self.hosts.heads, self.hosts.sealed):
                        held.pop(object_id, None)

    # ---- time and hosts

    def wait(self, ms: int = INTERVAL_MS) -> None:
        self.now_ms += ms
        due = self.machine.deadline_ms()
        if due is not None and due <= self.now_ms:
            self.step(Woke())

    def seal(self, *, fails: bool = False, lost: bool = False) -> None:
        """The oldest segment that is under way is sealed, and becomes an object."""
        if not self.waiting:
            return
        work = self.waiting.pop(0)
        if fails:
            self.step(SegmentKept(work.token, fault=Unavailable("the disk is full", reason="DiskError")))
            return
        data = packed(work.segment)
        root = self.rng.randbytes(32)
        body = Manifest(OWNER, bytes(16), len(data), 1 << 20, 1, COPY, (root,), self.now_ms)
        head = SegmentHead(
            OWNER,
            work.head.life,
            work.head.number,
            work.head.base,
            work.head.events,
            body.object_id,
            work.head.previous,
        )
        manifest = objects_pb2.Manifest()
        manifest.segment.body = head.encode()
        self._sealed = (head, data, self._states[work.token])
        self.hosts.bodies[head.object_id] = body
        self.step(SegmentKept(work.token, manifest, body, len(data)), lost=lost)

    def _ship(self, manifest: objects_pb2.Manifest) -> None:
        head, data, state = self._sealed
        assert manifest.segment.body == head.encode()
        self.hosts.heads[head.object_id], self.hosts.sealed[head.object_id] = head, data
        self.hosts.cut_at[head.object_id] = state
        self.unacked.append(head)

    def ack(self) -> None:
        """The oldest segment that waits for its acks gets them."""
        if self.unacked:
            self.step(SegmentDurable(self.unacked.pop(0).number))

    def lose(self, number: int) -> None:
        """A segment, wherever it was."""
        (object_id,) = [head.object_id for head in self.hosts.heads.values() if head.number == number]
        del self.hosts.heads[object_id], self.hosts.sealed[object_id]
        self.unacked = [head for head in self.unacked if head.number != number]
        self.step(SegmentLost(number))

    def settle(self) -> None:
        """Until nothing is under way any more."""
        for _ in range(1_000):
            self.wait()
            if not self.waiting and not self.unacked and self.machine.deadline_ms() is None:
                return
            self.seal()
            self.ack()
        raise AssertionError("it does not come to rest")
