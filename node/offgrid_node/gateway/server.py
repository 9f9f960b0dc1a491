"""HTTP in the node's own event loop: uvicorn's protocol classes on sockets that are bound already.

uvicorn's own `Server` is left out: it takes over signals and waits for clients before it stops.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from email.utils import formatdate

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.server import ServerState

from offgrid_node.gateway.binding import BACKLOG, Sockets
from offgrid_node.gateway.connection import HEAD_BYTES_MAX, HttpConnection, SocketConnection

STOP_S = 1.0  # for requests that are being answered, when the node stops
KEEP_ALIVE_S = 30
MESSAGE_BYTES_MAX = 65_536  # from a WebSocket's client
PING_S, PONG_S = 20.0, 20.0

_POLL_S = 0.02


class HttpServer:
    """Serves one ASGI application. Make it and use it in the loop's thread."""

    def __init__(
        self,
        app: ASGIApp,
        headers: Sequence[tuple[bytes, bytes]] = (),
        on_refused: Callable[[str], None] = lambda reason: None,
    ) -> None:
        """`headers` go with every answer; `on_refused` is told the reason of what no application sees."""
        # What is wrong with requests is their senders' matter, what is wrong with us is logged by the application.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self._config = Config(
            app,
            http=HttpConnection,
            ws=SocketConnection,
            ws_max_size=MESSAGE_BYTES_MAX,
            ws_ping_interval=PING_S,
            ws_ping_timeout=PONG_S,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            h11_max_incomplete_event_size=HEAD_BYTES_MAX,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        self._config.load()
        self._state = ServerState()
        self._headers, self._on_refused = list(headers), on_refused
        self._servers: list[asyncio.Server] = []
        self._clock: asyncio.TimerHandle | None = None

    async def serve(self, sockets: Sockets) -> None:
        """Serves on these until `close`, and answers whoever waits there already."""
        loop = asyncio.get_running_loop()
        self._tick(loop)
        for each in sockets:
            self._servers.append(await loop.create_server(self._connection, sock=each, backlog=BACKLOG))

    async def close(self) -> None:
        """Takes no more, lets what is being answered end for STOP_S, and cuts off what is left."""
        for server in self._servers:
            server.close()
        state = self._state
        for connection in tuple(state.connections):
            with suppress(Exception):
                connection.shutdown()
        loop = asyncio.get_running_loop()
        until = loop.time() + STOP_S
        while (state.connections or state.tasks) and loop.time() < until:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(_POLL_S)
        for task in tuple(state.tasks):
            task.cancel()
        await asyncio.gather(*state.tasks, return_exceptions=True)
        for connection in tuple(state.connections):
            connection.transport.abort()
        if self._clock is not None:
            self._clock.cancel()

    def _connection(self) -> asyncio.Protocol:
        made = HttpConnection(config=self._config, server_state=self._state, app_state={})
        made.on_refused = self._on_refused
        return made

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        date = (b"date", formatdate(usegmt=True).encode())
        self._state.default_headers[:] = [date, *self._headers]
        self._clock = loop.call_later(1.0, self._tick, loop)
