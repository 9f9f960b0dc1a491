"""ReadReplica: sealed bytes of a shard that is kept here, or of an object of this node's own, to any member; and
ShowReplica: what is here of an object of the caller's, to an owner who has forgotten it.

The bytes are worth nothing without the object's key. Whoever has a doubt may ask for the proof that a row is the
manifest's: of k rows that do not open together, it tells which one was made up.
"""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import Message

from offgrid.pieces import Piece
from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import InvalidRequest, NotFound
from offgrid_node.protocol.merkle import path_of
from offgrid_node.protocol.objects.dropping import shards_of
from offgrid_node.protocol.objects.manifest import COPY, OBJECT_ID, SHARDS_MAX, Manifest, stripe_digest
from offgrid_node.protocol.objects.shards import blob_name, row_span, shard_name
from offgrid_node.protocol.objects.tables import OBJECTS, REPLICAS, SHARED, replica_key, replica_prefix
from offgrid_node.protocol.quorum.records import Epoch
from offgrid_node.protocol.sound import sound
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.caller import Caller
from offgrid_node.services.flow import Flow, ticket_of
from offgrid_node.services.objects.holders import HOLDERS
from offgrid_node.services.objects.replicas import PIECE_BYTES_MAX, Members
from offgrid_node.services.objects.source import ShardSource
from offgrid_node.services.turns import Turns
from offgrid_node.storage.blobs import ReadableBlobs

HOLDERS_TOLD_MAX = 5  # as many node ids as fit the metadata of a fault
PROOFS_LANE = "proofs"  # no object's name: each reads a whole shard, so one at a time
PROOFS_PER_CALLER_MAX = 32  # waiting or running: a reader asks at once for one of each shard that is here


class Serving:
    """The handlers of ReadReplica and ShowReplica."""

    def __init__(
        self,
        runtime: Runtime,
        members: Callable[[], Members],
        blobs: ReadableBlobs,
        source: ShardSource,
        bulk: Bulk,
    ) -> None:
        self._runtime, self._members, self._blobs = runtime, members, blobs
        self._source, self._bulk = source, bulk
        self._proofs = Turns("proofs", PROOFS_PER_CALLER_MAX)

    def read(self, caller: Caller, request: objects_pb2.ReadReplicaRequest) -> Ticket:
        if not OBJECT_ID.match(request.object_id):
            raise InvalidRequest.field("object_id", f"{request.object_id[:64]!r} is no object id")
        if not 0 < request.length <= PIECE_BYTES_MAX:
            raise InvalidRequest.field("length", f"{request.length} bytes; 1 to {PIECE_BYTES_MAX} are allowed")
        if request.shard >= SHARDS_MAX:
            raise InvalidRequest.field("shard", f"{request.shard}; 0 to {SHARDS_MAX - 1} are allowed")
        if request.prove and not request.HasField("shard"):
            raise InvalidRequest.field("prove", "only rows of shards are proved; a copy's stripe opens or does not")
        return ticket_of(self._read(caller.node_id, request))

    def show(self, caller: Caller, request: objects_pb2.ShowReplicaRequest) -> Ticket:
        if not OBJECT_ID.match(request.object_id):
            raise InvalidRequest.field("object_id", f"{request.object_id[:64]!r} is no object id")
        return ticket_of(self._show(caller.node_id, request.object_id))

    def _show(self, owner: str, object_id: str) -> Flow[Message]:
        """Raises NotFound (ReplicaNotFound) where the owner needs to know of nothing."""
        store, key = self._runtime.store, replica_key(object_id, owner)
        value, shown = store.get(REPLICAS, key), objects_pb2.ShowReplicaResponse()
        shown.reads = store.get(SHARED, key) is not None
        if value is None and not shown.reads:
            raise NotFound(f"nothing of {object_id} is kept here", reason="ReplicaNotFound")
        if value is not None:
            row = objects_pb2.ReplicaRow.FromString(value)
            shown.manifest.CopyFrom(row.manifest)
            shown.epoch.CopyFrom(row.epoch)
            shown.shards.extend((yield self._bulk.run(lambda: self._here(row))))
        return shown

    def _here(self, row: objects_pb2.ReplicaRow) -> list[int]:
        """Those of its shards whose bytes the disk has: a row stays as the fence when they are lost."""
        manifest = Manifest.decode(row.manifest.signed.body)
        size = manifest.shard_bytes
        return [shard for shard in shards_of(row) if self._blobs.size(blob_name(manifest, shard)) == size]

    def _read(self, caller: str, request: objects_pb2.ReadReplicaRequest) -> Flow[Message]:
        answer: Piece = yield self._bulk.run(lambda: self._found(request), size_bytes=request.length)
        if request.prove:
            proof = self._bulk.run(lambda: self._path(request), key=PROOFS_LANE)
            answer.path.extend((yield self._proofs.take(caller, proof)))
        return answer

    def _found(self, request: objects_pb2.ReadReplicaRequest) -> Piece:
        """In a thread. Raises NotFound (reason ReplicaNotFound), InvalidRequest."""
        name = shard_name(request.object_id, request.shard) if request.HasField("shard") else request.object_id
        size, own = self._blobs.size(name), None
        if size is None and request.HasField("shard") and (own := self._own(request)) is not None:
            size = own.shard_bytes
        if size is None:
            raise NotFound(f"no replica of {name} is here", reason="ReplicaNotFound", metadata=self._holders(request))
        if request.offset >= size:
            raise InvalidRequest.field("offset", f"{request.offset}; the replica has {size} bytes")
        length = min(request.length, size - request.offset)
        if own is not None:
            data = self._source.read(own, request.shard, request.offset, length)
        else:
            data = self._blobs.read(name, request.offset, length)
        return Piece(objects_pb2.ReadReplicaResponse(size_bytes=size), data)

    def _own(self, request: objects_pb2.ReadReplicaRequest) -> Manifest | None:
        """Of a coded object of this node's whose sealed copy is here still: any shard can be worked out from that."""
        row = self._row(request.object_id)
        manifest = Manifest.decode(row.object.manifest.signed.body) if row is not None else None
        if manifest is None or manifest.codec == COPY or request.shard >= manifest.n or not self._source.has(manifest):
            return None
        return manifest

    def _path(self, request: objects_pb2.ReadReplicaRequest) -> list[bytes]:
        """In a thread. Raises InvalidRequest where the range is not just one row."""
        own = self._own(request)
        manifest = own or self._kept_for(request)
        index = min(request.offset // manifest.row_bytes, manifest.stripes - 1)
        if (request.offset, request.length) != row_span(manifest, index):
            raise InvalidRequest.field("offset", f"{request.length} bytes at {request.offset} are not one row")
        name, shard = blob_name(manifest, request.shard), request.shard
        salt, digests = self._members().salt, []
        for stripe in range(manifest.stripes):
            self._bulk.check_going()
            span = row_span(manifest, stripe)
            row = self._source.cut(manifest, stripe, 1, (shard,))[shard] if own else self._blobs.read(name, *span)
            digests.append(stripe_digest(salt, row))
        return path_of(digests, index)

    def _kept_for(self, request: objects_pb2.ReadReplicaRequest) -> Manifest:
        """Owners who claim the same object id name the same roots; how its rows lie, the first one says whose row is
        sound. Raises NotFound."""
        for _, value in sound(self._runtime.store.scan, REPLICAS, prefix=replica_prefix(request.object_id)):
            manifest = Manifest.decode(objects_pb2.ReplicaRow.FromString(value).manifest.signed.body)
            if request.shard < manifest.n:
                return manifest
        raise NotFound(f"no replica of {request.object_id} is here", reason="ReplicaNotFound")

    def _holders(self, request: objects_pb2.ReadReplicaRequest) -> dict[str, str]:
        """Who has it instead, when it is an object of this node's own that it has given away."""
        row = self._row(request.object_id)
        if row is None:
            return {}
        acked = [ack.node_id for ack in row.object.acks]
        if request.HasField("shard"):
            laid = Epoch.decode(row.epoch.body).shards
            acked = [node for node in acked if request.shard in laid.get(node, ())]
        holders = ",".join(acked[:HOLDERS_TOLD_MAX])
        return {HOLDERS: holders} if holders else {}

    def _row(self, object_id: str) -> objects_pb2.ObjectRow | None:
        value = self._runtime.store.get(OBJECTS, object_id.encode())
        return objects_pb2.ObjectRow.FromString(value) if value is not None else None
