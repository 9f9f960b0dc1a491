"""The gRPC carrier: brings calls from three kinds of listeners to the same router.

Administration (unix socket, or loopback and token), the mesh (mutual TLS, members only) and the door (plain TCP, where
strangers may ask to join and nothing else). Handlers, limits and identities are chosen here; what becomes of one call
is in `grpc_calls.py`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc

from offgrid_node.keys import NodeTls
from offgrid_node.logs import fields
from offgrid_node.protocol.errors import FailedPrecondition, Fault, InvalidRequest, PermissionDenied, Unavailable
from offgrid_node.services import grpc_options
from offgrid_node.services.addresses import check_free
from offgrid_node.services.admin_socket import UNIX_PREFIX, bind_unix, check_loopback, fresh_token, write_token
from offgrid_node.services.budget import Limits
from offgrid_node.services.grpc_calls import Calls, Handlers, Paths
from offgrid_node.services.grpc_gate import Gate, ResolveCaller, Running, by_certificate, by_nothing, by_place, by_token
from offgrid_node.services.grpc_lane_server import lane_handlers
from offgrid_node.services.grpc_standard import StandardServices
from offgrid_node.services.router import Router
from offgrid_node.services.tls import server_credentials

MEMBER_LIMITS = Limits()
DOOR_LIMITS = Limits(
    calls_per_s=2,
    burst_calls=10,
    calls_in_flight=4,
    bytes_in_flight=4 * grpc_options.DOOR_MESSAGE_BYTES_MAX,
    calls_max=16,
)
DOOR_READ_TIMEOUT_S = 5.0
CLOSE_GRACE_S = 2.0
CLOSE_HARD_S = 1.0  # beyond the grace, before a server is left to itself
RETRY_RESTART_MS = 1_000

_log = logging.getLogger(__name__)


class GrpcServer:
    """All of one node's gRPC listeners. Make it and use it inside a running asyncio loop."""

    def __init__(
        self,
        router: Router,
        *,
        limits: Limits = MEMBER_LIMITS,
        door_limits: Limits = DOOR_LIMITS,
        on_refused: Callable[[Fault], None] | None = None,
    ) -> None:
        """`limits` are per member (and for the owner, except for the rate), `door_limits` per stranger's address;
        `on_refused` is told of each call that gets no further than the gate."""
        self._limits = limits
        self._door_limits = door_limits
        self._running = Running()
        self._router, self._on_refused = router, on_refused
        self._calls = Calls(router, self._running, on_refused)
        self._standard = StandardServices(self._running)
        self._servers: list[grpc.aio.Server] = []
        self._remove: list[Callable[[], None]] = []
        self.framed_port = 0
        """Where members are told that the framed carrier listens; 0: nowhere."""

    @property
    def running(self) -> Running:
        """The streams that are open, for a carrier beside this one."""
        return self._running

    @property
    def streams(self) -> int:
        """How many streams are open now."""
        return len(self._running)

    async def listen_admin(
        self, address: str, *, token_file: Path | None = None, beside: Callable[[Gate], object] = lambda gate: None
    ) -> str:
        """Listens for this machine's owner and returns the address in use; every call there is ADMIN.

        "unix:/path" makes a socket of mode 0600. "127.0.0.1:port" (0: any) is for systems without unix sockets: it
        needs `token_file`, which is written anew with mode 0600, and calls must carry its content as metadata
        `authorization: Bearer …`. `beside` is handed the gate, once the listener is open. Raises FailedPrecondition
        when it cannot listen there, InvalidRequest for an address that others could reach.
        """
        if address.startswith(UNIX_PREFIX):
            gate = Gate(by_place, self._limits)
            server = self._server(grpc_options.ADMIN_SERVER, self._for_members(gate))
            path = Path(os.path.abspath(address.removeprefix(UNIX_PREFIX)))  # noqa: ASYNC240 - asks for the cwd, no disk
            self._remove.append(bind_unix(path, lambda hidden: _bind(server, hidden, None)))
            await self._start(server)
            beside(gate)
            return f"{UNIX_PREFIX}{path}"
        check_loopback(address)
        if token_file is None:
            raise InvalidRequest.field("token_file", "administration over TCP needs one")
        token = fresh_token()
        gate = Gate(by_token(token), self._limits)
        server = self._server(grpc_options.ADMIN_SERVER, self._for_members(gate))
        port = _bind(server, address, None)
        write_token(token_file, token)
        self._remove.append(lambda: token_file.unlink(missing_ok=True))
        await self._start(server)
        beside(gate)
        return f"{address.rpartition(':')[0]}:{port}"

    async def listen_mesh(
        self,
        address: str,
        tls: NodeTls,
        trusted: Callable[[], Sequence[bytes]],
        resolve_caller: ResolveCaller,
        beside: Callable[[Gate], object] = lambda gate: None,
    ) -> int:
        """Listens for members with mutual TLS on "host:port" (0: any) and returns the port.

        `trusted` gives the identity certificates (DER) that may connect; it is called on a thread of gRPC's.
        `resolve_caller` turns a fingerprint into the member as the directory has it now, or None: it is asked at each
        call; `beside` is handed the gate, once the listener is open. Raises FailedPrecondition naming the address when
        it is taken.
        """
        gate = Gate(by_certificate(resolve_caller), self._limits)
        server = self._server(grpc_options.MESH_SERVER, self._for_members(gate))
        port = _bind(server, address, server_credentials(tls, trusted))
        await self._start(server)
        beside(gate)
        return port

    async def listen_door(self, address: str) -> int:
        """Listens for strangers on "host:port" without TLS and returns the port; only JoinService lets them in."""
        gate = Gate(
            by_nothing,
            self._door_limits,
            message_bytes_max=grpc_options.DOOR_MESSAGE_BYTES_MAX,
            read_timeout_s=DOOR_READ_TIMEOUT_S,
        )
        server = self._server(grpc_options.DOOR_SERVER, self._calls.handlers(gate))
        port = _bind(server, address, None)
        await self._start(server)
        return port

    def disconnect(self, node_id: str) -> None:
        """Ends the streams of a member that was removed. Its further calls are refused by `resolve_caller`."""
        self._running.end(node_id, PermissionDenied(f"{node_id} is no member any more", reason="NotAMember"))

    async def close(self, grace_s: float = CLOSE_GRACE_S) -> None:
        """Stops in order: health says so, streams end, calls under way get `grace_s`, sockets and tokens go.

        Takes no longer than `grace_s` and a second, whatever clients do.
        """
        servers, self._servers = self._servers, []
        await self._standard.not_serving()
        self._running.end_all(Unavailable("the node is stopping", reason="Stopping", retry_ms=RETRY_RESTART_MS))
        stops = [asyncio.ensure_future(server.stop(grace_s)) for server in servers]
        if stops:
            _, late = await asyncio.wait(stops, timeout=grace_s + CLOSE_HARD_S)
            for stop in late:
                said = fields("grpc_stop_late", within_s=grace_s + CLOSE_HARD_S)
                _log.warning("a gRPC server did not stop in time", extra=said)
                stop.cancel()
        await _calls_end()
        for remove in self._remove:
            remove()
        self._remove.clear()

    def _for_members(self, gate: Gate) -> Handlers:
        lanes = lane_handlers(gate, self._router, self._running, self._on_refused, lambda: self.framed_port)
        return {**self._calls.handlers(gate), **self._standard.handlers(gate), **lanes}

    def _server(self, options: grpc_options.Options, handlers: Handlers) -> grpc.aio.Server:
        return grpc.aio.server(handlers=[Paths(handlers)], options=options)

    async def _start(self, server: grpc.aio.Server) -> None:
        await server.start()
        self._servers.append(server)
        await self._standard.serving()


async def _calls_end() -> None:
    """gRPC's server has stopped some turns of the loop before the tasks of its last calls have ended; if the loop goes
    first, it prints a traceback for each of them."""
    calls = "_schedule_rpc_coro"
    last = [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__qualname__", "") == calls]
    if last:
        await asyncio.wait(last, timeout=CLOSE_HARD_S)


def _bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> int:
    if not address.startswith(UNIX_PREFIX):
        check_free(address)
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise FailedPrecondition(
            f"cannot listen on {address}", reason="AddressUnusable", metadata={"address": address}
        ) from error
