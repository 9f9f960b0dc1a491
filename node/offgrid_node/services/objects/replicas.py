"""What a host keeps for others: pieces of sealed shards come in, are hashed against the owner's manifest, made durable,
and vouched for, all shards that the epoch lays here by one ack. `serving.py` has what goes out.

A host cannot read any of it. What it checks: that the manifest and the epoch are their owner's, that the epoch counts
this node, that the bytes are the manifest's. Only then does the machine sign the ack.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Protocol

from google.protobuf.message import Message

from offgrid.pieces import Buffer
from offgrid.v1 import common_pb2, objects_pb2
from offgrid_node.protocol.effects import Verifier
from offgrid_node.protocol.errors import Corrupt, FailedPrecondition, Fault, InvalidRequest, PeerFault
from offgrid_node.protocol.objects.commands import KeepReplica
from offgrid_node.protocol.objects.dropping import was_dropped
from offgrid_node.protocol.objects.manifest import STRIPE_BYTES, TAG_BYTES, verify_manifest
from offgrid_node.protocol.objects.replicas import check_epoch
from offgrid_node.protocol.objects.segments import is_segment, verify_head
from offgrid_node.protocol.objects.shards import blob_name
from offgrid_node.protocol.objects.small import SMALL, small_key
from offgrid_node.protocol.objects.tables import DROPPED, REPLICAS, replica_key
from offgrid_node.protocol.quorum.records import verify_epoch
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.caller import Caller
from offgrid_node.services.flow import Flow, Step, asked, ticket_of
from offgrid_node.services.objects.bounds import check_bounds
from offgrid_node.services.objects.incoming import OWNER_SHARE_PERCENT, Admission, Claim, Incoming
from offgrid_node.services.objects.keeping import Keeping
from offgrid_node.storage.blobs import BlobStore

PIECE_BYTES_MAX = STRIPE_BYTES + TAG_BYTES  # a sealed stripe as this version makes them; far below gRPC's 4 MiB
DOUBTED_MAX = 1_024  # remembered; one that falls off is found out again
NOTHING: Mapping[int, bytes] = {}
NAMES_TOLD = 3  # of shards in one message, so that it is not cut off midway


class Members(Protocol):
    """What the handlers need to know of members."""

    @property
    def salt(self) -> bytes: ...

    def keys(self, node_id: str) -> Sequence[bytes]: ...


class Replicas:
    """The handlers of OpenReplica, WriteReplica and CommitReplica."""

    def __init__(
        self,
        runtime: Runtime,
        self_id: str,
        members: Callable[[], Members],
        verify: Verifier,
        blobs: BlobStore,
        bulk: Bulk,
        keeping: Keeping,
        *,
        enabled: bool = True,
        owner_share_percent: int = OWNER_SHARE_PERCENT,
        piece_bytes: int = PIECE_BYTES_MAX,
    ) -> None:
        """`enabled`: whether this node keeps anything new for others (storage.enabled); `owner_share_percent`: how much
        of the room for it one owner may take (storage.owner_share_percent); `piece_bytes`: the most that one
        WriteReplica may bring."""
        self._runtime, self._self_id, self._members, self._verify = runtime, self_id, members, verify
        self._blobs, self._bulk, self._keeping, self.enabled = blobs, bulk, keeping, enabled
        self._piece_bytes = piece_bytes
        self.admission = Admission(runtime, bulk, owner_share_percent)
        self._doubted: OrderedDict[tuple[str, str], None] = OrderedDict()  # kept ones that proved damaged
        # At the disk an object id is one lane: owners who claim the same one end up under the same name.

    # ---- what comes in

    def open(self, caller: Caller, request: objects_pb2.OpenReplicaRequest) -> Ticket:
        claim = self.claim(caller, request.manifest, request.epoch)
        self.check_wanted(claim)
        return ticket_of(self._open(claim))

    def write(self, caller: Caller, request: objects_pb2.WriteReplicaRequest) -> Ticket:
        data = request.data  # protobuf copies it each time it is asked
        if len(data) > self._piece_bytes:
            raise InvalidRequest.field("data", f"{len(data)} bytes; at most {self._piece_bytes} are allowed")
        incoming, end = self.coming(caller.node_id, request.object_id), request.offset + len(data)
        claim = incoming.claim
        if request.shard not in claim.shards:
            said = f"{request.shard}; the epoch that was opened lays {_listed(claim.shards)} here"
            raise InvalidRequest.field("shard", said)
        if end > claim.manifest.shard_bytes:
            said = f"the piece ends at {end}, the shard at {claim.manifest.shard_bytes}"
            raise InvalidRequest.field("offset", said)
        return ticket_of(self._write(incoming, request.shard, request.offset, data))

    def coming(self, owner: str, object_id: str) -> Incoming:
        """What the owner has opened and not committed; it stays open for it. Raises FailedPrecondition (NotOpened,
        StorageOff)."""
        self._check_enabled()
        incoming = self.admission.find(owner, object_id)
        if incoming is None:
            raise _not_open(object_id)
        self.admission.touch(incoming)
        return incoming

    def commit(self, caller: Caller, request: objects_pb2.CommitReplicaRequest) -> Ticket:
        claim = self.claim(caller, request.manifest, request.epoch)
        if request.object_id != claim.manifest.object_id:
            raise InvalidRequest.field("object_id", f"the manifest is that of {claim.manifest.object_id}")
        return ticket_of(self.keep(claim, request))

    def _open(self, claim: Claim) -> Flow[Message]:
        have, complete, free = yield self._look(claim)
        if not complete:
            self.admission.admit(self._fresh(claim), max(0, claim.size_bytes - sum(have.values())), free)
        progress = [objects_pb2.ShardProgress(shard=shard, offset=here) for shard, here in have.items()]
        return objects_pb2.OpenReplicaResponse(shards=progress, piece_bytes_max=self._piece_bytes)

    def progress(self, claim: Claim) -> Flow[dict[int, int]]:
        """How much of each shard is here."""
        have, _, _ = yield self._look(claim)
        return have  # type: ignore[no-any-return]

    def _look(self, claim: Claim) -> Step[tuple[dict[int, int], bool, int]]:
        """How much of each shard is here, whether all of them are kept, and how much room is free."""
        doubted = self._doubted_of(claim)

        def look() -> tuple[dict[int, int], bool, int]:
            kept = [name not in doubted and self._is_here(claim, name) for name in claim.names]
            staged = [self._blobs.staged_bytes(claim.staged(name)) for name in claim.names]
            have = [claim.manifest.shard_bytes if k else s for k, s in zip(kept, staged, strict=True)]
            return dict(zip(claim.shards, have, strict=True)), all(kept), self._blobs.free_bytes()

        return self._bulk.run(look, key=claim.manifest.object_id)

    def _write(self, incoming: Incoming, shard: int, offset: int, data: bytes) -> Flow[Message]:
        size = yield self.append(incoming, shard, offset, data)
        return objects_pb2.WriteReplicaResponse(offset=size)

    def append(self, incoming: Incoming, shard: int, offset: int, data: Buffer) -> Step[int]:
        """How much of the shard is here then. Raises FailedPrecondition (NotOpened) where another claim was
        opened since: what that has hashed stays as it was."""
        owner, object_id = incoming.claim.key

        def work() -> int:
            if self.admission.find(owner, object_id) is not incoming:
                raise _not_open(object_id)
            return incoming.append(shard, offset, data)

        return self._bulk.run(work, key=object_id, size_bytes=len(data))

    def _fresh(self, claim: Claim) -> Incoming:
        return Incoming(claim, self._blobs, self._members().salt, self._self_id)

    def keep(
        self, claim: Claim, request: objects_pb2.CommitReplicaRequest, brought: Mapping[int, bytes] = NOTHING
    ) -> Flow[Message]:
        """What is staged of the claim, `brought` with the request, or kept already, vouched for."""
        manifest, doubted, incoming = claim.manifest, self._doubted_of(claim), self.admission.find(*claim.key)
        lane, ack = manifest.object_id, self._ack_given(claim, request.epoch)
        if incoming is None or incoming.claim != claim:
            incoming = self._fresh(claim)
        with ExitStack() as vouched:
            for name in claim.names:  # until the row says that it is wanted
                vouched.enter_context(self._keeping.vouch(name))
            if ack is not None and not doubted:
                kept = yield self._bulk.run(lambda: all(self._is_here(claim, name) for name in claim.names), key=lane)
                if kept and self._ack_given(claim, request.epoch) is not None:  # and not for a later one meanwhile
                    return objects_pb2.CommitReplicaResponse(ack=ack)  # else it is lost, and brought again under it
            try:
                size_bytes = sum(map(len, brought.values()))
                possession, damaged = yield self._bulk.run(
                    lambda: self._keep(incoming, doubted, brought), key=lane, size_bytes=size_bytes
                )
                if damaged:
                    self._doubt(claim, damaged)
                    text = f"what is kept of {_some(damaged)} is not what its manifest says; bring it again"
                    raise FailedPrecondition(text, reason="ReplicaDamaged")
                self.admission.end(claim)
                for name in claim.names:
                    self._doubted.pop((manifest.owner, name), None)
                command = KeepReplica(request.manifest, manifest, request.epoch, claim.epoch, possession)
                ticket = self._runtime.ask("objects", manifest.owner, command, size_bytes=request.manifest.ByteSize())
                answer: Message = yield asked(ticket)
            except Fault:  # where its row is not there: refused by the disk midway, or deleted while it was hashed
                for name in claim.names:
                    self._keeping.drop(name)
                raise
        return answer

    def _keep(
        self, incoming: Incoming, doubted: frozenset[str], brought: Mapping[int, bytes]
    ) -> tuple[bytes, list[str]]:
        """In a thread: all shards refused if they are others, and durable; the possession digest of them, or the names
        of those that are kept and prove damaged.

        One that is kept already is read again: the digest of a new epoch needs every byte. Should it prove damaged, it
        stays all the same: whoever claims so may be another than who brought it, with a manifest of his own over the
        same root. What is brought in place of a `doubted` one takes its name once it has proved right. That a name is
        there says nothing of the disk: it is synced before it is vouched for again. What is a row becomes a file.
        """
        blobs, claim, manifest = self._blobs, incoming.claim, incoming.claim.manifest
        kept = frozenset(name for name in claim.names if name not in doubted and self._is_kept(claim, name))
        coming = {shard: name for shard, name in zip(claim.shards, claim.names, strict=True) if name not in kept}
        for shard, name in coming.items():
            self._stage(
                incoming, shard, brought.get(shard) or (self._row(claim, name) if name not in doubted else None)
            )
        self._check_complete(claim, [*coming.values()])

        def read(name: str, offset: int, length: int) -> bytes:
            self._bulk.check_going()  # to hash a large one takes long; a node that stops does not wait for it
            if name in kept:
                return blobs.read(name, offset, length)
            return blobs.read_staged(claim.staged(name), offset, length)

        possession, others = incoming.hashed(kept, read)
        wrong = {shard: blob_name(manifest, shard) for shard in others}
        if refused := {shard: name for shard, name in wrong.items() if name not in kept}:
            incoming.discard(list(refused))
            text = f"the bytes that came are not those of {_some(list(refused.values()))}; begin again at 0"
            raise FailedPrecondition(text, reason="WrongRoot")
        if wrong:
            return possession, list(wrong.values())
        for name in kept:
            blobs.sync(name)
        if came := {claim.staged(name): name for name in coming.values()}:
            blobs.finish_all(came)
        return possession, []

    def _stage(self, incoming: Incoming, shard: int, data: bytes | None) -> None:
        """All of a shard at once, in the turn at the disk in which it is hashed and kept: nobody writes between."""
        if data is not None:
            incoming.discard((shard,))
            incoming.append(shard, 0, data)

    def _check_complete(self, claim: Claim, coming: Sequence[str]) -> None:
        for name in coming:
            size, whole = self._blobs.staged_bytes(claim.staged(name)), claim.manifest.shard_bytes
            if size != whole:
                text = f"{size} of {whole} bytes of {name} are here"
                raise FailedPrecondition(text, reason="ReplicaIncomplete", metadata={"offset": str(size)})

    def _is_kept(self, claim: Claim, name: str) -> bool:
        return self._blobs.size(name) == claim.manifest.shard_bytes

    def _is_here(self, claim: Claim, name: str) -> bool:
        """As a file or, being small, as a row."""
        return self._is_kept(claim, name) or self._row(claim, name) is not None

    def _row(self, claim: Claim, name: str) -> bytes | None:
        """What this owner has brought of it in a row; a damaged one is none."""
        try:
            row = self._runtime.store.get(SMALL, small_key(name, claim.manifest.owner))
        except Corrupt:
            return None
        return row if row is not None and len(row) == claim.manifest.shard_bytes else None

    def _doubted_of(self, claim: Claim) -> frozenset[str]:
        return frozenset(name for name in claim.names if (claim.manifest.owner, name) in self._doubted)

    def _doubt(self, claim: Claim, names: Sequence[str]) -> None:
        for name in names:
            self._doubted[claim.manifest.owner, name] = None
            if len(self._doubted) > DOUBTED_MAX:
                self._doubted.popitem(last=False)

    def _ack_given(self, claim: Claim, epoch: common_pb2.Signed) -> common_pb2.Signed | None:
        """The ack that this node gave for this very epoch; its bytes were durable before. Of a damaged row nobody can
        say so: another one takes its place."""
        try:
            value = self._runtime.store.get(REPLICAS, replica_key(claim.manifest.object_id, claim.manifest.owner))
        except Corrupt:
            return None
        row = objects_pb2.ReplicaRow.FromString(value) if value is not None else None
        return row.ack if row is not None and row.epoch.body == epoch.body and row.HasField("ack") else None

    # ---- checks

    def check_wanted(self, claim: Claim) -> None:
        """Raises FailedPrecondition (ReplicaDropped) where its owner has deleted it."""
        key = replica_key(claim.manifest.object_id, claim.manifest.owner)
        if self._runtime.store.get(DROPPED, key) is not None:
            raise was_dropped(claim.manifest.object_id)

    def claim(self, caller: Caller, manifest: objects_pb2.Manifest, epoch: common_pb2.Signed) -> Claim:
        """Raises PeerFault for anything forged or ill-matched, FailedPrecondition where it is not for this node."""
        self._check_enabled()
        owner, salt = caller.node_id, self._members().salt
        keys = self._members().keys(owner)
        body = verify_manifest(manifest.signed, keys, self._verify, salt)
        if body.owner != owner:
            raise PeerFault(f"{owner} brought a manifest of {body.owner}", reason="ForgedManifest")
        check_bounds(manifest, body)
        epoch_body = verify_epoch(epoch, keys, self._verify, salt)
        if epoch_body.owner != owner:
            raise PeerFault(f"{owner} brought an epoch of {epoch_body.owner}", reason="ForgedEpoch")
        check_epoch(body, epoch_body, self._self_id)
        if is_segment(manifest):
            verify_head(manifest, body, keys, self._verify, salt)
        return Claim(body, epoch_body, epoch_body.shards[self._self_id])

    def _check_enabled(self) -> None:
        if not self.enabled:
            raise FailedPrecondition(
                "this node keeps nothing for others: storage.enabled is off in its offgrid.toml", reason="StorageOff"
            )


def _not_open(object_id: str) -> FailedPrecondition:
    text = f"no replica of {object_id[:64]!r} is open here (any more); open it again"
    return FailedPrecondition(text, reason="NotOpened")


def _listed(shards: Sequence[int]) -> str:
    return ", ".join(map(str, shards)) or "none"


def _some(names: Sequence[str]) -> str:
    said = [*names[:NAMES_TOLD], *([f"{len(names) - NAMES_TOLD} more"] if len(names) > NAMES_TOLD else ())]
    return " and ".join(filter(None, (", ".join(said[:-1]), said[-1])))
