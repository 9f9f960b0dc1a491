"""Puts in one call: all the plaintext comes at once, and the answer says that it is an object of this node.

What is small is sealed here and now, and its sealed bytes are committed with the object's row: no file, no thread. What
is larger goes the way of uploads, with its one piece.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from google.protobuf.message import Message

from offgrid.event_types import SEMANTIC
from offgrid.plaintext import CHECKSUM_BYTES, checksum_of
from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Fault, InvalidRequest
from offgrid_node.protocol.objects.commands import AddObject, Enqueue
from offgrid_node.protocol.objects.deletion import place_of, was_deleted
from offgrid_node.protocol.objects.manifest import FULL_COPIES, TAG_BYTES, Code
from offgrid_node.protocol.objects.outbox import put_number
from offgrid_node.protocol.objects.sizes import size_class
from offgrid_node.protocol.objects.tables import OBJECT_REQUESTS, OBJECTS, OUTBOX, outbox_key
from offgrid_node.protocol.requests import committed, request_digest
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.caller import Caller
from offgrid_node.services.checks import check_request_id, check_text
from offgrid_node.services.flow import Flow, asked, ticket_of
from offgrid_node.services.objects.codes import NEVER_CODED, CodePolicy, check_code
from offgrid_node.services.objects.notes import note_of
from offgrid_node.services.objects.sealing import Sealer
from offgrid_node.services.objects.sharing import NAME_CHARS_MAX
from offgrid_node.services.objects.uploads import PIECE_BYTES_MAX, Uploads, check_expiry, check_required
from offgrid_node.services.objects.watching import WAIT_MS_MAX, Watching
from offgrid_node.storage.memory_blobs import MemoryBlobs

PUT_BYTES_MAX = ENQUEUE_BYTES_MAX = PIECE_BYTES_MAX


class _Put(msgspec.Struct, frozen=True):
    """What is asked for, checked. `digest` is the request's, `checksum` that of `data` where a repeated put may ask."""

    caller: str
    data: bytes
    request_id: str
    digest: bytes
    required_milli: int
    code: Code = FULL_COPIES
    padded: bool = False
    name: str = ""
    copies: int = 0
    expires_after_ms: int = 0
    checksum: bytes = b""
    enqueue: Enqueue | None = None


class Puts:
    """The handlers of PutObject and Enqueue."""

    def __init__(
        self,
        runtime: Runtime,
        sealer: Sealer,
        bulk: Bulk,
        uploads: Uploads,
        watching: Watching,
        in_rows: Callable[[int], bool] = lambda size_bytes: False,
        coding: CodePolicy = NEVER_CODED,
    ) -> None:
        """`in_rows`: whether so many sealed bytes belong into rows, not files."""
        self._runtime, self._sealer, self._bulk, self._uploads = runtime, sealer, bulk, uploads
        self._watching, self._in_rows, self._coding = watching, in_rows, coding

    def put(self, caller: Caller, request: objects_pb2.PutObjectRequest) -> Ticket:
        check_text("name", request.name, NAME_CHARS_MAX, empty=True)
        check_request_id(request.request_id)
        check_required("required_milli", request.required_milli)
        check_code(request)
        check_expiry(request.expires_after_ms)
        if request.wait_ms > WAIT_MS_MAX:
            text = f"{request.wait_ms}; at most {WAIT_MS_MAX} are allowed, WatchObject tells what comes later"
            raise InvalidRequest.field("wait_ms", text)
        data, checksum = _checked(request)
        put = _Put(
            str(caller),
            data,
            request.request_id,
            _digest(request, checksum),
            request.required_milli,
            self._coding.code_for(request, len(data)),
            self._coding.pads(request),
            request.name,
            request.copies,
            request.expires_after_ms,
            checksum,
        )
        return ticket_of(self._put(put, request.wait_ms))

    def enqueue(self, caller: Caller, request: objects_pb2.EnqueueRequest) -> Ticket:
        check_text("key", request.key, NAME_CHARS_MAX)
        check_request_id(request.request_id)
        check_required("required_acks_milli", request.required_acks_milli)
        data = request.data
        if len(data) > ENQUEUE_BYTES_MAX:
            raise InvalidRequest.field("data", f"{len(data)} bytes; at most {ENQUEUE_BYTES_MAX} are allowed")
        if request.etype not in SEMANTIC:
            raise InvalidRequest.field("etype", f"{request.etype}; {SEMANTIC[0]} to {SEMANTIC[-1]} are allowed")
        digest, enqueue = request_digest(request), Enqueue(request.key, request.etype)
        put = _Put(
            str(caller),
            data,
            request.request_id,
            digest,
            request.required_acks_milli,
            padded=self._coding.padded,
            enqueue=enqueue,
        )
        return ticket_of(self._enqueue(put))

    # ---- flows

    def _put(self, put: _Put, wait_ms: int) -> Flow[Message]:
        row = self._made(put)
        if row is None:
            answer = yield from self._add(put)
            assert isinstance(answer, objects_pb2.CommitUploadResponse)
            row = self._row(answer.object.object_id)
        if wait_ms:
            return objects_pb2.PutObjectResponse(object=(yield self._watching.settled(row, wait_ms)))
        return objects_pb2.PutObjectResponse(object=self._watching.told(row))

    def _enqueue(self, put: _Put) -> Flow[Message]:
        row = self._made(put)
        if row is None:
            return (yield from self._add(put))
        value = self._runtime.store.get(OUTBOX, outbox_key(put_number(row))) or b""
        return objects_pb2.EnqueueResponse(entry=objects_pb2.OutboxEntry.FromString(value))

    def _made(self, put: _Put) -> objects_pb2.ObjectRow | None:
        """What an earlier call with this request id made. Raises AlreadyExists (RequestIdReused), NotFound
        (ObjectDeleted)."""
        made = committed(self._runtime.store, OBJECT_REQUESTS, put.request_id, put.digest)
        return self._row(made) if made else None

    def _row(self, object_id: str) -> objects_pb2.ObjectRow:
        value = self._runtime.store.get(OBJECTS, place_of(self._runtime.store, object_id).encode())
        if value is None:
            raise was_deleted(object_id)
        return objects_pb2.ObjectRow.FromString(value)

    def _add(self, put: _Put) -> Flow[Message]:
        size_bytes = len(put.data)
        if self._in_rows((size_class(size_bytes) if put.padded else size_bytes) + TAG_BYTES):
            return (yield from self._add_row(put))
        sealing = self._sealer.begin(put.code, padded=put.padded)
        sealing.expires_after_ms = put.expires_after_ms
        try:
            yield self._bulk.run(lambda: sealing.add(put.data), key=sealing.staged, size_bytes=size_bytes)
            return (
                yield from self._uploads.add(
                    sealing,
                    put.caller,
                    put.name,
                    put.required_milli,
                    put.request_id,
                    put.digest,
                    put.enqueue,
                    put.checksum,
                    put.copies,
                    for_job=False,
                )
            )
        except Fault:
            self._uploads.drop(sealing)
            raise

    def _add_row(self, put: _Put) -> Flow[Message]:
        """At once, in the runtime's thread: to seal this little takes no longer than to hand it to another one."""
        held = MemoryBlobs()
        sealing = self._sealer.begin(put.code, held, padded=put.padded)
        sealing.expires_after_ms = put.expires_after_ms
        sealing.add(put.data)
        sealing.close()
        said = put.digest if put.request_id else b""
        note = note_of(put.name, put.request_id, said, put.checksum, put.copies, put.enqueue, for_job=False)
        manifest, body = self._sealer.manifest(sealing, note)
        command = AddObject(
            manifest,
            body,
            put.name,
            put.required_milli,
            put.request_id,
            said,
            put.enqueue,
            put.checksum,
            copies=put.copies,
            sealed=held.read(body.object_id, 0, body.sealed_bytes),
            size_bytes=sealing.size_bytes,
        )
        size_bytes = manifest.ByteSize() + body.sealed_bytes
        answer: Message = yield asked(self._runtime.ask("objects", put.caller, command, size_bytes=size_bytes))
        return answer


def _checked(request: objects_pb2.PutObjectRequest) -> tuple[bytes, bytes]:
    """The data and its checksum. Raises InvalidRequest."""
    data = request.data  # protobuf copies it each time it is asked
    if len(data) > PUT_BYTES_MAX:
        text = f"{len(data)} bytes; at most {PUT_BYTES_MAX} are allowed, OpenUpload takes more"
        raise InvalidRequest.field("data", text)
    if len(request.checksum) not in (0, CHECKSUM_BYTES):
        raise InvalidRequest.field("checksum", f"{len(request.checksum)} bytes; it has {CHECKSUM_BYTES}")
    checksum = checksum_of(data)
    if request.checksum and request.checksum != checksum:
        text = f"not that of the {len(data)} bytes that came, {checksum.hex()}; put them again"
        raise InvalidRequest.field("checksum", text)
    return data, checksum


def _digest(request: objects_pb2.PutObjectRequest, checksum: bytes) -> bytes:
    """Whoever repeats a put may wait for another time."""
    said = objects_pb2.PutObjectRequest()
    said.CopyFrom(request)
    said.ClearField("wait_ms")
    said.checksum = checksum
    return request_digest(said)
