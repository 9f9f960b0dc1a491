"""A host drops what its owner has deleted, or laid elsewhere. A fence stays: nothing of an object that was deleted is
taken here any more, and of one that lies elsewhere nothing under an epoch below the one that took it away. So a piece,
or an epoch, that comes late brings nothing back.
"""

from __future__ import annotations

from contextlib import suppress

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.errors import Corrupt, FailedPrecondition
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.objects.inventory import Inventory
from offgrid_node.protocol.objects.manifest import Manifest
from offgrid_node.protocol.objects.segments import is_segment, key_in
from offgrid_node.protocol.objects.shards import blob_name, shard_name
from offgrid_node.protocol.objects.small import drop, drop_rows
from offgrid_node.protocol.objects.tables import (
    DROPPED,
    DROPPED_AGES,
    KEPT,
    KEPT_BYTES,
    MOVED,
    NUMBER_BYTES,
    REPLICAS,
    REPLICAS_EXPIRING,
    SEGMENTS_KEPT,
    SHARED,
    age_key,
    age_prefix,
    expiring_key,
    number_key,
    number_of,
    object_of,
    object_of_age,
    object_of_segment,
    replica_key,
)
from offgrid_node.protocol.quorum.fence import check_above
from offgrid_node.protocol.quorum.quota import Quota
from offgrid_node.protocol.quorum.records import Ack, Epoch
from offgrid_node.protocol.sound import sound

READ_MARK = b"r"  # behind a fence's time: the object was shared with this node when its owner deleted it
FENCES_MAX = 1_000_000  # of one owner; each takes some 200 bytes, whether anything of the object was here or not.
# A fence is for what is late: a million deletions later the oldest one gives way to the newest.


class Dropping:
    """Rows of replicas go, fences come."""

    def __init__(self, node_id: str, draft: Draft) -> None:
        self._node_id, self._draft = node_id, draft
        self._kept = Inventory(draft, KEPT)
        self._drops, self._moves = Quota(draft, "drops", FENCES_MAX), Quota(draft, "moves", FENCES_MAX)

    def check(self, object_id: str, epoch: Epoch) -> None:
        """Raises FailedPrecondition (ReplicaDropped, EpochOver)."""
        if self.is_dropped(object_id, epoch.owner):
            raise was_dropped(object_id)
        check_above(number_of(self._draft.get(MOVED, replica_key(object_id, epoch.owner)) or b""), epoch)

    def is_dropped(self, object_id: str, owner: str) -> bool:
        """Whether this node has heard that it is deleted."""
        return self._draft.get(DROPPED, replica_key(object_id, owner)) is not None

    def was_read(self, object_id: str, owner: str) -> bool:
        """Whether it was shared with this node when its owner deleted it, as far as fences go back."""
        fence = self._draft.get(DROPPED, replica_key(object_id, owner)) or b""
        return fence[NUMBER_BYTES:] == READ_MARK

    def on_kept(self, object_id: str, owner: str) -> None:
        """The ack of a newer epoch is the fence again."""
        key = replica_key(object_id, owner)
        if self._draft.get(MOVED, key) is not None:
            self._draft.delete(MOVED, key)
            self._moves.give_back(owner)

    def on_deleted(self, owner: str, object_id: str, now: Now) -> None:
        """Safe to repeat. Raises Exhausted (QuotaFull) where more than FENCES_MAX come in one step."""
        if self.is_dropped(object_id, owner):
            return
        self._forget(replica_key(object_id, owner), owner)
        self._fence(owner, object_id, now)

    def on_gone(self, owner: str, object_id: str) -> None:
        """Its owner was removed from the mesh. It leaves no fence: nobody brings anything in that name."""
        self._forget(replica_key(object_id, owner), owner)

    def on_expired(self, name: str, expires_us: int, now: Now) -> None:
        """`name` is a replica's key, as text. Its owner was not heard of by then. It leaves no fence: what comes late
        expires as well. Of a row that says another time it was not said, but of one before it."""
        _, _, owner = name.partition("/")
        with suppress(Corrupt):
            row = self._draft.row(REPLICAS, name.encode(), objects_pb2.ReplicaRow)
            if row is not None and Manifest.decode(row.manifest.signed.body).expires_us != expires_us:
                return
        self._forget(name.encode(), owner)

    def _forget(self, key: bytes, owner: str) -> None:
        self.on_kept(key.decode().partition("/")[0], owner)  # that fence is a lower one, or of no use any more
        try:
            row = self._draft.row(REPLICAS, key, objects_pb2.ReplicaRow)
        except Corrupt:
            self._drop_unreadable(key)
            return
        if row is not None:
            self._drop(row, shards_of(row))

    def _fence(self, owner: str, object_id: str, now: Now) -> None:
        if self._drops.full(owner):
            self._take_oldest(owner)
        self._drops.take(owner)
        key = replica_key(object_id, owner)
        mark = READ_MARK if self._draft.get(SHARED, key) is not None else b""
        self._draft.put_bytes(DROPPED, key, number_key(now.utc_us) + mark)
        self._draft.put_bytes(DROPPED_AGES, age_key(owner, now.utc_us, object_id), b"")

    def _take_oldest(self, owner: str) -> None:
        for key, _ in self._draft.committed(DROPPED_AGES, b"", prefix=age_prefix(owner)):
            if self._draft.get(DROPPED_AGES, key) is not None:
                self._draft.delete(DROPPED_AGES, key)
                self._draft.delete(DROPPED, replica_key(object_of_age(key, owner), owner))
                self._drops.give_back(owner)
                return

    def on_moved(self, epoch: Epoch) -> None:
        """By an epoch of its owner's above all that this host has acked, it keeps shards that lie with others now. What
        the epoch leaves here stays under the ack that was given for it. Beyond FENCES_MAX of one owner no fence
        is left: what a late epoch brings back is astray, and goes with the next comparison. What is here by a row that
        is damaged goes where all of it lies with others; else it is found to be lost, and brought anew."""
        object_id = object_of(epoch.quorum_id)
        key, wanted = replica_key(object_id, epoch.owner), epoch.shards.get(self._node_id, ())
        fence = self._draft.get(MOVED, key)
        if epoch.epoch <= number_of(fence or b""):
            return
        try:
            row = self._draft.row(REPLICAS, key, objects_pb2.ReplicaRow)
        except Corrupt:
            if not wanted:
                self._leave_fence(key, epoch, fence)
                self._drop_unreadable(key)
            return
        if row is None or not _is_newer(epoch, row):
            return
        if moved := tuple(shard for shard in shards_of(row) if shard not in wanted):
            self._leave_fence(key, epoch, fence)
            self._drop(row, moved)

    def _leave_fence(self, key: bytes, epoch: Epoch, fence: bytes | None) -> None:
        if fence is None and not self._moves.full(epoch.owner):
            self._moves.take(epoch.owner)
            fence = b""
        if fence is not None:
            self._draft.put_bytes(MOVED, key, number_key(epoch.epoch))

    def _drop_unreadable(self, key: bytes) -> None:
        """All that the inventory says of it; a file that it does not name is swept at a start. How many bytes it was
        the row alone said: they are counted on, until nothing is kept for the owner."""
        object_id, _, owner = key.decode().partition("/")
        self._forget_segment(object_id, owner)
        self._kept.mend(owner, object_id, ())
        shards = self._kept.shards(owner, object_id)
        self._kept.put(owner, object_id, ())
        self._draft.delete(REPLICAS, key)
        for name in (object_id, *(shard_name(object_id, shard) for shard in shards)):  # shard 0 may be a copy
            drop(self._draft, name, owner)
        drop_rows(self._draft, object_id, owner)  # the inventory does not name what was found to be lost
        if not self._kept.count(owner):
            self._draft.put_bytes(KEPT_BYTES, owner.encode(), number_key(0))
        self._record(object_id, owner, 0, "replica dropped, its row was damaged")

    def _forget_segment(self, object_id: str, owner: str) -> None:
        """Whether it is one, its row alone said."""
        for key, _ in sound(self._draft.committed, SEGMENTS_KEPT, prefix=age_prefix(owner)):
            if object_of_segment(key, owner) == object_id:
                self._draft.delete(SEGMENTS_KEPT, key)

    def _drop(self, row: objects_pb2.ReplicaRow, shards: tuple[int, ...]) -> None:
        """Some of what the row says is here, or all. The inventory's row, where it is damaged, said the same."""
        body = Manifest.decode(row.manifest.signed.body)
        object_id, owner = body.object_id, body.owner
        key, before = replica_key(object_id, owner), shards_of(row)
        self._kept.mend(owner, object_id, before)
        kept = self._kept.shards(owner, object_id)
        count_kept(self._draft, owner, -len(shards) * body.shard_bytes)
        self._kept.put(owner, object_id, (shard for shard in kept if shard not in shards))
        if shards == before:
            self._draft.delete(REPLICAS, key)
            if body.expires_us:
                self._draft.delete(REPLICAS_EXPIRING, expiring_key(body.expires_us, key.decode()))
            self._tell_dropped(row, body)
        else:
            row.moved.extend(shards)
            self._draft.put(REPLICAS, key, row)
        for shard in shards:
            drop(self._draft, blob_name(body, shard), owner)

    def _tell_dropped(self, row: objects_pb2.ReplicaRow, body: Manifest) -> None:
        if is_segment(row.manifest):
            self._draft.delete(SEGMENTS_KEPT, key_in(row.manifest))
            return
        self._record(body.object_id, body.owner, body.size_bytes, "replica dropped")

    def _record(self, object_id: str, owner: str, size_bytes: int, outcome: str) -> None:
        event = objects_pb2.ObjectEvent(object_id=object_id, size_bytes=size_bytes, owner=owner, outcome=outcome)
        self._draft.record(EventType.OBJECT_DELETED, object_id, object=event)


def shards_of(row: objects_pb2.ReplicaRow) -> tuple[int, ...]:
    """What this host vouched for with the row's ack and its owner has not taken away since, in ascending order; (0,) of
    a copy."""
    acked = Epoch.decode(row.epoch.body).shards[Ack.decode(row.ack.body).node]
    return tuple(shard for shard in acked if shard not in row.moved)


def _is_newer(epoch: Epoch, row: objects_pb2.ReplicaRow) -> bool:
    """Whether it lays the very object of the row anew."""
    body, before = Manifest.decode(row.manifest.signed.body), Epoch.decode(row.epoch.body)
    said = epoch.subject, epoch.size_bytes, epoch.needed, len(epoch.layout)
    return before.epoch < epoch.epoch and said == (body.subject, body.sealed_bytes, before.needed, len(before.layout))


def count_kept(draft: Draft, owner: str, more_bytes: int) -> None:
    """This host keeps so many bytes more for `owner`, or fewer."""
    kept = number_of(draft.get(KEPT_BYTES, owner.encode()) or b"") + more_bytes
    draft.put_bytes(KEPT_BYTES, owner.encode(), number_key(max(0, kept)))


def was_dropped(object_id: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"its owner has deleted {object_id}: nothing of it is taken here any more", reason="ReplicaDropped"
    )
