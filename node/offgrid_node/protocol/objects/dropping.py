"""A host drops what its owner has deleted. The fence that stays says that nothing of that owner's object is taken here
any more: a piece, or an epoch, that comes late brings nothing back.
"""

from __future__ import annotations

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import DropBlob
from offgrid_node.protocol.errors import FailedPrecondition
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.objects.inventory import Inventory
from offgrid_node.protocol.objects.manifest import Manifest
from offgrid_node.protocol.objects.shards import blob_name
from offgrid_node.protocol.objects.tables import (
    DROPPED,
    KEPT,
    KEPT_BYTES,
    REPLICAS,
    REPLICAS_EXPIRING,
    expiring_key,
    number_key,
    number_of,
    replica_key,
)
from offgrid_node.protocol.quorum.quota import Quota
from offgrid_node.protocol.quorum.records import Ack, Epoch

FENCES_MAX = 1_000_000  # of one owner; each takes some 100 bytes, whether anything of the object was here or not


class Dropping:
    """Rows of replicas go, fences come."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._kept = Inventory(draft, KEPT)
        self._quota = Quota(draft, "drops", FENCES_MAX)

    def check(self, object_id: str, owner: str) -> None:
        """Raises FailedPrecondition (ReplicaDropped)."""
        if self._draft.get(DROPPED, replica_key(object_id, owner)) is not None:
            raise was_dropped(object_id)

    def on_deleted(self, owner: str, object_id: str, now: Now) -> None:
        """Safe to repeat. Raises Exhausted (QuotaFull)."""
        key = replica_key(object_id, owner)
        if self._draft.get(DROPPED, key) is not None:
            return
        self._quota.take(owner)
        self._draft.put_bytes(DROPPED, key, number_key(now.utc_us))
        row = self._draft.row(REPLICAS, key, objects_pb2.ReplicaRow)
        if row is None:
            return
        body, shards = Manifest.decode(row.manifest.signed.body), shards_of(row)
        self._draft.delete(REPLICAS, key)
        if body.expires_us:
            self._draft.delete(REPLICAS_EXPIRING, expiring_key(body.expires_us, key.decode()))
        count_kept(self._draft, owner, -len(shards) * body.shard_bytes)
        self._kept.put(owner, object_id, ())
        event = objects_pb2.ObjectEvent(
            object_id=object_id, size_bytes=body.size_bytes, owner=owner, outcome="replica dropped"
        )
        self._draft.record(EventType.OBJECT_DELETED, object_id, object=event)
        for shard in shards:
            self._draft.send(DropBlob(blob_name(body, shard)))

    def on_expired(self, name: str, now: Now) -> None:
        """`name` is a replica's key, as text. Its owner was not heard of by then."""
        object_id, _, owner = name.partition("/")
        self.on_deleted(owner, object_id, now)


def shards_of(row: objects_pb2.ReplicaRow) -> tuple[int, ...]:
    """What this host vouched for with the row's ack, in ascending order; (0,) of a copy."""
    return Epoch.decode(row.epoch.body).shards[Ack.decode(row.ack.body).node]


def count_kept(draft: Draft, owner: str, more_bytes: int) -> None:
    """This host keeps so many bytes more for `owner`, or fewer."""
    kept = number_of(draft.get(KEPT_BYTES, owner.encode()) or b"") + more_bytes
    draft.put_bytes(KEPT_BYTES, owner.encode(), number_key(max(0, kept)))


def was_dropped(object_id: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"its owner has deleted {object_id}: nothing of it is taken here any more", reason="ReplicaDropped"
    )
