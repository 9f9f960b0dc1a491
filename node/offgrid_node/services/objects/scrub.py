"""A host reads what it keeps for others, again and again, so that a disk's silent faults are found while others still
have what it lost (after Baker et al., "A Fresh Look at the Reliability of Long-term Digital Storage", 2006).

Every shard is hashed against its owner's manifest once a round. It goes slowly: as fast as a round within so many days
takes, and never above what the disk may give. Where a round stands is remembered nowhere: the next life of this node
begins at a place that chance chooses. What is damaged or gone, the machine takes out of what it keeps and tells the
owner, who brings it again.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Corrupt, Fault, NotFound
from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.objects.commands import ReplicasLost
from offgrid_node.protocol.objects.inventory import Holding, count_of, inventory_key, sum_key
from offgrid_node.protocol.objects.manifest import Manifest, shard_root, stripe_digest
from offgrid_node.protocol.objects.shards import blob_name, row_span
from offgrid_node.protocol.objects.tables import INVENTORY_SUMS, KEPT, KEPT_BYTES, REPLICAS, number_of
from offgrid_node.protocol.rng import Rng
from offgrid_node.runtime import Runtime
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.flow import Flow, Later, run
from offgrid_node.storage.blobs import BlobStore

TURN_BYTES = 1 << 20  # read at once, with one pause after it
OBJECT_BYTES = 4_096  # what looking at a small one costs a disk beside its bytes
PAUSE_MS = 60_000  # before the first turn, and after one that failed
PAUSE_MS_MAX = 3_600_000  # where little is kept, it is read more often than it must
LANE = "scrub"  # no object's name
DAY_MS = 86_400_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """A round takes `days` at most where `bytes_per_s`, which is never exceeded, is enough for it."""

    bytes_per_s: int = 10_000_000
    days: int = 14

    def pause_ms(self, read_bytes: int, kept_bytes: int) -> int:
        """After so many bytes, where so many are kept."""
        least_ms = read_bytes * 1_000 // self.bytes_per_s
        even_ms = read_bytes * self.days * DAY_MS // max(1, kept_bytes)
        return max(least_ms, min(even_ms, PAUSE_MS_MAX))


@dataclass(slots=True)
class _Shard:
    """One that is being read."""

    manifest: Manifest
    shard: int
    digests: list[bytes] = field(default_factory=list)

    @property
    def name(self) -> str:
        return blob_name(self.manifest, self.shard)


class Scrub:
    """One turn at a time: some bytes are read in a thread, then it waits."""

    def __init__(
        self,
        runtime: Runtime,
        salt: Callable[[], bytes],
        blobs: BlobStore,
        bulk: Bulk,
        later: Later,
        rng: Rng,
        pace: Pace,
    ) -> None:
        self._runtime, self._salt, self._blobs, self._bulk, self._later = runtime, salt, blobs, bulk, later
        self._pace = pace
        self._next = f"o-{base32(rng.randbytes(5))}".encode()  # the key from which the round goes on
        self._waiting: deque[_Shard] = deque()  # of one row
        self._going = False
        self.damaged = 0  # shards, since the start
        self.rounds = 0

    def start(self) -> None:
        self._going = True
        self._later(PAUSE_MS, self._turn)

    def close(self) -> None:
        self._going = False

    @property
    def notices(self) -> tuple[str, ...]:
        if not self.damaged:
            return ()
        times = "once" if self.damaged == 1 else f"{self.damaged} times"
        return (f"a shard that is kept here for others was damaged or gone, {times} so far; the disk may be failing",)

    # ---- a turn

    def _turn(self) -> None:
        if self._going:
            run(self._look(), self._ended)

    def _ended(self, pause_ms: int | Fault) -> None:
        if isinstance(pause_ms, Fault):
            _log.warning("kept shards cannot be checked now: %s", pause_ms.message)
            pause_ms = PAUSE_MS
        self._later(pause_ms, self._turn)

    def _look(self) -> Flow[int]:
        """How long to wait for the next turn."""
        pause_ms, lost = yield self._bulk.run(self._read_on, key=LANE, size_bytes=TURN_BYTES)
        if lost is not None:
            self.damaged += 1
            _log.warning("%s, kept here for %s, is damaged or gone", lost.name, lost.manifest.owner)
            holding = Holding(lost.manifest.object_id, (lost.shard,))
            self._runtime.deliver("objects", ReplicasLost(lost.manifest.owner, (holding,)))
        return pause_ms  # type: ignore[no-any-return]

    # ---- in a thread, one at a time

    def _read_on(self) -> tuple[int, _Shard | None]:
        """Reads the next bytes of the round. The pause after them, and the shard that they show to be damaged."""
        if not self._waiting:
            self._take_row()
        read_bytes, lost = self._read(self._waiting[0]) if self._waiting else (0, None)
        looked_bytes = OBJECT_BYTES if not self._waiting else 0  # a row is done with, or the round
        return self._pace.pause_ms(read_bytes + looked_bytes, self._round_bytes()), lost

    def _round_bytes(self) -> int:
        """What a whole round comes to, counted as each turn counts."""
        kept_bytes = sum(number_of(value) for _, value in self._runtime.store.scan(KEPT_BYTES))
        sums = self._runtime.store.scan(INVENTORY_SUMS, prefix=sum_key(KEPT, ""))
        return kept_bytes + OBJECT_BYTES * (1 + sum(count_of(value) for _, value in sums))

    def _read(self, shard: _Shard) -> tuple[int, _Shard | None]:
        """A disk that refuses says nothing of the shard: the fault is passed on, and the next round reads it again, so
        that one that is always refused does not hold up the others."""
        read_bytes = 0
        try:
            while len(shard.digests) < shard.manifest.stripes and read_bytes < TURN_BYTES:
                row = self._blobs.read(shard.name, *row_span(shard.manifest, len(shard.digests)))
                shard.digests.append(stripe_digest(self._salt(), row))
                read_bytes += len(row)
        except (NotFound, Corrupt):
            wrong = True
        except Fault:
            self._waiting.popleft()
            raise
        else:
            if len(shard.digests) < shard.manifest.stripes:
                return read_bytes, None
            wrong = shard_root(shard.digests) != shard.manifest.roots[shard.shard]
        self._waiting.popleft()
        return read_bytes, shard if wrong and shard.shard in self._kept(shard.manifest) else None

    def _take_row(self) -> None:
        found = next(iter(self._runtime.store.scan(REPLICAS, self._next)), None)
        if found is None:
            self._next, self.rounds = b"", self.rounds + 1
            return
        key, value = found
        self._next = key + b"\0"
        row = objects_pb2.ReplicaRow.FromString(value)
        manifest = Manifest.decode(row.manifest.signed.body)
        self._waiting.extend(_Shard(manifest, shard) for shard in self._kept(manifest))

    def _kept(self, manifest: Manifest) -> bytes:
        """The shards that are here as far as this node knows: not what was deleted or moved meanwhile, and not what is
        known to be lost."""
        return self._runtime.store.get(KEPT, inventory_key(manifest.owner, manifest.object_id)) or b""
