"""What the handlers hand to the objects machine: bytes already on disk, requests checked, signatures verified."""

from __future__ import annotations

from dataclasses import dataclass

from offgrid.v1 import common_pb2, objects_pb2
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.objects.inventory import Holding
from offgrid_node.protocol.objects.manifest import Manifest
from offgrid_node.protocol.quorum.records import Epoch


@dataclass(frozen=True, slots=True)
class Enqueue:
    """What the outbox row says instead of the object's name: the owner's own key and event type."""

    key: str
    etype: int


@dataclass(frozen=True, slots=True)
class AddObject:
    """From this node's owner: the sealed bytes are fsynced in this node's blob store under `body.object_id`.

    `body` is what `manifest` carries signed, by this node. `required_milli` 0 is what the config says; `digest` is 16
    bytes of all that the request says but its id, `plaintext` the digest of what was sealed, where it is known.
    Answered with CommitUploadResponse, or with EnqueueResponse where `enqueue` is given; a repeated one (same request
    id and digest, or same object) with the same again. `for_job`: it is a job's input or result. `copies`
    0 is what the config says.
    """

    manifest: objects_pb2.Manifest
    body: Manifest
    name: str
    required_milli: int
    request_id: str
    digest: bytes
    enqueue: Enqueue | None = None
    plaintext: bytes = b""
    for_job: bool = False
    copies: int = 0


@dataclass(frozen=True, slots=True)
class CancelEntry:
    """From this node's owner: an outbox entry is given up. Answered with CancelOutboxEntryResponse, a repeated one with
    the same again."""

    number: int


@dataclass(frozen=True, slots=True)
class DeleteObject:
    """From this node's owner: the object is to go, for good. Answered with DeleteObjectResponse, a repeated one with
    the same again."""

    object_id: str


@dataclass(frozen=True, slots=True)
class ShareObject:
    """From this node's owner: another node may read the object, whose key is sealed for it. Answered with
    ShareObjectResponse."""

    object_id: str
    node_id: str
    sealed_key: bytes


@dataclass(frozen=True, slots=True)
class UnshareObject:
    """From this node's owner: the node is told of the object no more. Answered with UnshareObjectResponse."""

    object_id: str
    node_id: str


@dataclass(frozen=True, slots=True)
class TakeNotices:
    """From an owner to whoever keeps or reads its objects: `deleted` and `unshared` are ids of such, checked to be
    that; what is `shared`, by its id, is signed by the owner, and so are the epochs that have `moved` something.
    Answered with DeliverNoticesResponse."""

    owner: str
    deleted: tuple[str, ...]
    shared: tuple[tuple[str, objects_pb2.SharedObject], ...] = ()
    unshared: tuple[str, ...] = ()
    moved: tuple[Epoch, ...] = ()


@dataclass(frozen=True, slots=True)
class KeepReplica:
    """From an owner to this host: all bytes are here, hashed against the manifest's root and fsynced.

    Manifest and epoch are signed by `body.owner`; that they belong together and name this node is checked by the
    machine. `possession` is 32 bytes that only the replica's bytes give. Answered with CommitReplicaResponse.
    """

    manifest: objects_pb2.Manifest
    body: Manifest
    epoch: common_pb2.Signed
    epoch_body: Epoch
    possession: bytes


@dataclass(frozen=True, slots=True)
class Compared:
    """The end of a Compare: what the host has acked and keeps no more, and what it keeps and has not acked, as it says;
    or the fault that kept it from being known."""

    node: str
    lost: tuple[Holding, ...] = ()
    strays: tuple[Holding, ...] = ()
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class DamageReported:
    """A host says that it has lost something that it kept for this node."""

    node: str


@dataclass(frozen=True, slots=True)
class ReplicasLost:
    """Found at this host: its disk has them no more."""

    owner: str
    lost: tuple[Holding, ...]
