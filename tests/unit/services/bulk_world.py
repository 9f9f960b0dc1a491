"""An owner and hosts in one process: real handlers, machines and stores in memory; a network that a test can bend.

Time stands still until `pass_ms` moves it. `bend` sees each call before it is carried: it may answer in the target's
place, change the request, or lose call or answer.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from google.protobuf.message import Message

from offgrid.v1 import objects_pb2
from offgrid_node.coding.fallback import Fallback
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered, Call, DropBlob, Execute, Machine
from offgrid_node.protocol.errors import Fault, NotFound, OutcomeUnknown, Unavailable
from offgrid_node.protocol.events import CORE, HOST, PeerUp
from offgrid_node.protocol.mesh.wrapping import WrappingKey
from offgrid_node.protocol.objects.errands import Audit, Compare, Fetch, Rebuild, Regain, Reseal, Rewrap, Ship
from offgrid_node.protocol.objects.machine import ObjectsMachine
from offgrid_node.protocol.objects.manifest import Code
from offgrid_node.protocol.objects.settings import OUTBOX_MAX, ObjectsSettings
from offgrid_node.protocol.quorum.machine import QuorumMachine
from offgrid_node.protocol.quorum.settings import QuorumSettings
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.bulk import Bulk, inline
from offgrid_node.services.caller import ADMIN, Caller, Kind
from offgrid_node.services.objects.auditing import Auditing
from offgrid_node.services.objects.capacity import Capacity
from offgrid_node.services.objects.checking import Checking
from offgrid_node.services.objects.codes import NEVER_CODED, CodePolicy
from offgrid_node.services.objects.combining import Combining
from offgrid_node.services.objects.fetching import Fetching
from offgrid_node.services.objects.handlers import ObjectHandlers
from offgrid_node.services.objects.holders import Trust
from offgrid_node.services.objects.inventories import Inventories, replicas_lost
from offgrid_node.services.objects.keeping import Keeping
from offgrid_node.services.objects.patience import Patience
from offgrid_node.services.objects.placing import Placing
from offgrid_node.services.objects.proving import Proving
from offgrid_node.services.objects.pulling import Pulling
from offgrid_node.services.objects.puts import Puts
from offgrid_node.services.objects.reading import Reading
from offgrid_node.services.objects.regaining import Regaining
from offgrid_node.services.objects.repair_pace import RepairPace
from offgrid_node.services.objects.repairing import Repairing
from offgrid_node.services.objects.replicas import PIECE_BYTES_MAX, Replicas
from offgrid_node.services.objects.resealing import Resealing
from offgrid_node.services.objects.rewrapping import Rewrapping
from offgrid_node.services.objects.room import is_known
from offgrid_node.services.objects.scrub_now import ScrubNow
from offgrid_node.services.objects.sealing import Sealer
from offgrid_node.services.objects.segments import Segments
from offgrid_node.services.objects.serving import Serving
from offgrid_node.services.objects.sharing import Sharing
from offgrid_node.services.objects.shipping import Shipping
from offgrid_node.services.objects.small_replicas import SmallReplicas
from offgrid_node.services.objects.small_shipping import SmallShipping
from offgrid_node.services.objects.source import ShardSource
from offgrid_node.services.objects.uploads import Uploads
from offgrid_node.services.objects.watching import Watching
from offgrid_node.services.router import METHODS, snake
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.memory_blobs import MemoryBlobs
from offgrid_node.storage.row_blobs import RowBlobs
from offgrid_tools.sim.crypto import SimSigner, SimWraps, sim_verify

SALT = b"object-world-16b"
STRIPE = 64
SERVICE = "offgrid.v1.ObjectService/"


class Letter(msgspec.Struct, eq=False):
    """One call on its way. `lose_answer`: it is carried out, and nobody hears of it."""

    source: str
    target: str
    method: str
    request: Any
    done: Callable[[Message | Fault], None]
    lose_answer: bool = False

    @property
    def short(self) -> str:
        return self.method.rpartition("/")[2]


Bend = Callable[[Letter], Message | Fault | None]
"""The answer in the target's place; None lets the call through."""


class Members:
    """What a directory would say."""

    salt = SALT

    def __init__(self, signers: Mapping[str, SimSigner]) -> None:
        self._names = {name: signer.node_id for name, signer in signers.items()}
        self._names |= {signer.node_id: signer.node_id for signer in signers.values()}
        self._signers = {signer.node_id: signer for signer in signers.values()}
        self.wrap_numbers: Counter[str] = Counter()
        self._keys = {signer.node_id: signer.public_key for signer in signers.values()}

    def resolve(self, text: str) -> str:
        if text not in self._names:
            raise NotFound(f"no member is called {text!r}", reason="NodeNotFound")
        return self._names[text]

    def current_key(self, node_id: str) -> bytes | None:
        return self._keys.get(node_id)

    def keys(self, node_id: str) -> list[bytes]:
        return [self._keys[node_id]] if node_id in self._keys else []

    def live(self) -> list[str]:
        return [*self._keys]

    def wrapping_key(self, node_id: str) -> WrappingKey | None:
        signer = self._signers.get(node_id)
        return signer.wrapping_key(self.wrap_numbers[node_id]) if signer is not None else None


CODING = CodePolicy(Code(4, 7), 1_000_000)  # of what is only asked about


class Clock:
    mono_ms = 1_000

    def now(self) -> Now:
        return Now(self.mono_ms, 1_700_000_000_000_000 + self.mono_ms * 1_000)


class Node:
    """One of them; `restart` loses what its process held."""

    def __init__(self, world: World, name: str, *, enabled: bool = True) -> None:
        self.world, self.name, self.signer, self.enabled = world, name, world.signers[name], enabled
        self.owner_share_percent, self.piece_bytes, self.repair_bytes_per_s = 100, PIECE_BYTES_MAX, 0
        self.reencrypt_bytes_per_s = 0
        self.safe_seq: int | None = None  # as if its journal were kept by no host
        self.node_id = self.signer.node_id
        self.store, self.blobs = MemoryStore(), MemoryBlobs()
        self.small_bytes = self.one_call_bytes = self.hold_ms = 0
        self.coding = NEVER_CODED  # of what is put
        self.up, self.lives, self.outbox_max, self.drains = True, 0, OUTBOX_MAX, False
        self.restart()

    def restart(self, *, seen: bool = True) -> None:
        """Unless it is `seen`, the others take it for what it was before."""
        self.lives += 1
        signer = self.signer

        def build() -> dict[str, Machine]:
            objects = ObjectsMachine(ObjectsSettings(signer, SALT, outbox_max=self.outbox_max))
            return {"objects": objects, "quorum": QuorumMachine(QuorumSettings(signer, SALT))}

        world, members = self.world, lambda: self.world.members
        self.bulk = Bulk(inline)
        self.runtime = Runtime(build, self.store, world.clock, world.rng, self)
        self.kept = RowBlobs(self.blobs, self.store, self.node_id, self.small_bytes)
        wraps = SimWraps(signer)
        own_key = lambda: world.members.wrapping_key(self.node_id)  # noqa: E731 - of now
        self.sealer = Sealer(
            self.blobs, wraps, signer, world.rng, world.clock, lambda: SALT, STRIPE, Fallback(), own_key
        )
        self.trust = Trust(self.runtime, self.node_id, lambda node: world.by_id[node].up)
        self.reading = Reading(self.trust, self, world.later, wraps, self.kept, self.bulk, Fallback(), lambda: SALT)
        keeping = Keeping(self.blobs, self.bulk, lambda name: is_known(self.store, name))
        source = ShardSource(self.kept, Fallback())
        small = SmallShipping(self, source, self.bulk, self.kept.own, self.one_call_bytes)
        self.shipping = Shipping(
            self.runtime,
            self,
            members,
            sim_verify,
            source,
            self.bulk,
            keeping,
            small,
            Patience(self.runtime, world.later, self.hold_ms),
        )
        self.uploads = Uploads(self.runtime, self.sealer, self.bulk, keeping, world.later, self.coding)
        watching = Watching(self.runtime, world.later, self.shipping.sending)
        self.shipping.on_sent = watching.on_sent
        puts = Puts(self.runtime, self.sealer, self.bulk, self.uploads, watching, self.kept.takes, self.coding)
        self.replicas = Replicas(
            self.runtime,
            self.node_id,
            members,
            sim_verify,
            self.blobs,
            self.bulk,
            keeping,
            enabled=self.enabled,
            owner_share_percent=self.owner_share_percent,
            piece_bytes=self.piece_bytes,
        )
        self.inventories = Inventories(self.runtime, self, world.rng, self.bulk)
        for lost in replicas_lost(self.store, self.blobs):
            self.runtime.deliver("objects", lost)
        serving = Serving(self.runtime, members, self.kept, source, self.bulk)
        capacity = Capacity(
            self.runtime, self.replicas, self.blobs, self.bulk, lambda: self.drains, Path(), 1, world.rng
        )
        placing = Placing(self.runtime, self.node_id, CODING, lambda node: world.by_id[node].name)
        sharing = Sharing(self.runtime, self.node_id, members, sim_verify, wraps, world.rng, self.bulk)
        self.auditing = Auditing(self.runtime, self, self.trust, world.rng, source, Fallback(), self.bulk, lambda: SALT)
        self.rewrapping = Rewrapping(self.runtime, self.node_id, members, wraps, world.rng, self.bulk)
        self.resealing = Resealing(
            self.runtime,
            self.node_id,
            members,
            self.sealer,
            self.uploads,
            self.reading,
            wraps,
            world.rng,
            self.bulk,
            world.later,
            lambda: self.safe_seq,
            self.reencrypt_bytes_per_s,
        )
        self.pace = RepairPace(lambda: world.clock.mono_ms, world.later, self.repair_bytes_per_s)
        combining = Combining(self.node_id, self, self.kept, Fallback(), self.bulk, self.pace)
        self.segments = Segments(
            self.runtime,
            self.sealer,
            signer,
            self.bulk,
            lambda: SALT,
            lambda node: members().current_key(node),
            lambda node: 0,
            sim_verify,
            keeping.drop,
            cuts=False,
        )
        self.checking = Checking(self.runtime, lambda: SALT, self.kept.of, self.bulk)
        self.handlers = ObjectHandlers(
            self.runtime,
            self.uploads,
            self.reading,
            self.replicas,
            serving,
            sharing,
            self.bulk,
            capacity,
            self.inventories,
            placing,
            self.auditing,
            Proving(self.runtime, self.kept.of, self.bulk, Fallback()),
            self.rewrapping,
            combining,
            Pulling(self.runtime, self.replicas, combining, self.pace),
            puts,
            watching,
            SmallReplicas(self.runtime, self.node_id, self.replicas, lambda: SALT, self.blobs, self.kept.takes),
            self.segments,
            ScrubNow(self.runtime, self.checking, self.bulk, world.later),
            self.resealing,
        )
        self.fetching = Fetching(self.runtime, self.reading, self.blobs, self.bulk, keeping, self.pace)
        self.regaining = Regaining(
            self.runtime,
            self.node_id,
            self,
            members,
            sim_verify,
            wraps,
            self.reading,
            self.fetching,
            source,
            self.bulk,
            keeping,
            cuts=False,
        )
        self.repairing = Repairing(self.runtime, self, members, sim_verify, world.later)
        for other in world.by_id.values():
            self.meet(other)
            if seen:
                other.meet(self)

    def meet(self, other: Node) -> None:
        roles = frozenset({CORE if other.name == "owner" else HOST})
        for domain in ("objects", "quorum"):
            label = self.world.members.wrapping_key(other.node_id).label
            self.runtime.deliver(domain, PeerUp(other.node_id, other.name, roles, 1_000, "", label))

    # ---- Outlet and Carrier

    def call(self, call: Call) -> None:
        def done(end: Message | Fault) -> None:
            reply, fault = (None, end) if isinstance(end, Fault) else (end, None)
            self.runtime.deliver(call.domain, Answered(call.tag, call.node, reply, fault))

        self.request(call.node, call.method, call.request, call.timeout_ms, done)

    def execute(self, work: Execute) -> None:
        raise AssertionError("objects execute nothing")

    def stop(self, work: object) -> None:
        raise AssertionError(work)

    def fill(self, work: object) -> None:
        raise AssertionError(work)

    def ship(self, work: Ship) -> None:
        self.shipping.ship(work)

    def rebuild(self, work: Rebuild) -> None:
        self.repairing.rebuild(work)

    def fetch(self, work: Fetch) -> None:
        self.fetching.fetch(work)

    def drop_blob(self, work: DropBlob) -> None:
        self.shipping.drop_blob(work)

    def compare(self, work: Compare) -> None:
        self.inventories.compare(work)

    def audit(self, work: Audit) -> None:
        self.auditing.audit(work)

    def rewrap(self, work: Rewrap) -> None:
        self.world.on_rewrap(self, work)

    def reseal(self, work: Reseal) -> None:
        self.world.on_reseal(self, work)

    def regain(self, work: Regain) -> None:
        self.regaining.regain(work)

    def request(
        self, node: str, method: str, request: Message, timeout_ms: int, done: Callable[[Message | Fault], None]
    ) -> None:
        life, data = self.lives, request.SerializeToString()  # what is sent does not change any more

        def ended(end: Message | Fault) -> None:
            if self.lives == life:  # what comes back to a process that has died is nobody's
                done(end)

        self.world.letters.append(Letter(self.node_id, node, method, METHODS[method].request.FromString(data), ended))

    # ---- calls

    def ask(self, method: str, request: Message, caller: Caller = ADMIN) -> Any:
        """The answer, once everything has come to rest; raises its fault."""
        outcome = self.begin(method, request, caller)
        self.world.settle()
        if isinstance(outcome, Ticket):
            outcome = outcome.outcome
        assert outcome is not None, f"{method} has no answer"
        if isinstance(outcome, Fault):
            raise outcome
        return outcome

    def begin(self, method: str, request: Message, caller: Caller = ADMIN) -> Any:
        return getattr(self.handlers, snake(method))(caller, request)

    def ask_as(self, node: Node, method: str, request: Message) -> Any:
        """As another member."""
        return self.ask(method, request, Caller(Kind.MEMBER, node.node_id, frozenset({CORE})))

    # ---- an owner's ways

    def put(
        self,
        data: bytes,
        *,
        name: str = "",
        required_milli: int = 0,
        request_id: str = "",
        code: tuple[int, int] | None = None,
    ) -> objects_pb2.Object:
        request = objects_pb2.OpenUploadRequest(name=name, required_milli=required_milli, request_id=request_id)
        if code:
            request.size_bytes, (request.code.needed, request.code.total) = len(data), code
        opened = self.ask("OpenUpload", request)
        self.ask("WriteUpload", objects_pb2.WriteUploadRequest(upload_id=opened.upload_id, data=data))
        commit = objects_pb2.CommitUploadRequest(upload_id=opened.upload_id, size_bytes=len(data))
        made: objects_pb2.Object = self.ask("CommitUpload", commit).object
        return made

    def info(self, wanted: str) -> objects_pb2.Object:
        made: objects_pb2.Object = self.ask("GetObject", objects_pb2.GetObjectRequest(object=wanted)).object
        return made

    def read(self, wanted: str) -> bytes:
        data = b""
        while True:
            part = self.ask("ReadObject", objects_pb2.ReadObjectRequest(object=wanted, offset=len(data)))
            data += part.data
            if len(data) == part.size_bytes:
                return data
            assert part.data, "an answer before the end brings something"


class World:
    """`owner` and `hosts`, all members of one mesh and known to each other."""

    def __init__(self, hosts: int = 3) -> None:
        names = ["owner", *(f"host-{index}" for index in range(hosts))]
        self.clock, self.rng = Clock(), Random(1)
        self.signers = {name: SimSigner(name) for name in names}
        self.members = Members(self.signers)
        self.letters: deque[Letter] = deque()
        self.log: list[str] = []
        self.on_rewrap: Callable[[Node, Rewrap], None] = lambda node, work: node.rewrapping.rewrap(work)
        self.on_reseal: Callable[[Node, Reseal], None] = lambda node, work: node.resealing.reseal(work)
        self.timers: list[tuple[int, Callable[[], None]]] = []
        self.bend: Bend = lambda letter: None
        self.by_id: dict[str, Node] = {}
        for name in names:
            node = Node(self, name)
            self.by_id[node.node_id] = node
            node.meet(node)
        self.owner, *self.hosts = self.by_id.values()
        self.settle()
        self.log.clear()  # of what they said when they met

    def settle(self) -> None:
        """Until nobody has anything to do at this moment."""
        for _ in range(10_000):
            for node in self.by_id.values():
                if node.up:
                    node.runtime.wake()
                    node.runtime.turn()
            if self.letters:
                self._carry(self.letters.popleft())
            elif not any(node.up and node.runtime.inbox_depth for node in self.by_id.values()):
                return
        raise AssertionError("they never come to rest")

    def later(self, delay_ms: int, callback: Callable[[], None]) -> None:
        self.timers.append((self.clock.mono_ms + delay_ms, callback))

    def pass_ms(self, span_ms: int) -> None:
        self.clock.mono_ms += span_ms
        due = [timer for timer in self.timers if timer[0] <= self.clock.mono_ms]
        self.timers = [timer for timer in self.timers if timer[0] > self.clock.mono_ms]
        for _, callback in due:
            callback()
        self.settle()

    def _carry(self, letter: Letter) -> None:
        self.log.append(letter.short)
        target = self.by_id.get(letter.target)
        if target is None or not target.up:
            letter.done(Unavailable("nobody listens there", reason="NotConnected"))
            return
        answer = self.bend(letter)
        if answer is not None:
            letter.done(answer)
            return
        caller = Caller(Kind.MEMBER, letter.source, frozenset({CORE}))
        try:
            outcome = target.begin(letter.short, letter.request, caller)
        except Fault as fault:
            outcome = fault
        if letter.lose_answer:
            target.runtime.turn()
            outcome = OutcomeUnknown("no answer came", reason="NoAnswer")
        if isinstance(outcome, Ticket):
            outcome.when_done(letter.done)
        else:
            letter.done(outcome)
