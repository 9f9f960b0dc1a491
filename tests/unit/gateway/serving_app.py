"""A gateway's application on a real socket, and raw requests to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from offgrid_node.gateway.access import Policy
from offgrid_node.gateway.app import application
from offgrid_node.gateway.binding import bind
from offgrid_node.gateway.server import HttpServer
from offgrid_node.meters.http import HttpMeters

OPEN = Policy()
Fields = dict[str, str]


def app_of(routes: Sequence[BaseRoute], policy: Policy = OPEN, meters: HttpMeters | None = None) -> ASGIApp:
    return application(routes, policy, _now_ms, asyncio.Event(), meters or HttpMeters())


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


async def ask(port: int, raw: bytes) -> tuple[int, Fields, bytes]:
    """Status (0: none came), header fields by their names in lower case, and body of what comes back until the server
    closes; for that, the request should ask it to."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    try:
        await writer.drain()
        answer = await reader.read()
    except ConnectionResetError:
        answer = b""
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(status.split(" ")[1]) if status else 0, fields, body


def request(line: str, *fields: str, host: str = "127.0.0.1", body: bytes = b"") -> bytes:
    """It asks that the connection be closed."""
    return "\r\n".join((line, f"Host: {host}", "Connection: close", *fields, "", "")).encode("latin-1") + body


def serving(
    app: ASGIApp, talk: Callable[[int], Awaitable[None]], on_refused: Callable[[str], None] = lambda reason: None
) -> None:
    """Runs `talk` with the port where `app` is served."""

    async def whole() -> None:
        sockets, server = bind("127.0.0.1:0"), HttpServer(app, (), on_refused)
        await server.serve(sockets)
        try:
            await asyncio.wait_for(talk(sockets[0].getsockname()[1]), 30)
        finally:
            await server.close()

    asyncio.run(whole())
