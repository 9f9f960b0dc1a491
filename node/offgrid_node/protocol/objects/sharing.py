"""Who may read an object besides its owner. Its key is wrapped for each reader, beside what the owner has signed; a
reader is told where it lies (notices.py), keeps that as a row, and reads straight from the hosts.

To take a reader away keeps nothing from him that he has read, or his key: it says that he is told no more.
"""

from __future__ import annotations

from collections.abc import Callable

from offgrid.v1 import common_pb2, objects_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.errors import Exhausted, InvalidRequest, NotFound
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.ids import base32, unbase32
from offgrid_node.protocol.objects.outbox import Outbox
from offgrid_node.protocol.objects.tables import OBJECTS, READ, SHARED, number_key, replica_key
from offgrid_node.protocol.quorum.quota import Quota

WRAP_HEAD_BYTES, WRAP_ITEM_BYTES, OBJECT_ID_BYTES = 38, 68, 20  # keys/wraps.py: what of a wrap its batch shares
READERS_MAX = 63  # of one object, besides its owner
READ_MAX = 50_000  # objects of one owner that were unshared and are remembered; of more nothing is
SHARED_MAX = 50_000  # objects of one owner that a reader keeps rows of, most of them of 1 to 2 kB
SHARED_BYTES_MAX = 12 << 10  # of each: two signed bodies of 4 KiB at most, a wrap and a name

Tell = Callable[[str, str, Now], None]
"""A node has to hear of an object from now on."""


Wrapped = Callable[[str, bytes, Now], None]
"""A wrap was made for a node."""


class Sharing:
    """At the owner: wraps come and go."""

    def __init__(self, outbox: Outbox, draft: Draft, tell: Tell, wrapped: Wrapped) -> None:
        self._outbox, self._draft, self._tell, self._wrapped = outbox, draft, tell, wrapped

    def on_share(self, object_id: str, node_id: str, sealed_key: bytes, now: Now) -> objects_pb2.Object:
        """Shared again, he is told again. Raises NotFound (ObjectNotFound), Exhausted (TooManyReaders)."""
        row = self._get(object_id)
        wraps = {wrap.node_id: wrap for wrap in row.object.manifest.wraps}
        if node_id not in wraps and len(readers_of(row.object)) >= READERS_MAX:
            raise Exhausted(f"{object_id} has {READERS_MAX} readers, and can have no more", reason="TooManyReaders")
        wraps[node_id] = objects_pb2.KeyWrap(node_id=node_id, sealed_key=sealed_key)
        self._wrapped(node_id, sealed_key, now)
        return self._change(row, wraps, node_id, "shared", now)

    def on_unshare(self, object_id: str, node_id: str, now: Now) -> objects_pb2.Object:
        """One who is no reader stays none. Raises NotFound (ObjectNotFound), InvalidRequest."""
        row = self._get(object_id)
        if node_id == row.object.owner:
            raise InvalidRequest.field("node", "its owner reads it always")
        wraps = {wrap.node_id: wrap for wrap in row.object.manifest.wraps}
        if wraps.pop(node_id, None) is None:
            return row.object
        return self._change(row, wraps, node_id, "unshared", now)

    def on_moved(self, object_id: str, now: Now) -> None:
        """Another epoch says where it lies: its readers have to know."""
        row = self._outbox.find(object_id)
        for node_id in readers_of(row.object) if row is not None else ():
            self._tell(node_id, object_id, now)

    def _get(self, object_id: str) -> objects_pb2.ObjectRow:
        row = self._outbox.find(object_id)
        if row is None:
            raise NotFound(f"there is no object {object_id!r}", reason="ObjectNotFound", metadata={"object": object_id})
        return row

    def _change(
        self, row: objects_pb2.ObjectRow, wraps: dict[str, objects_pb2.KeyWrap], node_id: str, outcome: str, now: Now
    ) -> objects_pb2.Object:
        made = row.object
        del made.manifest.wraps[:]
        made.manifest.wraps.extend(wrap for _, wrap in sorted(wraps.items()))
        self._draft.put(OBJECTS, made.object_id.encode(), row)
        self._tell(node_id, made.object_id, now)
        event = objects_pb2.ObjectEvent(
            object_id=made.object_id, size_bytes=made.size_bytes, owner=made.owner, outcome=outcome, reader=node_id
        )
        self._draft.record(EventType.OBJECT_STORED, made.object_id, object=event)
        return made


class Shared:
    """At a reader: rows of what others share with this node."""

    def __init__(self, draft: Draft, was_read: Callable[[str, str], bool]) -> None:
        """`was_read`: whether an object was this owner's, and shared with this node, when it was deleted."""
        self._draft, self._was_read = draft, was_read
        self._quota, self._marks = Quota(draft, "shared", SHARED_MAX), Quota(draft, "read", READ_MAX)

    def on_shared(self, owner: str, shared: objects_pb2.SharedObject, object_id: str, now: Now) -> None:
        """The newest word stands. Of ids of before those count that it had for this reader, if only once: an id says
        nothing of whose object it is, and whoever asks for one of another's must not get this. Raises Exhausted
        (QuotaFull)."""
        key = replica_key(object_id, owner)
        before = self._draft.row(SHARED, key, objects_pb2.SharedRow)
        if before is None:
            self._quota.take(owner)
        since_us = before.since_us if before is not None else now.utc_us
        row = objects_pb2.SharedRow(shared=shared, since_us=since_us)
        known = before.shared.formerly if before is not None else ()
        row.shared.formerly[:] = [each for each in shared.formerly if each in known or self._was(each, owner)]
        self._draft.put(SHARED, key, row)
        if self._draft.get(READ, key) is not None:
            self._draft.delete(READ, key)
            self._marks.give_back(owner)

    def _was(self, object_id: str, owner: str) -> bool:
        """Whether this node knows of that object as the owner's; somebody else's it may be too, by his word."""
        key = replica_key(object_id, owner)
        known = any(self._draft.get(table, key) is not None for table in (SHARED, READ))
        return known or self._was_read(object_id, owner)

    def on_rewrapped(self, owner: str, object_id: str, sealed_key: bytes) -> None:
        """Of what was never shared with this node nothing follows."""
        key = replica_key(object_id, owner)
        row = self._draft.row(SHARED, key, objects_pb2.SharedRow)
        if row is not None:
            row.shared.manifest.wraps[0].sealed_key = sealed_key
            self._draft.put(SHARED, key, row)

    def on_unshared(self, owner: str, object_id: str, now: Now) -> None:
        """It stays known as that owner's: it may be shared again, under another id by then."""
        key = replica_key(object_id, owner)
        if self._draft.get(SHARED, key) is None:
            return
        self._draft.delete(SHARED, key)
        self._quota.give_back(owner)
        if not self._was_read(object_id, owner) and not self._marks.full(owner):
            self._draft.put_bytes(READ, key, number_key(now.utc_us))
            self._marks.take(owner)


def readers_of(made: objects_pb2.Object) -> list[str]:
    """Its owner apart."""
    return [wrap.node_id for wrap in made.manifest.wraps if wrap.node_id != made.owner]


def told_to(row: objects_pb2.ObjectRow, node_id: str) -> objects_pb2.SharedObject | None:
    """What a reader is told: his own wrap and no other's. None for one who is none."""
    manifest = only_for(row.object.manifest, node_id)
    if node_id == row.object.owner or not manifest.wraps:
        return None
    epoch = row.epoch if row.HasField("epoch") else common_pb2.Signed()
    return objects_pb2.SharedObject(name=row.object.name, manifest=manifest, epoch=epoch, formerly=row.object.formerly)


def add_wrap(notices: objects_pb2.DeliverNoticesRequest, object_id: str, sealed_key: bytes) -> None:
    """Those that share an ephemeral key say it once."""
    head, sealed = sealed_key[:WRAP_HEAD_BYTES], sealed_key[WRAP_HEAD_BYTES:]
    if not notices.rewrapped or notices.rewrapped[-1].head != head:
        notices.rewrapped.add(head=head)
    notices.rewrapped[-1].items += unbase32(object_id.removeprefix("o-")) + sealed


def wraps_in(rewrapped: objects_pb2.Rewraps) -> list[tuple[str, bytes]]:
    """Object and wrap of each item; the inverse of `add_wrap`. Raises ValueError."""
    head, items = rewrapped.head, rewrapped.items
    if len(head) != WRAP_HEAD_BYTES or len(items) % WRAP_ITEM_BYTES:
        raise ValueError(f"{len(head)} bytes of head and {len(items)} of items; {WRAP_HEAD_BYTES} and a multiple of "
                         f"{WRAP_ITEM_BYTES} are allowed")  # fmt: skip
    parts = (items[at : at + WRAP_ITEM_BYTES] for at in range(0, len(items), WRAP_ITEM_BYTES))
    return [(f"o-{base32(part[:OBJECT_ID_BYTES])}", head + part[OBJECT_ID_BYTES:]) for part in parts]


def for_host(manifest: objects_pb2.Manifest, owner: str) -> objects_pb2.Manifest:
    """With the owner's wrap alone, for a host does not learn who reads, and with what the owner has noted down."""
    told = only_for(manifest, owner)
    told.note = manifest.note
    return told


def only_for(manifest: objects_pb2.Manifest, node_id: str) -> objects_pb2.Manifest:
    """With one node's wrap alone."""
    wraps = [wrap for wrap in manifest.wraps if wrap.node_id == node_id]
    segment = manifest.segment if manifest.HasField("segment") else None
    return objects_pb2.Manifest(signed=manifest.signed, wraps=wraps, segment=segment)
