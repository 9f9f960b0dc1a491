"""Reading an object back: one stripe at a time, from this node's own copy or from whichever hosts have it.

Nothing that a host says is believed: a stripe opens under the object's key, in its own place, or it is not the stripe.
A host that lies, is slow or is away costs one try; it is asked last for a while. Stripes of coded objects are put
together from rows of k shards (`windows.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from offgrid.v1 import objects_pb2
from offgrid_node.coding.coder import Coder
from offgrid_node.keys.stripes import open_stripe
from offgrid_node.protocol.errors import Corrupt, NotFound, Unavailable
from offgrid_node.protocol.objects.manifest import COPY, Manifest
from offgrid_node.protocol.objects.shards import Buffer, stripe_span
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.flow import Flow, Later, Step
from offgrid_node.services.objects.gathering import Gathered, Gathering, Span
from offgrid_node.services.objects.holders import Carrier, Holders, Trust
from offgrid_node.services.objects.pulls import Pulls
from offgrid_node.services.objects.sealing import Wraps
from offgrid_node.services.objects.windows import Windows
from offgrid_node.storage.blobs import ReadableBlobs

TRIES_TOLD = 8  # hosts that a fault names
SHARDS_TOLD = 8  # of each of them
RETRY_MS = 5_000  # longer than a client waits by itself: all hosts have just been asked
SILENT = "silent"  # in the metadata of NoReplica: how many answers are owing


class Reading:
    """Opens stripes of objects that this node may read."""

    def __init__(
        self,
        trust: Trust,
        carrier: Carrier,
        later: Later,
        wraps: Wraps,
        blobs: ReadableBlobs,
        bulk: Bulk,
        coder: Coder,
        salt: Callable[[], bytes],
    ) -> None:
        self._trust, self._pulls, self._wraps = trust, Pulls(carrier, trust), wraps
        self._blobs, self._bulk, self._later = blobs, bulk, later
        self._windows = Windows(trust, self._pulls, later, bulk, coder, salt)

    def key_of(self, manifest: objects_pb2.Manifest) -> bytes:
        """The object's key. Raises PermissionDenied (reason NotForUs) when it is not wrapped for this node."""
        own = next((wrap.sealed_key for wrap in manifest.wraps if wrap.node_id == self._trust.self_id), b"")
        return self._wraps.unwrap(own, Manifest.decode(manifest.signed.body).object_id.encode())

    def stripe(self, manifest: Manifest, key: bytes, index: int, holders: Holders) -> Flow[tuple[bytes, str]]:
        """The plaintext of one stripe, and who gave it: of a coded object all hosts, parted by commas. Whoever has it
        no more may name others, who are asked as well. Raises Unavailable (reason NoReplica) naming who was tried."""
        own = "no copy is here"
        if not self._windows.holds(manifest.object_id, index):  # else it was not here a moment ago
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
        """Whichever host's bytes open first."""

        def check(shard: int, answer: objects_pb2.ReadReplicaResponse) -> Step[bytes]:
            work = partial(self._open, manifest, key, index, answer.data)
            return self._bulk.run(work, size_bytes=2 * manifest.stripe_bytes)

        def gather(done: Callable[[Gathered], None]) -> None:
            span = Span(manifest, index, 1)
            Gathering(span, holders, self._trust, self._pulls, self._later, check, done).start()

        gathered: Gathered = yield gather
        for piece in gathered.pieces.values():
            return bytes(piece.data), piece.host
        refused = {self._trust.name_of(host): why for (_, host), why in gathered.refused.items()}
        raise _no_replica(manifest.object_id, index, own, refused, gathered)

    def _open_own(self, manifest: Manifest, key: bytes, index: int) -> bytes:
        sealed = self._blobs.read(manifest.object_id, *stripe_span(manifest, index))
        return self._open(manifest, key, index, sealed)

    def _open(self, manifest: Manifest, key: bytes, index: int, sealed: Buffer) -> bytes:
        return open_stripe(key, manifest.nonce, index, index == manifest.stripes - 1, sealed)

    def _too_few(self, manifest: Manifest, index: int, holders: Holders, found: Gathered, own: str) -> Unavailable:
        """What is missing where, host by host."""
        by_why: dict[str, list[int]] = {}
        for shard in range(manifest.n):
            if shard in found.pieces:
                continue
            hosts = [host for host in holders.of(shard) if host != self._trust.self_id]
            whys = {host: found.refused.get((shard, host), "was not asked") for host in hosts}
            why = " and ".join(f"{self._trust.name_of(host)} {why}" for host, why in whys.items())
            by_why.setdefault(why or "no host is known to keep it", []).append(shard)
        said = [f"shard{'s' * (len(shards) > 1)} {_listed(shards)}: {why}" for why, shards in by_why.items()]
        if len(said) > TRIES_TOLD:
            said[TRIES_TOLD:] = [f"and {sum(map(len, list(by_why.values())[TRIES_TOLD:]))} shards more"]
        text = (
            f"stripe {index} of {manifest.object_id} cannot be read: {own}, and of its {manifest.n} shards "
            f"{manifest.k} are needed, {len(found.pieces)} can be had; {'; '.join(said)}"
        )
        return Unavailable(text, reason="NoReplica", metadata=_silent(found), retry_ms=RETRY_MS)


def _silent(found: Gathered) -> Mapping[str, str]:
    """How many may give it another time."""
    return {SILENT: str(len(found.silent))} if found.silent else {}


def _listed(shards: Sequence[int]) -> str:
    """At most SHARDS_TOLD of them."""
    more = f" and {len(shards) - SHARDS_TOLD} more" if len(shards) > SHARDS_TOLD else ""
    return ", ".join(map(str, shards[:SHARDS_TOLD])) + more


def _no_replica(object_id: str, index: int, own: str, refused: Mapping[str, str], found: Gathered) -> Unavailable:
    said = [f"{host} {why}" for host, why in list(refused.items())[:TRIES_TOLD]]
    if len(refused) > TRIES_TOLD:
        said.append(f"nor did {len(refused) - TRIES_TOLD} more")
    hosts = f"none of its hosts gives one: {', '.join(said)}" if said else "no host is known to keep one"
    text = f"stripe {index} of {object_id} cannot be read: {own}, and {hosts}"
    return Unavailable(text, reason="NoReplica", metadata=_silent(found), retry_ms=RETRY_MS)
