"""Handlers of ObjectService: what an owner puts, lists and reads, and what owner and hosts say to each other.

Questions are answered from committed rows. `uploads.py` has the way in, `reading.py` the way back, `replicas.py` what a
host keeps for others, `serving.py` what it gives of that.
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import Message

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import FailedPrecondition, InvalidRequest
from offgrid_node.protocol.objects.commands import CancelEntry, DamageReported, DeleteObject
from offgrid_node.protocol.objects.manifest import Manifest
from offgrid_node.protocol.objects.tables import (
    DELETED,
    OBJECTS,
    OUTBOX,
    OUTBOX_OPEN,
    outbox_key,
)
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.caller import Caller
from offgrid_node.services.checks import check_text
from offgrid_node.services.flow import Flow, asked, ticket_of
from offgrid_node.services.objects.capacity import Capacity
from offgrid_node.services.objects.finding import Finding
from offgrid_node.services.objects.holders import holders_of
from offgrid_node.services.objects.inventories import Inventories
from offgrid_node.services.objects.placing import Placing
from offgrid_node.services.objects.reading import Reading
from offgrid_node.services.objects.replicas import Replicas
from offgrid_node.services.objects.serving import Serving
from offgrid_node.services.objects.sharing import NAME_CHARS_MAX, Sharing
from offgrid_node.services.objects.uploads import Uploads
from offgrid_node.services.objects.uses import user_of
from offgrid_node.services.paging import decode_token, take_page
from offgrid_node.services.shelf import Shelf

ACCEPTED = objects_pb2.OBJECT_STATE_ACCEPTED


class ObjectHandlers:
    """One method per RPC of ObjectService."""

    def __init__(
        self,
        runtime: Runtime,
        uploads: Uploads,
        reading: Reading,
        replicas: Replicas,
        serving: Serving,
        sharing: Sharing,
        bulk: Bulk,
        capacity: Capacity,
        inventories: Inventories,
        placing: Placing,
    ) -> None:
        self._runtime, self._shelf = runtime, Shelf(runtime.store)
        self._uploads, self._reading, self._replicas, self._serving = uploads, reading, replicas, serving
        self._sharing, self._finding = sharing, Finding(runtime.store, sharing)
        self._bulk, self._capacity, self._inventories = bulk, capacity, inventories
        self._placing = placing

    def get_capacity(self, caller: Caller, request: objects_pb2.GetCapacityRequest) -> Ticket:
        return ticket_of(self._capacity.answer(caller))

    def explain_placement(
        self, caller: Caller, request: objects_pb2.ExplainPlacementRequest
    ) -> objects_pb2.ExplainPlacementResponse:
        return self._placing.explain(request, self._finding.own(request.object) if request.object else None)

    # ---- in

    def open_upload(self, caller: Caller, request: objects_pb2.OpenUploadRequest) -> Message:
        return self._uploads.open(caller, request)

    def write_upload(self, caller: Caller, request: objects_pb2.WriteUploadRequest) -> Ticket:
        return self._uploads.write(caller, request)

    def commit_upload(self, caller: Caller, request: objects_pb2.CommitUploadRequest) -> Ticket:
        return self._uploads.commit(caller, request)

    def enqueue(self, caller: Caller, request: objects_pb2.EnqueueRequest) -> Ticket:
        return self._uploads.enqueue(caller, request)

    # ---- what there is

    def get_object(self, caller: Caller, request: objects_pb2.GetObjectRequest) -> objects_pb2.GetObjectResponse:
        return objects_pb2.GetObjectResponse(object=self._told(self._finding.find(request.object)))

    def list_objects(self, caller: Caller, request: objects_pb2.ListObjectsRequest) -> objects_pb2.ListObjectsResponse:
        check_text("name_prefix", request.name_prefix, NAME_CHARS_MAX, empty=True)
        if request.shared:
            found = self._sharing.rows(decode_token(request.page_token))
        else:
            found = self._shelf.rows(OBJECTS, objects_pb2.ObjectRow, request.page_token)
        wanted = ((key, row if row.object.name.startswith(request.name_prefix) else None) for key, row in found)
        rows, token = take_page(wanted, request.page_size)
        return objects_pb2.ListObjectsResponse(objects=[self._told(row) for row in rows], next_page_token=token)

    def delete_object(self, caller: Caller, request: objects_pb2.DeleteObjectRequest) -> Message | Ticket:
        if (mark := self._shelf.find(DELETED, objects_pb2.Deletion, request.object)) is not None:
            return objects_pb2.DeleteObjectResponse(deletion=mark)
        return ticket_of(self._delete(self._finding.own(request.object).object, str(caller)))

    def _delete(self, made: objects_pb2.Object, caller: str) -> Flow[Message]:
        used_by = yield self._bulk.run(lambda: user_of(self._runtime.store, made))
        if used_by:
            text = f"{used_by} needs {made.object_id}; it can be deleted when that has ended"
            raise FailedPrecondition(text, reason="ObjectInUse", metadata={"object": made.object_id})
        answer: Message = yield asked(self._runtime.ask("objects", caller, DeleteObject(made.object_id)))
        return answer

    def list_deletions(
        self, caller: Caller, request: objects_pb2.ListDeletionsRequest
    ) -> objects_pb2.ListDeletionsResponse:
        rows = self._shelf.rows(DELETED, objects_pb2.Deletion, request.page_token)
        wanted = ((key, None if request.untold_only and not mark.untold else mark) for key, mark in rows)
        marks, token = take_page(wanted, request.page_size)
        return objects_pb2.ListDeletionsResponse(deletions=marks, next_page_token=token)

    def share_object(self, caller: Caller, request: objects_pb2.ShareObjectRequest) -> Ticket:
        return self._sharing.share(self._finding.own(request.object).object, request.node, str(caller))

    def unshare_object(self, caller: Caller, request: objects_pb2.UnshareObjectRequest) -> Ticket:
        return self._sharing.unshare(self._finding.own(request.object).object, request.node, str(caller))

    def _told(self, row: objects_pb2.ObjectRow) -> objects_pb2.Object:
        """The object with its outbox entry's trouble, while it has that on its way."""
        made = row.object
        if made.state == ACCEPTED:
            value = self._runtime.store.get(OUTBOX, outbox_key(row.outbox_id))
            made.trouble = objects_pb2.OutboxEntry.FromString(value or b"").trouble
        return made

    def list_outbox(self, caller: Caller, request: objects_pb2.ListOutboxRequest) -> objects_pb2.ListOutboxResponse:
        """In the order of its numbers, the oldest first."""
        start = decode_token(request.page_token)
        rows = self._open_entries(start) if request.open_only else self._entries(start)
        entries, token = take_page(rows, request.page_size)
        return objects_pb2.ListOutboxResponse(entries=entries, next_page_token=token)

    def cancel_outbox_entry(self, caller: Caller, request: objects_pb2.CancelOutboxEntryRequest) -> Ticket:
        return self._runtime.ask("objects", str(caller), CancelEntry(request.id), size_bytes=request.ByteSize())

    def _entries(self, start: bytes) -> Iterator[tuple[bytes, objects_pb2.OutboxEntry]]:
        for key, value in self._runtime.store.scan(OUTBOX, start):
            yield key, objects_pb2.OutboxEntry.FromString(value)

    def _open_entries(self, start: bytes) -> Iterator[tuple[bytes, objects_pb2.OutboxEntry]]:
        for key, _ in self._runtime.store.scan(OUTBOX_OPEN, start):
            value = self._runtime.store.get(OUTBOX, key)
            if value is not None:
                yield key, objects_pb2.OutboxEntry.FromString(value)

    # ---- out

    def read_object(self, caller: Caller, request: objects_pb2.ReadObjectRequest) -> Ticket:
        row = self._finding.find(request.object)
        if request.offset > row.object.size_bytes:
            raise InvalidRequest.field("offset", f"{request.offset}; the object has {row.object.size_bytes} bytes")
        return ticket_of(self._read(row, request.offset, request.length))

    def _read(self, row: objects_pb2.ObjectRow, offset: int, length: int) -> Flow[Message]:
        """What the stripe at `offset` has of the range: an answer never crosses into the next one."""
        manifest = Manifest.decode(row.object.manifest.signed.body)
        index, within = divmod(offset, manifest.stripe_bytes)
        if index == manifest.stripes:  # the end of an object that fills its last stripe
            return objects_pb2.ReadObjectResponse(size_bytes=manifest.size_bytes)
        stripe, source = yield from self._reading.stripe(
            manifest, self._reading.key_of(row.object.manifest), index, holders_of(row)
        )
        data = stripe[within : within + length] if length else stripe[within:]
        return objects_pb2.ReadObjectResponse(data=data, size_bytes=manifest.size_bytes, read_from=source)

    # ---- for others

    def open_replica(self, caller: Caller, request: objects_pb2.OpenReplicaRequest) -> Ticket:
        return self._replicas.open(caller, request)

    def write_replica(self, caller: Caller, request: objects_pb2.WriteReplicaRequest) -> Ticket:
        return self._replicas.write(caller, request)

    def commit_replica(self, caller: Caller, request: objects_pb2.CommitReplicaRequest) -> Ticket:
        return self._replicas.commit(caller, request)

    def deliver_notices(self, caller: Caller, request: objects_pb2.DeliverNoticesRequest) -> Ticket:
        notices = self._sharing.checked(caller, request)
        for object_id in notices.deleted:
            self._replicas.stop(caller.node_id, object_id)
        return self._runtime.ask("objects", caller.node_id, notices, size_bytes=request.ByteSize())

    def read_replica(self, caller: Caller, request: objects_pb2.ReadReplicaRequest) -> Ticket:
        return self._serving.read(caller, request)

    def compare_inventory(self, caller: Caller, request: objects_pb2.CompareInventoryRequest) -> Ticket:
        return self._inventories.answer(caller, request)

    def report_damage(
        self, caller: Caller, request: objects_pb2.ReportDamageRequest
    ) -> objects_pb2.ReportDamageResponse:
        self._runtime.deliver("objects", DamageReported(caller.node_id))
        return objects_pb2.ReportDamageResponse()

    def name_inventory(self, caller: Caller, request: objects_pb2.NameInventoryRequest) -> Ticket:
        return self._inventories.name(caller, request)
