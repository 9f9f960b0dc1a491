"""Every RPC by gRPC-Web (PROTOCOL-WEB.md of grpc/grpc): for clients of this very node on other machines, and for others
that speak it. `offgrid` with a context of a URL is one.

    POST /offgrid.v1.JobService/GetJob
    Content-Type: application/grpc-web+proto

A request is one frame, an answer a frame for each message and one of trailers: a byte of flags (128: trailers), four of
length, most significant first, and so many bytes. The status of HTTP is 200 whatever became of the call; only what
comes before it (who may ask, how much) is refused as everywhere here. Text (base64) and compression are not offered.
"""

from __future__ import annotations

import asyncio
import base64
import re
from functools import partial
from http import HTTPStatus
from urllib.parse import quote

from google.protobuf.message import Message
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from offgrid_node.gateway.answers import settled
from offgrid_node.gateway.faults import Refusal
from offgrid_node.gateway.requests import TIMEOUT_MS_DEFAULT, TIMEOUT_MS_MAX, read_body
from offgrid_node.gateway.streams import StreamResponse, begun
from offgrid_node.protocol.errors import Exhausted, Fault, InvalidRequest
from offgrid_node.runtime import Ticket
from offgrid_node.services.caller import ADMIN
from offgrid_node.services.grpc_options import MESSAGE_BYTES_MAX
from offgrid_node.services.router import SERVICES, Router
from offgrid_node.services.status import status_of
from offgrid_node.services.stream import Stream

TYPE = "application/grpc-web+proto"
TYPES = (TYPE, "application/grpc-web")
MESSAGE, TRAILERS, HEAD_BYTES = 0, 0x80, 5
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])\Z")
_UNIT_MS = {"H": 3_600_000.0, "M": 60_000.0, "S": 1_000.0, "m": 1.0, "u": 1e-3, "n": 1e-6}


def grpc_web_routes(router: Router, stopping: asyncio.Event) -> list[BaseRoute]:
    """A path for each service. Streams end once `stopping` is set."""
    return [
        Route(f"/{service.full_name}/{{name}}", partial(_answer, router, stopping, service.full_name), methods=["POST"])
        for service in SERVICES
    ]


async def _answer(router: Router, stopping: asyncio.Event, service: str, request: Request) -> Response:
    said = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if said not in TYPES:
        text = f"gRPC-Web is served here: Content-Type has to be {TYPE}. For JSON: /v1/, see /openapi.json"
        return Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "NotGrpcWeb", text).response
    try:
        body, timeout_s = await read_body(request, allowed=True), _timeout_s(request.headers.get("grpc-timeout"))
        outcome = router.dispatch(ADMIN, f"{service}/{request.path_params['name']}", _message_in(body))
        if isinstance(outcome, Stream):
            await begun(outcome)
            return _Streamed(outcome, stopping)
        message = await settled(outcome, timeout_s, request.receive) if isinstance(outcome, Ticket) else outcome
        return Response(frame_of(message) + trailers_of(None), media_type=TYPE)
    except ClientDisconnect:
        return Response(status_code=499)
    except Fault as fault:
        return Response(trailers_of(fault), media_type=TYPE)


class _Streamed(StreamResponse):
    """The same frames, as they come."""

    def __init__(self, stream: Stream, stopping: asyncio.Event) -> None:
        super().__init__("", stream, stopping, as_events=False)
        self.headers["content-type"] = TYPE
        self._framed, self._end = frame_of, trailers_of


def frame_of(message: Message) -> bytes:
    """Raises Exhausted (ResponseTooLarge) for one that gRPC would not carry either."""
    data = message.SerializeToString()
    if len(data) > MESSAGE_BYTES_MAX:
        text = f"the answer has {len(data)} bytes, a message at most {MESSAGE_BYTES_MAX}; ask for a smaller page"
        raise Exhausted(text, reason="ResponseTooLarge")
    return _frame(MESSAGE, data)


def trailers_of(fault: Fault | None) -> bytes:
    """How the call ended; None: well."""
    if fault is None:
        return _frame(TRAILERS, b"grpc-status: 0\r\n")
    status = status_of(fault)
    details = base64.b64encode(status.SerializeToString()).rstrip(b"=").decode()
    lines = (f"grpc-status: {status.code}", f"grpc-message: {quote(status.message)}")
    return _frame(TRAILERS, "\r\n".join((*lines, f"grpc-status-details-bin: {details}", "")).encode("ascii"))


def _frame(flags: int, data: bytes) -> bytes:
    return bytes((flags,)) + len(data).to_bytes(4, "big") + data


def _message_in(body: bytes) -> bytes:
    """Of the one frame that a request is. Raises InvalidRequest (MalformedFrame), Exhausted."""
    length = int.from_bytes(body[1:HEAD_BYTES], "big")
    if len(body) < HEAD_BYTES or body[0] != MESSAGE or len(body) != HEAD_BYTES + length:
        text = "the body is not one frame of gRPC-Web: a byte 0, four of length, and so many bytes"
        raise InvalidRequest(text, reason="MalformedFrame")
    if length > MESSAGE_BYTES_MAX:
        text = f"{length} bytes; a message has at most {MESSAGE_BYTES_MAX}"
        raise Exhausted(text, reason="RequestTooLarge")
    return body[HEAD_BYTES:]


def _timeout_s(said: str | None) -> float:
    """Raises InvalidRequest."""
    if said is None:
        return TIMEOUT_MS_DEFAULT / 1000
    found = _TIMEOUT.match(said)
    if found is None:
        raise InvalidRequest.field("grpc-timeout", "up to eight digits and one of H, M, S, m, u, n")
    return min(int(found[1]) * _UNIT_MS[found[2]], TIMEOUT_MS_MAX) / 1000
