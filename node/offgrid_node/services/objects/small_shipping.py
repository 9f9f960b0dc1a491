"""How a Ship's bytes travel where they are few: all of them in one call, PutReplica."""

from __future__ import annotations

from collections.abc import Callable

from offgrid.v1 import common_pb2, objects_pb2
from offgrid_node.protocol.jobs.post import CALL_TIMEOUT_MS, transfer_ms
from offgrid_node.protocol.objects.errands import Ship
from offgrid_node.protocol.objects.hashing import possession_of
from offgrid_node.protocol.objects.manifest import COPY, Manifest
from offgrid_node.protocol.quorum.records import Epoch
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.flow import Flow
from offgrid_node.services.objects.holders import Carrier, call
from offgrid_node.services.objects.small_replicas import PUT_REPLICA_BYTES_MAX
from offgrid_node.services.objects.source import ShardSource


class SmallShipping:
    """One Ship after another."""

    def __init__(
        self,
        carrier: Carrier,
        source: ShardSource,
        bulk: Bulk,
        own: Callable[[str], bytes | None] = lambda name: None,
        bytes_max: int = PUT_REPLICA_BYTES_MAX,
    ) -> None:
        """`own`: an object's sealed bytes where they are a row, for which nobody waits; `bytes_max`: what goes in one
        call at most, of all shards of a host together."""
        self._carrier, self._source, self._bulk, self._own = carrier, source, bulk, own
        self._bytes_max = min(bytes_max, PUT_REPLICA_BYTES_MAX)

    def takes(self, manifest: Manifest, epoch: Epoch, node: str) -> bool:
        return len(epoch.shards[node]) * manifest.shard_bytes <= self._bytes_max

    def put(self, work: Ship, manifest: Manifest, epoch: Epoch, salt: bytes) -> Flow[tuple[bytes, common_pb2.Signed]]:
        """The possession digest that the host's ack must have, and the ack. Raises what the host answers, and Corrupt
        where the bytes are gone."""
        shards = epoch.shards[work.node]
        size_bytes = len(shards) * manifest.shard_bytes

        def read() -> tuple[list[bytes], bytes]:
            pieces = [(shard, self._source.read(manifest, shard, 0, manifest.shard_bytes)) for shard in shards]
            possession = possession_of(manifest, shards, pieces, salt, work.node, epoch.epoch)
            return [data for _, data in pieces], possession

        sealed = self._own(manifest.object_id)
        if sealed is not None and manifest.codec == COPY:
            rows, possession = [sealed], possession_of(manifest, shards, [(0, sealed)], salt, work.node, epoch.epoch)
        elif sealed is not None:
            rows, possession = read()
        else:
            rows, possession = yield self._bulk.run(read, size_bytes=size_bytes)
        request = objects_pb2.PutReplicaRequest(manifest=work.manifest, epoch=work.epoch, shards=rows)
        timeout_ms = CALL_TIMEOUT_MS + transfer_ms(size_bytes)
        answer = yield call(
            self._carrier, work.node, "PutReplica", request, objects_pb2.PutReplicaResponse, timeout_ms=timeout_ms
        )
        return possession, answer.ack
