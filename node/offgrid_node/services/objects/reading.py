"""Reading an object back: one stripe at a time, from this node's own copy or from whichever hosts have it.

Nothing that a host says is believed: a stripe opens under the object's key, in its own place, or it is not the stripe.
A host that lies, is slow or is away costs one try; it is asked last for a while. Stripes of coded objects are put
together from rows of k shards (`windows.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from google.protobuf.message import Message

from offgrid.v1 import objects_pb2
from offgrid_node.coding.coder import Coder
from offgrid_node.keys.stripes import open_stripe
from offgrid_node.protocol.errors import Corrupt, Fault, NotFound, Unavailable
from offgrid_node.protocol.objects.manifest import COPY, Manifest
from offgrid_node.protocol.objects.shards import stripe_span
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.flow import Flow, Later, Step
from offgrid_node.services.objects.gathering import (
    ASKING_MS_MAX,
    PATIENT_BYTES_PER_S,
    PATIENT_MS,
    QUICK_BYTES_PER_S,
    QUICK_MS,
    READ_REPLICA,
    Gathered,
)
from offgrid_node.services.objects.holders import Carrier, Holders, Trust
from offgrid_node.services.objects.sealing import Wraps
from offgrid_node.services.objects.windows import Windows
from offgrid_node.storage.blobs import BlobStore

TRIES_TOLD = 8  # hosts that a fault names
SHARDS_TOLD = 20
RETRY_MS = 5_000  # longer than a client waits by itself: all hosts have just been asked


class Reading:
    """Opens stripes of objects that this node may read."""

    def __init__(
        self,
        trust: Trust,
        carrier: Carrier,
        later: Later,
        wraps: Wraps,
        blobs: BlobStore,
        bulk: Bulk,
        coder: Coder,
        salt: Callable[[], bytes],
    ) -> None:
        self._trust, self._carrier, self._wraps = trust, carrier, wraps
        self._blobs, self._bulk = blobs, bulk
        self._windows = Windows(trust, carrier, later, bulk, coder, salt)

    def key_of(self, manifest: objects_pb2.Manifest) -> bytes:
        """The object's key. Raises PermissionDenied (reason NotForUs) when it is not wrapped for this node."""
        for wrap in manifest.wraps:
            if wrap.node_id == self._trust.self_id:
                return self._wraps.unwrap(wrap.sealed_key)
        return self._wraps.unwrap(b"")

    def stripe(self, manifest: Manifest, key: bytes, index: int, holders: Holders) -> Flow[tuple[bytes, str]]:
        """The plaintext of one stripe, and who gave it: of a coded object all hosts, parted by commas. Whoever has it
        no more may name others, who are asked as well. Raises Unavailable (reason NoReplica) naming who was tried."""
        own = "no copy is here"
        try:
            opened = yield self._bulk.run(
                lambda: self._open_own(manifest, key, index), size_bytes=manifest.stripe_bytes
            )
            return opened, self._trust.self_id
        except (NotFound, Corrupt) as fault:  # a damaged copy of one's own is no reason to give up
            if isinstance(fault, Corrupt):
                own = f"this node: {fault.message}"
        if manifest.codec == COPY:
            return (yield from self._copy(manifest, key, index, holders, own))
        found = yield from self._windows.stripe(manifest, key, index, holders)
        if isinstance(found, Gathered):
            raise self._too_few(manifest, index, holders, found, own)
        return found

    def _copy(self, manifest: Manifest, key: bytes, index: int, holders: Holders, own: str) -> Flow[tuple[bytes, str]]:
        refused: dict[str, str] = {}
        trust, now_ms = self._trust, self._trust.now_ms
        asked, until_ms = list(self._order(holders.of(0), index)), now_ms() + ASKING_MS_MAX
        for base_ms, bytes_per_s in ((QUICK_MS, QUICK_BYTES_PER_S), (PATIENT_MS, PATIENT_BYTES_PER_S)):
            timeout_ms = base_ms + stripe_span(manifest, index)[1] * 1_000 // bytes_per_s
            waiting = []
            for host in asked:
                if now_ms() >= until_ms:
                    refused.setdefault(host, "was not asked any more")
                    continue
                try:
                    opened = yield from self._from_host(host, manifest, key, index, timeout_ms)
                except Fault as fault:
                    trust.on_fault(host, fault)
                    refused[host] = trust.why(host, fault)
                    asked += trust.named(fault, asked)
                    if trust.may_answer_later(host, fault):
                        waiting.append(host)
                else:
                    holders.learn(0, host)
                    return opened, host
            asked = waiting
        raise _no_replica(manifest.object_id, index, own, {trust.name_of(host): refused[host] for host in refused})

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
        """Who is asked first; the stripes are spread over them."""
        known = [host for host in dict.fromkeys(hosts) if host != self._trust.self_id]
        turn = index % len(known) if known else 0
        return sorted(known[turn:] + known[:turn], key=self._trust.rank)

    def _too_few(self, manifest: Manifest, index: int, holders: Holders, found: Gathered, own: str) -> Unavailable:
        """What is missing where."""
        missing = [shard for shard in range(manifest.n) if shard not in found.pieces]
        said = []
        for shard in missing:
            hosts = [host for host in holders.of(shard) if host != self._trust.self_id]
            whys = {host: found.refused.get((shard, host), "was not asked") for host in hosts}
            why = " and ".join(f"{self._trust.name_of(host)} {why}" for host, why in whys.items())
            said.append(f"shard {shard}: {why or 'no host is known to keep it'}")
        if len(said) > SHARDS_TOLD:
            said[SHARDS_TOLD:] = [f"and {len(said) - SHARDS_TOLD} shards more"]
        text = (
            f"stripe {index} of {manifest.object_id} cannot be read: {own}, and of its {manifest.n} shards "
            f"{manifest.k} are needed, {len(found.pieces)} can be had; {'; '.join(said)}"
        )
        return Unavailable(text, reason="NoReplica", retry_ms=RETRY_MS)


def _no_replica(object_id: str, index: int, own: str, refused: Mapping[str, str]) -> Unavailable:
    said = [f"{host} {why}" for host, why in list(refused.items())[:TRIES_TOLD]]
    if len(refused) > TRIES_TOLD:
        said.append(f"nor did {len(refused) - TRIES_TOLD} more")
    hosts = f"none of its hosts gives one: {', '.join(said)}" if said else "no host is known to keep one"
    text = f"stripe {index} of {object_id} cannot be read: {own}, and {hosts}"
    return Unavailable(text, reason="NoReplica", retry_ms=RETRY_MS)
