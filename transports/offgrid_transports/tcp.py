"""Frames over TCP: "tcp:HOST:PORT" dials, "tcp-listen:HOST:PORT" listens. What goes over them: `stream.py`.

For networks that let nothing but TCP through, and for tests. A host name is looked up anew at each dial.
"""

from __future__ import annotations

import asyncio
import re
import socket
import sys

from offgrid_transports.registry import LinkSpec
from offgrid_transports.stream import CONNECTIONS_MAX, StreamSettings, StreamTransport
from offgrid_transports.stream_frames import FRAME_BYTES_MIN
from offgrid_transports.transport import FRAME_BYTES_MAX, BadSpec, LinkHost, TransportError
from offgrid_transports.udp_sockets import name_of

FRAME_BYTES = 16_384
BACKLOG = 64
DEAD_S = 30  # a peer that the network answers nothing for is gone
_TARGET = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<host>[\w.-]+)):(?P<port>\d{1,5})\Z")


class TcpFailed(TransportError):
    """The system does not give the socket."""


def open_transport(spec: LinkSpec, host: LinkHost) -> StreamTransport:
    """Opens "tcp:HOST:PORT"; mtu= bounds a frame. The peer's address is what the description names."""
    spec.check_names(("mtu",))
    name, port = _target(spec)
    return StreamTransport(
        StreamSettings(
            name_peer=lambda transport: spec.target,
            dial=lambda factory: asyncio.get_running_loop().create_connection(factory, name, port),
            prepare=_notice_death,
            frame_bytes_max=spec.whole("mtu", FRAME_BYTES, FRAME_BYTES_MIN, FRAME_BYTES_MAX),
        ),
        host,
    )


def open_listening(spec: LinkSpec, host: LinkHost) -> StreamTransport:
    """Opens "tcp-listen:HOST:PORT", HOST an address of this machine, 0.0.0.0 or [::]; mtu= bounds a frame,
    connections= how many may be connected at once."""
    spec.check_names(("mtu", "connections"))
    name, port = _target(spec)
    frame_bytes_max = spec.whole("mtu", FRAME_BYTES, FRAME_BYTES_MIN, FRAME_BYTES_MAX)
    connections_max = spec.whole("connections", CONNECTIONS_MAX, 1, 1024)
    try:
        family, _, _, _, sockaddr = socket.getaddrinfo(
            name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICHOST
        )[0]
    except OSError as error:
        raise BadSpec(f"{spec}: {name!r} is no address; allowed: one of this machine, 0.0.0.0 or [::]") from error
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":  # there the word means that others may take the port over
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(sockaddr)
    except OSError as error:
        sock.close()
        raise TcpFailed(f"{spec}: cannot listen: {error.strerror}") from error
    return StreamTransport(
        StreamSettings(
            name_peer=lambda transport: name_of(transport.get_extra_info("peername")),
            serve=lambda factory: asyncio.get_running_loop().create_server(factory, sock=sock, backlog=BACKLOG),
            prepare=_notice_death,
            listens=name_of(sock.getsockname()),
            released=sock.close,
            frame_bytes_max=frame_bytes_max,
            connections_max=connections_max,
        ),
        host,
    )


def _target(spec: LinkSpec) -> tuple[str, int]:
    found = _TARGET.match(spec.target)
    if not found or not int(found["port"]) < 65_536:
        raise BadSpec(f"{spec}: {spec.target!r} is no host and port; allowed: HOST:PORT or [2001:db8::7]:PORT")
    return found["six"] or found["host"], int(found["port"])


def _notice_death(transport: asyncio.Transport) -> None:
    """Has the system ask a silent peer whether it is there still, and give up what nobody acknowledges."""
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    wanted = {"TCP_KEEPIDLE": DEAD_S // 2, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": DEAD_S * 1000}
    for name, value in wanted.items():
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
