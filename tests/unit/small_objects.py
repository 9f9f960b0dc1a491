# ruff: noqa: N802 - handlers are named as the wire has them
"""A node in small that has objects: uploads in memory, reads in ranges, and acks that come one per look."""

from __future__ import annotations

from small_node import NODE_ID, OTHER_ID, SmallNode, _page

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import FailedPrecondition, NotFound

PIECE, STRIPE = 4, 6
ACCEPTED, DURABLE = objects_pb2.OBJECT_STATE_ACCEPTED, objects_pb2.OBJECT_STATE_DURABLE


class ObjectNode(SmallNode):
    """`required_milli` of acks come at the second look at an object, once each of `troubles` was told of; `restart`
    loses what was under way."""

    def __init__(self) -> None:
        self.uploads: dict[str, bytearray] = {}
        self.names: dict[str, str] = {}
        self.held: dict[str, bytes] = {}
        self.objects: dict[str, objects_pb2.Object] = {}
        self.entries: list[objects_pb2.OutboxEntry] = []
        self.deletions: list[objects_pb2.Deletion] = []
        self.shared: dict[str, objects_pb2.Object] = {}
        self.acking = True
        self.troubles: list[str] = []
        super().__init__()

    def restart(self) -> None:
        self.uploads.clear()

    def on_OpenUpload(self, request):
        made = self.made.get(request.request_id)
        if made is not None:
            self.uploads[f"u-{made}"] = bytearray(self.held[made])
            return objects_pb2.OpenUploadResponse(
                upload_id=f"u-{made}", offset=len(self.held[made]), piece_bytes_max=PIECE
            )
        upload_id = f"u-{request.request_id}"
        self.names[upload_id] = request.name
        data = self.uploads.setdefault(upload_id, bytearray())
        return objects_pb2.OpenUploadResponse(upload_id=upload_id, offset=len(data), piece_bytes_max=PIECE)

    def on_WriteUpload(self, request):
        data = self._upload(request.upload_id)
        if request.offset > len(data):
            raise FailedPrecondition("a gap", reason="Gap")
        data[request.offset :] = request.data
        return objects_pb2.WriteUploadResponse(offset=len(data))

    def on_CommitUpload(self, request):
        data = bytes(self._upload(request.upload_id))
        assert len(data) == request.size_bytes
        name = request.upload_id.removeprefix("u-")
        if name in self.objects:
            return objects_pb2.CommitUploadResponse(object=self.objects[name])
        made = self._make(data, self.names[request.upload_id])
        self.made[name] = made.object_id
        return objects_pb2.CommitUploadResponse(object=made)

    def on_Enqueue(self, request):
        made = self._make(request.data, "")
        entry = objects_pb2.OutboxEntry(
            id=len(self.entries) + 1, key=request.key, etype=request.etype, object_id=made.object_id,
            status=objects_pb2.OUTBOX_STATUS_PENDING, required_milli=request.required_acks_milli, tries=2,
            trouble="no host is there",
        )  # fmt: skip
        self.entries.append(entry)
        return objects_pb2.EnqueueResponse(entry=entry)

    def on_GetObject(self, request):
        found = [o for o in self.objects.values() if request.object in (o.object_id, o.name)]
        if not found:
            raise NotFound(f"there is no object {request.object}", reason="ObjectNotFound")
        made = objects_pb2.Object()
        made.CopyFrom(found[-1])
        if self.troubles:
            made.trouble = self.troubles.pop(0)
        elif self.acking and found[-1].state == ACCEPTED:
            found[-1].state, found[-1].acked_milli = DURABLE, 2_000
            found[-1].acks.add(node_id=NODE_ID, weight_milli=500)
            found[-1].acks.add(node_id=OTHER_ID, weight_milli=1_500)
        return objects_pb2.GetObjectResponse(object=made)

    def on_ListObjects(self, request):
        found = self.shared if request.shared else self.objects
        named = [made for made in found.values() if made.name.startswith(request.name_prefix)]
        objects, token = _page(named, request)
        return objects_pb2.ListObjectsResponse(objects=objects, next_page_token=token)

    def on_ListOutbox(self, request):
        entries, token = _page(self.entries, request)
        return objects_pb2.ListOutboxResponse(entries=entries, next_page_token=token)

    def on_CancelOutboxEntry(self, request):
        entry = self.entries[request.id - 1]
        entry.status = objects_pb2.OUTBOX_STATUS_CANCELLED
        self.objects[entry.object_id].state = objects_pb2.OBJECT_STATE_LOCAL
        return objects_pb2.CancelOutboxEntryResponse(entry=entry)

    def on_ShareObject(self, request):
        made = self.on_GetObject(objects_pb2.GetObjectRequest(object=request.object)).object
        self.objects[made.object_id].manifest.wraps.add(node_id=OTHER_ID)
        return objects_pb2.ShareObjectResponse(object=self.objects[made.object_id])

    def on_UnshareObject(self, request):
        made = self.on_GetObject(objects_pb2.GetObjectRequest(object=request.object)).object
        self.objects[made.object_id].ClearField("manifest")
        return objects_pb2.UnshareObjectResponse(object=self.objects[made.object_id])

    def on_ExplainPlacement(self, request):
        said = [
            objects_pb2.PlacementVerdict(
                node_id=NODE_ID, name="attic", failure_domain="home", weight_milli=1_000, alive=True,
                outcome=objects_pb2.PLACEMENT_OUTCOME_GETS, gets=range(8), room_bytes=5_000_000, round_trip_ms=12,
                bytes_per_s=3_000_000, reason="in domain home, with 8 of 20 shards; 5000000 bytes free for this node",
            ),
            objects_pb2.PlacementVerdict(
                node_id=OTHER_ID, outcome=objects_pb2.PLACEMENT_OUTCOME_NOT_ALIVE, holds=[9], reason="not alive"
            ),
        ]  # fmt: skip
        return objects_pb2.ExplainPlacementResponse(
            object_id=request.object, code=request.code, copies=request.copies, part_bytes=request.size_bytes,
            policy=request.policy, hosts=said, unplaced=11, hosts_left_out=3,
        )  # fmt: skip

    def on_DeleteObject(self, request):
        found = [o for o in self.objects.values() if request.object in (o.object_id, o.name)]
        if not found:
            raise NotFound(f"there is no object {request.object}", reason="ObjectNotFound")
        made = self.objects.pop(found[-1].object_id)
        mark = objects_pb2.Deletion(
            object_id=made.object_id, name=made.name, size_bytes=made.size_bytes, deleted_us=made.created_us,
            untold=[NODE_ID, OTHER_ID],
        )  # fmt: skip
        self.deletions.append(mark)
        return objects_pb2.DeleteObjectResponse(deletion=mark)

    def on_ListDeletions(self, request):
        marks = [mark for mark in self.deletions if mark.untold or not request.untold_only]
        page, token = _page(marks, request)
        return objects_pb2.ListDeletionsResponse(deletions=page, next_page_token=token)

    def on_ReadObject(self, request):
        data = self.held[request.object]
        end = min(request.offset + request.length, request.offset - request.offset % STRIPE + STRIPE)
        return objects_pb2.ReadObjectResponse(data=data[request.offset : end], size_bytes=len(data))

    def _make(self, data: bytes, name: str) -> objects_pb2.Object:
        object_id = f"o-{len(self.objects) + 1}"
        self.held[object_id] = data
        self.objects[object_id] = made = objects_pb2.Object(
            object_id=object_id, name=name, size_bytes=len(data), state=ACCEPTED, required_milli=2_000, owner=NODE_ID,
            local=True, created_us=1_700_000_000_000_000,
        )  # fmt: skip
        return made

    def _upload(self, upload_id: str) -> bytearray:
        if upload_id not in self.uploads:
            raise NotFound("open it again", reason="UploadNotFound")
        return self.uploads[upload_id]
