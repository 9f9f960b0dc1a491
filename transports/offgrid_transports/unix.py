"""Frames over a unix socket: "unix:PATH" dials, "unix-listen:PATH" listens. What goes over them: `stream.py`.

For processes of one machine, and of one user: the socket is open to its owner alone. A process that was killed leaves
its socket behind; who listens next finds that nobody answers there and takes its place. Who dials goes on trying, so
it does not matter who is there first.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import stat
import sys
from pathlib import Path

from offgrid_transports.registry import LinkSpec
from offgrid_transports.stream import CONNECTIONS_MAX, StreamSettings, StreamTransport
from offgrid_transports.stream_frames import FRAME_BYTES_MIN
from offgrid_transports.transport import FRAME_BYTES_MAX, BadSpec, LinkHost, TransportError

FRAME_BYTES = FRAME_BYTES_MAX
PATH_BYTES_MAX = 103  # of a socket's name on macOS; Linux takes four more


class UnixFailed(TransportError):
    """The system does not give the socket."""


def open_transport(spec: LinkSpec, host: LinkHost) -> StreamTransport:
    """Opens "unix:PATH"; mtu= bounds a frame. The peer's address is the path."""
    spec.check_names(("mtu",))
    if sys.platform == "win32":
        raise BadSpec(f"{spec}: there are no unix sockets on Windows; allowed: tcp:127.0.0.1:PORT")
    path = _path(spec)
    return StreamTransport(
        StreamSettings(
            name_peer=lambda transport: spec.target,
            dial=lambda factory: asyncio.get_running_loop().create_unix_connection(factory, str(path)),
            frame_bytes_max=spec.whole("mtu", FRAME_BYTES, FRAME_BYTES_MIN, FRAME_BYTES_MAX),
        ),
        host,
    )


def open_listening(spec: LinkSpec, host: LinkHost) -> StreamTransport:
    """Opens "unix-listen:PATH"; mtu= bounds a frame, connections= how many may be connected at once. Who connects is
    called "PATH#1", "PATH#2" and so on."""
    spec.check_names(("mtu", "connections"))
    if sys.platform == "win32":
        raise BadSpec(f"{spec}: there are no unix sockets on Windows; allowed: tcp-listen:127.0.0.1:PORT")
    path = _path(spec)
    frame_bytes_max = spec.whole("mtu", FRAME_BYTES, FRAME_BYTES_MIN, FRAME_BYTES_MAX)
    connections_max = spec.whole("connections", CONNECTIONS_MAX, 1, 1024)
    try:
        sock = _bound(path)
    except OSError as error:
        raise UnixFailed(f"{spec}: cannot listen: {error.strerror}") from error
    own = path.stat().st_ino
    numbers = itertools.count(1)

    def released() -> None:
        sock.close()
        if path.exists() and path.stat().st_ino == own:
            path.unlink()

    return StreamTransport(
        StreamSettings(
            name_peer=lambda transport: f"{spec.target}#{next(numbers)}",
            serve=lambda factory: asyncio.get_running_loop().create_unix_server(factory, sock=sock),
            listens=spec.target,
            released=released,
            frame_bytes_max=frame_bytes_max,
            connections_max=connections_max,
        ),
        host,
    )


def _path(spec: LinkSpec) -> Path:
    length = len(os.fsencode(spec.target))
    if length > PATH_BYTES_MAX:
        raise BadSpec(f"{spec}: a path of {length} bytes; a socket's has at most {PATH_BYTES_MAX}")
    return Path(spec.target)


def _socket() -> socket.socket:
    if sys.platform == "win32":
        raise OSError("no unix sockets")
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)


def _bound(path: Path) -> socket.socket:
    """Takes the path, also from who is no more. Raises OSError when somebody listens there, or it is no socket."""
    sock = _socket()
    try:
        if path.exists() and stat.S_ISSOCK(path.lstat().st_mode) and not _answered(path):
            path.unlink()
        before = os.umask(0o177)
        try:
            sock.bind(str(path))
        finally:
            os.umask(before)
    except OSError:
        sock.close()
        raise
    return sock


def _answered(path: Path) -> bool:
    with _socket() as asking:
        asking.setblocking(False)
        try:
            asking.connect(str(path))
        except ConnectionRefusedError:
            return False
        except BlockingIOError:
            return True
    return True
