"""How things are put: in one call where they are small, or piece by piece, begun anew whenever the node no longer knows
the upload."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from google.protobuf.message import Message

from offgrid.plaintext import checksum_of
from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Exhausted, Fault, OutcomeUnknown, Unavailable
from offgrid_tools.sim.process import STRIPE_BYTES

if TYPE_CHECKING:
    from offgrid_tools.sim.users.objects import ObjectUser, Thing

PUT_BYTES_MAX = STRIPE_BYTES  # in one call; a client would bring more so
PIECE_BYTES_MAX = 700  # no divisor of a stripe: pieces and stripes are two things


class Put:
    """One put in one call."""

    def __init__(self, person: ObjectUser, thing: Thing) -> None:
        self._person, self._thing, self._request_id = person, thing, thing.request_id

    def put(self) -> None:
        thing = self._thing
        request = objects_pb2.PutObjectRequest(
            name=thing.request_id,
            data=thing.data,
            required_milli=thing.required_milli,
            request_id=thing.request_id,
            expires_after_ms=thing.expires_after_ms,
        )
        if thing.is_coded:
            request.code.needed, request.code.total = thing.code
        self._person.call("ObjectService/PutObject", request, self._on_put, self._person.gone(thing))

    def _on_put(self, reply: Message) -> None:
        assert isinstance(reply, objects_pb2.PutObjectResponse)
        self._person.on_kept(self._thing, reply.object.object_id, self._request_id)


class Upload:
    """One put, from its opening on; begins anew whenever the node no longer knows the upload."""

    def __init__(self, person: ObjectUser, thing: Thing) -> None:
        self._person, self._thing, self._request_id = person, thing, thing.request_id

    def open(self) -> None:
        request = objects_pb2.OpenUploadRequest(
            name=self._request_id,
            required_milli=self._thing.required_milli,
            request_id=self._request_id,
            expires_after_ms=self._thing.expires_after_ms,
        )
        if self._thing.is_coded:
            request.code.needed, request.code.total = self._thing.code
        self._call("OpenUpload", request, self._on_open)

    def _on_open(self, reply: Message) -> None:
        assert isinstance(reply, objects_pb2.OpenUploadResponse)
        self._go_on(reply.upload_id, reply.offset)

    def _go_on(self, upload_id: str, offset: int) -> None:
        data = self._thing.data
        if offset >= len(data):
            request = objects_pb2.CommitUploadRequest(
                upload_id=upload_id, size_bytes=len(data), checksum=checksum_of(data)
            )
            self._call("CommitUpload", request, self._on_commit)
            return
        piece = data[offset : offset + PIECE_BYTES_MAX]
        write = objects_pb2.WriteUploadRequest(upload_id=upload_id, offset=offset, data=piece)

        def written(reply: Message) -> None:
            assert isinstance(reply, objects_pb2.WriteUploadResponse)
            self._go_on(upload_id, reply.offset)

        self._call("WriteUpload", write, written)

    def _on_commit(self, reply: Message) -> None:
        assert isinstance(reply, objects_pb2.CommitUploadResponse)
        self._person.on_kept(self._thing, reply.object.object_id, self._request_id)

    def _call(self, method: str, request: Message, done: Callable[[Message], None]) -> None:
        self._person.call(f"ObjectService/{method}", request, done, self._refused)

    def _refused(self, fault: Fault) -> bool:
        if self._person.gone(self._thing)(fault):
            return True
        if isinstance(fault, Unavailable | OutcomeUnknown | Exhausted):
            return False
        self._person.later(self.open)
        return True
