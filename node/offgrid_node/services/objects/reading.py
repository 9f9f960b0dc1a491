"""Reading an object back: one stripe at a time, from this node's own copy or from whichever host has it.

Nothing that a host says is believed: a stripe opens under the object's key, in its own place, or it is not the stripe.
A host that lies, is slow or is away costs one try; it is asked last for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from google.protobuf.message import Message

from offgrid.v1 import objects_pb2
from offgrid_node.keys.stripes import open_stripe
from offgrid_node.protocol.errors import Corrupt, Exhausted, Fault, NotFound, OutcomeUnknown, PeerFault, Unavailable
from offgrid_node.protocol.objects.manifest import Manifest
from offgrid_node.protocol.objects.shards import stripe_span
from offgrid_node.runtime import Runtime
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.flow import Flow, Step
from offgrid_node.services.objects.sealing import Wraps
from offgrid_node.storage.blobs import BlobStore

READ_REPLICA = "offgrid.v1.ObjectService/ReadReplica"
# First each host gets a short time, so that a frozen one costs little; only when none answered, a long one.
QUICK_MS, QUICK_BYTES_PER_S = 1_000, 1_000_000
PATIENT_MS, PATIENT_BYTES_PER_S = 5_000, 50_000
ASKING_MS_MAX = 20_000  # after so long nobody else is asked for a stripe
LYING_MS, AWAY_MS = 600_000, 15_000  # for so long a host is asked last
TRIES_TOLD = 8  # hosts that a fault names
HOLDERS = "holders"  # in the metadata of a NotFound: who has it instead, as an owner knows, parted by commas
ASKED_MAX = 64  # hosts that one stripe is asked of, those among them that others named
RETRY_MS = 5_000  # longer than a client waits by itself: all hosts have just been asked


class Carrier(Protocol):
    """The client, by what is asked of it."""

    def request(
        self, node: str, method: str, request: Message, timeout_ms: int, done: Callable[[Message | Fault], None]
    ) -> None: ...


class Reading:
    """Opens stripes of objects that this node may read."""

    def __init__(
        self,
        runtime: Runtime,
        self_id: str,
        carrier: Carrier,
        alive: Callable[[str], bool],
        wraps: Wraps,
        blobs: BlobStore,
        bulk: Bulk,
        name_of: Callable[[str], str] = str,
    ) -> None:
        """`name_of` is what people call a node."""
        self._runtime, self._self_id, self._carrier, self._alive = runtime, self_id, carrier, alive
        self._wraps, self._blobs, self._bulk, self._name_of = wraps, blobs, bulk, name_of
        self._shunned: dict[str, int] = {}  # until when, monotonic; members only, so bounded by the mesh

    def key_of(self, manifest: objects_pb2.Manifest) -> bytes:
        """The object's key. Raises PermissionDenied (reason NotForUs) when it is not wrapped for this node."""
        for wrap in manifest.wraps:
            if wrap.node_id == self._self_id:
                return self._wraps.unwrap(wrap.sealed_key)
        return self._wraps.unwrap(b"")

    def stripe(self, manifest: Manifest, key: bytes, index: int, hosts: Iterable[str]) -> Flow[tuple[bytes, str]]:
        """The plaintext of one stripe, and who gave it. Whoever has it no more may name others, who are asked as well.
        Raises Unavailable (reason NoReplica) naming who was tried."""
        own = "no copy is here"
        try:
            opened = yield self._bulk.run(
                lambda: self._open_own(manifest, key, index), size_bytes=manifest.stripe_bytes
            )
            return opened, self._self_id
        except (NotFound, Corrupt) as fault:  # a damaged copy of one's own is no reason to give up
            if isinstance(fault, Corrupt):
                own = f"this node: {fault.message}"
        refused: dict[str, str] = {}
        asked, until_ms = list(self._order(hosts, index)), self._now_ms() + ASKING_MS_MAX
        for base_ms, bytes_per_s in ((QUICK_MS, QUICK_BYTES_PER_S), (PATIENT_MS, PATIENT_BYTES_PER_S)):
            timeout_ms = base_ms + stripe_span(manifest, index)[1] * 1_000 // bytes_per_s
            waiting = []
            for host in asked:
                if self._now_ms() >= until_ms:
                    refused.setdefault(host, "was not asked any more")
                    continue
                try:
                    opened = yield from self._from_host(host, manifest, key, index, timeout_ms)
                except Fault as fault:
                    self._shun(host, LYING_MS if isinstance(fault, Corrupt | PeerFault) else AWAY_MS)
                    refused[host] = self._why(host, fault)
                    asked += self._named(fault, asked)
                    if isinstance(fault, OutcomeUnknown) or (isinstance(fault, Unavailable) and self._alive(host)):
                        waiting.append(host)
                else:
                    return opened, host
            asked = waiting
        raise _no_replica(manifest.object_id, index, own, {self._name_of(host): refused[host] for host in refused})

    def _why(self, host: str, fault: Fault) -> str:
        """What became of asking it, in words of ours: a carrier's are of no use to people."""
        match fault:
            case Corrupt() | PeerFault():
                return "gave other bytes"
            case NotFound():
                return "keeps it no more"
            case Exhausted():
                return "is busy"
            case Unavailable() | OutcomeUnknown():
                return "did not answer" if self._alive(host) else "is not alive"
        return fault.message

    def _named(self, fault: Fault, asked: Sequence[str]) -> list[str]:
        """Whom a NotFound names that are not asked already."""
        holders = fault.metadata.get(HOLDERS, "").split(",") if isinstance(fault, NotFound) else []
        fresh = [holder for holder in dict.fromkeys(holders) if holder and holder not in (*asked, self._self_id)]
        return fresh[: max(0, ASKED_MAX - len(asked))]

    def _from_host(self, host: str, manifest: Manifest, key: bytes, index: int, timeout_ms: int) -> Flow[bytes]:
        offset, length = stripe_span(manifest, index)
        request = objects_pb2.ReadReplicaRequest(object_id=manifest.object_id, offset=offset, length=length)
        answer = yield self._call(host, request, timeout_ms)
        sealed = answer.data if isinstance(answer, objects_pb2.ReadReplicaResponse) else b""
        opened: bytes = yield self._bulk.run(lambda: self._open(manifest, key, index, sealed), size_bytes=2 * length)
        return opened

    def _call(self, host: str, request: Message, timeout_ms: int) -> Step[Message]:
        return lambda done: self._carrier.request(host, READ_REPLICA, request, timeout_ms, done)

    def _open_own(self, manifest: Manifest, key: bytes, index: int) -> bytes:
        sealed = self._blobs.read(manifest.object_id, *stripe_span(manifest, index))
        return self._open(manifest, key, index, sealed)

    def _open(self, manifest: Manifest, key: bytes, index: int, sealed: bytes) -> bytes:
        return open_stripe(key, manifest.nonce, index, index == manifest.stripes - 1, sealed)

    def _order(self, hosts: Iterable[str], index: int) -> Sequence[str]:
        """Who is asked first: trusted and alive before others, and the stripes spread over them."""
        now_ms = self._now_ms()
        known = [host for host in dict.fromkeys(hosts) if host != self._self_id]
        turn = index % len(known) if known else 0
        turned = known[turn:] + known[:turn]
        return sorted(turned, key=lambda host: (self._shunned.get(host, 0) > now_ms, not self._alive(host)))

    def _shun(self, host: str, for_ms: int) -> None:
        self._shunned[host] = self._now_ms() + for_ms

    def _now_ms(self) -> int:
        return self._runtime.clock.now().mono_ms


def _no_replica(object_id: str, index: int, own: str, refused: Mapping[str, str]) -> Unavailable:
    said = [f"{host} {why}" for host, why in list(refused.items())[:TRIES_TOLD]]
    if len(refused) > TRIES_TOLD:
        said.append(f"nor did {len(refused) - TRIES_TOLD} more")
    hosts = f"none of its hosts gives one: {', '.join(said)}" if said else "no host is known to keep one"
    text = f"stripe {index} of {object_id} cannot be read: {own}, and {hosts}"
    return Unavailable(text, reason="NoReplica", retry_ms=RETRY_MS)
