"""Where this machine's owner reaches the node: a unix socket of mode 0600, or loopback TCP and a token file of 0600.

The socket is bound inside a private folder, given its mode and only then its name, so that there is no moment at which
others could open it. gRPC by itself would take the path from a living daemon; here a living one is left alone.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path

from offgrid_node.protocol.errors import FailedPrecondition, InvalidRequest

UNIX_PREFIX = "unix:"
SOCKET_PATH_BYTES_MAX = 103  # sun_path holds 104 on macOS and 108 on Linux, with a closing zero
TOKEN_BYTES = 32
_PROBE_TIMEOUT_S = 1.0


def bind_unix(path: Path, bind: Callable[[str], object]) -> Callable[[], None]:
    """Has `bind` open a listening socket for gRPC at an address that it is given, and gives that the name `path`.

    Returns what takes the name away again, if it is still ours. Raises FailedPrecondition when a daemon listens there,
    when something else than a socket is there, or when the path is too long or may not be written.
    """
    hidden = path.parent / f".{secrets.token_hex(3)}"
    longest = max(len(os.fsencode(path)), len(os.fsencode(hidden / "s")))
    if longest > SOCKET_PATH_BYTES_MAX:
        raise FailedPrecondition(
            f"{path}: a socket's path may have {SOCKET_PATH_BYTES_MAX} bytes, not {longest}; choose a shorter one",
            reason="SocketPathTooLong",
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _remove_stale(path)
        hidden.mkdir(mode=0o700)
        try:
            bind(f"{UNIX_PREFIX}{hidden / 's'}")
            (hidden / "s").chmod(0o600)
            (hidden / "s").rename(path)
        finally:
            (hidden / "s").unlink(missing_ok=True)
            hidden.rmdir()
        mine = path.stat().st_ino
    except OSError as error:
        raise FailedPrecondition(f"{path}: cannot listen there: {error.strerror}", reason="SocketRefused") from error

    def remove() -> None:
        try:
            if path.stat().st_ino == mine:
                path.unlink()
        except FileNotFoundError:
            pass

    return remove


def unix_socket() -> socket.socket:
    """Raises FailedPrecondition where there are none."""
    if sys.platform == "win32":
        raise FailedPrecondition("there are no unix sockets here; listen on 127.0.0.1:0", reason="NoUnixSockets")
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)


def _remove_stale(path: Path) -> None:
    """Takes away what a dead daemon has left."""
    try:
        mode = path.stat(follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FailedPrecondition(f"{path} is there and is no socket; move it away", reason="NotASocket")
    with unix_socket() as probe:
        probe.settimeout(_PROBE_TIMEOUT_S)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except TimeoutError:
            pass  # it listens, but is too busy to answer: alive
    raise FailedPrecondition(
        f"{path}: another daemon is listening there; stop it first, or give this one a folder of its own",
        reason="AddressInUse",
        metadata={"address": f"{UNIX_PREFIX}{path}"},
    )


def check_loopback(address: str) -> None:
    """Raises InvalidRequest unless "host:port" is a numeric loopback address."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise InvalidRequest.field("address", f"{address}: only 127.0.0.1 or [::1] may be used for administration")


def fresh_token() -> str:
    return secrets.token_urlsafe(TOKEN_BYTES)


def write_token(path: Path, token: str) -> None:
    """Puts the token into a file that only this user can read; an older one is replaced whole."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{token}\n")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise FailedPrecondition(f"{path}: cannot be written: {error.strerror}", reason="TokenFileRefused") from error
