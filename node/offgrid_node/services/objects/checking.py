"""What is kept here for others, read shard by shard and hashed against its owner's manifest.

What is damaged or gone, the machine takes out of what it keeps and tells the owner, who brings it again. When to read,
and how fast, is for others to say: `scrub.py` for the paced rounds, `scrub_now.py` for whoever asks.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

import msgspec

from offgrid.v1 import objects_pb2
from offgrid_node.logs import fields
from offgrid_node.protocol.errors import Corrupt, Fault, NotFound
from offgrid_node.protocol.objects.commands import ReplicasLost
from offgrid_node.protocol.objects.dropping import shards_of
from offgrid_node.protocol.objects.inventory import Holding, count_of, inventory_key, sum_key
from offgrid_node.protocol.objects.manifest import Manifest, shard_root, stripe_digest
from offgrid_node.protocol.objects.shards import blob_name, row_span
from offgrid_node.protocol.objects.tables import INVENTORY_SUMS, KEPT, KEPT_BYTES, REPLICAS, number_of, replica_key
from offgrid_node.protocol.sound import sound
from offgrid_node.runtime import Runtime
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.flow import Flow
from offgrid_node.storage.blobs import ReadableBlobs
from offgrid_node.storage.store import Store

TURN_BYTES = 1 << 20  # read at once
OBJECT_BYTES = 4_096  # what looking at a small one costs a disk beside its bytes
LANE = "scrub"  # no object's name: one turn at a time, whoever reads

BlobsOf = Callable[[str], ReadableBlobs]  # what is kept here for an owner

_log = logging.getLogger(__name__)


class Shard(msgspec.Struct):
    """One that is being read."""

    manifest: Manifest
    shard: int
    digests: list[bytes] = msgspec.field(default_factory=list)

    @property
    def name(self) -> str:
        return blob_name(self.manifest, self.shard)


class Lost(msgspec.Struct, frozen=True):
    """What is kept here no more: a shard that is damaged or gone, or all of whose row nobody can read (`by_row`)."""

    owner: str
    holding: Holding
    by_row: bool = False


class Turn(msgspec.Struct, frozen=True):
    """What was read, what it shows to be damaged, and why a shard cannot be read now; what it was the end of."""

    read_bytes: int = 0
    shard_done: bool = False
    row_done: bool = False
    lost: Lost | None = None
    refused: Fault | None = None
    ended: bool = False

    @property
    def cost_bytes(self) -> int:
        """To the disk."""
        return self.read_bytes + (OBJECT_BYTES if self.row_done or self.ended else 0)


class Walk:
    """Over the rows from `start` on whose keys have `prefix`, once. `read_on` runs in a thread, one at a time."""

    def __init__(self, store: Store, salt: Callable[[], bytes], blobs_of: BlobsOf, start: bytes, prefix: bytes):
        self._store, self._salt, self._blobs_of = store, salt, blobs_of
        self._next, self._prefix = start, prefix
        self._waiting: deque[Shard] = deque()  # of one row
        self._unreadable: deque[bytes] = deque()  # keys of rows before that

    def read_on(self) -> Turn:
        """The next bytes."""
        if not self._waiting and not self._unreadable and not self._take_row():
            return Turn(ended=True)
        if self._unreadable:
            return Turn(row_done=True, lost=self._lost_with(self._unreadable.popleft()))
        return self._read(self._waiting[0]) if self._waiting else Turn(row_done=True)

    def _lost_with(self, key: bytes) -> Lost | None:
        """What is kept by a row that is damaged, as the inventory says, or the row where that is what is damaged; None
        once it is known to be lost."""
        object_id, _, owner = key.decode(errors="replace").partition("/")
        try:
            shards = tuple(self._store.get(KEPT, inventory_key(owner, object_id)) or b"")
        except Corrupt:
            shards = vouched_shards(self._store, owner, object_id)
        return Lost(owner, Holding(object_id, shards), by_row=True) if shards else None

    def _read(self, shard: Shard) -> Turn:
        """A disk that refuses says nothing of the shard: it is left for another time, so that one that is always
        refused does not hold up the others."""
        blobs, read_bytes, refused = self._blobs_of(shard.manifest.owner), 0, None
        try:
            while len(shard.digests) < shard.manifest.stripes and read_bytes < TURN_BYTES:
                row = blobs.read(shard.name, *row_span(shard.manifest, len(shard.digests)))
                shard.digests.append(stripe_digest(self._salt(), row))
                read_bytes += len(row)
        except (NotFound, Corrupt):
            wrong = True
        except Fault as fault:
            wrong, refused = False, fault
        else:
            if len(shard.digests) < shard.manifest.stripes:
                return Turn(read_bytes)
            wrong = shard_root(shard.digests) != shard.manifest.roots[shard.shard]
        self._waiting.popleft()
        lost = None
        if wrong and shard.shard in kept_shards(self._store, shard.manifest):
            lost = Lost(shard.manifest.owner, Holding(shard.manifest.object_id, (shard.shard,)))
        return Turn(read_bytes, True, not self._waiting, lost, refused)

    def _take_row(self) -> bool:
        found = next(sound(self._store.scan, REPLICAS, self._next, prefix=self._prefix, on_damaged=self._pass_by), None)
        if found is None:
            return bool(self._unreadable)
        key, value = found
        self._next = key + b"\0"
        manifest = manifest_in(value)
        try:
            self._waiting.extend(Shard(manifest, shard) for shard in kept_shards(self._store, manifest))
        except Corrupt:
            self._unreadable.append(key)
        return True

    def _pass_by(self, key: bytes) -> None:
        self._unreadable.append(key)
        self._next = key + b"\0"


class Checking:
    """Counts what was read and what was found, since the start."""

    def __init__(self, runtime: Runtime, salt: Callable[[], bytes], blobs_of: BlobsOf, bulk: Bulk) -> None:
        self._runtime, self._salt, self._blobs_of, self._bulk = runtime, salt, blobs_of, bulk
        self.read_bytes = 0
        self.damaged = 0  # shards

    @property
    def notices(self) -> tuple[str, ...]:
        if not self.damaged:
            return ()
        times = "once" if self.damaged == 1 else f"{self.damaged} times"
        return (f"a shard that is kept here for others was damaged or gone, {times} so far; the disk may be failing",)

    def walk(self, start: bytes = b"", prefix: bytes = b"") -> Walk:
        return Walk(self._runtime.store, self._salt, self._blobs_of, start, prefix)

    def turn(self, walk: Walk) -> Flow[Turn]:
        """Reads on; what is lost is told. Raises what keeps the node's own rows from being read."""
        turn: Turn = yield self._bulk.run(walk.read_on, key=LANE, size_bytes=TURN_BYTES)
        self.read_bytes += turn.read_bytes
        if turn.lost is not None:
            self._on_lost(turn.lost)
        return turn

    def _on_lost(self, lost: Lost) -> None:
        object_id, shards = lost.holding.object_id, lost.holding.shards
        self.damaged += len(shards)
        what = "its row in the store is damaged" if lost.by_row else f"shard {shards[0]} is damaged or gone"
        said = fields("shard_damaged", object=object_id, peer=lost.owner, why=what)
        _log.warning("what is kept here for a peer is damaged", extra=said)
        self._runtime.deliver("objects", ReplicasLost(lost.owner, (lost.holding,)))

    # ---- how much there is

    def kept_bytes(self) -> int:
        return sum(number_of(value) for _, value in self._runtime.store.scan(KEPT_BYTES))

    def cost_bytes(self) -> int:
        """What all of it comes to, counted as each turn counts."""
        sums = self._runtime.store.scan(INVENTORY_SUMS, prefix=sum_key(KEPT, ""))
        return self.kept_bytes() + OBJECT_BYTES * (1 + sum(count_of(value) for _, value in sums))


def manifest_in(value: bytes) -> Manifest:
    return Manifest.decode(objects_pb2.ReplicaRow.FromString(value).manifest.signed.body)


def kept_shards(store: Store, manifest: Manifest) -> bytes:
    """Those that are here as far as this node knows: not what was deleted or moved meanwhile, and not what is known to
    be lost. Raises Corrupt."""
    return store.get(KEPT, inventory_key(manifest.owner, manifest.object_id)) or b""


def vouched_shards(store: Store, owner: str, object_id: str) -> tuple[int, ...]:
    """Those that the row of a replica says are here; none where there is none, or nobody can read it."""
    try:
        value = store.get(REPLICAS, replica_key(object_id, owner))
    except Corrupt:
        return ()
    return shards_of(objects_pb2.ReplicaRow.FromString(value)) if value is not None else ()
