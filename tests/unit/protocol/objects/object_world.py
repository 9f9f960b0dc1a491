"""An owner with its hosts in virtual time: real runtimes over stores in memory, a network that loses and repeats.

What the shipper does between nodes is played by the world: it brings bytes (here: the object's id) to a host, hands the
host's machine a KeepReplica, and the signed ack, checked, back to the owner.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from random import Random

from google.protobuf.message import Message
from msgspec.structs import replace

from offgrid.v1 import common_pb2, objects_pb2, quorum_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered, Call, DropBlob, Execute, Machine
from offgrid_node.protocol.errors import FailedPrecondition, Fault, NotFound, Unavailable
from offgrid_node.protocol.events import BROKER, HOST, PeerDown, PeerUp
from offgrid_node.protocol.objects.commands import (
    AddObject,
    Audited,
    CancelEntry,
    Compared,
    DeleteObject,
    Enqueue,
    Findings,
    KeepReplica,
    TakeNotices,
)
from offgrid_node.protocol.objects.errands import Audit, Compare, Fetch, Fetched, Rebuild, Ship, Shipped
from offgrid_node.protocol.objects.inventory import Holding, holdings_of
from offgrid_node.protocol.objects.machine import ObjectsMachine
from offgrid_node.protocol.objects.manifest import COPY, MANIFEST_KIND, REED_SOLOMON, STRIPE_BYTES, Manifest, shard_root
from offgrid_node.protocol.objects.measuring import GET_CAPACITY
from offgrid_node.protocol.objects.settings import ObjectsSettings
from offgrid_node.protocol.objects.shards import blob_name
from offgrid_node.protocol.objects.tables import (
    GIVEN,
    KEPT,
    OBJECTS,
    OUTBOX,
    REPLICAS,
    object_of,
    outbox_key,
    quorum_id_of,
    replica_key,
)
from offgrid_node.protocol.quorum.commands import TrackQuorums
from offgrid_node.protocol.quorum.machine import QuorumMachine
from offgrid_node.protocol.quorum.records import Ack, Epoch, sign_ack, verify_ack, verify_epoch
from offgrid_node.protocol.quorum.settings import QuorumSettings
from offgrid_node.protocol.quorum.survival import survival_milli
from offgrid_node.protocol.quorum.tables import QUORUMS, quorum_key
from offgrid_node.protocol.signing import digest_of
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.objects.holders import holders_of
from offgrid_node.storage.memory import MemoryStore
from offgrid_tools.sim.crypto import SimSigner, sim_verify

MINUTE_MS, DAY_MS = 60_000, 86_400_000
SALT = b"s" * 16
TIMEOUT_MS = 2_000
QUIET_MS = 600_000  # of virtual time: whatever can come to its end has come to it by then


@dataclass(frozen=True)
class Chaos:
    """How often a message is lost, or comes twice; everything is late by up to `late_ms`."""

    lost: float = 0.0
    twice: float = 0.0
    late_ms: int = 5


@dataclass
class HostSpec:
    weight_milli: int = 1_000
    domain: str = ""
    capacity: objects_pb2.GetCapacityResponse = field(
        default_factory=lambda: objects_pb2.GetCapacityResponse(keeps_replicas=True, owner_free_bytes=10**12)
    )


class Site:
    """A node: its store outlives its runtime."""

    def __init__(self, world: World, name: str, build: Callable[[SimSigner], Mapping[str, Machine]]) -> None:
        self.world, self.signer, self.store, self._build = world, SimSigner(name), MemoryStore(), build
        self.life, self.up = 0, True
        self.blobs: set[str] = set()
        self.refuses = self.lies = self.spoils = False
        self.start()

    @property
    def node_id(self) -> str:
        return self.signer.node_id

    def start(self) -> None:
        self.life += 1
        self.runtime = Runtime(
            lambda: self._build(self.signer), self.store, self.world, self.world.rng, Outlet(self.world, self)
        )

    def turn(self) -> None:
        self.runtime.wake()
        self.runtime.turn()

    def find(self, table: str, key: bytes, kind: type[Message]):  # type: ignore[no-untyped-def]
        value = self.store.get(table, key)
        return kind.FromString(value) if value is not None else None


class Outlet:
    """Bound to one life of a site: what a former life sent comes back to nobody."""

    def __init__(self, world: World, site: Site) -> None:
        self._world, self._site, self._life = world, site, site.life

    def call(self, call: Call) -> None:
        self._world.call(self._site, self._life, call)

    def execute(self, work: Execute) -> None:
        raise AssertionError(work)

    def stop(self, work: object) -> None:
        raise AssertionError(work)

    def fill(self, work: object) -> None:
        raise AssertionError(work)

    def ship(self, work: Ship) -> None:
        self._world.ships.append((work.object_id, work.node))
        self._world.ship(self._site, self._life, work)

    def rebuild(self, work: Rebuild) -> None:
        self._world.rebuilds.append((work.object_id, work.node))
        self._world.rebuild(self._site, self._life, work)

    def fetch(self, work: Fetch) -> None:
        self._world.fetch(self._site, self._life, work)

    def drop_blob(self, work: DropBlob) -> None:
        self._world.check_drop(work.name)
        self._site.blobs.discard(work.name)

    def audit(self, work: Audit) -> None:
        self._world.audit(self._site, self._life, work)

    def compare(self, work: Compare) -> None:
        self._world.compare(self._site, self._life, work)

    def rewrap(self, work: object) -> None:
        raise AssertionError(work)

    def reseal(self, work: object) -> None:
        raise AssertionError(work)

    def regain(self, work: object) -> None:
        raise AssertionError(work)


@dataclass
class World:
    """Time, network and the nodes. It is the Clock of all of them."""

    specs: list[HostSpec]
    chaos: Chaos = field(default_factory=Chaos)
    copies: int = 3
    outbox_max: int = 1_000
    audit_days: int = 30
    code: tuple[int, int] | None = None  # shards needed and made of what is put; copies without
    seed: int = 1

    def __post_init__(self) -> None:
        self.rng, self.now_ms = Random(self.seed), 0
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self.ships: list[tuple[str, str]] = []
        self.compared: list[tuple[tuple[Holding, ...], tuple[Holding, ...]]] = []  # what was lost, what was astray
        self.fetches: list[str] = []
        self.moved: set[tuple[str, str]] = set()  # objects and hosts that were told that others have them now
        self.audits: list[tuple[str, ...]] = []
        self.rebuilds: list[tuple[str, str]] = []
        self.acked: dict[str, int] = {}  # object id → required weight: what the user was promised
        self.durable: set[str] = set()  # objects that were called that
        self.given_up: set[str] = set()  # objects whose entries were cancelled
        self.known: set[int] = set()  # places of hosts that the owner has heard of
        self.expires_us: dict[int, int] = {}  # of objects by number; others never do
        self.skew_us = 0  # how far the wall clock is from what it should say
        self.turns = 0
        self.crash_at = -1  # the owner's turn after which it dies
        self.owner = Site(self, "owner", self._owner)
        self.broker = Site(self, "broker", lambda signer: {"quorum": QuorumMachine(QuorumSettings(signer, SALT))})
        self.hosts = [Site(self, f"host-{n}", self._host) for n in range(len(self.specs))]

    def _owner(self, signer: SimSigner) -> dict[str, Machine]:
        settings = ObjectsSettings(
            signer, SALT, copies=self.copies, outbox_max=self.outbox_max, audit_days=self.audit_days
        )
        return {"objects": ObjectsMachine(settings), "quorum": QuorumMachine(QuorumSettings(signer, SALT))}

    def _host(self, signer: SimSigner) -> dict[str, Machine]:
        return {"objects": ObjectsMachine(ObjectsSettings(signer, SALT))}

    def now(self) -> Now:
        return Now(self.now_ms, self.now_ms * 1_000 + self.skew_us)

    @property
    def machine(self) -> ObjectsMachine:
        return self.owner.runtime.machine("objects", ObjectsMachine)

    # ---- time

    def at(self, in_ms: int, what: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now_ms + in_ms, next(self._count), what))

    def deliver_all(self) -> None:
        """Carries whatever is on the road, at once and before the owner's next step."""
        while self._heap and self._heap[0][0] < self.now_ms + TIMEOUT_MS:
            heapq.heappop(self._heap)[2]()

    def turn_owner(self) -> None:
        self.owner.turn()
        for object_id in self.acked.keys() - self.durable:
            if self.object(object_id) is not None:
                self.check_completed(object_id)
        self.turns += 1
        if self.turns == self.crash_at:
            self.restart_owner()

    def run(self, for_ms: int = QUIET_MS) -> None:
        """Until nothing is left to happen, or the time is over."""
        end = self.now_ms + for_ms
        while True:
            due = [self._heap[0][0]] if self._heap else []
            due += [d for s in (self.owner, self.broker) if (d := s.runtime.deadline_ms()) is not None]
            if not due or min(due) > end:
                self.now_ms = end
                return
            self.now_ms = max(self.now_ms, min(due))
            if self._heap and self._heap[0][0] <= self.now_ms:
                heapq.heappop(self._heap)[2]()
            self.turn_owner()
            self.broker.turn()

    def pass_days(self, days: int) -> None:
        """Of each day only its last minute is looked at, by when all that was due in it is overdue: in each other
        minute every host would be asked for its room, and nothing else would happen."""
        for _ in range(days):
            self.now_ms += DAY_MS - MINUTE_MS
            self.run(MINUTE_MS)

    # ---- who is there

    def meet(self, *places: int) -> None:
        """The owner hears of hosts."""
        for place in places:
            self.known.add(place)
            self._tell_up(self.hosts[place], HOST, self.specs[place])
        self.turn_owner()

    def meet_broker(self) -> None:
        self._tell_up(self.broker, BROKER, HostSpec())
        self.turn_owner()

    def _tell_up(self, site: Site, role: int, spec: HostSpec) -> None:
        up = PeerUp(site.node_id, "", frozenset({role}), spec.weight_milli, spec.domain)
        for domain in ("objects", "quorum"):
            self.owner.runtime.deliver(domain, up)

    def lose(self, place: int) -> None:
        """A host dies, and the owner is told."""
        self.hosts[place].up = False
        for domain in ("objects", "quorum"):
            self.owner.runtime.deliver(domain, PeerDown(self.hosts[place].node_id))
        self.turn_owner()

    def return_(self, place: int) -> None:
        self.hosts[place].up = True
        self.hosts[place].start()
        self.meet(place)

    def restart_owner(self) -> None:
        """Kill -9: what it had not committed is gone, bytes that no row wants are swept; then it hears anew who is
        alive."""
        self.owner.blobs = {name for name in self.owner.blobs if (row := self.object(name)) and row.object.local}
        self.owner.start()
        for place in sorted(self.known):
            if self.hosts[place].up:
                self._tell_up(self.hosts[place], HOST, self.specs[place])
        self.owner.turn()

    # ---- the user

    def manifest(self, number: int) -> tuple[objects_pb2.Manifest, Manifest]:
        k, n = self.code or (1, 1)
        roots = tuple(shard_root([number.to_bytes(16, "big") + shard.to_bytes(16, "big")]) for shard in range(n))
        codec, nonce = REED_SOLOMON if self.code else COPY, number.to_bytes(16, "big")
        expires_us = self.expires_us.get(number, 0)
        body = Manifest(self.owner.node_id, nonce, 10, STRIPE_BYTES, k, codec, roots, 1, expires_us)
        encoded = body.encode()
        signature = self.owner.signer.sign(digest_of(MANIFEST_KIND, SALT, encoded))
        return objects_pb2.Manifest(signed=common_pb2.Signed(body=encoded, signature=signature)), body

    def ask(self, number: int, required_milli: int = 2_000, *, name: str = "", key: str = "", request_id: str = "",
            digest: bytes = b"", for_job: bool = False, copies: int = 0) -> Ticket:  # fmt: skip
        manifest, body = self.manifest(number)
        self.owner.blobs.add(body.object_id)
        enqueue = Enqueue(key, 15) if key else None
        command = AddObject(
            manifest, body, name, required_milli, request_id, digest, enqueue, for_job=for_job, copies=copies
        )
        ticket = self.owner.runtime.ask("objects", "admin", command)
        self.turn_owner()
        return ticket

    def cancel(self, number: int) -> Message | Fault | None:
        """Of an outbox entry; asked until the owner's disk does not refuse."""
        while True:
            ticket = self.owner.runtime.ask("objects", "admin", CancelEntry(number))
            self.turn_owner()
            if not isinstance(ticket.outcome, Unavailable):
                return ticket.outcome

    def delete(self, object_id: str) -> Message | Fault | None:
        """Asked until the owner's disk does not refuse."""
        while True:
            ticket = self.owner.runtime.ask("objects", "admin", DeleteObject(object_id))
            self.turn_owner()
            if not isinstance(ticket.outcome, Unavailable):
                return ticket.outcome

    def put(self, number: int, required_milli: int = 2_000) -> str:
        """Asks until it is answered, as users do; the object's id."""
        for _ in range(100):
            outcome = self.ask(number, required_milli).outcome
            if isinstance(outcome, objects_pb2.CommitUploadResponse):
                self.acked[outcome.object.object_id] = required_milli
                return outcome.object.object_id
        raise AssertionError("never answered")

    # ---- rows

    def object(self, object_id: str) -> objects_pb2.ObjectRow:
        return self.owner.find(OBJECTS, object_id.encode(), objects_pb2.ObjectRow)

    def entry(self, object_id: str) -> objects_pb2.OutboxEntry:
        key = outbox_key(self.object(object_id).outbox_id)
        return self.owner.find(OUTBOX, key, objects_pb2.OutboxEntry)

    def quorum(self, object_id: str) -> quorum_pb2.QuorumRow:
        key = quorum_key(self.owner.node_id, quorum_id_of(object_id))
        return self.owner.find(QUORUMS, key, quorum_pb2.QuorumRow)

    def holders(self, object_id: str) -> set[str]:
        return {host.node_id for host in self.hosts if object_id in host.blobs}

    def shards_at(self, place: int, object_id: str) -> list[int]:
        """What is really there of a coded object."""
        return sorted(int(name.partition(".")[2]) for name in self.hosts[place].blobs if name.startswith(object_id))

    def can_be_read(self, object_id: str, among: Iterable[Site]) -> bool:
        """Whether these hosts have enough of it."""
        held = {name for host in among for name in host.blobs if name.partition(".")[0] == object_id}
        return len(held) >= (self.code[0] if self.code else 1)

    # ---- what must hold

    def really_acked(self, object_id: str) -> int:
        """The weight of hosts that must be lost before the object is, of those that signed what the present epoch asks
        and hold bytes and row."""
        row, by_id = self.quorum(object_id), {host.node_id: host for host in self.hosts}
        epoch = verify_epoch(row.epoch, [self.owner.signer.public_key], sim_verify, SALT)
        holding: dict[str, tuple[int, ...]] = {}
        for signed in row.acks:
            host = by_id[Ack.decode(signed.body).node]
            verify_ack(signed, [host.signer.public_key], sim_verify, SALT)
            key = replica_key(object_id, self.owner.node_id)
            names = {0: object_id} if not self.code else {n: f"{object_id}.{n}" for n in range(self.code[1])}
            if host.find(REPLICAS, key, objects_pb2.ReplicaRow) is not None:
                shards = Ack.decode(signed.body).shards_in(epoch)
                holding[host.node_id] = tuple(shard for shard in shards if names[shard] in host.blobs)
        return survival_milli(holding, epoch.weights, holding, epoch.needed)

    def check_completed(self, object_id: str) -> None:
        entry = self.entry(object_id)
        ackers = [ack.node_id for ack in self.object(object_id).object.acks]
        assert len(set(ackers)) == len(ackers)
        assert self.object(object_id).object.acked_milli <= self.really_acked(object_id), object_id
        if entry.status == objects_pb2.OUTBOX_STATUS_COMPLETED and object_id not in self.durable:
            assert self.really_acked(object_id) >= self.acked.get(object_id, 0), object_id
            self.durable.add(object_id)

    def check_drop(self, object_id: str) -> None:
        """A node's own copy goes only after enough others."""
        if self.object(object_id) is not None:
            held = {name for host in self.hosts for name in host.blobs if name.startswith(object_id)}
            assert len(held) == self.code[1] if self.code else len(self.holders(object_id)) >= self.copies

    # ---- network

    def _leg(self) -> int | None:
        return None if self.rng.random() < self.chaos.lost else self.rng.randint(1, self.chaos.late_ms)

    def compare(self, owner: Site, life: int, work: Compare) -> None:
        """What the owner has acks for now, with what the host keeps when it is asked."""
        host = next(host for host in self.hosts if host.node_id == work.node)
        given = set(holdings_of(owner.store, GIVEN, work.node))

        def end(event: Compared) -> None:
            if owner.life == life:
                owner.runtime.deliver("objects", event)

        def arrive() -> None:
            if not host.up:
                end(Compared(work.node, fault=Unavailable("nobody listens there", reason="NotConnected")))
                return
            kept = set(holdings_of(host.store, KEPT, owner.node_id))
            lost, strays = (tuple(sorted(some, key=lambda each: each.item)) for some in (given - kept, kept - given))
            self.compared.append((lost, strays))
            self.at(1, partial(end, Compared(work.node, lost, strays)))

        self.at(1, arrive)

    def audit(self, owner: Site, life: int, work: Audit) -> None:
        """Every host that is up shows what it has of what it acked."""
        self.audits.append(work.object_ids)
        up = {host.node_id: host for host in self.hosts if host.up}

        def findings(row: objects_pb2.ObjectRow) -> Findings:
            body = Manifest.decode(row.object.manifest.signed.body)
            held = {ack.node_id: tuple(ack.shards) or (0,) for ack in row.object.acks if ack.node_id in up}
            whole = {
                node: tuple(shard for shard in shards if blob_name(body, shard) in up[node].blobs)
                for node, shards in held.items()
            }
            lost = {node: tuple(shard for shard in shards if shard not in whole[node]) for node, shards in held.items()}
            some = (tuple((node, shards) for node, shards in each.items() if shards) for each in (whole, lost))
            return Findings(body.object_id, Epoch.decode(row.epoch.body).epoch, *some)

        rows = [row for object_id in work.object_ids if (row := self.object(object_id)) is not None]
        end = Audited(tuple(findings(row) for row in rows))
        self.at(1, lambda: owner.runtime.deliver("objects", end) if owner.life == life else None)

    def rebuild(self, owner: Site, life: int, work: Rebuild) -> None:
        """As a Ship, where all whose parts it takes are up and have them."""
        body = Manifest.decode(work.manifest.signed.body)
        up = {host.node_id: host for host in self.hosts if host.up}
        for parts in work.sums.values():
            for part in parts:
                names = [blob_name(body, shard) for shard in part.shards or (0,)]
                if part.node not in up or not {*names} <= up[part.node].blobs:
                    fault = Unavailable("it gives nothing", reason="PartMissing")
                    end = Shipped(work.object_id, work.node, None, fault, unfit=part.node)
                elif up[part.node].spoils:
                    fault = FailedPrecondition("another root", reason="WrongRoot")
                    end = Shipped(work.object_id, work.node, None, fault, spoilt=True)
                else:
                    continue
                self.at(self.rng.randint(1, self.chaos.late_ms), partial(self._end_rebuild, owner, life, end))
                return
        self.ship(owner, life, Ship(work.object_id, work.node, work.manifest, work.epoch), rebuilt=True)

    def _end_rebuild(self, owner: Site, life: int, end: Shipped) -> None:
        if owner.life == life:
            owner.runtime.deliver("objects", end)

    def ship(self, owner: Site, life: int, work: Ship, *, rebuilt: bool = False) -> None:
        host = next(host for host in self.hosts if host.node_id == work.node)

        ended = False

        def end(ack: common_pb2.Signed | None, fault: Fault | None) -> None:
            nonlocal ended
            ended = True
            if owner.life == life:
                owner.runtime.deliver("objects", Shipped(work.object_id, work.node, ack, fault, rebuilt=rebuilt))
                if self.object(work.object_id) is not None:  # else it was deleted meanwhile
                    self.check_completed(work.object_id)

        def arrive() -> None:
            if not host.up or host.refuses:
                return
            body = Manifest.decode(work.manifest.signed.body)
            epoch = verify_epoch(work.epoch, [owner.signer.public_key], sim_verify, SALT)
            before = set(host.blobs)
            host.blobs |= {blob_name(body, shard) for shard in epoch.shards.get(host.node_id, ())}
            possession = body.roots[0]
            command = KeepReplica(work.manifest, body, work.epoch, epoch, possession)
            ticket = host.runtime.ask("objects", owner.node_id, command)
            host.turn()
            if isinstance(ticket.outcome, Fault):
                host.blobs &= before
            answered(ticket.outcome)

        def answered(outcome: Message | Fault | None) -> None:
            for _ in range(1 + (self.rng.random() < self.chaos.twice)):
                late = self._leg()
                if late is None:
                    continue
                if isinstance(outcome, Fault):
                    self.at(late, lambda: end(None, outcome))
                else:
                    assert isinstance(outcome, objects_pb2.CommitReplicaResponse)
                    body, ack = verify_ack(outcome.ack, [host.signer.public_key], sim_verify, SALT), outcome.ack
                    if host.lies:
                        ack = sign_ack(replace(body, size_bytes=body.size_bytes + 1), host.signer, SALT)
                    self.at(late, partial(end, ack, None))

        for _ in range(1 + (self.rng.random() < self.chaos.twice)):
            late = self._leg()
            if late is not None:
                self.at(late, arrive)

        def give_up() -> None:
            if not ended:
                end(None, Unavailable("no answer", reason="Timeout"))

        self.at(TIMEOUT_MS, give_up)

    def _ask_capacity(self, site: Site, life: int, call: Call) -> None:
        """It is answered by the host's spec, or lost."""
        place = next(place for place, host in enumerate(self.hosts) if host.node_id == call.node)
        legs, capacity = [self._leg(), self._leg()], self.specs[place].capacity
        lost = None in legs or not self.hosts[place].up
        reply, fault = (None, Unavailable("lost")) if lost else (capacity, None)

        def arrive() -> None:
            if site.life == life:
                site.runtime.deliver("objects", Answered(call.tag, call.node, reply, fault))

        self.at(TIMEOUT_MS if lost else sum(leg for leg in legs if leg), arrive)

    def findable(self, object_id: str, *, formerly: bool = False) -> set[int]:
        """Shards that a reader finds where the object's row says; or also with whoever `formerly` held some."""
        holders, up = holders_of(self.object(object_id)), {host.node_id: host for host in self.hosts if host.up}
        body = Manifest.decode(self.object(object_id).object.manifest.signed.body)
        return {
            shard
            for shard in range(body.n)
            for node in (*holders.of(shard), *(holders.formerly(shard) if formerly else ()))
            if node in up and blob_name(body, shard) in up[node].blobs
        }

    def fetch(self, owner: Site, life: int, work: Fetch) -> None:
        """From the hosts that are up and that a reader would ask, all at once."""
        self.fetches.append(work.object_id)

        def end() -> None:
            if owner.life != life:
                return
            fault = None
            needed = Manifest.decode(work.manifest.signed.body).k
            if self.object(work.object_id) is None:
                fault = NotFound("it was deleted meanwhile", reason="ObjectDeleted")
            elif len(self.findable(work.object_id, formerly=True)) >= needed:
                owner.blobs.add(work.object_id)
            else:
                fault = Unavailable("too few shards are left", reason="NoReplica")
            owner.runtime.deliver("objects", Fetched(work.object_id, fault))

        self.at(self.rng.randint(1, self.chaos.late_ms), end)

    def call(self, site: Site, life: int, call: Call) -> None:
        """Brokers are told of quorums, hosts of what has become of objects, and asked for their room."""
        if call.method == GET_CAPACITY:
            self._ask_capacity(site, life, call)
            return
        target, command = self._heard(site, call)
        late = self._leg()

        def arrive() -> None:
            if not target.up:
                self.at(TIMEOUT_MS, lost)
                return
            ticket = target.runtime.ask(call.domain, site.node_id, command)
            target.turn()
            assert ticket.outcome is not None
            fault = ticket.outcome if isinstance(ticket.outcome, Fault) else None
            end(Answered(call.tag, call.node, None if fault else ticket.outcome, fault))

        def end(answer: Answered) -> None:
            if self.rng.random() < self.chaos.lost:
                self.at(TIMEOUT_MS, lost)
            elif site.life == life:
                site.runtime.deliver(call.domain, answer)

        def lost() -> None:
            if site.life == life:
                site.runtime.deliver(call.domain, Answered(call.tag, call.node, None, Unavailable("lost")))

        self.at(TIMEOUT_MS if late is None else late, lost if late is None else arrive)

    def _heard(self, site: Site, call: Call) -> tuple[Site, object]:
        if isinstance(call.request, quorum_pb2.TrackQuorumsRequest):
            told = call.request
            rows, closed = tuple(told.quorums), tuple(told.closed)
            return self.broker, TrackQuorums(site.node_id, rows, closed, told.life, told.number)
        assert isinstance(call.request, objects_pb2.DeliverNoticesRequest)
        host = next(host for host in self.hosts if host.node_id == call.node)
        said = call.request
        epochs = (Epoch.decode(signed.body) for signed in said.moved)
        self.moved.update((object_of(epoch.quorum_id), host.node_id) for epoch in epochs)
        return host, TakeNotices(site.node_id, tuple(said.deleted), life=said.life, number=said.number)
