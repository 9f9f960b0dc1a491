"""What is on its way into a host: who may bring how much at once, and what the bytes hash to as they come.

Staged bytes outlive a broken connection and a restart, the hashes only the first: what was not hashed on its way is
read again before it is kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from offgrid.pieces import Buffer
from offgrid_node.protocol.errors import Exhausted, FailedPrecondition
from offgrid_node.protocol.objects.hashing import Read, ShardHashes, pieces_at
from offgrid_node.protocol.objects.manifest import Manifest
from offgrid_node.protocol.objects.shards import blob_name
from offgrid_node.protocol.objects.tables import KEPT_BYTES, number_of
from offgrid_node.protocol.quorum.records import Epoch
from offgrid_node.runtime import Runtime
from offgrid_node.services.bulk import Bulk
from offgrid_node.storage.blobs import BlobStore

OPEN_PER_OWNER_MAX = 64  # replicas that one owner may have coming in at once
STAGED_BYTES_PER_OWNER_MAX = 64 << 30  # of them together
OWNER_SHARE_PERCENT = 50  # of the room for replicas
IDLE_MS_MAX = 600_000  # one that its owner does not go on with for so long makes room for its next
RETRY_MS, FULL_RETRY_MS = 5_000, 60_000


class Claim(msgspec.Struct, frozen=True):
    """A manifest and an epoch that belong together, signed by the caller, checked; `shards` are this host's."""

    manifest: Manifest
    epoch: Epoch
    shards: tuple[int, ...]

    @property
    def key(self) -> tuple[str, str]:
        return self.manifest.owner, self.manifest.object_id

    @property
    def size_bytes(self) -> int:
        return len(self.shards) * self.manifest.shard_bytes

    @property
    def names(self) -> tuple[str, ...]:
        """Of the blobs that they are kept as."""
        return tuple(blob_name(self.manifest, shard) for shard in self.shards)

    def staged(self, name: str) -> str:
        """Two owners may bring the same object id; what comes from one never disturbs the other's."""
        return f"{self.manifest.owner}.{name}"


class Incoming:
    """A replica that is on its way here. What blocks belongs into threads, one at a time."""

    def __init__(self, claim: Claim, blobs: BlobStore, salt: bytes, self_id: str) -> None:
        self.claim, self.used_ms = claim, 0
        self._blobs = blobs
        self._hashes = ShardHashes(claim.manifest, claim.shards, salt, self_id, claim.epoch.epoch)

    def append(self, shard: int, offset: int, data: Buffer) -> int:
        """How much of the shard is here then. Blocks. What follows what was hashed is hashed while it is in memory."""
        staged, hashes = self.claim.staged(blob_name(self.claim.manifest, shard)), self._hashes
        before = self._blobs.staged_bytes(staged)
        try:
            size = self._blobs.append(staged, offset, data)
        except FailedPrecondition:  # a gap: an earlier piece is late or lost; the answer says where to go on
            return before
        if hashes.reached(shard) != before:
            hashes.restart(shard)
        if hashes.reached(shard) == before < size:
            hashes.add(shard, memoryview(data)[before - offset :])
        return size

    def hashed(self, kept: frozenset[str], read: Read) -> tuple[bytes, list[int]]:
        """The possession digest of all its shards, and those that are not the manifest's. Blocks. What was hashed as it
        came is not read again; what is `kept` is: nobody knows what became of it since."""
        manifest, hashes = self.claim.manifest, self._hashes
        for shard, name in zip(self.claim.shards, self.claim.names, strict=True):
            if name in kept or hashes.reached(shard) != manifest.shard_bytes:
                hashes.restart(shard)
                for _, data in pieces_at(manifest, (shard,), read):
                    hashes.add(shard, data)
        return hashes.possession(), hashes.wrong()

    def discard(self, shards: Sequence[int]) -> None:
        """They begin again at 0. Blocks."""
        for shard in shards:
            self._blobs.discard(self.claim.staged(blob_name(self.claim.manifest, shard)))
            self._hashes.restart(shard)


class Admission:
    """Replicas that are coming in; of no owner more than it may bring."""

    def __init__(self, runtime: Runtime, bulk: Bulk, owner_share_percent: int) -> None:
        self._runtime, self._bulk, self._owner_share_percent = runtime, bulk, owner_share_percent
        self._incoming: OrderedDict[tuple[str, str], Incoming] = OrderedDict()  # the longest unused first

    def room_for(self, owner: str, free_bytes: int) -> int:
        """What an owner may still bring here; what is coming in counts as kept."""
        kept, most = self._share(owner, free_bytes)
        return min(free_bytes, max(0, most - kept - _size_of(self._of(owner))))

    def find(self, owner: str, object_id: str) -> Incoming | None:
        return self._incoming.get((owner, object_id))

    def admit(self, incoming: Incoming, more_bytes: int, free_bytes: int) -> None:
        """Raises Exhausted where there is no room for it. One that was under way under the same claim goes on."""
        known = self._incoming.get(incoming.claim.key)
        self.make_room(incoming.claim, more_bytes, free_bytes)
        self.touch(known if known is not None and known.claim == incoming.claim else incoming)

    def touch(self, incoming: Incoming) -> None:
        incoming.used_ms = self._runtime.clock.now().mono_ms
        self._incoming[incoming.claim.key] = incoming
        self._incoming.move_to_end(incoming.claim.key)

    def end(self, claim: Claim) -> None:
        """It is kept."""
        self._incoming.pop(claim.key, None)

    def stop(self, owner: str, object_id: str) -> None:
        """What has come of it so far is thrown away."""
        if (incoming := self._incoming.pop((owner, object_id), None)) is not None:
            discard = self._bulk.run(lambda: incoming.discard(incoming.claim.shards), key=object_id)
            discard(lambda outcome: None)

    def stop_idle(self, idle_ms: int) -> None:
        """Those that nobody has gone on with for so long."""
        now_ms = self._runtime.clock.now().mono_ms
        for owner, object_id in [key for key, each in self._incoming.items() if now_ms - each.used_ms >= idle_ms]:
            self.stop(owner, object_id)

    # ---- inside

    def _of(self, owner: str, but: tuple[str, str] = ("", "")) -> list[Incoming]:
        return [each for key, each in self._incoming.items() if key[0] == owner and key != but]

    def make_room(self, claim: Claim, more_bytes: int, free_bytes: int) -> None:
        """Raises Exhausted (TooManyReplicas, DiskFull, OwnerShareFull)."""
        owner, now_ms = claim.manifest.owner, self._runtime.clock.now().mono_ms
        for each in self._of(owner, but=claim.key):
            if len(self._of(owner, but=claim.key)) >= OPEN_PER_OWNER_MAX and now_ms - each.used_ms >= IDLE_MS_MAX:
                self.stop(owner, each.claim.manifest.object_id)
        others = self._of(owner, but=claim.key)
        if len(others) >= OPEN_PER_OWNER_MAX or _size_of(others) + more_bytes > STAGED_BYTES_PER_OWNER_MAX:
            raise Exhausted(
                f"{owner} has {len(others)} replicas of {_size_of(others)} bytes coming in here; at most "
                f"{OPEN_PER_OWNER_MAX} of {STAGED_BYTES_PER_OWNER_MAX} are allowed",
                reason="TooManyReplicas",
                retry_ms=RETRY_MS,
            )
        if more_bytes > free_bytes:
            raise Exhausted(
                f"{more_bytes} bytes are too much for this host's disk: {free_bytes} are free",
                reason="DiskFull",
                retry_ms=FULL_RETRY_MS,
            )
        self._check_share(owner, _size_of(others) + claim.size_bytes, free_bytes)

    def _check_share(self, owner: str, coming_bytes: int, free_bytes: int) -> None:
        """The room is what is kept for all and what is free. What was let in counts until it is kept, so no owner gets
        more by asking for much at once. Mostly his share of what is free is enough, whatever others have."""
        percent = self._owner_share_percent
        if percent == 100 or self._kept(owner) + coming_bytes <= free_bytes * percent // 100:
            return
        kept, most = self._share(owner, free_bytes)
        if kept + coming_bytes > most:
            raise Exhausted(
                f"this host keeps {kept} bytes for {owner}, and {coming_bytes} more would be above its "
                f"share, {most}: storage.owner_share_percent is {percent} there",
                reason="OwnerShareFull",
                retry_ms=FULL_RETRY_MS,
            )

    def _kept(self, owner: str) -> int:
        return number_of(self._runtime.store.get(KEPT_BYTES, owner.encode()) or b"")

    def _share(self, owner: str, free_bytes: int) -> tuple[int, int]:
        """What is kept for an owner, and the most that may be."""
        kept = {key.decode(): number_of(value) for key, value in self._runtime.store.scan(KEPT_BYTES)}
        return kept.get(owner, 0), (free_bytes + sum(kept.values())) * self._owner_share_percent // 100


def _size_of(incoming: Sequence[Incoming]) -> int:
    return sum(each.claim.size_bytes for each in incoming)
