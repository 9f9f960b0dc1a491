"""The framed carrier's listeners: lanes with streams on plain connections, driven by the loop itself, beside gRPC.

For members with mutual TLS, for this machine's owner on a unix socket or on loopback with the token. Nobody has to use
it: whoever does not know it, or does not get through, is served by gRPC. A message there and back costs its caller
0.09 ms of processor time, where a lane on gRPC takes 0.21. (Packet links have a protocol of their own for what this
does, `offgrid_transports.rpc`; over a stream its acknowledgements alone would cost 0.09 ms a call.)
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from offgrid_node.config import split_address
from offgrid_node.keys import NodeTls
from offgrid_node.logs import fields
from offgrid_node.protocol.errors import Exhausted, FailedPrecondition, Fault, Unavailable
from offgrid_node.services.admin_socket import UNIX_PREFIX, bind_unix, check_loopback, unix_socket
from offgrid_node.services.caller import Caller
from offgrid_node.services.framed_connection import Connection
from offgrid_node.services.framed_tls import PROTOCOL, TrustedMembers, leaf_of
from offgrid_node.services.grpc_gate import STREAMS_MAX, Gate, Running
from offgrid_node.services.grpc_options import (
    HANDSHAKE_TIMEOUT_MS,
    KEEPALIVE_MS,
    KEEPALIVE_TIMEOUT_MS,
)
from offgrid_node.services.lane_serving import LANES_MAX
from offgrid_node.services.router import Router

SUFFIX = ".framed"  # of the owner's second socket, beside gRPC's
OWNER_CONNECTIONS_MAX = STREAMS_MAX  # of all programs of this machine's owner together
FRAMED_CONNECTIONS_MAX = 512  # each holds 256 KiB of asyncio's buffers for TLS
ENTERING_MAX = 64  # strangers among them, as long as a handshake takes
BACKLOG = 256
CLOSE_GRACE_S = 2.0
POLL_S = 0.02
ACCEPT_PAUSE_S = 0.1  # when the system has no more descriptors
RETRY_RESTART_MS = 1_000
TURNS_MAX = 16

_log = logging.getLogger(__name__)

Make = Callable[[], Connection]


class FramedServer:
    """All of one node's framed listeners. Make it and use it inside a running asyncio loop."""

    def __init__(self, router: Router, running: Running, on_refused: Callable[[Fault], None] | None = None) -> None:
        """`running` is gRPC's, so that a caller's streams are counted, and ended, on both carriers together."""
        self._router, self._running, self._on_refused = router, running, on_refused
        self._connections: dict[Connection, None] = {}
        self._entering: set[asyncio.Task[None]] = set()
        self._accepting: list[asyncio.Task[None]] = []
        self._listeners: list[socket.socket] = []
        self._remove: list[Callable[[], None]] = []
        self._of_caller: Counter[str] = Counter()

    @property
    def connections(self) -> int:
        return len(self._connections)

    def listen_admin(self, address: str, gate: Gate) -> str:
        """Beside `address`, where gRPC listens for the owner by `gate`, and returns where: "unix:/path", or
        "127.0.0.1:port" with the same token. Raises FailedPrecondition when it cannot listen there."""
        if address.startswith(UNIX_PREFIX):
            path = Path(address.removeprefix(UNIX_PREFIX) + SUFFIX)
            listener = unix_socket()
            try:
                self._remove.append(bind_unix(path, lambda hidden: _listen(listener, hidden.removeprefix(UNIX_PREFIX))))
            except BaseException:
                listener.close()
                raise
            self._serve(listener, lambda: self._connection(gate))
            return f"{UNIX_PREFIX}{path}"
        check_loopback(address)
        listener = _tcp(address.rpartition(":")[0] + ":0")
        self._serve(listener, lambda: self._connection(gate, awaits_token=True))
        return _where(listener)

    def listen_mesh(self, address: str, gate: Gate, tls: NodeTls, trusted: Callable[[], Sequence[bytes]]) -> int:
        """For members on "host:port" (0: any), by gRPC's `gate`, and returns the port; `trusted` as gRPC's listener
        has it. Raises FailedPrecondition when it cannot listen there."""
        members = TrustedMembers(tls, trusted)
        listener = _tcp(address)
        self._serve(listener, lambda: self._connection(gate, leaf_of=_leaf), members.context)
        port: int = listener.getsockname()[1]
        return port

    async def close(self, grace_s: float = CLOSE_GRACE_S) -> None:
        """No new connections; calls under way are answered first, `grace_s` at most; sockets go."""
        for task in (*self._accepting, *self._entering):
            task.cancel()
        await asyncio.gather(*self._accepting, *self._entering, return_exceptions=True)
        for listener in self._listeners:
            listener.close()
        for remove in self._remove:
            remove()
        self._remove.clear()
        stopping = Unavailable("the node is stopping", reason="Stopping", retry_ms=RETRY_RESTART_MS)
        for connection in list(self._connections):
            connection.end(stopping)
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                while self._connections:  # noqa: ASYNC110 - each ends by itself; the grace bounds it
                    await asyncio.sleep(POLL_S)
        for connection in list(self._connections):
            connection.abort()
        await settled(lambda: not self._connections)

    # ---- inside

    def _serve(self, listener: socket.socket, make: Make, context: Callable[[], ssl.SSLContext] | None = None) -> None:
        self._listeners.append(listener)
        self._accepting.append(asyncio.ensure_future(self._accept(listener, make, context)))

    async def _accept(self, listener: socket.socket, make: Make, context: Callable[[], ssl.SSLContext] | None) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(listener)
            except OSError as error:
                _log.warning("no connection can be taken", extra=fields("accept_failing", why=error))
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            if len(self._connections) >= FRAMED_CONNECTIONS_MAX or len(self._entering) >= ENTERING_MAX:
                sock.close()  # whoever it was calls by gRPC
                continue
            task = asyncio.ensure_future(self._enter(sock, make, context))
            self._entering.add(task)
            task.add_done_callback(self._entering.discard)

    async def _enter(self, sock: socket.socket, make: Make, context: Callable[[], ssl.SSLContext] | None) -> None:
        """The handshake, in its time; whoever fails it is a stranger, and strangers are no news."""
        try:
            sock.setblocking(False)
            tune(sock)
            tls = context() if context else None
            timeout_s = HANDSHAKE_TIMEOUT_MS / 1000 if context else None
            await asyncio.get_running_loop().connect_accepted_socket(
                make, sock, ssl=tls, ssl_handshake_timeout=timeout_s
            )
        except (OSError, ssl.SSLError) as error:
            _log.debug("a connection came to nothing", extra=fields("handshake_failed", why=error))
            sock.close()
        except BaseException:
            sock.close()
            raise

    def _connection(
        self,
        gate: Gate,
        *,
        leaf_of: Callable[[asyncio.BaseTransport], bytes] = lambda transport: b"",
        awaits_token: bool = False,
    ) -> Connection:
        return Connection(
            gate,
            self._router,
            self._running,
            self._one_of,
            self._on_refused,
            self._connections,
            leaf_of=leaf_of,
            awaits_token=awaits_token,
        )

    @contextmanager
    def _one_of(self, caller: Caller) -> Iterator[None]:
        """Raises Exhausted when the caller has as many as it may."""
        name, most = str(caller), LANES_MAX if caller.node_id else OWNER_CONNECTIONS_MAX
        if self._of_caller[name] >= most:
            raise Exhausted(f"{name} has {most} connections open, no more are allowed", reason="TooManyLanes")
        self._of_caller[name] += 1
        try:
            yield
        finally:
            self._of_caller[name] -= 1
            if not self._of_caller[name]:
                del self._of_caller[name]


async def settled(question: Callable[[], bool]) -> None:
    """Transports that were told to abort end in the loop's next turns; there is nothing to wait for beyond."""
    for _ in range(TURNS_MAX):
        if question():
            return
        await asyncio.sleep(0)


def tune(sock: socket.socket) -> None:
    """Small messages leave at once, and a peer that has vanished is noticed where nothing is said for long."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_USER_TIMEOUT", KEEPALIVE_MS + KEEPALIVE_TIMEOUT_MS),  # the same for what was sent and is not acknowledged
        ("TCP_KEEPIDLE", KEEPALIVE_MS // 1000),
        ("TCP_KEEPINTVL", KEEPALIVE_TIMEOUT_MS // 1000),
        ("TCP_KEEPCNT", 2),
    ):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _leaf(transport: asyncio.BaseTransport) -> bytes:
    end = transport.get_extra_info("ssl_object")
    return leaf_of(end) if end is not None and end.selected_alpn_protocol() == PROTOCOL else b""


def _tcp(address: str) -> socket.socket:
    """A listening socket; a name that stands for both families is listened to on its first."""
    host, port = split_address(address, port_min=0)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, proto, _, where = found[0]
    listener = socket.socket(family, kind, proto)
    try:
        if sys.platform == "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and hasattr(socket, "IPV6_V6ONLY"):
            with suppress(OSError):  # "[::]" takes both, as gRPC's does
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        _listen(listener, where)
    except OSError as error:
        listener.close()
        raise FailedPrecondition(
            f"cannot listen on {address}: {error.strerror or error}",
            reason="AddressUnusable",
            metadata={"address": address},
        ) from error
    return listener


def _listen(listener: socket.socket, where: object) -> None:
    listener.bind(where)  # type: ignore[arg-type]  # a path, or what getaddrinfo gave
    listener.listen(BACKLOG)
    listener.setblocking(False)


def _where(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


__all__ = ["SUFFIX", "FramedServer", "settled", "tune"]
