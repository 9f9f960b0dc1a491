"""A host that lies about replicas: it vouches for what it has not stored, for another epoch, another object or in
another's name, and serves bytes that are flipped, cut short or from elsewhere in the object."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from google.protobuf.message import Message

from offgrid.v1 import common_pb2, objects_pb2
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.objects.manifest import TAG_BYTES, Manifest
from offgrid_node.protocol.objects.shards import possession_of, rows_at
from offgrid_node.protocol.quorum.records import ACK_KIND, Ack, Epoch
from offgrid_node.protocol.signing import digest_of
from offgrid_tools.sim.cluster import Cluster
from offgrid_tools.sim.process import STRIPE_BYTES, Process

COMMIT, READ = "offgrid.v1.ObjectService/CommitReplica", "offgrid.v1.ObjectService/ReadReplica"
COMMIT_LIE_CHANCE, READ_LIE_CHANCE = 0.5, 0.9
NOTHING = bytes(32)
SEALED_BYTES = STRIPE_BYTES + TAG_BYTES


class LyingHost:
    """Stands before the process (`Network.liars`); now and then the honest node behind it may answer."""

    def __init__(self, cluster: Cluster, process: Process) -> None:
        self._rng, self._process = cluster.engine.rng, process
        self.lies = 0
        cluster.network.liars[process.node_id] = self

    def answer(self, source: str, method: str, request: bytes) -> Message | None:
        chance = {COMMIT: COMMIT_LIE_CHANCE, READ: READ_LIE_CHANCE}.get(method, 0.0)
        if not chance or self._rng.random() > chance:
            return None
        if not self._process.running.runtime.machines:
            return None
        lie: Message | None
        if method == COMMIT:
            lie = self._vouch(objects_pb2.CommitReplicaRequest.FromString(request), source)
        else:
            lie = self._serve(objects_pb2.ReadReplicaRequest.FromString(request))
        self.lies += lie is not None
        return lie

    def _vouch(self, request: objects_pb2.CommitReplicaRequest, owner: str) -> Message:
        epoch = Epoch.decode(request.epoch.body)
        honest = Ack(
            self._process.node_id, owner, epoch.quorum_id, epoch.epoch, epoch.subject, epoch.size_bytes, NOTHING
        )
        others = [member.node_id for member in epoch.members if member.node_id != honest.node]
        shards = epoch.shards[self._process.node_id]
        holding = replace(honest, possession=self._possession(request, shards, epoch.epoch))
        lies: list[Callable[[], Ack]] = [
            lambda: honest,  # of bytes that were never stored
            lambda: honest,
            lambda: replace(holding, epoch=honest.epoch + 1),
            lambda: replace(holding, subject=self._rng.randbytes(32)),
            lambda: replace(holding, size_bytes=honest.size_bytes + 1),
            lambda: replace(holding, node=self._rng.choice(others)) if others else honest,
        ]
        body = self._rng.choice(lies)().encode()
        salt = self._process.running.directory.salt
        signature = self._process.signer.sign(digest_of(ACK_KIND, salt, body))
        return objects_pb2.CommitReplicaResponse(ack=common_pb2.Signed(body=body, signature=signature))

    def _possession(self, request: objects_pb2.CommitReplicaRequest, shards: tuple[int, ...], epoch: int) -> bytes:
        """The right one if all bytes have come, so that nothing but the lie is wrong with the ack."""
        manifest, blobs = Manifest.decode(request.manifest.signed.body), self._process.blobs
        salt, node_id = self._process.running.directory.salt, self._process.node_id
        for read in (blobs.read, lambda name, *at: blobs.read_staged(f"{manifest.owner}.{name}", *at)):
            with suppress(Fault):
                return possession_of(manifest, rows_at(manifest, shards, read), salt, node_id, epoch)
        return NOTHING

    def _serve(self, request: objects_pb2.ReadReplicaRequest) -> Message | None:
        blobs, name = self._process.blobs, request.object_id
        if request.HasField("shard"):
            name = f"{name}.{request.shard}"
        size = blobs.size(name)
        length = min(request.length, size - request.offset) if size else 0
        if size is None or length <= 0:
            return objects_pb2.ReadReplicaResponse(data=self._rng.randbytes(100), size_bytes=100)
        data = bytearray(blobs.read(name, request.offset, length))
        match self._rng.randrange(8):
            case 0:
                data[self._rng.randrange(length)] ^= 1
            case 1:
                del data[self._rng.randrange(length) :]
            case 2:
                size += TAG_BYTES
            case _:
                data = bytearray(blobs.read(name, self._elsewhere(size - length), length))
        return objects_pb2.ReadReplicaResponse(data=bytes(data), size_bytes=size)

    def _elsewhere(self, last: int) -> int:
        """Where another stripe of the object begins."""
        return self._rng.randrange(last // SEALED_BYTES + 1) * SEALED_BYTES
