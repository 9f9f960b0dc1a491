"""Where a node is reached over HTTP: the gateway, and for monitoring alone `metrics.listen`.

Addresses are taken while the node starts; what serves them is imported once it is up, aside from its loop, while early
clients wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from offgrid.v1 import mesh_pb2
from offgrid_node.access_files import GATEWAY_NAME
from offgrid_node.config.addresses import ANY_HOST, split_address
from offgrid_node.config.http_ports import AUTO, OFF, SECRET_CHARS_MIN, auto_ports
from offgrid_node.discovery.addresses import join_address
from offgrid_node.gateway.binding import Sockets, address_of, bind, bind_first
from offgrid_node.logs import fields
from offgrid_node.protocol.errors import Unavailable
from offgrid_node.services.mesh import no_page_link

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from offgrid_node.config import Config
    from offgrid_node.gateway.access import Policy
    from offgrid_node.gateway.node_view import NodeView
    from offgrid_node.gateway.server import HttpServer
    from offgrid_node.gateway.sign_ins import SignIns

APP = "offgrid_node.gateway.app"

_log = logging.getLogger(__name__)


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
        self._sign_ins: SignIns | None = None
        self.url = self.metrics = ""
        self.notices: tuple[str, ...] = ()

    def bind(self) -> None:
        """Raises FailedPrecondition where an address cannot be had; `close` is due all the same."""
        gateway, metrics = self._config.gateway, self._config.metrics
        if gateway.listen == AUTO:
            self._gateway = bind_first(self._ports())
        elif gateway.listen != OFF:
            self._gateway = bind(gateway.listen)
        if metrics.listen:
            self._monitoring = bind(metrics.listen)
            self.metrics = address_of(self._monitoring)
        if self._gateway:
            self.url = f"http://{reachable(address_of(self._gateway))}"
            self.notices = tuple(_short_secret(gateway.auth_key.get_secret_value()))
            if not self.metrics and not gateway.token.get_secret_value():
                self.metrics = address_of(self._gateway)

    @property
    def address(self) -> str:
        """Where the gateway listens, "host:port"; "" where there is none."""
        return address_of(self._gateway) if self._gateway else ""

    def told(self, addresses: Sequence[str]) -> str:
        """`url` as members hear it: who listens on every address is at the first one that the mesh has of it."""
        if not (self.url and addresses):
            return self.url
        host, port = split_address(address_of(self._gateway))
        return f"http://{join_address(split_address(addresses[0])[0], port)}" if host in ANY_HOST else self.url

    def _ports(self) -> Sequence[int]:
        """Those of "auto", in the order in which they are tried: first the one that this node had last, by which it is
        known to bookmarks and contexts."""
        ports = auto_ports(self._config.node.roles)
        with suppress(OSError, ValueError):  # never kept, or not by a node
            last = split_address((self._config.node.data_dir / GATEWAY_NAME).read_text("ascii").strip())[1]
            return [last, *(port for port in ports if port != last)] if last in ports else ports
        return ports

    def start(self, view: Callable[[], NodeView]) -> None:
        """Begins to serve, in the background."""
        if self._gateway or self._monitoring:
            self._starting = asyncio.create_task(self._serve(view), name="gateway")

    def page_link(self, addresses: Sequence[str] = ()) -> mesh_pb2.CreatePageLinkResponse:
        """By the URL that `told` has of these; with a code in its fragment, which no server sees, where a token is
        asked for. Raises FailedPrecondition where there is no gateway, Unavailable while it is not up."""
        if not self.url:
            return no_page_link()
        if self._view is None:
            raise Unavailable("the gateway is not up yet", reason="GatewayStarting", retry_ms=500)
        if self._sign_ins is None:
            return mesh_pb2.CreatePageLinkResponse(url=f"{self.told(addresses)}/")
        code, valid_s = self._sign_ins.make_code(self._view.runtime.clock.now().mono_ms)
        return mesh_pb2.CreatePageLinkResponse(url=f"{self.told(addresses)}/#code={code}", valid_s=valid_s)

    async def close(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        if self._view is not None:
            self._view.stopping.set()
        await asyncio.gather(*(server.close() for server in self._servers))
        self._close_sockets()

    def _close_sockets(self) -> None:
        for each in (*self._gateway, *self._monitoring):
            each.close()
        self.url = self.metrics = ""

    async def _serve(self, view: Callable[[], NodeView]) -> None:
        try:
            await asyncio.to_thread(import_module, APP)
            await self._serve_view(view())
        except Exception as error:  # noqa: BLE001 - the node goes on without
            _log.exception("the gateway cannot be served", extra=fields("gateway_failed"))
            said = f"the gateway cannot be served, the log says more: {type(error).__name__}: {error}"
            self.notices = (*self.notices, said)
            self._close_sockets()

    async def _serve_view(self, view: NodeView) -> None:
        from offgrid_node.gateway.access import policy_of
        from offgrid_node.gateway.app import monitoring_routes_of, routes_of
        from offgrid_node.gateway.last_tries import log_last_try
        from offgrid_node.gateway.sign_ins import SignIns
        from offgrid_node.gateway.socket_owner import trusted_uids

        self._view, gateway = view, self._config.gateway
        token, signed = gateway.token.get_secret_value(), bool(gateway.auth_key.get_secret_value())
        signs = self._sign_ins = (
            SignIns(token, f"offgrid-{view.node_id[:8]}", partial(log_last_try, "token")) if token else None
        )
        policy = policy_of(gateway.hosts, signs, signed=signed, uids=trusted_uids())
        await self._open(self._gateway, routes_of(view, signs), policy, view)
        monitoring = policy_of(self._config.metrics.hosts)
        await self._open(self._monitoring, monitoring_routes_of(view), monitoring, view)

    async def _open(self, sockets: Sockets, routes: Sequence[BaseRoute], policy: Policy, view: NodeView) -> None:
        from offgrid_node.gateway.app import application
        from offgrid_node.gateway.edge import HEADERS
        from offgrid_node.gateway.server import HttpServer

        if sockets:
            clock = view.runtime.clock
            meters = view.meters.http
            app = application(routes, policy, lambda: clock.now().mono_ms, view.stopping, meters)
            self._servers.append(HttpServer(app, HEADERS, meters.refused.add))
            await self._servers[-1].serve(sockets)


def _short_secret(secret: str) -> Iterator[str]:
    if 0 < len(secret) < SECRET_CHARS_MIN:
        yield (
            f"gateway.auth_key has less than {SECRET_CHARS_MIN} characters: who sees one signed request can try "
            "secrets until one fits; take 32 random ones, at all who share it"
        )


def reachable(address: str) -> str:
    """Who listens on every address is asked at the loopback."""
    host, port = split_address(address)
    return join_address(ANY_HOST.get(host, host), port)
