"""Sockets for HTTP, bound before what serves them is imported: whoever is early waits in the backlog."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Iterable

from offgrid_node.config import split_address
from offgrid_node.discovery.addresses import join_address
from offgrid_node.protocol.errors import FailedPrecondition

BACKLOG = 128
LOOPBACK = "127.0.0.1"
UNSENT_BYTES = 131_072  # that the kernel takes of an answer: what waits longer is seen to become less, or not to

Sockets = tuple[socket.socket, ...]


def bind(address: str) -> Sockets:
    """Listens on "host:port" (0: any free), on each address that the host's name stands for. Raises FailedPrecondition
    naming it."""
    host, port = split_address(address, port_min=0)
    bound: list[socket.socket] = []
    try:
        for family, kind, _, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            at = (place[0], bound[0].getsockname()[1], *place[2:]) if bound else place
            bound.append(_listening(family, kind, at))
    except OSError as error:
        for each in bound:
            each.close()
        raise FailedPrecondition(
            f"cannot listen on {address}: {error.strerror or error}",
            reason="AddressUnusable",
            metadata={"address": address},
        ) from error
    return tuple(bound)


def bind_first(ports: Iterable[int]) -> Sockets:
    """Listens on the first of these ports that is free, for this machine alone. Raises FailedPrecondition."""
    tried = []
    for port in ports:
        try:
            return (_listening(socket.AF_INET, socket.SOCK_STREAM, (LOOPBACK, port)),)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise FailedPrecondition(
                    f"cannot listen on {LOOPBACK}:{port}: {error.strerror}", reason="AddressUnusable"
                ) from error
            tried.append(port)
    raise FailedPrecondition(
        f'ports {tried[0]} to {tried[-1]} of {LOOPBACK} are all in use: choose one for gateway.listen, or "off"',
        reason="AddressUnusable",
    )


def address_of(sockets: Sockets) -> str:
    """ "host:port" of the first."""
    host, port = sockets[0].getsockname()[:2]
    return join_address(host, port)


def _listening(family: int, kind: int, place: tuple[object, ...]) -> socket.socket:
    made = socket.socket(family, kind, socket.IPPROTO_TCP)  # asyncio sends what is small at once only if it says so
    try:
        if sys.platform == "win32":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if sys.platform == "linux":
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        made.setblocking(False)
        made.bind(place)
        made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made
