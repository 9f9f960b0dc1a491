"""An owner deletes an object, for good: rows and name go in one transaction, a mark stays, and every host that was ever
asked to keep it is told, and whoever may read it.

The mark is what makes it final: a repeated call finds it, and so does a late request under the id that once made it.
Of an object that was sealed anew it says where it went, for as long as this node has its store.
An object's id depends on a random key, so nothing else ever has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.errors import NotFound
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.events import CloseQuorum
from offgrid_node.protocol.objects.delivery import Delivery
from offgrid_node.protocol.objects.outbox import Outbox
from offgrid_node.protocol.objects.segments import is_segment
from offgrid_node.protocol.objects.sharing import readers_of
from offgrid_node.protocol.objects.tables import DELETED, OBJECTS, REGAINED, back_key, quorum_id_of

OBJECT_DELETED = "ObjectDeleted"


class Getting(Protocol):
    """Rows by their keys."""

    def get(self, table: str, key: bytes) -> bytes | None: ...


Tell = Callable[[str, str, Now], None]
"""A node has to hear of an object from now on."""


class Deletion:
    """Marks of what was deleted, and who knows of it."""

    def __init__(self, outbox: Outbox, delivery: Delivery, draft: Draft) -> None:
        self._outbox, self._delivery, self._draft = outbox, delivery, draft

    def mark(self, object_id: str) -> objects_pb2.Deletion | None:
        """None for what was never deleted."""
        return self._draft.row(DELETED, object_id.encode(), objects_pb2.Deletion)

    def place_of(self, object_id: str) -> str:
        return place_of(self._draft, object_id) if object_id else ""

    def on_delete(self, object_id: str, tell: Tell, now: Now, *, moved_to: str = "") -> objects_pb2.Deletion:
        """A repeated one changes nothing. `moved_to`: what has taken its place. Raises NotFound (ObjectNotFound)."""
        row, mark = self._outbox.find(object_id), self.mark(object_id)
        if row is None and mark is None:
            text = f"there is no object {object_id!r}"
            raise NotFound(text, reason="ObjectNotFound", metadata={"object": object_id})
        if row is None or mark is not None:
            assert mark is not None
            return mark
        made = row.object
        readers = {*readers_of(made), *self._readers_back(object_id)}
        hosts = sorted({*row.asked, *readers, *(ack.node_id for ack in made.acks)})
        mark = objects_pb2.Deletion(
            object_id=object_id,
            name=made.name,
            size_bytes=made.size_bytes,
            deleted_us=now.utc_us,
            untold=hosts,
            is_segment=is_segment(made.manifest),
            moved_to=moved_to,
        )
        self._draft.put(DELETED, object_id.encode(), mark)
        for host in hosts:
            tell(host, object_id, now)
        self._delivery.give_up(row.outbox_id, object_id)
        self._outbox.delete(row, now)
        self._draft.tell("quorum", CloseQuorum(quorum_id_of(object_id)))
        if not hosts:
            self._record_gone(mark)
        return mark

    def _readers_back(self, object_id: str) -> Iterable[str]:
        """Of one that was forgotten and is back: who says that he may read it. No wrap of it says so."""
        row = self._draft.row(REGAINED, back_key(object_id), objects_pb2.RegainedObject)
        return row.readers if row is not None else ()

    def on_segment(self, object_id: str, hosts: Sequence[str], tell: Tell, now: Now) -> None:
        """Of the journal. A node that was restored from the last ones has no rows of those: any of the `hosts` that it
        has heard of may keep them. One whose row is damaged goes likewise: as long as that is there no base can be
        cut."""
        if self._outbox.is_damaged(object_id):
            self._draft.delete(OBJECTS, object_id.encode())
        if self._outbox.find(object_id) is not None:
            self.on_delete(object_id, tell, now)
        else:
            self._mark_unknown(object_id, hosts, tell, now, segment=True)

    def on_segment_shown(self, object_id: str, host: str, tell: Tell, now: Now) -> None:
        """By a host, though it went long ago: that was put back from a backup. One that waits for the word is not told
        twice."""
        if self._outbox.is_damaged(object_id) or self._outbox.find(object_id) is not None:
            return
        mark = self.mark(object_id)
        if mark is not None and host in mark.untold:
            return
        if mark is None:
            self._mark_unknown(object_id, [host], tell, now, segment=True)
        else:
            mark.untold.append(host)
            self._draft.put(DELETED, object_id.encode(), mark)
            tell(host, object_id, now)

    def on_forgotten(self, object_id: str, outcome: str, hosts: Sequence[str], tell: Tell, now: Now) -> None:
        """This node has no rows of it, and is to have none: the `hosts` may drop it. The `outcome` says why."""
        if self._outbox.find(object_id) is None and self._mark_unknown(object_id, hosts, tell, now, segment=False):
            event = objects_pb2.ObjectEvent(object_id=object_id, outcome=outcome)
            self._draft.record(EventType.OBJECT_DELETED, object_id, object=event)

    def _mark_unknown(self, object_id: str, hosts: Sequence[str], tell: Tell, now: Now, *, segment: bool) -> bool:
        """Whether it was not marked before."""
        if self.mark(object_id) is not None or (segment and not hosts):
            return False
        mark = objects_pb2.Deletion(
            object_id=object_id, deleted_us=now.utc_us, untold=sorted(hosts), is_segment=segment
        )
        self._draft.put(DELETED, object_id.encode(), mark)
        for host in hosts:
            tell(host, object_id, now)
        return True

    def on_told(self, node_id: str, object_id: str, now: Now) -> None:
        """The node keeps nothing of it any more, and takes nothing of it."""
        mark = self.mark(object_id)
        if mark is None or node_id not in mark.untold:
            return
        mark.untold.remove(node_id)
        self._draft.put(DELETED, object_id.encode(), mark)
        if not mark.untold:
            self._record_gone(mark)

    def _record_gone(self, mark: objects_pb2.Deletion) -> None:
        """Of a segment not even the mark stays: there are many, and nobody asks for one again."""
        if mark.is_segment:
            self._draft.delete(DELETED, mark.object_id.encode())
            return
        event = objects_pb2.ObjectEvent(object_id=mark.object_id, size_bytes=mark.size_bytes, outcome="gone")
        self._draft.record(EventType.OBJECT_DELETED, mark.object_id, object=event)


def place_of(rows: Getting, object_id: str) -> str:
    """The id that an object has by now: another one than `object_id` if it was sealed anew since."""
    value = rows.get(DELETED, object_id.encode())
    while value is not None and (moved_to := objects_pb2.Deletion.FromString(value).moved_to):
        object_id, value = moved_to, rows.get(DELETED, moved_to.encode())
    return object_id


def was_deleted(object_id: str) -> NotFound:
    return NotFound(f"object {object_id} has been deleted", reason=OBJECT_DELETED, metadata={"object": object_id})
