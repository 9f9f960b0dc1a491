"""A core and a host with blobs, seals and a network between them that can be cut, slowed down and lied over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace

from google.protobuf.message import Message

from offgrid.v1 import objects_pb2
from offgrid_node.coding.fallback import Fallback
from offgrid_node.keys import NodeKey
from offgrid_node.keys.letters import Letters
from offgrid_node.keys.wraps import KeyWraps
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.errors import Fault, NotFound
from offgrid_node.services.bulk import Bulk, inline
from offgrid_node.services.jobs.adoption import Adoption
from offgrid_node.services.jobs.results import Results
from offgrid_node.services.objects.holders import Trust
from offgrid_node.services.objects.keeping import Keeping
from offgrid_node.services.objects.reading import Reading
from offgrid_node.services.objects.room import is_known
from offgrid_node.services.objects.sealing import Sealer
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.memory_blobs import MemoryBlobs

SALT, STRIPE_BYTES = b"s" * 16, 40_000
Done = Callable[[Message | Fault], None]


@dataclass
class Network:
    """ReadReplica between nodes, answered from their blobs. `answer` may replace what comes back."""

    blobs: dict[str, MemoryBlobs] = field(default_factory=dict)
    asked: list[tuple[str, int]] = field(default_factory=list)
    held: list[Callable[[], None]] = field(default_factory=list)
    holds: bool = False
    holders: dict[str, dict[str, str]] = field(default_factory=dict)  # whom an owner names, as metadata
    answer: Callable[[str, Message], Message | Fault] = lambda node, answer: answer

    def request(self, node: str, method: str, request: Message, timeout_ms: int, done: Done) -> None:
        assert isinstance(request, objects_pb2.ReadReplicaRequest)
        assert method.endswith("/ReadReplica")
        assert timeout_ms > 0
        self.asked.append((node, request.offset))
        outcome: Message | Fault
        try:
            data = self.blobs[node].read(request.object_id, request.offset, request.length)
            outcome = self.answer(node, objects_pb2.ReadReplicaResponse(data=data))
        except NotFound as fault:
            fault.metadata.update(self.holders.get(node, {}))
            outcome = fault
        except Fault as fault:
            outcome = fault
        if self.holds:
            self.held.append(lambda: done(outcome))
        else:
            done(outcome)


class Side:
    """One node's services, without its machines."""

    def __init__(self, name: str, network: Network) -> None:
        self.key = NodeKey(name.encode().ljust(32, b"."))
        self.node_id, rng = self.key.node_id, Random(name)
        self.blobs = network.blobs[self.node_id] = MemoryBlobs()
        self.store, self.bulk, self.wraps = MemoryStore(), Bulk(inline), KeyWraps(self.key)
        clock = SimpleNamespace(now=lambda: Now(1_000, 7_000_000))
        self.told: list[object] = []  # what its machines were told
        deliver = lambda domain, event: self.told.append(event)  # noqa: E731 - a stub of one method
        self.ended: set[tuple[str, int]] = set()  # attempts that its machine awaits no more
        jobs = SimpleNamespace(current=lambda key: None if key in self.ended else key)
        machine = lambda domain, kind: SimpleNamespace(core=SimpleNamespace(jobs=jobs))  # noqa: E731 - the same
        self.runtime = SimpleNamespace(store=self.store, clock=clock, deliver=deliver, machine=machine)
        self.letters = Letters(self.key, rng.randbytes)
        self.sealer = Sealer(self.blobs, self.wraps, self.key, rng, clock, lambda: SALT, STRIPE_BYTES)
        trust = Trust(self.runtime, self.node_id, lambda node: True)  # type: ignore[arg-type]
        never = lambda delay_ms, callback: None  # noqa: E731 - no clock ticks here
        self.reading = Reading(trust, network, never, self.wraps, self.blobs, self.bulk, Fallback(), lambda: SALT)
        self.adoption = Adoption(
            self.runtime,
            self.node_id,
            network,
            self.letters,
            self.sealer,
            self.blobs,
            self.bulk,
            Keeping(self.blobs, self.bulk, lambda name: is_known(self.store, name)),
            lambda: SALT,  # type: ignore[arg-type]
        )

    def results(self) -> Results:
        return Results(self.node_id, self.letters, self.sealer, self.bulk)

    def object(self, data: bytes) -> tuple[objects_pb2.Manifest, bytes]:
        """An object in this node's blobs: its manifest and its key."""
        sealing = self.sealer.begin()
        sealing.add(data)
        sealing.close()
        return self.sealer.manifest(sealing)[0], sealing.key

    def everything(self) -> bytes:
        """All that a thief would find on this node's disk."""
        kept = [self.blobs.read(name, 0, self.blobs.size(name) or 0) for name in self.blobs.names()]
        staged = [self.blobs.read_staged(entry.name, 0, entry.size_bytes) for entry in self.blobs.all_staged()]
        return b"|".join(kept + staged)
