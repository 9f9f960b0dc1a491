"""Datagrams on IPv4 and IPv6: "udp:0.0.0.0:7700?multicast=on&peer=192.0.2.7:7700".

A frame is one datagram, never fragmented; how long it may be is searched for each address (`mtu_search.py`).
BROADCAST goes to a multicast group on this network, on every interface or the named ones, and to the peers that the
description names. Multicast frames carry a tag by which a link leaves out what it sent itself. What is sent leaves at
once: pace and repair are a session's.

    0xF0 probe, 0xF1 echo                mtu_search.py
    0xF2 · 8 bytes tag · frame           a multicast frame
    below 0xF0                           a frame
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from functools import partial
from random import SystemRandom

import msgspec

from offgrid_transports import udp_sockets
from offgrid_transports.mtu_search import BASE, ECHO, LEAST, PROBE, MtuSearch, echo_of
from offgrid_transports.registry import LinkSpec
from offgrid_transports.transport import (
    BROADCAST,
    FRAME_BYTES_MAX,
    LINK_BYTE,
    BadSpec,
    LinkHost,
    OnEvent,
    OnFrame,
    Priority,
    Shown,
    TransportError,
    Unshared,
)
from offgrid_transports.udp_sockets import Address, Listening, Sockaddr, name_of, parse_address

GROUPS = {socket.AF_INET: "239.192.119.7:7719", socket.AF_INET6: "[ff02::4f47:7719]:7719"}
MULTICAST, TAG_BYTES = 0xF2, 8
MTU_BYTES = 8952  # a jumbo frame's; longer ones, which loopback takes, are lost in default socket buffers
ADDRESSES_MAX = 1024
PEERS_MAX = 32
QUEUE_FRAMES_MAX = 64
ECHOES_A_TICK = 32
TICK_MS = 100
BLOCKED_MS = 2  # until a full socket is tried again
REJOIN_TICKS = 100  # interfaces come and go
COUNTED = (
    "frames_sent", "frames_heard", "bytes_sent", "bytes_heard", "frames_refused", "frames_unsendable", "garbage",
    "probes_sent", "echoes_sent", "mtu_raised", "mtu_fallen",
)  # fmt: skip


class UdpFailed(TransportError):
    """The system does not give the socket."""


class UdpSettings(msgspec.Struct, frozen=True):
    """`own` has one address a family; `groups` and `peers` are where BROADCAST goes."""

    own: tuple[Address, ...]
    groups: tuple[Address, ...] = ()
    peers: tuple[Address, ...] = ()
    interfaces: tuple[str, ...] = ()
    mtu_bytes: int = MTU_BYTES


class _Known(msgspec.Struct):
    """An address that was sent to."""

    address: Address
    search: MtuSearch


class UdpTransport(Unshared):
    """One or two sockets, one a family; a `Transport`."""

    def __init__(self, settings: UdpSettings) -> None:
        """Raises UdpFailed when a socket cannot be opened, ValueError for an interface that is not there."""
        self.on_frame: OnFrame = lambda address, frame: None
        self.on_room: OnEvent = lambda: None
        self.on_change: OnEvent = lambda: None
        self._settings = settings
        self._rng = SystemRandom()  # strangers must not guess a probe's token, nor two links draw one tag
        self._loop = asyncio.get_running_loop()
        self._tag = self._rng.randbytes(TAG_BYTES)
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._queue: deque[tuple[bytes, Address]] = deque()
        self._refused = self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._ticks = self._echoes = 0
        self._joined: set[tuple[Address, int]] = set()
        self._counted = dict.fromkeys(COUNTED, 0)
        self._sockets: dict[socket.AddressFamily, socket.socket] = {}
        self._listening: list[Listening] = []
        self._group_sockets: dict[Address, socket.socket] = {}
        try:
            udp_sockets.check_interfaces(settings.interfaces)
            self._open()
        except (UdpFailed, OSError, ValueError):
            self.close()
            raise
        self._wait()

    @property
    def up(self) -> bool:
        return not self._closed

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it listens, with the ports that the system gave; empty once closed."""
        return tuple(name_of(sock.getsockname()) for sock in self._sockets.values() if sock.fileno() >= 0)

    def mtu_bytes(self, address: str = BROADCAST) -> int:
        if address == BROADCAST:
            return min(BASE, self._settings.mtu_bytes) - 1 - TAG_BYTES
        known = self._known.get(address)
        return known.search.mtu_bytes if known else min(BASE, self._settings.mtu_bytes)

    def wait_ms(self, length: int, priority: Priority) -> float:
        return float(BLOCKED_MS) if self._queue else 0.0

    def send(self, address: str, frame: bytes, priority: Priority = Priority.JOB) -> bool:
        """Raises ValueError too for what is no address of this link, and for what is no frame."""
        if not frame or frame[0] >= LINK_BYTE:
            raise ValueError(f"a frame begins with a byte below {LINK_BYTE}; this one with {frame[:1]!r}")
        if len(frame) > self.mtu_bytes(address):
            raise ValueError(f"a frame of {len(frame)} bytes; {address} takes {self.mtu_bytes(address)}")
        if self._closed or len(self._queue) >= QUEUE_FRAMES_MAX:
            self._refused = not self._closed
            self._counted["frames_refused"] += 1
            return False
        if address == BROADCAST:
            self._broadcast(frame)
        else:
            known = self._known.get(address) or self._know(address)
            self._known.move_to_end(address)
            known.search.on_used(self._now_ms(), len(frame))
            self._leave(frame, known.address)
        self._counted["frames_sent"] += 1
        self._counted["bytes_sent"] += len(frame)
        return True

    def neighbours(self) -> tuple[str, ...]:
        return ()

    def figures(self) -> Shown:
        sizes = {
            f"{name}_buffer_bytes": min((s.getsockopt(socket.SOL_SOCKET, option) for s in self._live()), default=0)
            for name, option in (("send", socket.SO_SNDBUF), ("receive", socket.SO_RCVBUF))
        }
        listens: dict[str, str | int] = {
            "listens": " ".join(self.addresses),
            "addresses": len(self._known),
            "groups": len(self._joined),
        }
        return {**listens, "queued_frames": len(self._queue), **sizes, **self._counted}

    def close(self) -> None:
        self._closed = True
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
        for listening in self._listening:
            listening.close()
        for sock in (*self._sockets.values(), *self._group_sockets.values()):
            sock.close()

    def _open(self) -> None:
        for own in self._settings.own:
            try:
                self._sockets[own.family] = udp_sockets.open_socket(own)
            except OSError as error:
                raise UdpFailed(f"udp: cannot listen on {name_of(own.sockaddr)}: {error.strerror}") from error
            self._listening.append(Listening(self._sockets[own.family], self._heard))
        for group in self._settings.groups:
            try:
                self._group_sockets[group] = udp_sockets.open_group(group)
            except OSError as error:
                raise UdpFailed(f"udp: cannot hear {name_of(group.sockaddr)}: {error.strerror}") from error
            self._listening.append(Listening(self._group_sockets[group], self._heard_group))
        self._join()

    def _join(self) -> None:
        """Joins on each interface that there is now; the system itself leaves on what is gone."""
        named = self._settings.interfaces
        places = {(g, number) for g in self._group_sockets for number in udp_sockets.places(self._own(g.family), named)}
        self._joined &= places
        for group, number in places - self._joined:
            try:
                udp_sockets.join(self._group_sockets[group], group, number, self._own(group.family))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:  # in it already
                    continue
            self._joined.add((group, number))

    def _own(self, family: socket.AddressFamily) -> Address:
        return next(own for own in self._settings.own if own.family == family)

    def _live(self) -> Iterator[socket.socket]:
        return (sock for sock in self._sockets.values() if sock.fileno() >= 0)

    def _now_ms(self) -> float:
        return self._loop.time() * 1000

    def _know(self, name: str) -> _Known:
        """Takes up an address; the one that was sent to longest ago is forgotten for it when there are too many."""
        address = parse_address(name)
        if address.family not in self._sockets:
            raise ValueError(f"{name}: this link listens on {', '.join(self.addresses)} alone")
        if len(self._known) >= ADDRESSES_MAX:
            self._known.popitem(last=False)
        known = self._known[name] = _Known(address, MtuSearch(self._rng, self._settings.mtu_bytes))
        return known

    def _broadcast(self, frame: bytes) -> None:
        tagged = bytes((MULTICAST,)) + self._tag + frame
        for group, number in self._joined:
            sock = self._sockets[group.family]
            self._try(partial(udp_sockets.send_group, sock, tagged, group, number, self._own(group.family)))
        for peer in self._settings.peers:
            self._leave(frame, peer)

    def _leave(self, data: bytes, address: Address) -> None:
        if self._queue or not self._put(data, address):
            if len(self._queue) < QUEUE_FRAMES_MAX:
                self._queue.append((data, address))
            if len(self._queue) == 1:
                self._loop.call_later(BLOCKED_MS / 1000, self._flush)

    def _put(self, data: bytes, address: Address) -> bool:
        """False while the socket's own queue is full."""
        return self._try(partial(self._sockets[address.family].sendto, data, address.sockaddr), data, address)

    def _try(self, send: Callable[[], object], data: bytes = b"", address: Address | None = None) -> bool:
        try:
            send()
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                return False
            self._counted["frames_unsendable"] += 1
            if error.errno == errno.EMSGSIZE and address is not None:
                known = self._known.get(name_of(address.sockaddr))
                if known is not None and known.search.on_too_long(self._now_ms(), len(data)):
                    self._counted["mtu_fallen"] += 1
                    self._loop.call_soon(self._changed)
        return True

    def _flush(self) -> None:
        while not self._closed and self._queue and self._put(*self._queue[0]):
            self._queue.popleft()
        if self._closed:
            return
        if self._queue:
            self._loop.call_later(BLOCKED_MS / 1000, self._flush)
        elif self._refused:
            self._refused = False
            self.on_room()

    def _changed(self) -> None:
        if not self._closed:
            self.on_change()

    def _heard(self, data: bytes, sockaddr: Sockaddr) -> None:
        first = data[0] if data else MULTICAST
        if first < LINK_BYTE:
            self._counted["frames_heard"] += 1
            self._counted["bytes_heard"] += len(data)
            self.on_frame(name_of(sockaddr), data)
        elif first == ECHO:
            self._heard_echo(data, name_of(sockaddr))
        elif first == PROBE and len(data) >= LEAST:
            if self._echoes < ECHOES_A_TICK:
                self._echoes += 1
                self._counted["echoes_sent"] += 1
                family = socket.AF_INET if len(sockaddr) == 2 else socket.AF_INET6
                echo = echo_of(data)
                assert echo is not None
                self._try(partial(self._sockets[family].sendto, echo, sockaddr))
        else:
            self._counted["garbage"] += 1

    def _heard_group(self, data: bytes, sockaddr: Sockaddr) -> None:
        frame = data[1 + TAG_BYTES :]
        if data[:1] != bytes((MULTICAST,)) or not frame or frame[0] >= LINK_BYTE:
            self._counted["garbage"] += 1
        elif data[1 : 1 + TAG_BYTES] != self._tag:
            self._counted["frames_heard"] += 1
            self._counted["bytes_heard"] += len(frame)
            self.on_frame(name_of(sockaddr), frame)

    def _heard_echo(self, echo: bytes, name: str) -> None:
        known = self._known.get(name)
        if known is None:
            self._counted["garbage"] += 1
        elif known.search.on_echo(self._now_ms(), echo):
            self._counted["mtu_raised"] += 1
            self._probe(known)
            self.on_change()
        else:
            self._probe(known)

    def _probe(self, known: _Known) -> None:
        before = known.search.mtu_bytes
        probe = known.search.take_probe(self._now_ms())
        if probe is not None:
            self._counted["probes_sent"] += 1
            self._put(probe, known.address)
        if known.search.mtu_bytes < before:
            self._counted["mtu_fallen"] += 1
            self.on_change()

    def _wait(self) -> None:
        self._timer = self._loop.call_later(TICK_MS / 1000, self._tick)

    def _tick(self) -> None:
        self._echoes = 0
        self._ticks += 1
        now_ms = self._now_ms()
        for known in list(self._known.values()):
            if not self._closed and known.search.wakes_ms() <= now_ms:
                self._probe(known)
        if self._closed:
            return
        if self._group_sockets and self._ticks % REJOIN_TICKS == 0:
            self._join()
        self._wait()


def open_transport(spec: LinkSpec, host: LinkHost) -> UdpTransport:
    """Opens "udp:HOST:PORT", HOST an address of this machine, 0.0.0.0, [::], or * for both families.

    multicast=on, or groups as GROUP:PORT with commas between; interface= names, peer= addresses, with commas between;
    mtu= bounds a datagram, and 1200 or less leaves the search for longer ones out.
    """
    spec.check_names(("multicast", "interface", "peer", "mtu"))
    host_part, _, port = spec.target.rpartition(":")
    own = _addresses(spec, f"{udp_sockets.ANY}:{port},[::]:{port}" if host_part == "*" else spec.target)
    families = {address.family for address in own}
    if not 0 < len(own) == len(families):
        raise BadSpec(f"{spec}: allowed: one address to listen on, or * for both families")
    groups = spec.params.get("multicast", "off")
    if groups in ("on", "off"):
        groups = ",".join(text for family, text in GROUPS.items() if family in families) if groups == "on" else ""
    settings = UdpSettings(
        own=own,
        groups=_addresses(spec, groups, families),
        peers=_addresses(spec, spec.params.get("peer", ""), families),
        interfaces=tuple(name for name in spec.params.get("interface", "").split(",") if name),
        mtu_bytes=spec.whole("mtu", MTU_BYTES, LEAST, FRAME_BYTES_MAX),
    )
    for group in settings.groups:
        if not ipaddress.ip_address(group.host).is_multicast:
            raise BadSpec(f"{spec}: {group.host} is no multicast group; allowed: on, 239.x.x.x:PORT, [ff02::…]:PORT")
    try:
        return UdpTransport(settings)
    except ValueError as error:
        raise BadSpec(f"{spec}: {error}") from error


def _addresses(spec: LinkSpec, text: str, families: set[socket.AddressFamily] | None = None) -> tuple[Address, ...]:
    try:
        found = tuple(parse_address(one) for one in text.split(",") if one)
    except ValueError as error:
        raise BadSpec(f"{spec}: {error}") from error
    if len(found) > PEERS_MAX:
        raise BadSpec(f"{spec}: {len(found)} addresses; allowed: at most {PEERS_MAX}")
    for address in found:
        if families is not None and address.family not in families:
            raise BadSpec(f"{spec}: {name_of(address.sockaddr)}: the link does not listen on this family; use *:PORT")
    return found
