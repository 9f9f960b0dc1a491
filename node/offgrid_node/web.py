"""Where a node is reached over HTTP: the gateway, and for monitoring alone `metrics.listen`.

Addresses are taken while the node starts; what serves them is imported once it is up, aside from its loop, while early
clients wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from offgrid_node.banner import ANY_HOST
from offgrid_node.config.addresses import split_address
from offgrid_node.config.http_ports import AUTO, OFF, auto_ports
from offgrid_node.discovery.addresses import join_address
from offgrid_node.gateway.binding import Sockets, address_of, bind, bind_first

if TYPE_CHECKING:
    from offgrid_node.config import Config
    from offgrid_node.gateway.node_view import NodeView
    from offgrid_node.gateway.server import HttpServer

APP = "offgrid_node.gateway.app"


class Web:
    """`url` and `metrics` stand once `bind` is through: "http://host:port", and the address where /metrics may be had
    without a token; empty where there is none. Belongs to the loop's thread."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._gateway: Sockets = ()
        self._monitoring: Sockets = ()
        self._servers: list[HttpServer] = []
        self._starting: asyncio.Task[None] | None = None
        self._view: NodeView | None = None
        self.url = self.metrics = ""

    def bind(self) -> None:
        """Raises FailedPrecondition where an address cannot be had; `close` is due all the same."""
        gateway, metrics = self._config.gateway, self._config.metrics
        if gateway.listen == AUTO:
            self._gateway = bind_first(auto_ports(self._config.node.roles))
        elif gateway.listen != OFF:
            self._gateway = bind(gateway.listen)
        if metrics.listen:
            self._monitoring = bind(metrics.listen)
            self.metrics = address_of(self._monitoring)
        if self._gateway:
            self.url = f"http://{reachable(address_of(self._gateway))}"
            if not self.metrics and not gateway.token.get_secret_value():
                self.metrics = address_of(self._gateway)

    def told(self, addresses: Sequence[str]) -> str:
        """`url` as members hear it: who listens on every address is at the first one that the mesh has of it."""
        if not self._gateway or not addresses:
            return self.url
        host, port = split_address(address_of(self._gateway))
        return f"http://{join_address(split_address(addresses[0])[0], port)}" if host in ANY_HOST else self.url

    def start(self, view: Callable[[], NodeView]) -> None:
        """Begins to serve, in the background."""
        if self._gateway or self._monitoring:
            self._starting = asyncio.create_task(self._serve(view), name="gateway")

    async def close(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        if self._view is not None:
            self._view.stopping.set()
        await asyncio.gather(*(server.close() for server in self._servers))
        for each in (*self._gateway, *self._monitoring):
            each.close()

    async def _serve(self, view: Callable[[], NodeView]) -> None:
        await asyncio.to_thread(import_module, APP)
        from offgrid_node.gateway.app import application, monitoring_routes_of, routes_of
        from offgrid_node.gateway.server import HttpServer

        self._view, config = view(), self._config
        for sockets, routes, hosts in (
            (self._gateway, routes_of, config.gateway.hosts),
            (self._monitoring, monitoring_routes_of, config.metrics.hosts),
        ):
            if sockets:
                server = HttpServer(application(routes(self._view), hosts))
                self._servers.append(server)
                await server.serve(sockets)


def reachable(address: str) -> str:
    """Who listens on every address is asked at the loopback."""
    host, port = split_address(address)
    return join_address(ANY_HOST.get(host, host), port)
