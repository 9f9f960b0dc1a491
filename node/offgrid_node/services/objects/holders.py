"""Whom a reader asks: who is said to have what of an object, and who has proved unreliable of late."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from offgrid.pieces import as_a
from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Corrupt, Exhausted, Fault, NotFound, OutcomeUnknown, PeerFault, Unavailable
from offgrid_node.protocol.jobs.post import CALL_TIMEOUT_MS
from offgrid_node.protocol.objects.errands import Rebuild, Ship
from offgrid_node.protocol.pace import Paces, all_free
from offgrid_node.protocol.quorum.records import Epoch
from offgrid_node.runtime import Runtime
from offgrid_node.services.flow import Step
from offgrid_node.services.roads.choice import TOO_SLOW

SERVICE = "offgrid.v1.ObjectService"
LYING_MS, AWAY_MS = 600_000, 15_000  # for so long a host is asked last
HOLDERS = "holders"  # in the metadata of a NotFound: who has it instead, as an owner knows, parted by commas
ASKED_MAX = 64  # hosts that are asked for one shard, those among them that others named

M = TypeVar("M", bound=Message)


class Carrier(Protocol):
    """The client, by what is asked of it."""

    def request(
        self, node: str, method: str, request: Message, timeout_ms: int, done: Callable[[Message | Fault], None]
    ) -> None: ...


def call(carrier: Carrier, node: str, method: str, request: Message, answer: type[M], *, timeout_ms: int) -> Step[M]:
    """One of ObjectService. Raises PeerFault for an answer of another kind, which only a packet link could bring."""

    def start(done: Callable[[M | Fault], None]) -> None:
        def ended(outcome: Message | Fault) -> None:
            other = PeerFault(f"{node} answered {method} with something else", reason="MalformedAnswer")
            done(outcome if isinstance(outcome, Fault) else as_a(answer, outcome) or other)

        carrier.request(node, f"{SERVICE}/{method}", request, timeout_ms, ended)

    return start


def opening(carrier: Carrier, work: Ship | Rebuild) -> Step[objects_pb2.OpenReplicaResponse]:
    """Tells the host of a Ship or a Rebuild what it is to keep; it says how much of that it has."""
    request = objects_pb2.OpenReplicaRequest(manifest=work.manifest, epoch=work.epoch)
    answer = objects_pb2.OpenReplicaResponse
    return call(carrier, work.node, "OpenReplica", request, answer, timeout_ms=CALL_TIMEOUT_MS)


class Holders:
    """Of one object, by shard (a copy is shard 0). `anyone` may have any of it, or know who has; `formerly` held some,
    and may have it still. Grows as a read goes on: who was named, and gave it, is asked first for the next stripe."""

    def __init__(
        self,
        anyone: Iterable[str] = (),
        shards: Mapping[int, Sequence[str]] | None = None,
        formerly: Iterable[str] = (),
    ) -> None:
        self._anyone, self._formerly = list(dict.fromkeys(anyone)), list(dict.fromkeys(formerly))
        self._shards = {shard: list(nodes) for shard, nodes in (shards or {}).items()}

    def of(self, shard: int) -> list[str]:
        return list(dict.fromkeys((*self._shards.get(shard, ()), *self._anyone)))

    def formerly(self, shard: int) -> list[str]:
        """Whom to ask when none of the others gives it."""
        known = {*self.of(shard)}
        return [node for node in self._formerly if node not in known][:ASKED_MAX]

    def learn(self, shard: int, node: str) -> None:
        known = self._shards.setdefault(shard, [])
        if node not in known:
            known.insert(0, node)
            del known[ASKED_MAX:]


def holders_of(row: objects_pb2.ObjectRow) -> Holders:
    """Those that acked first; before they have, and while a new epoch is asked to, whoever is asked to. Of an object
    that another has shared, its owner knows. Shards that an epoch moved may lie where they lay before."""
    acked = [ack.node_id for ack in row.object.acks]
    epoch = Epoch.decode(row.epoch.body) if row.HasField("epoch") else None
    if epoch is None or not epoch.layout:
        return Holders([*acked, *(epoch.weights if epoch else ()), row.object.owner])
    laid: dict[int, list[str]] = {}
    for node in dict.fromkeys([*acked, *epoch.weights]):
        for shard in epoch.shards.get(node, ()):
            laid.setdefault(shard, []).append(node)
    return Holders([row.object.owner], laid, row.asked)


class Trust:
    """What this node thinks of hosts: members only, so bounded by the mesh."""

    def __init__(
        self,
        runtime: Runtime,
        self_id: str,
        alive: Callable[[str], bool],
        name_of: Callable[[str], str] = str,
        paces: Paces = all_free,
    ) -> None:
        """`name_of` is what people call a node."""
        self._runtime, self.self_id, self._alive, self.name_of = runtime, self_id, alive, name_of
        self._paces = paces
        self._shunned: dict[str, int] = {}  # until when, monotonic

    def rank(self, host: str) -> tuple[bool, bool, int]:
        """Who is asked first: trusted and alive before others, and of those whom a fast road leads to."""
        return self._shunned.get(host, 0) > self.now_ms(), not self._alive(host), self._paces(host).byte_us

    def has_free_road(self, host: str) -> bool:
        """Whether nothing needs to be spared on the way there."""
        return self._paces(host).free

    def on_fault(self, host: str, fault: Fault) -> None:
        self.shun(host, LYING_MS if isinstance(fault, Corrupt | PeerFault) else AWAY_MS)

    def shun(self, host: str, for_ms: int) -> None:
        self._shunned[host] = self.now_ms() + for_ms

    def may_answer_later(self, host: str, fault: Fault) -> bool:
        """Whether it is worth more patience."""
        if fault.reason == TOO_SLOW:
            return False
        return isinstance(fault, OutcomeUnknown) or (isinstance(fault, Unavailable) and self._alive(host))

    def why(self, host: str, fault: Fault) -> str:
        """What became of asking it, in words of ours: a carrier's are of no use to people."""
        match fault:
            case Corrupt() | PeerFault():
                return "gave other bytes"
            case NotFound():
                return "keeps it no more"
            case Exhausted():
                return "is busy"
            case Unavailable() if fault.reason == TOO_SLOW:
                return "is beyond too slow a road"
            case Unavailable() | OutcomeUnknown():
                return "did not answer" if self._alive(host) else "is not alive"
        return fault.message

    def named(self, fault: Fault, asked: Sequence[str]) -> list[str]:
        """Whom a NotFound names that are not asked already."""
        holders = fault.metadata.get(HOLDERS, "").split(",") if isinstance(fault, NotFound) else []
        fresh = [holder for holder in dict.fromkeys(holders) if holder and holder not in (*asked, self.self_id)]
        return fresh[: max(0, ASKED_MAX - len(asked))]

    def now_ms(self) -> int:
        return self._runtime.clock.now().mono_ms
