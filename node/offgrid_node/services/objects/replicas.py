"""What a host keeps for others: pieces of sealed shards come in, are hashed against the owner's manifest, made durable,
and vouched for, all shards that the epoch lays here by one ack. `serving.py` has what goes out.

A host cannot read any of it. What it checks: that the manifest and the epoch are their owner's, that the epoch counts
this node, that the bytes are the manifest's. Only then does the machine sign the ack.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from google.protobuf.message import Message

from offgrid.v1 import common_pb2, objects_pb2
from offgrid_node.protocol.effects import Verifier
from offgrid_node.protocol.errors import (
    Exhausted,
    FailedPrecondition,
    Fault,
    InvalidRequest,
    PeerFault,
)
from offgrid_node.protocol.objects.commands import KeepReplica
from offgrid_node.protocol.objects.dropping import was_dropped
from offgrid_node.protocol.objects.manifest import STRIPE_BYTES, TAG_BYTES, Manifest, verify_manifest
from offgrid_node.protocol.objects.replicas import check_epoch
from offgrid_node.protocol.objects.shards import blob_name, hash_shards, rows_at, wrong_shards
from offgrid_node.protocol.objects.tables import DROPPED, KEPT_BYTES, REPLICAS, number_of, replica_key
from offgrid_node.protocol.quorum.records import Epoch, verify_epoch
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.caller import Caller
from offgrid_node.services.flow import Flow, asked, ticket_of
from offgrid_node.services.objects.bounds import check_bounds
from offgrid_node.services.objects.keeping import Keeping
from offgrid_node.storage.blobs import BlobStore

PIECE_BYTES_MAX = STRIPE_BYTES + TAG_BYTES  # a sealed stripe as this version makes them; far below gRPC's 4 MiB
OPEN_PER_OWNER_MAX = 64  # replicas that one owner may have coming in at once
STAGED_BYTES_PER_OWNER_MAX = 64 << 30  # of them together
OWNER_SHARE_PERCENT = 50  # of the room for replicas
IDLE_MS_MAX = 600_000  # one that its owner does not go on with for so long makes room for its next
DOUBTED_MAX = 1_024  # remembered; one that falls off is found out again
RETRY_MS, FULL_RETRY_MS = 5_000, 60_000
NAMES_TOLD = 3  # of shards in one message, so that it is not cut off midway


class Members(Protocol):
    """What the handlers need to know of members."""

    @property
    def salt(self) -> bytes: ...

    def current_key(self, node_id: str) -> bytes | None: ...


@dataclass(slots=True)
class _Incoming:
    """A replica that is on its way here."""

    claim: _Claim
    used_ms: int = 0


@dataclass(frozen=True, slots=True)
class _Claim:
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
        self._owner_share_percent, self._piece_bytes = owner_share_percent, piece_bytes
        self._incoming: OrderedDict[tuple[str, str], _Incoming] = OrderedDict()  # the longest unused first
        self._doubted: OrderedDict[tuple[str, str], None] = OrderedDict()  # kept ones that proved damaged
        # At the disk an object id is one lane: owners who claim the same one end up under the same name.

    def room_for(self, owner: str, free_bytes: int) -> int:
        """What an owner may still bring here; what is coming in counts as kept."""
        coming = sum(incoming.claim.size_bytes for key, incoming in self._incoming.items() if key[0] == owner)
        kept, most = self._share(owner, free_bytes)
        return min(free_bytes, max(0, most - kept - coming))

    # ---- what comes in

    def open(self, caller: Caller, request: objects_pb2.OpenReplicaRequest) -> Ticket:
        claim = self._claim(caller, request.manifest, request.epoch)
        key = replica_key(claim.manifest.object_id, claim.manifest.owner)
        if self._runtime.store.get(DROPPED, key) is not None:
            raise was_dropped(claim.manifest.object_id)
        return ticket_of(self._open(claim))

    def write(self, caller: Caller, request: objects_pb2.WriteReplicaRequest) -> Ticket:
        self._check_enabled()
        data = request.data  # protobuf copies it each time it is asked
        if len(data) > self._piece_bytes:
            raise InvalidRequest.field("data", f"{len(data)} bytes; at most {self._piece_bytes} are allowed")
        incoming = self._incoming.get((caller.node_id, request.object_id))
        if incoming is None:
            raise FailedPrecondition(
                f"no replica of {request.object_id[:64]!r} is open here (any more); open it again", reason="NotOpened"
            )
        claim, end = incoming.claim, request.offset + len(data)
        if request.shard not in claim.shards:
            said = f"{request.shard}; the epoch that was opened lays {_listed(claim.shards)} here"
            raise InvalidRequest.field("shard", said)
        if end > claim.manifest.shard_bytes:
            said = f"the piece ends at {end}, the shard at {claim.manifest.shard_bytes}"
            raise InvalidRequest.field("offset", said)
        self._touch(incoming)
        return ticket_of(self._write(claim, request.shard, request.offset, data))

    def commit(self, caller: Caller, request: objects_pb2.CommitReplicaRequest) -> Ticket:
        claim = self._claim(caller, request.manifest, request.epoch)
        if request.object_id != claim.manifest.object_id:
            raise InvalidRequest.field("object_id", f"the manifest is that of {claim.manifest.object_id}")
        return ticket_of(self._commit(claim, request))

    def _open(self, claim: _Claim) -> Flow[Message]:
        doubted = self._doubted_of(claim)

        def look() -> tuple[list[int], bool, int]:
            kept = [name not in doubted and self._is_kept(claim, name) for name in claim.names]
            staged = [self._blobs.staged_bytes(claim.staged(name)) for name in claim.names]
            have = [claim.manifest.shard_bytes if k else s for k, s in zip(kept, staged, strict=True)]
            return have, all(kept), self._blobs.free_bytes()

        have, complete, free = yield self._bulk.run(look, key=claim.manifest.object_id)
        if not complete:
            self._make_room(claim, max(0, claim.size_bytes - sum(have)), free)
            self._touch(_Incoming(claim))
        progress = [
            objects_pb2.ShardProgress(shard=shard, offset=here) for shard, here in zip(claim.shards, have, strict=True)
        ]
        return objects_pb2.OpenReplicaResponse(shards=progress, piece_bytes_max=self._piece_bytes)

    def _write(self, claim: _Claim, shard: int, offset: int, data: bytes) -> Flow[Message]:
        staged = claim.staged(blob_name(claim.manifest, shard))

        def append() -> int:
            try:
                return self._blobs.append(staged, offset, data)
            except FailedPrecondition:  # a gap: an earlier piece is late or lost; the answer says where to go on
                return self._blobs.staged_bytes(staged)

        size = yield self._bulk.run(append, key=claim.manifest.object_id, size_bytes=len(data))
        return objects_pb2.WriteReplicaResponse(offset=size)

    def _commit(self, claim: _Claim, request: objects_pb2.CommitReplicaRequest) -> Flow[Message]:
        manifest, salt, doubted = claim.manifest, self._members().salt, self._doubted_of(claim)
        lane, ack = manifest.object_id, self._ack_given(claim, request.epoch)
        with ExitStack() as vouched:
            for name in claim.names:  # until the row says that it is wanted
                vouched.enter_context(self._keeping.vouch(name))
            if ack is not None and not doubted:
                kept = yield self._bulk.run(lambda: all(self._is_kept(claim, name) for name in claim.names), key=lane)
                if kept:  # else it is lost, and brought again under the same epoch
                    return objects_pb2.CommitReplicaResponse(ack=ack)
            possession, damaged = yield self._bulk.run(lambda: self._keep(claim, salt, doubted), key=lane)
            if damaged:
                self._doubt(claim, damaged)
                text = f"what is kept of {_some(damaged)} is not what its manifest says; bring it again"
                raise FailedPrecondition(text, reason="ReplicaDamaged")
            self._incoming.pop(claim.key, None)
            for name in claim.names:
                self._doubted.pop((manifest.owner, name), None)
            command = KeepReplica(request.manifest, manifest, request.epoch, claim.epoch, possession)
            ticket = self._runtime.ask("objects", manifest.owner, command, size_bytes=request.manifest.ByteSize())
            try:
                answer: Message = yield asked(ticket)
            except Fault:  # its row is not there: deleted while it was hashed, or refused by the disk
                for name in claim.names:
                    self._keeping.drop(name)
                raise
        return answer

    def _keep(self, claim: _Claim, salt: bytes, doubted: frozenset[str]) -> tuple[bytes, list[str]]:
        """In a thread: all shards hashed in one pass, refused if they are others, and durable; the possession digest
        of them, or the names of those that are kept and prove damaged.

        One that is kept already is read again: the digest of a new epoch needs every byte. Should it prove damaged, it
        stays all the same: whoever claims so may be another than who brought it, with a manifest of his own over the
        same root. What is brought in place of a `doubted` one takes its name once it has proved right. That a name is
        there says nothing of the disk: it is synced before it is vouched for again.
        """
        blobs, manifest = self._blobs, claim.manifest
        kept = {name for name in claim.names if name not in doubted and self._is_kept(claim, name)}
        self._check_complete(claim, [name for name in claim.names if name not in kept])

        def read(name: str, offset: int, length: int) -> bytes:
            self._bulk.check_going()  # to hash a large one takes long; a node that stops does not wait for it
            if name in kept:
                return blobs.read(name, offset, length)
            return blobs.read_staged(claim.staged(name), offset, length)

        rows = rows_at(manifest, claim.shards, read)
        roots, possession = hash_shards(manifest, claim.shards, rows, salt, self._self_id, claim.epoch.epoch)
        wrong = [blob_name(manifest, shard) for shard in wrong_shards(manifest, claim.shards, roots)]
        if refused := [name for name in wrong if name not in kept]:
            for name in refused:
                blobs.discard(claim.staged(name))
            text = f"the bytes that came are not those of {_some(refused)}; begin again at 0"
            raise FailedPrecondition(text, reason="WrongRoot")
        if wrong:
            return possession, wrong
        for name in claim.names:
            if name in kept:
                blobs.sync(name)
            else:
                blobs.finish(claim.staged(name), name)
        return possession, []

    def _check_complete(self, claim: _Claim, coming: Sequence[str]) -> None:
        for name in coming:
            size, whole = self._blobs.staged_bytes(claim.staged(name)), claim.manifest.shard_bytes
            if size != whole:
                text = f"{size} of {whole} bytes of {name} are here"
                raise FailedPrecondition(text, reason="ReplicaIncomplete", metadata={"offset": str(size)})

    def _is_kept(self, claim: _Claim, name: str) -> bool:
        return self._blobs.size(name) == claim.manifest.shard_bytes

    def _doubted_of(self, claim: _Claim) -> frozenset[str]:
        return frozenset(name for name in claim.names if (claim.manifest.owner, name) in self._doubted)

    def _doubt(self, claim: _Claim, names: Sequence[str]) -> None:
        for name in names:
            self._doubted[claim.manifest.owner, name] = None
            if len(self._doubted) > DOUBTED_MAX:
                self._doubted.popitem(last=False)

    def _ack_given(self, claim: _Claim, epoch: common_pb2.Signed) -> common_pb2.Signed | None:
        """The ack that this node gave for this very epoch; its bytes were durable before."""
        value = self._runtime.store.get(REPLICAS, replica_key(claim.manifest.object_id, claim.manifest.owner))
        row = objects_pb2.ReplicaRow.FromString(value) if value is not None else None
        return row.ack if row is not None and row.epoch.body == epoch.body and row.HasField("ack") else None

    # ---- what becomes of it

    def stop(self, owner: str, object_id: str) -> None:
        """What is coming in of an object that is deleted stops here."""
        if (incoming := self._incoming.pop((owner, object_id), None)) is not None:
            self._bulk.run(partial(self._discard, incoming.claim), key=object_id)(lambda outcome: None)

    # ---- checks

    def _claim(self, caller: Caller, manifest: objects_pb2.Manifest, epoch: common_pb2.Signed) -> _Claim:
        """Raises PeerFault for anything forged or ill-matched, FailedPrecondition where it is not for this node."""
        self._check_enabled()
        owner, salt = caller.node_id, self._members().salt
        key = self._members().current_key(owner) or b""
        body = verify_manifest(manifest.signed, key, self._verify, salt)
        if body.owner != owner:
            raise PeerFault(f"{owner} brought a manifest of {body.owner}", reason="ForgedManifest")
        check_bounds(manifest, body)
        epoch_body = verify_epoch(epoch, key, self._verify, salt)
        if epoch_body.owner != owner:
            raise PeerFault(f"{owner} brought an epoch of {epoch_body.owner}", reason="ForgedEpoch")
        check_epoch(body, epoch_body, self._self_id)
        return _Claim(body, epoch_body, epoch_body.shards[self._self_id])

    def _check_enabled(self) -> None:
        if not self.enabled:
            raise FailedPrecondition(
                "this node keeps nothing for others: storage.enabled is off in its offgrid.toml", reason="StorageOff"
            )

    def _make_room(self, claim: _Claim, more_bytes: int, free_bytes: int) -> None:
        owner = claim.manifest.owner
        others = {key: value for key, value in self._incoming.items() if key[0] == owner and key != claim.key}
        now_ms = self._runtime.clock.now().mono_ms
        for key, incoming in others.copy().items():
            if len(others) >= OPEN_PER_OWNER_MAX and now_ms - incoming.used_ms >= IDLE_MS_MAX:
                del self._incoming[key], others[key]
                self._bulk.run(partial(self._discard, incoming.claim), key=key[1])(lambda outcome: None)
        coming = sum(incoming.claim.size_bytes for incoming in others.values())
        if len(others) >= OPEN_PER_OWNER_MAX or coming + more_bytes > STAGED_BYTES_PER_OWNER_MAX:
            raise Exhausted(
                f"{owner} has {len(others)} replicas of {coming} bytes coming in here; at most {OPEN_PER_OWNER_MAX} of "
                f"{STAGED_BYTES_PER_OWNER_MAX} are allowed",
                reason="TooManyReplicas",
                retry_ms=RETRY_MS,
            )
        if more_bytes > free_bytes:
            raise Exhausted(
                f"{more_bytes} bytes are too much for this host's disk: {free_bytes} are free",
                reason="DiskFull",
                retry_ms=FULL_RETRY_MS,
            )
        self._check_share(owner, coming + claim.size_bytes, free_bytes)

    def _check_share(self, owner: str, coming_bytes: int, free_bytes: int) -> None:
        """The room is what is kept for all and what is free. What was let in counts until it is kept, so no owner gets
        more by asking for much at once."""
        kept, most = self._share(owner, free_bytes)
        if self._owner_share_percent < 100 and kept + coming_bytes > most:
            raise Exhausted(
                f"this host keeps {kept} bytes for {owner}, and {coming_bytes} more would be above its "
                f"share, {most}: storage.owner_share_percent is {self._owner_share_percent} there",
                reason="OwnerShareFull",
                retry_ms=FULL_RETRY_MS,
            )

    def _share(self, owner: str, free_bytes: int) -> tuple[int, int]:
        """What is kept for an owner, and the most that may be."""
        kept = {key.decode(): number_of(value) for key, value in self._runtime.store.scan(KEPT_BYTES)}
        return kept.get(owner, 0), (free_bytes + sum(kept.values())) * self._owner_share_percent // 100

    def _touch(self, incoming: _Incoming) -> None:
        incoming.used_ms = self._runtime.clock.now().mono_ms
        self._incoming[incoming.claim.key] = incoming
        self._incoming.move_to_end(incoming.claim.key)

    def _discard(self, claim: _Claim) -> None:
        for name in claim.names:
            self._blobs.discard(claim.staged(name))


def _listed(shards: Sequence[int]) -> str:
    return ", ".join(map(str, shards)) or "none"


def _some(names: Sequence[str]) -> str:
    said = [*names[:NAMES_TOLD], *([f"{len(names) - NAMES_TOLD} more"] if len(names) > NAMES_TOLD else ())]
    return " and ".join(filter(None, (", ".join(said[:-1]), said[-1])))
