"""What the objects domain has done at this node's blob store and at hosts, and how it ended: effects and inputs beside
those of `protocol/effects.py`, which names them all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from offgrid.v1 import common_pb2, objects_pb2, state_pb2
from offgrid_node.protocol.errors import Fault

if TYPE_CHECKING:
    from offgrid_node.protocol.objects.manifest import Manifest
    from offgrid_node.protocol.objects.segments import SegmentHead


# ---- effects


class Ship(msgspec.Struct, frozen=True):
    """Bring this node's copy of an object to a host, in pieces; its end comes back as Shipped."""

    object_id: str
    node: str
    manifest: objects_pb2.Manifest
    epoch: common_pb2.Signed


class SumPart(NamedTuple):
    """What a node adds to a sum of rows: each of these shards of its, times its coefficient; of a full copy no shard,
    and one coefficient."""

    node: str
    shards: bytes
    coefficients: bytes


class Rebuild(msgspec.Struct, frozen=True):
    """Have a host make its shards of an object from those of others, each as the sum of parts that follow one another;
    its end comes back as Shipped."""

    object_id: str
    node: str
    manifest: objects_pb2.Manifest
    epoch: common_pb2.Signed
    sums: Mapping[int, tuple[SumPart, ...]]


class Fetch(msgspec.Struct, frozen=True):
    """Bring an object's sealed bytes back to this node from the hosts that have acked it, to be brought to others; its
    end comes back as Fetched."""

    object_id: str
    manifest: objects_pb2.Manifest


class KeepSegment(msgspec.Struct, frozen=True):
    """Seal a segment of this node's journal; its end comes back as SegmentKept with the same token. `head` says all but
    its object's id."""

    token: bytes
    segment: state_pb2.Segment
    head: SegmentHead


class Compare(NamedTuple):
    """Compare what a host keeps for this node with what it has acked; its end comes back as Compared."""

    node: str


class Audit(NamedTuple):
    """Ask the hosts of these objects of this node's whether they have what they acked; its end comes back as
    Audited."""

    object_ids: tuple[str, ...]


class Rewrap(NamedTuple):
    """Wrap a page of this node's objects, from this id on, anew for the keys of now; its end comes back as
    Rewrapped."""

    start: str


class Reseal(NamedTuple):
    """Seal an object of this node's anew, for one that is added with `replaces`; or, with `new_id`, which is that and
    durable, wrap its key for the readers of the old one. The end comes back as Resealed."""

    object_id: str
    new_id: str = ""


class Regain(NamedTuple):
    """Take an object of this node's back that a host keeps and this node knows nothing of. What comes of it is
    TakeBack, NotRegained, Unreadable or SegmentAstray, or ObjectAstray where it was not restored; else nothing, and it
    is said again in time."""

    object_id: str
    node: str


# ---- how they end


class Shipped(msgspec.Struct, frozen=True):
    """The end of a Ship or of a Rebuild: the host's ack, its signature checked, or the fault that kept it from coming.
    `sent_bytes` it took of this Ship, in `took_ms`. `source_bad`: it failed because this node's own copy is gone or
    rotten. Of a Rebuild: `unfit` is who did not give its part; `spoilt`: the sum of all parts was not the shard;
    `rebuilt`: nobody here has checked what the ack stands for; `lost`: shards that the host had acked, and lacks."""

    object_id: str
    node: str
    ack: common_pb2.Signed | None
    fault: Fault | None
    sent_bytes: int = 0
    took_ms: int = 0
    source_bad: bool = False
    unfit: str = ""
    spoilt: bool = False
    rebuilt: bool = False
    lost: tuple[int, ...] = ()


class SegmentKept(msgspec.Struct, frozen=True):
    """The end of a KeepSegment: the segment is sealed and fsynced in this node's blob store, and `manifest`, whose
    signed bytes say `body`, carries its head; or the fault that kept it from that."""

    token: bytes
    manifest: objects_pb2.Manifest | None = None
    body: Manifest | None = None
    sealed_bytes: int = 0
    fault: Fault | None = None


class Fetched(msgspec.Struct, frozen=True):
    """The end of a Fetch: the sealed bytes are fsynced in this node's blob store again, unless there is a fault."""

    object_id: str
    fault: Fault | None
