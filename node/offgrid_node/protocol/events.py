"""What one domain tells another within a batch (through `Raise`)."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from offgrid.v1 import common_pb2, objects_pb2
from offgrid_node.protocol.objects.manifest import Manifest

CORE, BROKER, HOST = 1, 2, 3  # the values of offgrid.v1.Role


class PeerUp(msgspec.Struct, frozen=True):
    """mesh → all others: a member is alive, with the roles that its config asks for and its record allows.

    Said again whenever one of these changes, and for this node itself at start.
    """

    node_id: str
    name: str
    roles: frozenset[int]
    weight_milli: int = 0
    failure_domain: str = ""
    wrap_label: bytes = b""  # of the key for which objects are wrapped for it (mesh/wrapping.py)


class PeerDown(msgspec.Struct, frozen=True):
    """mesh → all others: a member is dead, or was `removed` and comes back under that name no more."""

    node_id: str
    removed: bool = False


class KeyReplaced(msgspec.Struct, frozen=True):
    """mesh → ledger: a member signs by its next key now, its `number`th since the first. Said when this node learns it,
    and of all members whose key was ever replaced at start."""

    node_id: str
    number: int


class AdminChanged(msgspec.Struct, frozen=True):
    """mesh → ledger: a member is an admin now, or is none any more. Said when this node learns it."""

    node_id: str
    admin: bool


class AdminsKnown(msgspec.Struct, frozen=True):
    """mesh → ledger, at start: who the admins are; whoever is not named is none (any more)."""

    node_ids: tuple[str, ...]


class OpenQuorum(msgspec.Struct, frozen=True):
    """objects → quorum: this node needs acks of `subject`. Said again it is answered again; with other members, another
    layout or something `lost` it opens the next epoch, in which acks count on as far as they are for what it asks. A
    quorum that is reached gets one only where `though_reached`.

    `layout` names for each shard of a coded object the member that is to hold it ("": none), `needed` of them give it
    back; it is empty for all else. Whoever is named in `lost` with a shard (0 for a copy) has to ack that anew."""

    quorum_id: str
    subject: bytes
    size_bytes: int
    required_milli: int
    members: tuple[tuple[str, int], ...]  # node id, weight in thousandths
    needed: int = 1
    layout: tuple[str, ...] = ()
    lost: frozenset[tuple[str, int]] = frozenset()
    though_reached: bool = False
    quiet: bool = False  # of a segment of the journal, of which the journal says nothing


class QuorumOpened(msgspec.Struct, frozen=True):
    """quorum → objects: the epoch as signed, for hosts to sign their acks for; who has acked already what of it, and
    whether that is enough."""

    quorum_id: str
    epoch: common_pb2.Signed
    held: tuple[tuple[str, tuple[int, ...]], ...]  # node id, shards
    acked_milli: int
    reached: bool


class CloseQuorum(msgspec.Struct, frozen=True):
    """objects → quorum: what was to be acked is deleted. This node forgets the quorum, and brokers do when they hear
    it."""

    quorum_id: str


class AckArrived(msgspec.Struct, frozen=True):
    """objects → quorum: a host's ack, its signature checked, what it says not yet."""

    quorum_id: str
    node_id: str
    ack: common_pb2.Signed


class QuorumAcked(msgspec.Struct, frozen=True):
    """quorum → objects: an ack counts, for these shards, (0,) for a copy; `reached` once all so far are enough."""

    quorum_id: str
    node_id: str
    shards: tuple[int, ...]
    acked_milli: int
    reached: bool


class AckRefused(msgspec.Struct, frozen=True):
    """quorum → objects: an ack that arrived does not count, for people to read why. Every AckArrived is answered so, or
    with QuorumAcked; one that counts already with QuorumAcked again."""

    quorum_id: str
    node_id: str
    why: str


class ObjectAdded(msgspec.Struct, frozen=True):
    """jobs → objects: sealed bytes are fsynced in this node's blob store under `body.object_id`; the object becomes
    durable in this batch. Said again of a known one it changes nothing. `required_milli` 0 is what the config says."""

    manifest: objects_pb2.Manifest
    body: Manifest
    name: str
    required_milli: int


class SegmentDurable(msgspec.Struct, frozen=True):
    """objects → state: a segment of this node's journal has its acks."""

    number: int


class SegmentLost(msgspec.Struct, frozen=True):
    """objects → state: a segment of this node's journal is damaged or gone wherever it was."""

    number: int


class DropSegment(msgspec.Struct, frozen=True):
    """state → objects: a segment that nobody needs any more is to be deleted, everywhere; or at one node, which shows
    it though it is deleted."""

    object_id: str
    node: str = ""


class ObjectAstray(NamedTuple):
    """→ state: a host keeps an object of this node's own, of which its store knows nothing, though it was not restored:
    objects leave once they are durable, and leave a mark when they go."""

    object_id: str


class SegmentAstray(NamedTuple):
    """→ state: a host keeps a segment of this node's journal of which nothing is known here, of that life."""

    object_id: str
    life: int


class CostIncurred(NamedTuple):
    """jobs → ledger: this core accepted a result and owes its host the price of the award. Said in the batch in which
    the job ends, so that the two are durable together; said once for a job."""

    job_id: str
    attempt: int
    payee: str
    amount_micro: int
    action: str
    is_new: bool = False  # made since the machines were loaded: whatever was written before is not of this job
