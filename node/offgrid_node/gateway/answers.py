"""What a handler gives as an HTTP answer: a message as a line of JSON (offgrid.json_form), or the fault that it is."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

from google.protobuf.message import Message
from starlette.responses import Response
from starlette.types import Receive

from offgrid.json_form import json_of
from offgrid_node.gateway.faults import JSON
from offgrid_node.protocol.errors import Exhausted, Fault, OutcomeUnknown
from offgrid_node.runtime import Ticket
from offgrid_node.services.grpc_options import MESSAGE_BYTES_MAX


def line_of(message: Message) -> bytes:
    """Raises Exhausted (ResponseTooLarge) for one that gRPC would not carry either."""
    size = message.ByteSize()
    if size > MESSAGE_BYTES_MAX:
        text = f"the answer has {size} bytes, a message at most {MESSAGE_BYTES_MAX}; ask for a smaller page"
        raise Exhausted(text, reason="ResponseTooLarge")
    return json.dumps(json_of(message), ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def answer_of(message: Message, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(line_of(message), status, media_type=JSON)


async def settled(ticket: Ticket, timeout_s: float, receive: Receive | None = None) -> Message:
    """The ticket's outcome. With `receive`, of a request whose body has been read, its client may go meanwhile.

    Raises its Fault, and OutcomeUnknown when it takes too long, when the client has gone and when the node stops, which
    looks the same. What was asked for is carried out all the same.
    """
    if ticket.outcome is None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        ticket.when_done(lambda outcome: None if future.done() else future.set_result(outcome))
        gone: asyncio.Future[Any] = asyncio.ensure_future(disconnected(receive)) if receive else loop.create_future()
        try:
            await asyncio.wait({future, gone}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if not future.done() and gone.done():
                raise OutcomeUnknown("this node is stopping: it may have been done, or not", reason="Stopping")
        finally:
            future.cancel()
            gone.cancel()
    outcome = ticket.outcome
    if outcome is None:
        text = f"no outcome within {timeout_s:g} s: it may have been done, or be done yet; ask again"
        raise OutcomeUnknown(text, reason="DeadlineExceeded")
    if isinstance(outcome, Fault):
        raise outcome.bare()
    return outcome


async def disconnected(receive: Receive) -> None:
    """Returns when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
