# ruff: noqa: N802 - handlers are named as the wire has them
"""A node in small that has objects: uploads in memory, reads in ranges, and acks that come one per look."""

from __future__ import annotations

import time
from collections import deque

import grpc
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
        self.regained: list[objects_pb2.RegainedObject] = []
        self.shared: dict[str, objects_pb2.Object] = {}
        self.damaged: list[str] = []  # ids of objects whose rows are
        self.acking = True
        self.outcomes = [objects_pb2.AUDIT_OUTCOME_WHOLE] * 2
        self.read_bytes = 0
        self.troubles: list[str] = []
        self.key_number = 4
        self.told = deque([objects_pb2.Reencryption()] * 2)  # how far sealing anew is, at each look
        self.rotten: list[objects_pb2.DamagedShard] = []
        self.unread = 0
        self.scrubs: list[objects_pb2.ScrubReplicasRequest] = []
        super().__init__()

    def restart(self) -> None:
        self.uploads.clear()

    def on_PutObject(self, request):
        made = self.objects.get(self.made.get(request.request_id, "")) or self._make(request.data, request.name)
        self.made[request.request_id], made.request_id = made.object_id, request.request_id
        if request.wait_ms:
            self._look(made)
        return objects_pb2.PutObjectResponse(object=made)

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

    def on_AbortUpload(self, request):
        self._upload(request.upload_id)
        del self.uploads[request.upload_id]
        return objects_pb2.AbortUploadResponse()

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
        else:
            self._look(found[-1])
        return objects_pb2.GetObjectResponse(object=made)

    def on_WatchObject(self, request, context):
        (made,) = [o for o in self.objects.values() if request.object in (o.object_id, o.name)]
        while True:
            told = objects_pb2.Object()
            told.CopyFrom(made)
            told.trouble = self.troubles[0] if self.troubles else ""
            del self.troubles[: self.acking or len(self.troubles) > 1]
            yield objects_pb2.WatchObjectResponse(object=told)
            if self.cuts:  # the connection is lost
                self.cuts -= 1
                self._fail(context, grpc.StatusCode.UNAVAILABLE)
            if made.state != ACCEPTED or not context.is_active():
                return
            if (not self.troubles or not self.acking) and not self._look(made):
                time.sleep(0.01)

    def _look(self, made):
        """Whether its acks have come."""
        if self.acking and made.state == ACCEPTED:
            made.state, made.acked_milli = DURABLE, 2_000
            made.acks.add(node_id=NODE_ID, weight_milli=500)
            made.acks.add(node_id=OTHER_ID, weight_milli=1_500)
        return made.state != ACCEPTED

    def on_ListObjects(self, request):
        found = self.shared if request.shared else self.objects
        named = [made for made in found.values() if made.name.startswith(request.name_prefix)]
        objects, token = _page(named, request)
        damaged = [] if request.page_token else self.damaged
        return objects_pb2.ListObjectsResponse(objects=objects, next_page_token=token, damaged=damaged)

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

    def on_GetDataKeys(self, request):
        return objects_pb2.GetDataKeysResponse(
            number=self.key_number, objects_looked_at=7, wraps_written=9,
            reencryption=self.told.popleft() if len(self.told) > 1 else self.told[0],
        )  # fmt: skip

    def on_ReencryptObjects(self, request):
        self.told.popleft()
        return objects_pb2.ReencryptObjectsResponse(reencryption=self.told[0])

    def on_StopReencryption(self, request):
        self.told = deque([self.told[-1]])
        return objects_pb2.StopReencryptionResponse(reencryption=self.told[0])

    def on_RotateDataKeys(self, request):
        self.key_number = request.number + 1
        return objects_pb2.RotateDataKeysResponse(number=self.key_number)

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

    def on_AuditObject(self, request):
        """The hosts that acked, the first whole; a second, when there is one, as `outcome` says."""
        made = self.on_GetObject(objects_pb2.GetObjectRequest(object=request.object)).object
        hosts = [
            objects_pb2.HostAudit(node_id=NODE_ID, outcome=self.outcomes[0], shards=[0, 4]),
            objects_pb2.HostAudit(node_id=OTHER_ID, outcome=self.outcomes[1], reason="what\x1b[2J it says"),
        ]
        made.verified_us = 1_700_000_000_000_000 if {*self.outcomes} == {objects_pb2.AUDIT_OUTCOME_WHOLE} else 0
        return objects_pb2.AuditObjectResponse(hosts=hosts, traffic_bytes=640, read_bytes=self.read_bytes, object=made)

    def on_ScrubReplicas(self, request, context):
        """Two shards of 1 kB, what is `rotten` found in the first."""
        self.scrubs.append(request)
        answer = objects_pb2.ScrubReplicasResponse
        yield answer(total_bytes=2_000)
        yield answer(read_bytes=1_000, total_bytes=2_000, shards=1, damaged=self.rotten, damaged_total=len(self.rotten))
        yield answer(
            read_bytes=2_000, total_bytes=2_000, shards=2, damaged_total=len(self.rotten), unread_total=self.unread,
            done=True,
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

    def on_ListRegained(self, request):
        page, token = _page(self.regained, request)
        return objects_pb2.ListRegainedResponse(objects=page, next_page_token=token)

    def on_ReadObject(self, request):
        data = self.held[request.object]
        end = min(request.offset + request.length, request.offset - request.offset % STRIPE + STRIPE)
        return objects_pb2.ReadObjectResponse(data=data[request.offset : end], size_bytes=len(data))

    def _make(self, data: bytes, name: str) -> objects_pb2.Object:
        number = len(self.held)
        object_id = f"o-{number + 1}"
        self.held[object_id] = data
        self.objects[object_id] = made = objects_pb2.Object(
            object_id=object_id, name=name, size_bytes=len(data), state=ACCEPTED, required_milli=2_000, owner=NODE_ID,
            local=True, created_us=1_700_000_000_000_000 + number,
        )  # fmt: skip
        return made

    def _upload(self, upload_id: str) -> bytearray:
        if upload_id not in self.uploads:
            raise NotFound("open it again", reason="UploadNotFound")
        return self.uploads[upload_id]
