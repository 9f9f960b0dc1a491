"""The seam to the system's UDP sockets: addresses, don't-fragment, buffers and multicast on Linux, macOS and Windows.

Names of addresses are "192.0.2.7:7700" and "[fe80::1%eth0]:7700"; never host names, for looking one up takes as long
as it takes. A link has one socket a family, from which all is sent, and one more to hear each multicast group.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import struct
import sys
from collections.abc import Callable

import msgspec

BUFFER_BYTES = 4 << 20  # asked for; what the system gives is in the figures
DATAGRAM_BYTES = 65_535
DATAGRAMS_A_TURN = 64  # heard in one go before the loop may do something else
INTERFACES_MAX = 16
ANY = "0.0.0.0"  # noqa: S104
HOPS = 1  # of multicast: this network and none beyond

# Named in no version of Python; from <linux/in.h>, <netinet/in.h> of Darwin, and ws2ipdef.h.
_DONT_FRAGMENT = {
    "linux": {socket.AF_INET: (0, 10, 3), socket.AF_INET6: (41, 23, 3)},  # IP_MTU_DISCOVER = IP_PMTUDISC_PROBE
    "darwin": {socket.AF_INET: (0, 28, 1), socket.AF_INET6: (41, 62, 1)},  # IP_DONTFRAG
    "win32": {socket.AF_INET: (0, 14, 1), socket.AF_INET6: (41, 14, 1)},  # IP_DONTFRAGMENT
}
_ADDRESS = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)(?:%(?P<scope>[\w.-]+))?\]|(?P<four>[0-9.]+)):(?P<port>\d{1,5})\Z")

_LOOPBACK = re.compile(r"lo\d*\Z|[Ll]oopback")  # not lowpan0

SCOPES = 1 << 32  # numbers of interfaces
Sockaddr = tuple[str, int] | tuple[str, int, int, int]
OnDatagram = Callable[[bytes, Sockaddr], None]


class Address(msgspec.Struct, frozen=True):
    """Where datagrams go to or come from. `scope` is the number of the interface, for link-local ones."""

    family: socket.AddressFamily
    host: str
    port: int
    scope: int = 0

    @property
    def sockaddr(self) -> Sockaddr:
        return (self.host, self.port) if self.family == socket.AF_INET else (self.host, self.port, 0, self.scope)


def parse_address(text: str) -> Address:
    """Raises ValueError, with what is allowed."""
    found = _ADDRESS.match(text)
    try:
        if not found:
            raise ValueError
        scope, port = found["scope"], int(found["port"])
        host = ipaddress.ip_address(found["four"] or found["six"])
        if not port < 65_536:
            raise ValueError
    except ValueError:
        raise ValueError(f"{text!r} is no address: allowed: 192.0.2.7:7700 or [2001:db8::7]:7700") from None
    if host.version == 4:
        return Address(socket.AF_INET, str(host), port)
    try:
        number = 0 if scope is None else int(scope) if scope.isdecimal() else socket.if_nametoindex(scope)
        if number >= SCOPES:
            raise OSError
    except OSError:
        raise ValueError(f"{text!r}: there is no interface {scope!r} here") from None
    return Address(socket.AF_INET6, str(host), port, number)


def name_of(sockaddr: Sockaddr) -> str:
    """The name of where a datagram came from, as `parse_address` reads it."""
    if len(sockaddr) == 2:
        return f"{sockaddr[0]}:{sockaddr[1]}"
    host, port, _, scope = sockaddr
    if not scope:
        return f"[{host}]:{port}"
    try:
        interface = socket.if_indextoname(scope)
    except OSError:
        interface = str(scope)
    return f"[{host.partition('%')[0]}%{interface}]:{port}"


def check_interfaces(named: tuple[str, ...]) -> None:
    """Raises ValueError for an interface that is not there."""
    here = sorted(name for _, name in socket.if_nameindex())
    for name in named:
        if name not in here:
            raise ValueError(f"there is no interface {name!r} here; allowed: {', '.join(here)}")


def places(own: Address, named: tuple[str, ...]) -> set[int]:
    """Where multicast of a link that is bound to `own` goes, as numbers of interfaces, of those that are here now: the
    named ones, or all but the loopback unless it is alone. 0 stands for the one that has the address."""
    here = {name: number for number, name in socket.if_nameindex()}
    loopback = {name for name in here if _LOOPBACK.match(name)}
    if own.scope or (own.family == socket.AF_INET and own.host != ANY):
        return {own.scope}
    if own.host == "::1":
        return {here[name] for name in loopback}
    chosen = set(named) & set(here) if named else (set(here) - loopback or loopback)
    return {here[name] for name in sorted(chosen)[:INTERFACES_MAX]}


def open_socket(address: Address) -> socket.socket:
    """A bound socket for one family, that neither blocks nor fragments. Raises OSError when it cannot be bound."""
    sock = socket.socket(address.family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
        level, option, value = _DONT_FRAGMENT.get(sys.platform, _DONT_FRAGMENT["linux"])[address.family]
        sock.setsockopt(level, option, value)
        if address.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, HOPS)
        else:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, HOPS)
        sock.bind(address.sockaddr)
    except OSError:
        sock.close()
        raise
    return sock


def open_group(group: Address) -> socket.socket:
    """A socket that hears a group, once it has joined, beside others on this machine that do. Raises OSError."""
    sock = socket.socket(group.family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform == "darwin":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if group.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # bound to the group it hears nothing else; a link-local one would have to be bound to one interface
        anywhere = sys.platform == "win32" or group.family == socket.AF_INET6
        sock.bind(("" if anywhere else group.host, group.port))
    except OSError:
        sock.close()
        raise
    return sock


def _interface(number: int, own: Address) -> bytes:
    """Which interface, for IPv4: what stands behind the group in a membership."""
    if own.host != ANY:
        return socket.inet_aton(own.host)
    if sys.platform == "win32":
        return struct.pack("!I", number)
    return struct.pack("=4si", socket.inet_aton(ANY), number)


def join(sock: socket.socket, group: Address, number: int, own: Address) -> None:
    """Raises OSError where the interface has no multicast."""
    if group.family == socket.AF_INET6:
        packed = socket.inet_pton(socket.AF_INET6, group.host) + struct.pack("@I", number)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, packed)
    else:
        packed = socket.inet_aton(group.host) + _interface(number, own)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, packed)


def send_group(sock: socket.socket, data: bytes, group: Address, number: int, own: Address) -> None:
    """Raises OSError, as sendto does."""
    if group.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, struct.pack("@I", number))
        sock.sendto(data, (group.host, group.port, 0, number))
    else:
        interface = _interface(number, own)
        packed = socket.inet_aton(group.host) + interface if len(interface) > 4 else interface
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, packed)
        sock.sendto(data, group.sockaddr)


class Listening:
    """Hands over what a socket hears, in turns of DATAGRAMS_A_TURN, until it is closed; closes the socket then."""

    def __init__(self, sock: socket.socket, heard: OnDatagram) -> None:
        self.sock, self._heard = sock, heard
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        try:
            self._loop.add_reader(sock, self._turn)
        except NotImplementedError:  # the Windows loop that has processes
            self._task = self._loop.create_task(self._hear())

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
        elif self.sock.fileno() >= 0:
            self._loop.remove_reader(self.sock)
        self.sock.close()

    def _turn(self) -> None:
        for _ in range(DATAGRAMS_A_TURN):
            try:
                data, sockaddr = self.sock.recvfrom(DATAGRAM_BYTES)
            except BlockingIOError:
                return
            except OSError:  # what an earlier datagram met; the socket lives on
                continue
            self._heard(data, sockaddr)
            if self.sock.fileno() < 0:
                return

    async def _hear(self) -> None:
        while self.sock.fileno() >= 0:
            try:
                data, sockaddr = await self._loop.sock_recvfrom(self.sock, DATAGRAM_BYTES)
            except OSError:
                await asyncio.sleep(0)
                continue
            self._heard(data, sockaddr)
