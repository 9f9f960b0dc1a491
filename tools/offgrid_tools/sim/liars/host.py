"""A host that lies about replicas: it vouches for what it has not stored, for another epoch, another object or in
another's name, serves bytes that are flipped, cut short or from elsewhere in the object, gives sums of rows that are
none, and answers audits as it did when it still had the bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

from google.protobuf.message import Message
from msgspec.structs import replace

from offgrid.v1 import common_pb2, objects_pb2
from offgrid_node.coding.fallback import Fallback
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.objects.audit import NAME_BYTES, NONCE_BYTES, answer_of, encode_answers
from offgrid_node.protocol.objects.dropping import shards_of
from offgrid_node.protocol.objects.hashing import pieces_at, possession_of
from offgrid_node.protocol.objects.inventory import inventory_key
from offgrid_node.protocol.objects.manifest import OBJECT_ID_BYTES, TAG_BYTES, Manifest, object_id_bytes
from offgrid_node.protocol.objects.shards import blob_name
from offgrid_node.protocol.objects.tables import KEPT, REPLICAS, replica_key
from offgrid_node.protocol.quorum.records import ACK_KIND, Ack, Epoch
from offgrid_node.protocol.signing import digest_of
from offgrid_tools.sim.cluster import Cluster
from offgrid_tools.sim.process import STRIPE_BYTES, Process

SERVICE = "offgrid.v1.ObjectService"
COMMIT, PUT, READ = f"{SERVICE}/CommitReplica", f"{SERVICE}/PutReplica", f"{SERVICE}/ReadReplica"
COMBINE, AUDIT = f"{SERVICE}/CombineRows", f"{SERVICE}/AuditReplicas"
LIE_CHANCES = {COMMIT: 0.5, PUT: 0.5, READ: 0.9, COMBINE: 0.9, AUDIT: 0.9}
NOTHING = bytes(32)
SEALED_BYTES = STRIPE_BYTES + TAG_BYTES


class LyingHost:
    """Stands before the process (`Network.liars`); now and then the honest node behind it may answer."""

    def __init__(self, cluster: Cluster, process: Process) -> None:
        self._rng, self._process = cluster.engine.rng, process
        self._evidence = cluster.monitor.evidence
        self._answers: dict[tuple[str, str], Mapping[int, bytes]] = {}  # by owner and object: what it said at first
        self.lies = 0
        cluster.network.liars[process.node_id] = self

    def answer(self, source: str, method: str, request: bytes) -> Message | None:
        chance = LIE_CHANCES.get(method, 0.0)
        if not chance or self._rng.random() > chance:
            return None
        if not self._process.running.runtime.machines:
            return None
        self.lies += 1
        return self._lie(source, method, request)

    def _lie(self, source: str, method: str, request: bytes) -> Message:
        if method == COMMIT:
            commit = objects_pb2.CommitReplicaRequest.FromString(request)
            return objects_pb2.CommitReplicaResponse(ack=self._vouch(commit, source))
        if method == PUT:
            put = objects_pb2.PutReplicaRequest.FromString(request)
            return objects_pb2.PutReplicaResponse(ack=self._vouch(put, source))
        if method == COMBINE:
            length = objects_pb2.CombineRowsRequest.FromString(request).length
            return objects_pb2.CombineRowsResponse(data=self._rng.randbytes(length))
        if method == AUDIT:
            return self._remember(objects_pb2.AuditReplicasRequest.FromString(request), source)
        return self._serve(objects_pb2.ReadReplicaRequest.FromString(request))

    def _vouch(
        self, request: objects_pb2.CommitReplicaRequest | objects_pb2.PutReplicaRequest, owner: str
    ) -> common_pb2.Signed:
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
        return common_pb2.Signed(body=body, signature=self._process.signer.sign(digest_of(ACK_KIND, salt, body)))

    def _possession(
        self,
        request: objects_pb2.CommitReplicaRequest | objects_pb2.PutReplicaRequest,
        shards: tuple[int, ...],
        epoch: int,
    ) -> bytes:
        """The right one if all bytes have come, so that nothing but the lie is wrong with the ack."""
        manifest, blobs = Manifest.decode(request.manifest.signed.body), self._process.blobs
        salt, node_id = self._process.running.directory.salt, self._process.node_id
        if isinstance(request, objects_pb2.PutReplicaRequest):
            brought = zip(shards, request.shards, strict=True)
            return possession_of(manifest, shards, brought, salt, node_id, epoch)
        for read in (blobs.read, lambda name, *at: blobs.read_staged(f"{manifest.owner}.{name}", *at)):
            with suppress(Fault):
                return possession_of(manifest, shards, pieces_at(manifest, shards, read), salt, node_id, epoch)
        return NOTHING

    def _remember(self, request: objects_pb2.AuditReplicasRequest, owner: str) -> Message:
        """What it said when it was asked about an object first; since then it has lost it."""
        names, size = request.question[NONCE_BYTES:], NAME_BYTES
        if request.object_ids:
            names, size = request.object_ids, OBJECT_ID_BYTES
        wanted = [self._named(owner, names[at : at + size]) for at in range(0, len(names), size)]
        for object_id in wanted:
            if (owner, object_id) not in self._answers:
                self._answers[owner, object_id] = self._sums(owner, object_id, request.question[:NONCE_BYTES])
        said = [self._answers[owner, object_id] for object_id in wanted]
        return objects_pb2.AuditReplicasResponse(answers=encode_answers(said, len(wanted)))

    def _named(self, owner: str, name: bytes) -> str:
        """An object that it keeps for the owner; "" for none."""
        skipped = len(inventory_key(owner, ""))
        kept = (key[skipped:].decode() for key, _ in self._process.store.scan(KEPT, prefix=inventory_key(owner, "")))
        return next((each for each in kept if object_id_bytes(each).startswith(name)), "")

    def _sums(self, owner: str, object_id: str, nonce: bytes) -> Mapping[int, bytes]:
        """And loses what it has just summed, where that is a file."""
        value, made = self._process.store.peek(REPLICAS, replica_key(object_id, owner)), dict[int, bytes]()
        row = objects_pb2.ReplicaRow.FromString(value or b"")
        body = Manifest.decode(row.manifest.signed.body) if value is not None else None
        if body is None:
            return made
        for shard in shards_of(row):
            name = blob_name(body, shard)
            held = self._evidence.kept(self._process.node_id, name, owner)
            if held is None or len(held) != body.shard_bytes:
                continue
            made[shard] = answer_of(nonce, len(held), partial(_slice, held), Fallback().combine)
            if self._process.blobs.size(name) is not None:
                self._evidence.rotten.add(self._process.node_id)
                self._process.blobs.lose(name)
        return made

    def _serve(self, request: objects_pb2.ReadReplicaRequest) -> Message:
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


def _slice(data: bytes, offset: int, length: int) -> bytes:
    return data[offset : offset + length]
