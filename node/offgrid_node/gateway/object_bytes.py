"""Objects as they are: `PUT /v1/objects/{name}` takes a file, `GET /v1/objects/{object}:bytes` gives it back.

Neither is ever whole in memory: bytes go on to the node piece by piece, and come back stripe by stripe. A part of an
object is had by Range (RFC 9110), so a download can go on where it broke off. So can an upload that has a request id;
any other ends with its request. `PUT /v1/uploads/{upload_id}?offset=…` brings a part of one that OpenUpload began, of
any length, and with no body tells how much is here: nothing comes twice.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import NamedTuple, TypeVar, cast
from urllib.parse import quote

from google.protobuf.message import Message
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from offgrid.pieces import Piece
from offgrid.plaintext import PlaintextChecksum
from offgrid.v1 import objects_pb2
from offgrid_node.gateway.answers import answer_of, settled
from offgrid_node.gateway.faults import Refusal
from offgrid_node.gateway.json_requests import read_request
from offgrid_node.gateway.requests import fields_of_query, read_body
from offgrid_node.gateway.templates import Template
from offgrid_node.gateway.transcoding import Fields, Row
from offgrid_node.logs import fields
from offgrid_node.protocol.errors import Fault, InvalidRequest
from offgrid_node.runtime import Ticket
from offgrid_node.services.caller import ADMIN
from offgrid_node.services.objects.puts import PUT_BYTES_MAX
from offgrid_node.services.router import Router

STEP_S = 60.0  # for one piece or stripe
COMMIT_BYTES_PER_S = 5_000_000  # of the slowest card, when a whole object becomes durable
SERVICE = "offgrid.v1.ObjectService"

_log = logging.getLogger(__name__)
_RANGE = re.compile(r"bytes=(?P<first>[0-9]{0,19})-(?P<last>[0-9]{0,19})\Z")

M = TypeVar("M", bound=Message)


class Span(NamedTuple):
    """Bytes from `first` to before `end`."""

    first: int
    end: int


class ObjectBytes:
    """The endpoints, over the same handlers as the RPCs."""

    def __init__(self, router: Router) -> None:
        self._router = router

    @property
    def rows(self) -> list[Row]:
        return [
            ("PUT", Template.parse("/v1/objects/{object=**}"), self.put),
            ("GET", Template.parse("/v1/objects/{object=**}:bytes"), self.get),
            ("PUT", Template.parse("/v1/uploads/{upload_id}"), self.write),
        ]

    async def put(self, request: Request, fields: Fields) -> Response:
        """The body becomes an object of that name. How it is kept is said in the query, as OpenUpload has it."""
        if "content-range" in request.headers:  # RFC 9110, 14.5
            raise InvalidRequest("parts of an object go to PUT /v1/uploads/{upload_id}?offset=…", reason="PartialPut")
        named = {"name": fields["object"]}
        opened = cast(
            objects_pb2.OpenUploadRequest,
            read_request(objects_pb2.OpenUploadRequest, None, named, fields_of_query(request)),
        )
        chunks = _pieces(request.stream(), PUT_BYTES_MAX)
        head = await anext(chunks, b"")
        more = await anext(chunks, None)
        if more is None:
            made = await self._put_small(opened, head)
        else:
            length = request.headers.get("content-length", "")
            if length.isascii() and length.isdigit():
                opened.size_bytes = int(length)
            made = await self._upload(opened, _rejoined(head, more, chunks))
        return answer_of(objects_pb2.GetObjectResponse(object=made), HTTPStatus.CREATED)

    async def write(self, request: Request, fields: Fields) -> Response:
        """The body is what comes at `offset`; where there is none, the answer alone is asked for."""
        asked = cast(
            objects_pb2.WriteUploadRequest,
            read_request(objects_pb2.WriteUploadRequest, None, fields, fields_of_query(request)),
        )
        if asked.data:
            raise InvalidRequest.field("data", "is the body, as it is")
        answer = await self._ask("WriteUpload", asked, objects_pb2.WriteUploadResponse)  # or it is refused unread
        offset = asked.offset
        async for piece in _pieces(request.stream(), PUT_BYTES_MAX):
            answer = await self._write(asked.upload_id, offset, piece)
            offset += len(piece)
        return answer_of(answer)

    async def get(self, request: Request, fields: Fields) -> Response:
        """The whole, or the part that Range asks for."""
        await read_body(request, allowed=False)
        asked = objects_pb2.GetObjectRequest(object=fields["object"])
        found = (await self._ask("GetObject", asked, objects_pb2.GetObjectResponse)).object
        span = span_of(request.headers, found.size_bytes, f'"{found.object_id}"')
        if span is None:
            text = f"{request.headers['range']}: the object has {found.size_bytes} bytes"
            headers = (("Content-Range", f"bytes */{found.size_bytes}"),)
            return Refusal(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "NoSuchRange", text, headers).response
        parts = self._read(found.object_id, span)
        first = b"" if request.method == "HEAD" else await anext(parts, b"")
        return BytesResponse(found, span, first, parts)

    async def _put_small(self, opened: objects_pb2.OpenUploadRequest, data: bytes) -> objects_pb2.Object:
        """In one call."""
        checksum = PlaintextChecksum()
        checksum.update(data)
        asked = objects_pb2.PutObjectRequest(
            name=opened.name,
            data=data,
            required_milli=opened.required_milli,
            request_id=opened.request_id,
            copies=opened.copies,
            expires_after_ms=opened.expires_after_ms,
            padded=opened.padded if opened.HasField("padded") else None,
            code=opened.code if opened.HasField("code") else None,
            checksum=checksum.value(),
        )
        return (await self._ask("PutObject", asked, objects_pb2.PutObjectResponse)).object

    async def _upload(self, opened: objects_pb2.OpenUploadRequest, chunks: AsyncIterator[bytes]) -> objects_pb2.Object:
        upload = await self._ask("OpenUpload", opened, objects_pb2.OpenUploadResponse)
        try:
            return await self._pour(upload, chunks)
        except BaseException:  # the client went, the node stops, a piece was refused
            if not opened.request_id:  # nobody can take it up again
                with suppress(Fault):
                    await self._ask(
                        "AbortUpload",
                        objects_pb2.AbortUploadRequest(upload_id=upload.upload_id),
                        objects_pb2.AbortUploadResponse,
                    )
            raise

    async def _pour(self, upload: objects_pb2.OpenUploadResponse, chunks: AsyncIterator[bytes]) -> objects_pb2.Object:
        checksum, offset = PlaintextChecksum(), 0
        async for piece in chunks:
            checksum.update(piece)
            if offset + len(piece) > upload.offset:  # otherwise an earlier request has brought it
                await self._write(upload.upload_id, offset, piece)
            offset += len(piece)
        commit = objects_pb2.CommitUploadRequest(
            upload_id=upload.upload_id, size_bytes=offset, checksum=checksum.value()
        )
        timeout_s = STEP_S + offset / COMMIT_BYTES_PER_S
        return (await self._ask("CommitUpload", commit, objects_pb2.CommitUploadResponse, timeout_s)).object

    async def _write(self, upload_id: str, offset: int, piece: bytes) -> objects_pb2.WriteUploadResponse:
        write = objects_pb2.WriteUploadRequest(upload_id=upload_id, offset=offset)
        return await self._ask("WriteUpload", Piece(write, piece), objects_pb2.WriteUploadResponse)

    async def _read(self, object_id: str, span: Span) -> AsyncIterator[bytes]:
        offset = span.first
        while offset < span.end:
            asked = objects_pb2.ReadObjectRequest(object=object_id, offset=offset, length=span.end - offset)
            data = (await self._ask("ReadObject", asked, objects_pb2.ReadObjectResponse)).data
            if not data:
                return  # shorter than it was said to be: the connection is closed before its end
            offset += len(data)
            yield bytes(data)

    async def _ask(self, rpc: str, request: Message, kind: type[M], timeout_s: float = STEP_S) -> M:
        """`kind` is what the RPC answers with. Raises Fault."""
        outcome = self._router.dispatch(ADMIN, f"{SERVICE}/{rpc}", request)
        return cast(M, await settled(outcome, timeout_s) if isinstance(outcome, Ticket) else outcome)


class BytesResponse(Response):
    """An object's bytes as they are read. When reading fails, the connection ends before them."""

    media_type = "application/octet-stream"

    def __init__(self, found: objects_pb2.Object, span: Span, first: bytes, parts: AsyncIterator[bytes]) -> None:
        """`first` goes before `parts`."""
        whole = span == (0, found.size_bytes)
        super().__init__(status_code=HTTPStatus.OK if whole else HTTPStatus.PARTIAL_CONTENT)
        name = quote(found.name.rpartition("/")[2] or found.object_id, safe="")
        self.headers["content-length"] = str(span.end - span.first)
        self.headers["content-disposition"] = f"attachment; filename*=UTF-8''{name}"
        self.headers["accept-ranges"] = "bytes"
        self.headers["etag"] = f'"{found.object_id}"'
        if not whole:
            self.headers["content-range"] = f"bytes {span.first}-{span.end - 1}/{found.size_bytes}"
        self._id, self._first, self._parts = found.object_id, first, parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] != "HEAD":
            await send({"type": "http.response.body", "body": self._first, "more_body": True})
            try:
                async for part in self._parts:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
            except Fault as fault:
                said = fields("download_broken_off", object=self._id, why=fault.message)
                _log.warning("a download broke off", extra=said)
                return
        await send({"type": "http.response.body", "body": b""})


def span_of(headers: Mapping[str, str], size_bytes: int, etag: str) -> Span | None:
    """What is asked for of so many bytes; None when Range asks for nothing of them. Several ranges, and those for
    another version, are answered with the whole."""
    asked = _RANGE.match(headers.get("range", ""))
    whole = Span(0, size_bytes)
    if asked is None or headers.get("if-range", etag) != etag or asked["first"] == asked["last"] == "":
        return whole
    if not asked["first"]:
        span = Span(max(0, size_bytes - int(asked["last"])), size_bytes)
    else:
        end = min(int(asked["last"]) + 1, size_bytes) if asked["last"] else size_bytes
        if asked["last"] and int(asked["last"]) < int(asked["first"]):
            return whole  # no range at all
        span = Span(int(asked["first"]), end)
    return span if span.first < span.end else None


async def _pieces(chunks: AsyncIterator[bytes], size: int) -> AsyncIterator[bytes]:
    """The same bytes in pieces of that size, and the rest; so too where the client goes (ClientDisconnect)."""
    held, gone = bytearray(), None
    try:
        async for chunk in chunks:
            held += chunk
            while len(held) >= size:
                yield bytes(held[:size])
                del held[:size]
    except ClientDisconnect as error:
        gone = error
    if held:
        yield bytes(held)
    if gone:
        raise gone


async def _rejoined(first: bytes, second: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    yield second
    async for each in rest:
        yield each
