"""What the handlers hand to the objects machine: bytes already on disk, requests checked, signatures verified."""

from __future__ import annotations

import msgspec

from offgrid.v1 import common_pb2, objects_pb2
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.objects.inventory import Holding
from offgrid_node.protocol.objects.manifest import Manifest
from offgrid_node.protocol.quorum.records import Epoch


class Enqueue(msgspec.Struct, frozen=True):
    """What the outbox row says instead of the object's name: the owner's own key and event type."""

    key: str
    etype: int


class AddObject(msgspec.Struct, frozen=True):
    """From this node's owner: the sealed bytes are fsynced in this node's blob store under `body.object_id`, or, where
    they are small, they are `sealed`.

    `body` is what `manifest` carries signed, by this node. `required_milli` 0 is what the config says; `digest` is 16
    bytes of all that the request says but its id, `plaintext` the digest of what was sealed, where it is known.
    Answered with CommitUploadResponse, or with EnqueueResponse where `enqueue` is given; a repeated one (same request
    id and digest, or same object) with the same again. `for_job`: it is a job's input or result. `copies`
    0 is what the config says. `size_bytes`: of what was put,
    where `body` may say more of it. It `replaces` the object of this id, which was sealed anew as it. `name_number` as
    in ObjectRow. One that is `regained` was made when `body` says.
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
    sealed: bytes = b""
    size_bytes: int | None = None
    replaces: str = ""
    name_number: int = 0
    regained: bool = False


class HostsChosen(msgspec.Struct, frozen=True):
    """This node's config names its hosts, and these are they, as far as is known; no other is given anything new. Said
    again and again: machines that were loaded anew know none."""

    node_ids: frozenset[str]


class CancelEntry(msgspec.Struct, frozen=True):
    """From this node's owner: an outbox entry is given up. Answered with CancelOutboxEntryResponse, a repeated one with
    the same again."""

    number: int


class DeleteObject(msgspec.Struct, frozen=True):
    """From this node's owner: the object is to go, for good. Answered with DeleteObjectResponse, a repeated one with
    the same again."""

    object_id: str


class ShareObject(msgspec.Struct, frozen=True):
    """From this node's owner: another node may read the object, whose key is sealed for it. Answered with
    ShareObjectResponse."""

    object_id: str
    node_id: str
    sealed_key: bytes


class UnshareObject(msgspec.Struct, frozen=True):
    """From this node's owner: the node is told of the object no more. Answered with UnshareObjectResponse."""

    object_id: str
    node_id: str


class TakeNotices(msgspec.Struct, frozen=True):
    """From an owner to whoever keeps or reads its objects: `deleted` and `unshared` are ids of such, checked to be
    that; what is `shared`, by its id, is signed by the owner, and so are the epochs that have `moved` something.
    `rewrapped` are new wraps, by object, for what this node reads already. `life` and `number` say what of the owner's
    it comes after (`protocol/latecomers.py`). Answered with DeliverNoticesResponse."""

    owner: str
    deleted: tuple[str, ...]
    shared: tuple[tuple[str, objects_pb2.SharedObject], ...] = ()
    unshared: tuple[str, ...] = ()
    moved: tuple[Epoch, ...] = ()
    rewrapped: tuple[tuple[str, bytes], ...] = ()
    life: int = 0
    number: int = 0


class KeepReplica(msgspec.Struct, frozen=True):
    """From an owner to this host: all bytes are here, hashed against the manifest's root, and fsynced; or they are in
    `shards`, where they are small, in ascending order.

    Manifest and epoch are signed by `body.owner`; that they belong together and name this node is checked by the
    machine. `possession` is 32 bytes that only the replica's bytes give. Answered with CommitReplicaResponse.
    """

    manifest: objects_pb2.Manifest
    body: Manifest
    epoch: common_pb2.Signed
    epoch_body: Epoch
    possession: bytes
    shards: tuple[bytes, ...] = ()


class Compared(msgspec.Struct, frozen=True):
    """The end of a Compare: what the host has acked and keeps no more, and what it keeps and has not acked, as it says;
    or the fault that kept it from being known."""

    node: str
    lost: tuple[Holding, ...] = ()
    strays: tuple[Holding, ...] = ()
    fault: Fault | None = None


class TakeBack(msgspec.Struct, frozen=True):
    """The end of a Regain: the sealed bytes of what this node had forgotten are fsynced here under `body.object_id`.
    `note` is what it noted down of it when it was made; empty where that does not open. `former_whole`: that which
    `note` says that it replaces is known here, and was read from hosts. `readers`: who says that he may read it.
    Answered with CommitUploadResponse."""

    manifest: objects_pb2.Manifest
    body: Manifest
    required_milli: int
    note: objects_pb2.ObjectNote
    size_bytes: int
    former_whole: bool = False
    readers: tuple[str, ...] = ()


class NotRegained(msgspec.Struct, frozen=True):
    """The end of a Regain: the object is this node's own by its signature, and could not be had now. `in_vain`: every
    member has answered, and those who claim to keep enough of it do not give it."""

    object_id: str
    node: str
    why: str
    in_vain: bool = False


class Unreadable(msgspec.Struct, frozen=True):
    """The end of a Regain: this node knows nothing of the object any more, every member has said what it keeps of it,
    and that is too little ever to read it."""

    object_id: str


class NewWrap(msgspec.Struct, frozen=True):
    """An object's key for one who may read it, in place of the wrap of before."""

    node_id: str
    before: bytes
    sealed_key: bytes


class Rewrapped(msgspec.Struct, frozen=True):
    """The end of a Rewrap: new wraps by object, and from which object on it goes on ("": that was the last), with how
    many objects were looked at and how many of them this node's key did not open; or the fault that kept it from being
    done."""

    start: str
    next: str = ""
    wraps: tuple[tuple[str, tuple[NewWrap, ...]], ...] = ()
    looked: int = 0
    unopened: int = 0
    fault: Fault | None = None


class Reencrypt(msgspec.Struct, frozen=True):
    """From this node's owner: all objects that were sealed before then are to be sealed anew, of which there are so
    many. Answered with ReencryptObjectsResponse."""

    before_us: int
    objects: int


class StopReencryption(msgspec.Struct, frozen=True):
    """From this node's owner: no more of them. Answered with StopReencryptionResponse."""


class Resealed(msgspec.Struct, frozen=True):
    """The end of a Reseal. Of one with `new_id`: for whom its key is wrapped now, of these readers of the old one;
    whoever is no member any more has no wrap."""

    object_id: str
    new_id: str = ""
    readers: frozenset[str] = frozenset()
    wraps: tuple[tuple[str, bytes], ...] = ()
    fault: Fault | None = None


class ChangeReported(msgspec.Struct, frozen=True):
    """A host says that it has lost something that it kept for this node, or that it is emptied from now on."""

    node: str


class DropKept(msgspec.Struct, frozen=True):
    """From this host's owner: what is kept here for `owner`, who was removed from the mesh, is to go. Answered with
    DropKeptResponse, page by page."""

    owner: str


class HostDrains(msgspec.Struct, frozen=True):
    """This host's owner empties it: those for whom it keeps something are to hear of it at once."""


class ReplicasLost(msgspec.Struct, frozen=True):
    """Found at this host: its disk has them no more."""

    owner: str
    lost: tuple[Holding, ...]


class AuditSoon(msgspec.Struct, frozen=True):
    """Some host's newest ack of the object is for bytes that this node could not check: an audit has to."""

    object_id: str


Shown = tuple[tuple[str, tuple[int, ...]], ...]
"""Hosts, and which shards of each; (0,) of a copy."""


class Findings(msgspec.Struct, frozen=True):
    """What an audit has shown of an object under an epoch: who has what, who has other bytes or none. Of others nothing
    is known. `own_bad`: this node's own copy, which its row says is here, is damaged or gone."""

    object_id: str
    epoch: int
    whole: Shown = ()
    lost: Shown = ()
    own_bad: bool = False


class Audited(msgspec.Struct, frozen=True):
    """The end of an Audit."""

    findings: tuple[Findings, ...]


class TakeFindings(msgspec.Struct, frozen=True):
    """Of an audit that this node's owner has asked for. Answered with AuditObjectResponse: the object as it is then."""

    findings: Findings
