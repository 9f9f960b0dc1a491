"""Whose program is at the other end of a connection from this machine: the user that has its socket. Linux is asked for
that one socket (`socket_diag.py`), and where that tells nothing its lists are read: /proc/net/tcp and tcp6
(proc_net_tcp.rst of the kernel's documentation), which takes 8 ms of processor time where there are 5,000 sockets.

A socket that its process has let go of is listed as root's, with inode 0: it is nobody's here.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path

from offgrid_node.gateway.socket_diag import Place, ask

TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
ROWS_MAX = 200_000
AGAIN_S = 0.05  # sockets come and go while a table is read, so that one may be passed over
ROOT = 0

_UID, _INODE = 7, 9  # fields of a row


class SocketOwner:
    """Of one connection, looked up at most once with success. `client` is its far end, `server` this one."""

    def __init__(self, client: Place | None, server: Place | None) -> None:
        self._client, self._server = client, server
        self._uid: int | None = None

    async def uid(self) -> int | None:
        """None where it is not to be found, after a second look."""
        if self._client is None or self._server is None:
            return None
        if self._uid is None:
            self._uid = ask(self._client, self._server)
        for wait_s in (0.0, AGAIN_S):
            if self._uid is None:
                await asyncio.sleep(wait_s)
                self._uid = await asyncio.to_thread(_look, self._client, self._server)
        return self._uid


def trusted_uids() -> frozenset[int] | None:
    """Whom a gateway on loopback serves without a token, as they can open the owner's socket: this process's user and
    root. None where no user can be told from another, and so whoever is on this machine."""
    if sys.platform == "linux":
        return frozenset({ROOT, os.geteuid()})
    return None


def uid_among(rows: Iterable[bytes], client: Place, server: Place) -> int | None:
    """Who has the socket that is bound to `client` and connected to `server`, by the rows of a table. Addresses are
    compared as IPv4 where they are, mapped into IPv6 or not. None: nobody. No two open sockets have the same places."""
    pairs = {b" %s %s " % pair for wide in (False, True) if all(pair := (_hex(client, wide), _hex(server, wide)))}
    connected = re.compile(b"|".join(pairs)).search
    for row in rows:
        if connected(row):
            fields = row.split()
            with suppress(IndexError, ValueError):
                if int(fields[_INODE]):
                    return int(fields[_UID])
    return None


def _hex(place: Place, wide: bool) -> bytes:
    """As the table has it: words of 32 bits in this machine's order; empty where an address of IPv6 is no IPv4."""
    address = ipaddress.ip_address(place[0].partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    if isinstance(address, ipaddress.IPv4Address):
        packed = bytes(10) + b"\xff\xff" + address.packed if wide else address.packed
    elif wide:
        packed = address.packed
    else:
        return b""
    words = (packed[at : at + 4] for at in range(0, len(packed), 4))
    turned = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    return b"%s:%04X" % (turned.hex().upper().encode(), place[1])


def _look(client: Place, server: Place) -> int | None:
    for path in TABLES:
        with suppress(OSError), path.open("rb") as table:
            if (uid := uid_among(islice(table, ROWS_MAX), client, server)) is not None:
                return uid
    return None
