"""Handlers of ObjectService: what an owner puts, lists and reads, and what owner and hosts say to each other.

Questions are answered from committed rows. `puts.py` and `uploads.py` have the way in, `reading.py` the way back,
`replicas.py` and `small_replicas.py` what a host keeps for others, `serving.py` what it gives of that.
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import Message

from offgrid.pieces import Piece
from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import FailedPrecondition, InvalidRequest
from offgrid_node.protocol.objects.commands import CancelEntry, ChangeReported, DeleteObject
from offgrid_node.protocol.objects.manifest import OBJECT_ID, Manifest
from offgrid_node.protocol.objects.risks import Risk
from offgrid_node.protocol.objects.segments import is_segment
from offgrid_node.protocol.objects.tables import (
    DELETED,
    OBJECTS,
    OUTBOX,
    OUTBOX_OPEN,
    REGAINED,
    missing_key,
)
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.caller import Caller
from offgrid_node.services.checks import check_text
from offgrid_node.services.flow import Flow, asked, ticket_of
from offgrid_node.services.objects.auditing import Auditing
from offgrid_node.services.objects.capacity import Capacity
from offgrid_node.services.objects.combining import Combining
from offgrid_node.services.objects.finding import Finding
from offgrid_node.services.objects.holders import holders_of
from offgrid_node.services.objects.inventories import Inventories
from offgrid_node.services.objects.placing import Placing
from offgrid_node.services.objects.proving import Proving
from offgrid_node.services.objects.pulling import Pulling
from offgrid_node.services.objects.puts import Puts
from offgrid_node.services.objects.reading import Reading
from offgrid_node.services.objects.replicas import Replicas
from offgrid_node.services.objects.resealing import Resealing
from offgrid_node.services.objects.rewrapping import Rewrapping
from offgrid_node.services.objects.scrub_now import ScrubNow
from offgrid_node.services.objects.segments import Segments
from offgrid_node.services.objects.serving import Serving
from offgrid_node.services.objects.sharing import NAME_CHARS_MAX, Sharing
from offgrid_node.services.objects.small_replicas import SmallReplicas
from offgrid_node.services.objects.uploads import Uploads
from offgrid_node.services.objects.uses import user_of
from offgrid_node.services.objects.watching import Watching
from offgrid_node.services.paging import decode_token, take_page
from offgrid_node.services.shelf import Shelf
from offgrid_node.services.stream import Stream


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
        auditing: Auditing,
        proving: Proving,
        rewrapping: Rewrapping,
        combining: Combining,
        pulling: Pulling,
        puts: Puts,
        watching: Watching,
        small: SmallReplicas,
        segments: Segments,
        scrub_now: ScrubNow,
        resealing: Resealing,
    ) -> None:
        self._runtime, self._shelf = runtime, Shelf(runtime.store)
        self._uploads, self._reading, self._replicas, self._serving = uploads, reading, replicas, serving
        self._sharing, self._finding = sharing, Finding(runtime.store, sharing)
        self._bulk, self._capacity, self._inventories = bulk, capacity, inventories
        self._placing, self._auditing, self._proving = placing, auditing, proving
        self._rewrapping, self._resealing = rewrapping, resealing
        self._combining, self._pulling = combining, pulling
        self._puts, self._watching, self._small = puts, watching, small
        self._segments, self._scrub_now = segments, scrub_now

    def get_capacity(self, caller: Caller, request: objects_pb2.GetCapacityRequest) -> Ticket:
        return ticket_of(self._capacity.answer(caller))

    def explain_placement(
        self, caller: Caller, request: objects_pb2.ExplainPlacementRequest
    ) -> objects_pb2.ExplainPlacementResponse:
        return self._placing.explain(request, self._finding.own(request.object) if request.object else None)

    # ---- in

    def put_object(self, caller: Caller, request: objects_pb2.PutObjectRequest) -> Ticket:
        return self._puts.put(caller, request)

    def open_upload(self, caller: Caller, request: objects_pb2.OpenUploadRequest) -> Message:
        return self._uploads.open(caller, request)

    def write_upload(self, caller: Caller, request: objects_pb2.WriteUploadRequest) -> Ticket:
        return self._uploads.write(caller, request)

    def commit_upload(self, caller: Caller, request: objects_pb2.CommitUploadRequest) -> Ticket:
        return self._uploads.commit(caller, request)

    def abort_upload(self, caller: Caller, request: objects_pb2.AbortUploadRequest) -> Message:
        return self._uploads.abort(caller, request)

    def enqueue(self, caller: Caller, request: objects_pb2.EnqueueRequest) -> Ticket:
        return self._puts.enqueue(caller, request)

    # ---- what there is

    def get_object(self, caller: Caller, request: objects_pb2.GetObjectRequest) -> objects_pb2.GetObjectResponse:
        return objects_pb2.GetObjectResponse(object=self._watching.told(self._finding.find(request.object)))

    def watch_object(self, caller: Caller, request: objects_pb2.WatchObjectRequest) -> Stream:
        return self._watching.watch(self._finding.own(request.object))

    def list_objects(self, caller: Caller, request: objects_pb2.ListObjectsRequest) -> objects_pb2.ListObjectsResponse:
        check_text("name_prefix", request.name_prefix, NAME_CHARS_MAX, empty=True)
        damaged = list[bytes]()
        if request.shared:
            found = self._sharing.sound_rows(decode_token(request.page_token), damaged)
        else:
            found = self._shelf.sound_rows(OBJECTS, objects_pb2.ObjectRow, request.page_token, damaged)
        wanted = ((key, row if self._is_wanted(row, request) else None) for key, row in found)
        rows, token = take_page(wanted, request.page_size)
        objects = [self._watching.told(self._sharing.opened(row) if request.shared else row) for row in rows]
        names = [key.decode(errors="replace") for key in damaged]
        return objects_pb2.ListObjectsResponse(objects=objects, next_page_token=token, damaged=names)

    def _is_wanted(self, row: objects_pb2.ObjectRow, request: objects_pb2.ListObjectsRequest) -> bool:
        return _is_listed(row, request.name_prefix) and (
            not request.endangered_only or self._watching.risk(row) >= Risk.AT_RISK
        )

    def delete_object(self, caller: Caller, request: objects_pb2.DeleteObjectRequest) -> Message | Ticket:
        mark = self._shelf.find(DELETED, objects_pb2.Deletion, self._shelf.place_of(request.object))
        if mark is not None:
            return objects_pb2.DeleteObjectResponse(deletion=mark)
        if OBJECT_ID.match(request.object) and self._runtime.store.get(REGAINED, missing_key(request.object)):
            return self._runtime.ask("objects", str(caller), DeleteObject(request.object))
        made = self._finding.own(request.object).object
        if is_segment(made.manifest):
            text = f"{made.object_id} is a segment of this node's journal, without which the node could not be restored"
            raise FailedPrecondition(text, reason="JournalSegment", metadata={"object": made.object_id})
        return ticket_of(self._delete(made, str(caller)))

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
        wanted = ((key, mark if _is_told(mark, untold_only=request.untold_only) else None) for key, mark in rows)
        marks, token = take_page(wanted, request.page_size)
        return objects_pb2.ListDeletionsResponse(deletions=marks, next_page_token=token)

    def list_regained(
        self, caller: Caller, request: objects_pb2.ListRegainedRequest
    ) -> objects_pb2.ListRegainedResponse:
        found = self._shelf.rows(REGAINED, objects_pb2.RegainedObject, request.page_token)
        rows, token = take_page(found, request.page_size)
        for each in rows:
            if (row := self._shelf.find(OBJECTS, objects_pb2.ObjectRow, each.object_id)) is not None:
                each.object.CopyFrom(self._watching.told(row))
        return objects_pb2.ListRegainedResponse(objects=rows, next_page_token=token)

    def share_object(self, caller: Caller, request: objects_pb2.ShareObjectRequest) -> Ticket:
        return self._sharing.share(self._finding.own(request.object).object, request.node, str(caller))

    def unshare_object(self, caller: Caller, request: objects_pb2.UnshareObjectRequest) -> Ticket:
        return self._sharing.unshare(self._finding.own(request.object).object, request.node, str(caller))

    def rotate_data_keys(self, caller: Caller, request: objects_pb2.RotateDataKeysRequest) -> Ticket:
        return self._rewrapping.rotate(str(caller), request.number)

    def get_data_keys(self, caller: Caller, request: objects_pb2.GetDataKeysRequest) -> Message:
        return self._rewrapping.how_far(self._resealing.told())

    def reencrypt_objects(self, caller: Caller, request: objects_pb2.ReencryptObjectsRequest) -> Ticket:
        return self._resealing.begin(str(caller))

    def stop_reencryption(self, caller: Caller, request: objects_pb2.StopReencryptionRequest) -> Ticket:
        return self._resealing.stop(str(caller))

    def audit_object(self, caller: Caller, request: objects_pb2.AuditObjectRequest) -> Ticket:
        return ticket_of(self._auditing.now(str(caller), self._finding.own(request.object)))

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
        manifest, size_bytes = Manifest.decode(row.object.manifest.signed.body), row.object.size_bytes
        index, within = divmod(offset, manifest.stripe_bytes)
        if 0 < offset == size_bytes:
            return objects_pb2.ReadObjectResponse(size_bytes=size_bytes)
        stripe, source = yield from self._reading.stripe(
            manifest, self._reading.key_of(row.object.manifest), index, holders_of(row)
        )
        view = memoryview(stripe)[: size_bytes - index * manifest.stripe_bytes]  # zeros may fill it up
        data = view[within : within + length] if length else view[within:]
        return Piece(objects_pb2.ReadObjectResponse(size_bytes=size_bytes, read_from=source), data)

    # ---- for others

    def put_replica(self, caller: Caller, request: objects_pb2.PutReplicaRequest) -> Ticket:
        return self._small.put(caller, request)

    def open_replica(self, caller: Caller, request: objects_pb2.OpenReplicaRequest) -> Ticket:
        return self._replicas.open(caller, request)

    def write_replica(self, caller: Caller, request: objects_pb2.WriteReplicaRequest) -> Ticket:
        return self._replicas.write(caller, request)

    def commit_replica(self, caller: Caller, request: objects_pb2.CommitReplicaRequest) -> Ticket:
        return self._replicas.commit(caller, request)

    def rebuild_replica(self, caller: Caller, request: objects_pb2.RebuildReplicaRequest) -> Ticket:
        return self._pulling.rebuild(caller, request)

    def combine_rows(self, caller: Caller, request: objects_pb2.CombineRowsRequest) -> Ticket:
        return self._combining.combine(caller, request)

    def deliver_notices(self, caller: Caller, request: objects_pb2.DeliverNoticesRequest) -> Ticket:
        notices = self._sharing.checked(caller, request)
        for object_id in notices.deleted:
            self._replicas.admission.stop(caller.node_id, object_id)
        return self._runtime.ask("objects", caller.node_id, notices, size_bytes=request.ByteSize())

    def read_replica(self, caller: Caller, request: objects_pb2.ReadReplicaRequest) -> Ticket:
        return self._serving.read(caller, request)

    def compare_inventory(self, caller: Caller, request: objects_pb2.CompareInventoryRequest) -> Ticket:
        return self._inventories.answer(caller, request)

    def report_change(
        self, caller: Caller, request: objects_pb2.ReportChangeRequest
    ) -> objects_pb2.ReportChangeResponse:
        self._runtime.deliver("objects", ChangeReported(caller.node_id))
        return objects_pb2.ReportChangeResponse()

    def name_inventory(self, caller: Caller, request: objects_pb2.NameInventoryRequest) -> Ticket:
        return self._inventories.name(caller, request)

    def show_replica(self, caller: Caller, request: objects_pb2.ShowReplicaRequest) -> Ticket:
        return self._serving.show(caller, request)

    def audit_replicas(self, caller: Caller, request: objects_pb2.AuditReplicasRequest) -> Ticket:
        return self._proving.answer(caller, request)

    def scrub_replicas(self, caller: Caller, request: objects_pb2.ScrubReplicasRequest) -> Stream:
        return self._scrub_now.begin(request)

    def list_segments(
        self, caller: Caller, request: objects_pb2.ListSegmentsRequest
    ) -> objects_pb2.ListSegmentsResponse:
        return self._segments.list(caller, request)

    def begin_life(self, caller: Caller, request: objects_pb2.BeginLifeRequest) -> Ticket:
        return self._segments.begin_life(caller, request)


def _is_told(mark: objects_pb2.Deletion, *, untold_only: bool) -> bool:
    """Segments of the journal go by themselves, and are nobody's affair."""
    return not mark.is_segment and (bool(mark.untold) or not untold_only)


def _is_listed(row: objects_pb2.ObjectRow, name_prefix: str) -> bool:
    """Segments of the journal, and what has not taken its place yet, are the node's own affair."""
    made = row.object
    return made.name.startswith(name_prefix) and not row.replaces and not is_segment(made.manifest)
