"""Whose a TCP socket is, by asking Linux for that very one over netlink: sock_diag(7), linux/inet_diag.h.

20 µs, however many sockets there are. Pure but for `ask`.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import sys
from contextlib import suppress

Place = tuple[str, int]

_SOCK_DIAG, _BY_FAMILY, _REQUEST = 4, 20, 1  # netlink's protocol, its message type, its flag
_HEAD = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, number, port
_ASKED = struct.Struct("=BBBBI")  # inet_diag_req_v2: family, protocol, extensions, -, states; then the id
_PORTS, _ANY = struct.Struct(">HH"), struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)  # any interface, no cookie
_OWNER = struct.Struct("=II")  # uid, inode
_ID_AT, _OWNER_AT = _HEAD.size + 4, _HEAD.size + 4 + 48 + 12  # in inet_diag_msg, with the head before it
_STATES = 0xFFFFFFFF
_ANSWER_BYTES_MAX = 8_192


def ask(client: Place, server: Place) -> int | None:
    """Who has the socket that is bound to `client` and connected to `server`. None: nobody, or it cannot be asked for
    here: AF_NETLINK is forbidden, the kernel lacks tcp_diag."""
    if sys.platform != "linux":
        return None
    with suppress(OSError), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as netlink:
        netlink.setblocking(False)  # the kernel has answered before `sendto` returns
        netlink.sendto(question(client, server), (0, 0))
        return uid_in(netlink.recv(_ANSWER_BYTES_MAX), client, server)
    return None


def question(client: Place, server: Place) -> bytes:
    family, of_socket = _id(client, server)
    asked = _ASKED.pack(family, socket.IPPROTO_TCP, 0, 0, _STATES) + of_socket + _ANY
    return _HEAD.pack(_HEAD.size + len(asked), _BY_FAMILY, _REQUEST, 1, 0) + asked


def uid_in(answer: bytes, client: Place, server: Place) -> int | None:
    """None where it tells of none, of another one (whoever listens at that place), or of one that its process has
    closed: that is listed as root's, with inode 0."""
    if len(answer) < _OWNER_AT + _OWNER.size or _HEAD.unpack_from(answer)[1] != _BY_FAMILY:
        return None
    uid, inode = _OWNER.unpack_from(answer, _OWNER_AT)
    return uid if inode and _PORTS.unpack_from(answer, _ID_AT) == (client[1], server[1]) else None


def _id(client: Place, server: Place) -> tuple[int, bytes]:
    """Its family, and ports and addresses of inet_diag_sockid. What is IPv4 is so, mapped into IPv6 or not."""
    places = [_plain(place[0]) for place in (client, server)]
    family = socket.AF_INET if all(place.version == 4 for place in places) else socket.AF_INET6
    return family, _PORTS.pack(client[1], server[1]) + b"".join(place.packed.ljust(16, b"\0") for place in places)


def _plain(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(text.partition("%")[0])
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address
