"""An owner deletes an object, for good: rows and name go in one transaction, a mark stays, and every host that was ever
asked to keep it is told, and whoever may read it.

The mark is what makes it final: a repeated call finds it, and so does a late request under the id that once made it.
An object's id depends on a random key, so nothing else ever has it.
"""

from __future__ import annotations

from collections.abc import Callable

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import DropBlob
from offgrid_node.protocol.errors import NotFound
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.events import CloseQuorum
from offgrid_node.protocol.objects.delivery import Delivery
from offgrid_node.protocol.objects.outbox import Outbox
from offgrid_node.protocol.objects.sharing import readers_of
from offgrid_node.protocol.objects.tables import DELETED, quorum_id_of

Tell = Callable[[str, str, Now], None]
"""A node has to hear of an object from now on."""


class Deletion:
    """Marks of what was deleted, and who knows of it."""

    def __init__(self, outbox: Outbox, delivery: Delivery, draft: Draft) -> None:
        self._outbox, self._delivery, self._draft = outbox, delivery, draft

    def mark(self, object_id: str) -> objects_pb2.Deletion | None:
        """None for what was never deleted."""
        return self._draft.row(DELETED, object_id.encode(), objects_pb2.Deletion)

    def on_delete(self, object_id: str, tell: Tell, now: Now) -> objects_pb2.Deletion:
        """A repeated one changes nothing. Raises NotFound (ObjectNotFound)."""
        row, mark = self._outbox.find(object_id), self.mark(object_id)
        if row is None and mark is None:
            text = f"there is no object {object_id!r}"
            raise NotFound(text, reason="ObjectNotFound", metadata={"object": object_id})
        if row is None or mark is not None:
            assert mark is not None
            return mark
        made, hosts = (
            row.object,
            sorted({*row.asked, *readers_of(row.object), *(ack.node_id for ack in row.object.acks)}),
        )
        mark = objects_pb2.Deletion(
            object_id=object_id, name=made.name, size_bytes=made.size_bytes, deleted_us=now.utc_us, untold=hosts
        )
        self._draft.put(DELETED, object_id.encode(), mark)
        for host in hosts:
            tell(host, object_id, now)
        self._delivery.give_up(row.outbox_id, object_id)
        self._outbox.delete(row, now)
        self._draft.tell("quorum", CloseQuorum(quorum_id_of(object_id)))
        self._draft.send(DropBlob(object_id))
        if not hosts:
            self._record_gone(mark)
        return mark

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
        event = objects_pb2.ObjectEvent(object_id=mark.object_id, size_bytes=mark.size_bytes, outcome="gone")
        self._draft.record(EventType.OBJECT_DELETED, mark.object_id, object=event)


def was_deleted(object_id: str) -> NotFound:
    return NotFound(f"object {object_id} has been deleted", reason="ObjectDeleted", metadata={"object": object_id})
