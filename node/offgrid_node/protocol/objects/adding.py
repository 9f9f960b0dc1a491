"""Objects come into being: one for each request, however often it is said, and what another domain of this node leaves.

Of a request that is repeated or refused the bytes that came with it are nobody's object, and are dropped.
"""

from __future__ import annotations

from collections.abc import Callable

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import DropBlob, Rows
from offgrid_node.protocol.errors import Exhausted, Fault
from offgrid_node.protocol.events import ObjectAdded
from offgrid_node.protocol.mesh.wrapping import BEGUN_KEY
from offgrid_node.protocol.objects.commands import AddObject
from offgrid_node.protocol.objects.deletion import Deletion, was_deleted
from offgrid_node.protocol.objects.delivery import Delivery
from offgrid_node.protocol.objects.outbox import Outbox, put_number
from offgrid_node.protocol.objects.reseal_rows import sealed_us
from offgrid_node.protocol.objects.resealing import Resealing
from offgrid_node.protocol.objects.rewrapping import Rewrapping
from offgrid_node.protocol.objects.segments import is_segment
from offgrid_node.protocol.objects.tables import META, OBJECT_REQUESTS, OBJECTS, number_of
from offgrid_node.protocol.requests import Requests

FULL_RETRY_MS = 5_000

Armed = Callable[[Now], None]
"""Something that expires is there now."""


class Adding:
    """Each gets its rows, and its way to hosts begins."""

    def __init__(
        self,
        outbox_max: int,
        draft: Draft,
        outbox: Outbox,
        delivery: Delivery,
        deletion: Deletion,
        rewrapping: Rewrapping,
        resealing: Resealing,
        expires: Armed,
    ) -> None:
        """`outbox_max`: entries that may wait for their acks at once, of what is put and of what jobs leave."""
        self._outbox_max, self._draft, self._outbox, self._delivery = outbox_max, draft, outbox, delivery
        self._deletion, self._rewrapping, self._resealing, self._expires = deletion, rewrapping, resealing, expires
        self._requests = Requests(draft, OBJECT_REQUESTS)

    def load(self, rows: Rows) -> None:
        self._requests.load(rows)

    def on_add(self, ticket: int, command: AddObject, now: Now) -> None:
        """Raises AlreadyExists (RequestIdReused), NotFound (ObjectDeleted), FailedPrecondition (NotResealed), Exhausted
        (OutboxFull)."""
        object_id = command.body.object_id
        try:
            row = self._made(command)
            if row is None:
                self._resealing.check(command.replaces)
                self.check_room(for_job=command.for_job)
        except Fault:
            if self._outbox.find(object_id) is None and not command.sealed:
                self._draft.send(DropBlob(object_id))
            raise
        if row is None:
            self.add(command, now)
            self._resealing.on_added(command.replaces, object_id, now)
            row = self._outbox.get(object_id)
        elif row.object.object_id != object_id and not command.sealed:
            self._draft.send(DropBlob(object_id))
        self._answer(ticket, command, row)

    def on_added(self, event: ObjectAdded, now: Now) -> None:
        """What a job left behind is taken in any case: the jobs domain has bounds of its own. What was deleted stays
        so."""
        if self._deletion.mark(event.body.object_id) is not None:
            self._draft.send(DropBlob(event.body.object_id))
        elif self._outbox.find(event.body.object_id) is None:
            for_job = not is_segment(event.manifest)
            command = AddObject(event.manifest, event.body, event.name, event.required_milli, "", b"", for_job=for_job)
            self.add(command, now)

    def made(self, request_id: str, digest: bytes) -> str:
        """The object that an earlier call has made, by its present id; "" for none. Raises AlreadyExists
        (RequestIdReused)."""
        return self._deletion.place_of(self._requests.made(request_id, digest))

    def add(self, command: AddObject, now: Now) -> None:
        """One that there is not yet."""
        for wrap in command.manifest.wraps:
            self._rewrapping.on_wrapped(wrap.node_id, wrap.sealed_key, now)
        parcel = self._outbox.add(command, now)
        self._date(command)
        self._requests.remember(command.request_id, command.digest, command.body.object_id)
        if command.body.expires_us:
            self._expires(now)
        self._delivery.on_added(parcel)

    def _date(self, command: AddObject) -> None:
        """What is sealed for the data key of now was sealed after that had begun, whatever the clock says by then: one
        that was far ahead leaves nothing due to be sealed anew that came later."""
        begun_us = number_of(self._draft.get(META, BEGUN_KEY) or b"")
        row = self._outbox.get(command.body.object_id) if begun_us and not command.regained else None
        if row is None or sealed_us(row) >= begun_us:
            return
        own = [wrap for wrap in command.manifest.wraps if wrap.node_id == command.body.owner]
        if own and all(self._rewrapping.is_current(wrap.node_id, wrap.sealed_key) for wrap in own):
            row.resealed_us = begun_us
            self._draft.put(OBJECTS, command.body.object_id.encode(), row)

    def check_room(self, *, for_job: bool) -> None:
        """What jobs leave has a bound of its own: it never takes the room of what is put. Raises Exhausted
        (OutboxFull)."""
        waiting, what = self._delivery.depth - self._outbox.entries.jobs_open, "objects put here"
        if for_job:
            waiting, what = self._outbox.entries.jobs_open, "inputs and results of jobs"
        if waiting >= self._outbox_max:
            text = (
                f"{waiting} {what} still wait for their acks, and this node holds no more at once; "
                "`offgrid outbox --open` says for what they wait, `offgrid outbox cancel` gives one up"
            )
            raise Exhausted(text, reason="OutboxFull", retry_ms=FULL_RETRY_MS)

    # ---- inside

    def _made(self, command: AddObject) -> objects_pb2.ObjectRow | None:
        """What the request made before, or the very object if it is known."""
        made = self.made(command.request_id, command.digest)
        row = self._outbox.find(made or command.body.object_id)
        if row is None and made:
            raise was_deleted(made)
        return row

    def _answer(self, ticket: int, command: AddObject, row: objects_pb2.ObjectRow) -> None:
        if command.enqueue is None:
            self._draft.reply(ticket, objects_pb2.CommitUploadResponse(object=row.object))
        else:
            entry = self._outbox.entries.get(put_number(row))
            self._draft.reply(ticket, objects_pb2.EnqueueResponse(entry=entry))
