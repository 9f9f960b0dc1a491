"""HTTP and JSON to RPCs and back, by the `google.api.http` annotations of the .proto files (AIP-127).

Whatever lies below /v1/ is found here, in one table of verbs and templates: the annotated RPCs and what else is bound
to such a place. Handlers are reached in process, as this machine's owner; who may come so far is settled before.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import TypeAlias

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from offgrid.api import bindings
from offgrid_node.gateway.answers import answer_of, settled
from offgrid_node.gateway.faults import Refusal
from offgrid_node.gateway.json_requests import read_request
from offgrid_node.gateway.metered import TEMPLATE
from offgrid_node.gateway.requests import fields_of_query, number_of, raw_path, read_aside, read_body, timeout_s_of
from offgrid_node.gateway.streams import EVENTS, NDJSON, RESUMED, StreamResponse, begun
from offgrid_node.gateway.templates import BadPath, Table, Template
from offgrid_node.protocol.errors import Exhausted, FailedPrecondition, InvalidRequest
from offgrid_node.runtime import Ticket
from offgrid_node.services.caller import ADMIN
from offgrid_node.services.grpc_options import MESSAGE_BYTES_MAX
from offgrid_node.services.router import METHODS, SERVICES, Method, Router
from offgrid_node.services.stream import Stream

PREFIX = "/v1/"
LISTED = "/openapi.json lists what there is"
SHOWN_CHARS_MAX = 500  # of a path that is not there

_NEVER = re.compile(r"(?:^|;)\s*q\s*=\s*0(?:\.0*)?\s*(?:;|\Z)", re.ASCII | re.IGNORECASE)

Fields: TypeAlias = Mapping[str, str]
Endpoint: TypeAlias = Callable[[Request, Fields], Awaitable[Response]]
Row: TypeAlias = tuple[str, Template, Endpoint]
"""A verb of HTTP, where, and what answers there. Endpoints may raise Fault."""


def annotated() -> Iterable[tuple[str, Template, Method, MethodDescriptor, bool]]:
    """Verb, template, RPC, its descriptor, and whether its fields come in a body, for each path of each RPC."""
    for service in SERVICES:
        for descriptor in service.methods:
            for verb, template, in_body in bindings(descriptor):
                yield (
                    verb,
                    Template.parse(template),
                    METHODS[f"{service.full_name}/{descriptor.name}"],
                    descriptor,
                    in_body,
                )


def transcoded_routes(router: Router, stopping: asyncio.Event, others: Iterable[Row] = ()) -> list[BaseRoute]:
    """All of /v1/: every RPC that has a path, and `others`. Streams end once `stopping` is set."""
    rows: list[Row] = [
        (verb, template, partial(_call, router, stopping, method, in_body))
        for verb, template, method, _, in_body in annotated()
    ]
    return [Paths([*rows, *others])]


class Paths(BaseRoute):
    """One table's paths; what is not in it is refused here, with what is."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self._table = Table((verb, template, (template.plain, endpoint)) for verb, template, endpoint in rows)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        ours = scope["type"] == "http" and scope["path"].startswith(PREFIX)
        return (Match.FULL if ours else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response = await self._answer(request)
        if request.method == "HEAD":
            response.body = b""
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        path = raw_path(request.scope)
        try:
            found = self._table.find(path)
        except BadPath as error:
            raise InvalidRequest(str(error), reason="MalformedPath") from error
        if not found:
            return self._unknown(path)
        verbs = sorted({*found, "OPTIONS", *(["HEAD"] if "GET" in found else [])})
        if request.method == "OPTIONS":
            return Response(status_code=HTTPStatus.NO_CONTENT, headers={"Allow": ", ".join(verbs)})
        bound = found.get("GET" if request.method == "HEAD" else request.method)
        if bound is None:
            near = self._table.nearest_verb(path, request.method)
            mend = f"did you mean {near}? {LISTED}" if near else f"use {' or '.join(sorted(found))}"
            text = f"{request.method} is not for {path[:SHOWN_CHARS_MAX]}; {mend}"
            allow = (("Allow", ", ".join(verbs)),)
            return Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "MethodNotAllowed", text, allow).response
        (template, endpoint), fields = bound
        request.scope[TEMPLATE] = template
        return await endpoint(request, fields)

    def _unknown(self, path: str) -> Response:
        near = self._table.nearest(path)
        text = f"there is nothing at {path[:SHOWN_CHARS_MAX]}; {f'did you mean {near}? ' if near else ''}{LISTED}"
        return Refusal(HTTPStatus.NOT_FOUND, "UnknownPath", text).response


async def _call(
    router: Router, stopping: asyncio.Event, method: Method, in_body: bool, request: Request, fields: Fields
) -> Response:
    if request.method == "HEAD" and method.streaming:
        return Response(media_type=EVENTS if _wants_events(request) else NDJSON)
    query = fields_of_query(request)
    timeout_s = timeout_s_of(request)
    body = await read_body(request, allowed=in_body)
    message = await read_aside(
        body, lambda found: read_request(method.request, found if in_body else None, fields, query)
    )
    size = message.ByteSize()
    if size > MESSAGE_BYTES_MAX:
        text = f"{size} bytes; a message has at most {MESSAGE_BYTES_MAX}. PUT /v1/objects/… takes files of any size"
        raise Exhausted(text, reason="RequestTooLarge")
    as_events = method.streaming and _wants_events(request)
    if as_events and method.name in RESUMED and (last := request.headers.get("last-event-id")):
        resumed = type(message)()
        resumed.CopyFrom(message)
        setattr(resumed, RESUMED[method.name][0], number_of(last, "Last-Event-ID", 2**63 - 1))
        with suppress(FailedPrecondition):  # it is of another journal: after an error a browser would never come back
            return await _streamed(router, stopping, method, resumed, as_events=True)
    if method.streaming:
        return await _streamed(router, stopping, method, message, as_events=as_events)
    outcome = router.dispatch(ADMIN, method.name, message)
    assert not isinstance(outcome, Stream)
    return answer_of(await settled(outcome, timeout_s, request.receive) if isinstance(outcome, Ticket) else outcome)


async def _streamed(
    router: Router, stopping: asyncio.Event, method: Method, message: Message, *, as_events: bool
) -> Response:
    """Raises the fault of one that cannot begin."""
    outcome = router.dispatch(ADMIN, method.name, message)
    assert isinstance(outcome, Stream)
    await begun(outcome)
    return StreamResponse(method.name, outcome, stopping, as_events=as_events)


def _wants_events(request: Request) -> bool:
    """Whether Accept (RFC 9110, 12.5.1) names them, and not with a weight of 0."""
    return any(
        kind.strip().lower() == EVENTS and not _NEVER.search(rest)
        for kind, _, rest in (each.partition(";") for each in request.headers.get("accept", "").split(","))
    )
