"""A handler's stream over HTTP: a line of JSON for each message (NDJSON), or server-sent events for who accepts them.

An error in mid-stream is the last line, {"error": …}, or an event called "error"; so ends what a browser
has open as it is signed out. Events with a number carry it as their id, so that a browser that reconnects says with
Last-Event-ID where it was. Who reads too slowly is cut off by the stream itself, and by the connection's own deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import reduce
from typing import Any

from google.protobuf.message import Message
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from offgrid_node.gateway.answers import disconnected, line_of
from offgrid_node.gateway.faults import fault_response
from offgrid_node.gateway.signed_out import signed_out
from offgrid_node.protocol.errors import Fault, Unavailable
from offgrid_node.services.stream import Stream

NDJSON, EVENTS = "application/x-ndjson", "text/event-stream"
HEARTBEAT_S = 15.0  # for server-sent events: proxies and browsers give up what is silent
FIRST_S = 0.2  # for a stream to fail with a status of its own, before it is begun with 200
CHUNK_BYTES = 65_536  # written at a time
RETRY_RESTART_MS = 1_000

RESUMED: Mapping[str, tuple[str, str]] = {
    "offgrid.v1.StateService/WatchEvents": ("after_seq", "event.seq"),
    "offgrid.v1.SessionService/WatchSession": ("after", "record.number"),
}
"""By method: the field of the request after which it goes on, and where the response has that number."""


async def begun(stream: Stream) -> None:
    """Returns once there is something to take or FIRST_S are over. Raises the stream's Fault if it has nothing else."""
    ready = asyncio.Event()
    stream.when_ready(ready.set)
    try:
        async with asyncio.timeout(FIRST_S):
            await ready.wait()
    except TimeoutError:
        return
    except BaseException:
        stream.cancel()
        raise
    if stream.fault is not None and not stream.waiting:
        raise stream.fault


class StreamResponse(Response):
    """The stream as it comes, until it ends or the client goes."""

    def __init__(self, method: str, stream: Stream, stopping: asyncio.Event, *, as_events: bool) -> None:
        super().__init__(media_type=EVENTS if as_events else NDJSON)
        del self.headers["content-length"]
        self._method, self._stream, self._stopping = method, stream, stopping
        self._framed = self._event if as_events else line_of
        self._end = _event_of if as_events else _line_of
        self._heartbeat_s = HEARTBEAT_S if as_events else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone: asyncio.Future[Any] = asyncio.ensure_future(disconnected(receive))
        ends = [asyncio.ensure_future(end) for end in (self._stop(), self._sign_out(scope))]
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._pump(gone, send)
        finally:
            for task in (gone, *ends):
                task.cancel()
            self._stream.cancel()

    async def _stop(self) -> None:
        await self._stopping.wait()
        self._stream.end(Unavailable("the node is stopping", reason="Stopping", retry_ms=RETRY_RESTART_MS))

    async def _sign_out(self, scope: Scope) -> None:
        self._stream.end(await signed_out(scope))

    async def _pump(self, gone: asyncio.Future[Any], send: Send) -> None:
        async def write(body: bytes, *, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": body, "more_body": more})
            await asyncio.sleep(0)  # a connection that is lost is heard of before the next is written

        ready, stream = asyncio.Event(), self._stream
        stream.when_ready(ready.set)
        await write(b"")  # the head leaves now
        while not gone.done() or self._stopping.is_set():  # a node that stops looks as if its clients had gone
            ready.clear()
            part = bytearray()
            for message in stream.take():
                try:
                    part += self._framed(message)
                except Fault as fault:
                    stream.end(fault)
                    break
                if len(part) >= CHUNK_BYTES:
                    await write(bytes(part))
                    part.clear()
            if part:
                await write(bytes(part))
            elif stream.ended:
                await write(self._end(stream.fault), more=False)
                return
            elif not await _either(ready, gone, self._heartbeat_s):
                await write(b": still here\n\n")

    def _event(self, message: Message) -> bytes:
        number = _number(self._method, message)
        return (b"id: %d\n" % number if number else b"") + b"data: " + line_of(message) + b"\n"


async def _either(ready: asyncio.Event, gone: asyncio.Future[Any], timeout_s: float | None) -> bool:
    """Whether one of them came in time."""
    waiting: asyncio.Future[Any] = asyncio.ensure_future(ready.wait())
    try:
        done, _ = await asyncio.wait({waiting, gone}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    return bool(done)


def _number(method: str, message: Message) -> int:
    """What its reader may go on after; 0: nothing."""
    _, path = RESUMED.get(method, ("", ""))
    *parts, last = path.split(".")
    found: int = getattr(reduce(getattr, parts, message), last) if last else 0
    return found


def _line_of(fault: Fault | None) -> bytes:
    """With which a stream ends: nothing where all is well."""
    return b"" if fault is None else bytes(fault_response(fault).body)


def _event_of(fault: Fault | None) -> bytes:
    return b"" if fault is None else b"event: error\ndata: " + _line_of(fault) + b"\n"
