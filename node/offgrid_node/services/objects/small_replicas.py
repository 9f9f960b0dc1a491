"""PutReplica: all bytes of a host's shards in one call, where they are few; kept in rows, by the transaction that holds
the ack. What no row takes goes the way of `replicas.py`, as if it had come in pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from google.protobuf.message import Message

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Corrupt, Exhausted, FailedPrecondition, InvalidRequest
from offgrid_node.protocol.objects.commands import KeepReplica
from offgrid_node.protocol.objects.hashing import ShardHashes
from offgrid_node.protocol.objects.shards import blob_name
from offgrid_node.protocol.objects.small import SMALL, small_key
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.caller import Caller
from offgrid_node.services.flow import Flow, asked, ticket_of
from offgrid_node.services.objects.incoming import Claim
from offgrid_node.services.objects.replicas import Replicas
from offgrid_node.storage.blobs import BlobStore

PUT_REPLICA_BYTES_MAX = 64 * 1024  # of all its shards: so little is sent sooner than asked about


class SmallReplicas:
    """The handler of PutReplica."""

    def __init__(
        self,
        runtime: Runtime,
        self_id: str,
        replicas: Replicas,
        salt: Callable[[], bytes],
        blobs: BlobStore,
        in_rows: Callable[[int], bool] = lambda size_bytes: False,
    ) -> None:
        """`in_rows`: whether so many sealed bytes belong into rows, not files."""
        self._runtime, self._self_id, self._replicas, self._salt = runtime, self_id, replicas, salt
        self._blobs, self._in_rows = blobs, in_rows

    def put(self, caller: Caller, request: objects_pb2.PutReplicaRequest) -> Ticket:
        claim = self._replicas.claim(caller, request.manifest, request.epoch)
        shards = tuple(request.shards)
        _check_sizes(claim, shards)
        self._make_room(claim)
        flow = self._in_row if self._in_rows(claim.size_bytes) else self._in_files
        return ticket_of(flow(claim, request, shards))

    def _make_room(self, claim: Claim) -> None:
        try:
            self._replicas.admission.make_room(claim, claim.size_bytes, self._blobs.free_bytes())
        except Exhausted:
            if not self._holds(claim):
                raise

    def _holds(self, claim: Claim) -> bool:
        """A newer epoch asks for the same again, or damaged rows are replaced: that takes no more room."""
        keys = (small_key(name, claim.manifest.owner) for name in claim.names)
        try:
            return all(self._runtime.store.get(SMALL, key) is not None for key in keys)
        except Corrupt:
            return True

    def _in_row(self, claim: Claim, request: objects_pb2.PutReplicaRequest, shards: tuple[bytes, ...]) -> Flow[Message]:
        """In the runtime's thread: to hash so little takes no longer than to hand it to another one."""
        manifest, epoch = claim.manifest, claim.epoch
        hashes = ShardHashes(manifest, claim.shards, self._salt(), self._self_id, epoch.epoch)
        for shard, data in zip(claim.shards, shards, strict=True):
            hashes.add(shard, data)
        if wrong := hashes.wrong():
            text = f"the bytes that came are not those of {blob_name(manifest, wrong[0])}; bring them again"
            raise FailedPrecondition(text, reason="WrongRoot")
        command = KeepReplica(request.manifest, manifest, request.epoch, epoch, hashes.possession(), shards)
        size_bytes = request.ByteSize()
        answer = yield asked(self._runtime.ask("objects", manifest.owner, command, size_bytes=size_bytes))
        return objects_pb2.PutReplicaResponse(ack=answer.ack)

    def _in_files(
        self, claim: Claim, request: objects_pb2.PutReplicaRequest, shards: tuple[bytes, ...]
    ) -> Flow[Message]:
        self._replicas.check_wanted(claim)
        commit = objects_pb2.CommitReplicaRequest(
            object_id=claim.manifest.object_id, manifest=request.manifest, epoch=request.epoch
        )
        brought = dict(zip(claim.shards, shards, strict=True))
        answer = yield from self._replicas.keep(claim, commit, brought)
        assert isinstance(answer, objects_pb2.CommitReplicaResponse)
        return objects_pb2.PutReplicaResponse(ack=answer.ack)


def _check_sizes(claim: Claim, shards: Sequence[bytes]) -> None:
    if claim.size_bytes > PUT_REPLICA_BYTES_MAX:
        text = f"{claim.size_bytes} bytes; at most {PUT_REPLICA_BYTES_MAX} come in one call, OpenReplica takes more"
        raise InvalidRequest.field("shards", text)
    if len(shards) != len(claim.shards):
        raise InvalidRequest.field("shards", f"{len(shards)} of them; the epoch lays {len(claim.shards)} here")
    for index, data in enumerate(shards):
        if len(data) != claim.manifest.shard_bytes:
            text = f"{len(data)} bytes; the manifest says {claim.manifest.shard_bytes}"
            raise InvalidRequest.field(f"shards[{index}]", text)
