"""Where the journal's copy in MariaDB or MySQL lies, as `state.sql_mirror` says it: an URL with a password in it."""

from __future__ import annotations

from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from .addresses import BadAddress

LOCAL = ("127.0.0.1", "localhost", "::1")
PORT = 3306
RULE = (
    "mysql://USER:PASSWORD@127.0.0.1:3306/DATABASE, with ?unix_socket=/PATH for a socket, and %23 for '#' and so on "
    'in names and passwords; "" = none'
)


class SqlTarget(msgspec.Struct, frozen=True):
    """`socket`: a path, and then host and port say nothing."""

    user: str
    password: str
    database: str
    host: str = LOCAL[0]
    port: int = PORT
    socket: str = ""

    def __str__(self) -> str:
        """Without the password."""
        return f"{self.database} at {self.socket or f'{self.host}:{self.port}'}"


def parse_target(url: str) -> SqlTarget:
    """Raises BadAddress, which does not repeat the password, nor what might be a part of it."""
    try:
        parts = urlsplit(url)
        port = PORT if parts.port is None else parts.port
    except ValueError:
        raise BadAddress("is no URL, or its port is no number from 1 to 65535") from None
    if parts.scheme not in ("mysql", "mariadb"):
        raise BadAddress("does not begin with mysql:// or mariadb://")
    if parts.fragment or not parts.username:
        raise BadAddress("has a '#' in it" if parts.fragment else "names no user")
    if parts.hostname not in LOCAL:
        raise BadAddress(f"has a host that is not this machine: {', '.join(LOCAL)} are")
    if not port:
        raise BadAddress("has port 0")
    database = unquote(parts.path.removeprefix("/"))
    if not database or "/" in database:
        raise BadAddress("names no database behind its host" if not database else "names a database with a '/' in it")
    options = parse_qs(parts.query, keep_blank_values=True)
    socket = options.pop("unix_socket", [""])[-1]
    if options:
        raise BadAddress("has an option other than unix_socket")
    if "unix_socket" in parts.query and not socket.startswith("/"):
        raise BadAddress("has a unix_socket that is no absolute path")
    return SqlTarget(unquote(parts.username), unquote(parts.password or ""), database, parts.hostname, port, socket)
