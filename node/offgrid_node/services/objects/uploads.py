"""What an owner puts: plaintext comes in, is sealed on its way to the disk, and becomes an object of this node.

An upload lives in memory: its key is nowhere else until the object is committed, so a node that restarts has lost what
was under way, and the same request id begins again at 0. What is committed is found again by its request id. Whose
place and bytes go, and when, is `under_way.py`'s.
"""

from __future__ import annotations

from functools import partial

from google.protobuf.message import Message

from offgrid.plaintext import CHECKSUM_BYTES
from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import (
    AlreadyExists,
    FailedPrecondition,
    Fault,
    InvalidRequest,
)
from offgrid_node.protocol.mesh.records import WEIGHT_MILLI_MAX
from offgrid_node.protocol.objects.commands import AddObject, Enqueue
from offgrid_node.protocol.objects.deletion import was_deleted
from offgrid_node.protocol.objects.tables import OBJECT_REQUESTS, OBJECTS
from offgrid_node.protocol.quorum.enough import decimal
from offgrid_node.protocol.requests import committed, request_digest
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.caller import Caller
from offgrid_node.services.checks import check_request_id, check_text
from offgrid_node.services.flow import Flow, Later, asked, ticket_of
from offgrid_node.services.objects.codes import NEVER_CODED, CodePolicy, check_code
from offgrid_node.services.objects.keeping import Keeping
from offgrid_node.services.objects.notes import note_of
from offgrid_node.services.objects.sealing import Sealer, Sealing
from offgrid_node.services.objects.sharing import NAME_CHARS_MAX
from offgrid_node.services.objects.under_way import UnderWay, Upload
from offgrid_node.services.shelf import Shelf

LOOK_MS = 60_000  # while one is under way: whether it was left
PIECE_BYTES_MAX = 1024 * 1024  # far below gRPC's 4 MiB message
EXPIRES_AFTER_MS_MAX = 100 * 366 * 86_400_000
REFUSALS = frozenset({"OutboxFull", "RequestIdReused"})  # of the objects machine; all else may end well another time


class Uploads:
    """The handlers of OpenUpload, WriteUpload, CommitUpload and AbortUpload; `puts.py` has what comes in one call."""

    def __init__(
        self,
        runtime: Runtime,
        sealer: Sealer,
        bulk: Bulk,
        keeping: Keeping,
        later: Later,
        coding: CodePolicy = NEVER_CODED,
    ) -> None:
        self._coding, self._later = coding, later
        self._runtime, self._sealer, self._bulk, self._keeping = runtime, sealer, bulk, keeping
        self._shelf = Shelf(runtime.store)
        self._under_way, self._looks = UnderWay(), False

    # ---- in pieces

    def open(self, caller: Caller, request: objects_pb2.OpenUploadRequest) -> Message:
        check_text("name", request.name, NAME_CHARS_MAX, empty=True)
        check_request_id(request.request_id)
        check_required("required_milli", request.required_milli)
        check_code(request)
        check_expiry(request.expires_after_ms)
        upload = self._known(request) or self._begin(request)
        return objects_pb2.OpenUploadResponse(
            upload_id=upload.upload_id, offset=upload.size_bytes, piece_bytes_max=PIECE_BYTES_MAX
        )

    def write(self, caller: Caller, request: objects_pb2.WriteUploadRequest) -> Ticket:
        upload = self._get(request.upload_id)
        data = request.data  # protobuf copies it each time it is asked
        if len(data) > PIECE_BYTES_MAX:
            raise InvalidRequest.field("data", f"{len(data)} bytes; at most {PIECE_BYTES_MAX} are allowed")
        return ticket_of(self._working(upload, self._write(upload, request.offset, data)))

    def commit(self, caller: Caller, request: objects_pb2.CommitUploadRequest) -> Ticket:
        upload = self._get(request.upload_id)
        if len(request.checksum) not in (0, CHECKSUM_BYTES):
            raise InvalidRequest.field("checksum", f"{len(request.checksum)} bytes; it has {CHECKSUM_BYTES}")
        if upload.shared and not request.checksum:
            text = "missing; who opens what an earlier call began says the checksum of all the bytes"
            raise InvalidRequest.field("checksum", text)
        commit = self._commit(upload, request.size_bytes, request.checksum, str(caller))
        return ticket_of(self._working(upload, commit))

    def abort(self, caller: Caller, request: objects_pb2.AbortUploadRequest) -> Message:
        """Its place is free and its bytes go. What is being committed just now may become an object all the same."""
        upload = self._get(request.upload_id)
        if upload.object_id:
            text = f"the upload has made {upload.object_id}; delete that"
            raise FailedPrecondition(text, reason="UploadCommitted", metadata={"object": upload.object_id})
        self._forget(upload)
        return objects_pb2.AbortUploadResponse()

    def _known(self, request: objects_pb2.OpenUploadRequest) -> Upload | None:
        """What the same request id began: under way here, or committed. Raises AlreadyExists (RequestIdReused) when
        that was something else."""
        if not request.request_id:
            return None
        upload = self._under_way.named(request.request_id)
        if upload is not None:
            if upload.request != request:
                raise _reused(request.request_id, "began a put of another name, weight or size")
            if upload.object_id:
                self._made(upload.object_id)  # unless that has been deleted
            upload.shared = True
            return self._get(upload.upload_id)
        object_id = committed(self._runtime.store, OBJECT_REQUESTS, request.request_id, request_digest(request))
        if not object_id:
            return None
        row = self._made(object_id)
        upload = self._remember(request)
        upload.object_id, upload.size_bytes, upload.shared = object_id, row.object.size_bytes, True
        return upload

    def _made(self, object_id: str) -> objects_pb2.ObjectRow:
        """What an earlier call made. Raises NotFound (ObjectDeleted)."""
        row = self._shelf.find(OBJECTS, objects_pb2.ObjectRow, self._shelf.place_of(object_id))
        if row is None:
            raise was_deleted(object_id)
        return row

    def _begin(self, request: objects_pb2.OpenUploadRequest) -> Upload:
        upload = self._remember(request)
        code, padded = self._coding.code_for(request, request.size_bytes), self._coding.pads(request)
        upload.sealing = self._sealer.begin(code, padded=padded)
        upload.sealing.expires_after_ms = request.expires_after_ms
        self._look_later()
        return upload

    def _remember(self, request: objects_pb2.OpenUploadRequest) -> Upload:
        upload = Upload(self._sealer.fresh_id(), request, self._now_ms())
        left = self._under_way.add(upload)
        if left is not None:
            self._forget(left)
        return upload

    def _look_later(self) -> None:
        if not self._looks and self._under_way.open:
            self._looks = True
            self._later(LOOK_MS, self._look)

    def _look(self) -> None:
        for left in self._under_way.left(self._now_ms()):
            self._forget(left)
        self._looks = False
        self._look_later()

    def _working(self, upload: Upload, flow: Flow[Message]) -> Flow[Message]:
        """Until it ends the upload stays, however long that takes."""
        upload.working += 1
        try:
            return (yield from flow)
        finally:
            upload.working -= 1
            upload.used_ms = self._now_ms()

    def _write(self, upload: Upload, offset: int, data: bytes) -> Flow[Message]:
        sealing = upload.sealing
        if offset + len(data) <= upload.size_bytes:
            return objects_pb2.WriteUploadResponse(offset=upload.size_bytes)
        if sealing is None:
            raise _reused(upload.request.request_id, f"made {upload.object_id} of {upload.size_bytes} bytes")

        def add() -> int:
            size = sealing.size_bytes
            if offset > size:
                raise FailedPrecondition(
                    f"the upload has {size} bytes, a piece at {offset} would leave a gap",
                    reason="Gap",
                    metadata={"offset": str(size)},
                )
            fresh = data[size - offset :]
            end = sealing.add(fresh)
            upload.plaintext.update(fresh)
            return end

        try:
            upload.size_bytes = yield self._bulk.run(add, key=sealing.staged, size_bytes=len(data))
        except Fault:
            if sealing.broken:
                self._forget(upload)
            raise
        return objects_pb2.WriteUploadResponse(offset=upload.size_bytes)

    def _commit(self, upload: Upload, size_bytes: int, said: bytes, caller: str) -> Flow[Message]:
        """`said` is the checksum of the plaintext, or nothing. Bytes of two clients under one request id become no
        object: neither checksum is theirs, and both must begin anew."""
        sealing, request = upload.sealing, upload.request
        if size_bytes != upload.size_bytes:
            have = f"{size_bytes} were said, {upload.size_bytes} are here"
            if upload.shared:
                raise _reused(request.request_id, f"began another put: {have}")
            raise InvalidRequest.field("size_bytes", have)
        if sealing is None:
            row = self._made(upload.object_id)
            if said and row.checksum and said != row.checksum:
                raise _reused(request.request_id, f"made {upload.object_id} of other bytes")
            return objects_pb2.CommitUploadResponse(object=row.object)
        try:
            close = partial(sealing.close, self._coding.code_for(request, size_bytes))
            yield self._bulk.run(close, key=sealing.staged)  # what another client still sends comes too late
            checksum = upload.plaintext.value()
            if sealing.size_bytes != size_bytes or (said and said != checksum):
                raise self._other_bytes(upload, checksum)
            answer = yield from self.add(
                sealing,
                caller,
                request.name,
                request.required_milli,
                request.request_id,
                request_digest(request),
                None,
                checksum,
                request.copies,
                for_job=False,
            )
        except Fault as fault:
            if sealing.broken or fault.reason in REFUSALS:
                self._forget(upload)
            raise  # else it may be committed again as it is
        assert isinstance(answer, objects_pb2.CommitUploadResponse)
        upload.sealing, upload.object_id = None, answer.object.object_id
        return answer

    def _other_bytes(self, upload: Upload, checksum: bytes) -> Fault:
        """The upload is given up: whoever puts it again begins anew."""
        self._forget(upload)
        if upload.shared:
            return _reused(upload.request.request_id, "began a put of other bytes, which is given up")
        text = f"not that of the {upload.size_bytes} bytes that came, {checksum.hex()}; put them again"
        return InvalidRequest.field("checksum", text)

    # ---- whatever is to become an object

    def add(
        self,
        sealing: Sealing,
        caller: str,
        name: str,
        required_milli: int,
        request_id: str,
        digest: bytes,
        enqueue: Enqueue | None,
        plaintext: bytes = b"",
        copies: int = 0,
        *,
        for_job: bool = True,
        replaces: str = "",
    ) -> Flow[Message]:
        """The sealing's bytes made durable, then its row; safe to repeat. What an earlier call made is answered in its
        place where there was one. `digest` is the request's, `plaintext` that of the bytes where it is known;
        `for_job`: nobody put it, a job needs it; `replaces`: what is sealed anew."""
        yield self._bulk.run(sealing.close, key=sealing.staged)
        with self._keeping.vouch(sealing.object_id):  # a repeated call may be refused meanwhile, and drop it
            yield self._bulk.run(sealing.close, key=sealing.staged)
            said = digest if request_id else b""
            note = note_of(name, request_id, said, plaintext, copies, enqueue, for_job=for_job, replaces=replaces)
            manifest, body = self._sealer.manifest(sealing, note)
            command = AddObject(
                manifest,
                body,
                name,
                required_milli,
                request_id,
                said,
                enqueue,
                plaintext,
                for_job,
                copies,
                size_bytes=sealing.size_bytes,
                replaces=replaces,
            )
            ticket = self._runtime.ask("objects", caller, command, size_bytes=manifest.ByteSize())
            answer: objects_pb2.EnqueueResponse | objects_pb2.CommitUploadResponse = yield asked(ticket)
        made = answer.entry if isinstance(answer, objects_pb2.EnqueueResponse) else answer.object
        if made.object_id != body.object_id:
            self.drop(sealing)
        return answer

    def drop(self, sealing: Sealing) -> None:
        """Deletes the sealing's bytes, unless a row names them after all. What cannot be asked now is swept at the next
        start."""

        def discarded(outcome: Fault | None) -> None:
            if sealing.roots:
                self._keeping.drop(sealing.object_id)

        self._bulk.run(sealing.discard, key=sealing.staged)(discarded)

    def _forget(self, upload: Upload) -> None:
        self._under_way.remove(upload)
        if upload.sealing is not None:
            self.drop(upload.sealing)

    def _get(self, upload_id: str) -> Upload:
        return self._under_way.use(upload_id, self._now_ms())

    def _now_ms(self) -> int:
        return self._runtime.clock.now().mono_ms


def check_required(field: str, required_milli: int) -> None:
    """Hosts that weigh so much may still come; above what a weight may be, nobody means it."""
    if required_milli > WEIGHT_MILLI_MAX:
        text = f"{decimal(required_milli)}; at most {decimal(WEIGHT_MILLI_MAX)} may be required"
        raise InvalidRequest.field(field, text)


def check_expiry(expires_after_ms: int) -> None:
    if expires_after_ms > EXPIRES_AFTER_MS_MAX:
        text = f"{expires_after_ms}; at most {EXPIRES_AFTER_MS_MAX} (100 years) are allowed, and 0 is never"
        raise InvalidRequest.field("expires_after_ms", text)


def _reused(request_id: str, what: str) -> AlreadyExists:
    return AlreadyExists(
        f"request_id {request_id!r} {what}; take a new one",
        reason="RequestIdReused",
        metadata={"request_id": request_id},
    )
