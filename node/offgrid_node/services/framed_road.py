"""The road over the framed carrier: a connection to each member that has told us where it listens (framed_server.py),
and a second one, once there are any, for pieces of objects: no small call waits behind a mebibyte.

It reaches a node only while the first is open; before, and for what else is large, the client takes gRPC's road. The
node says its port on gRPC's lane, to whoever is a member: nothing of it is believed but that it may be worth dialling.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable

import msgspec
from google.protobuf.message import DecodeError, Message

from offgrid.frames import Frames, FrameTooLong, Outgoing
from offgrid.lanes import PIECE_CALL_BYTES_MAX
from offgrid.pieces import BULK, parts_of
from offgrid_node.keys import NodeTls
from offgrid_node.logs import fields
from offgrid_node.protocol.errors import InvalidRequest, PeerFault, Unavailable
from offgrid_node.protocol.pace import FREE, Pace
from offgrid_node.services.client import Done
from offgrid_node.services.framed_connection import WRITE_BUFFER_BYTES
from offgrid_node.services.framed_server import settled, tune
from offgrid_node.services.framed_tls import Target
from offgrid_node.services.grpc_options import CONNECT_TIMEOUT_MS, HANDSHAKE_TIMEOUT_MS, MESSAGE_BYTES_MAX
from offgrid_node.services.grpc_road import DirectoryView
from offgrid_node.services.lane_calls import LANE_CALL_BYTES_MAX, LaneCalls
from offgrid_node.services.router import METHODS, Method

ENTRY_TIMEOUT_S = 2.0  # from the handshake to the peer's first message
PEERS_MAX = 64  # with two connections each, of 256 KiB of asyncio's buffers for TLS; more than a node calls often
RETRY_S = 5.0  # after a connection was lost or could not be made, at the earliest

_log = logging.getLogger(__name__)


class FramedLane(asyncio.BufferedProtocol):
    """The calling side of one connection; `calls` is its book."""

    def __init__(self, node: str, target: Target, on_lost: Callable[[], object]) -> None:
        self.calls = LaneCalls(node)
        self.calls.on_unsent, self.calls.give_up = self._flush_soon, self.abort
        self._node, self._target, self._on_lost = node, target, on_lost
        self._loop = asyncio.get_running_loop()
        self._frames, self._outgoing = Frames(MESSAGE_BYTES_MAX), Outgoing()
        self._transport: asyncio.Transport | None = None
        self._entry: asyncio.TimerHandle | None = None
        self._paused = self._flush_due = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if not self._target.is_at(transport.get_extra_info("ssl_object")):
            transport.abort()
            return
        transport.set_write_buffer_limits(WRITE_BUFFER_BYTES)
        self._entry = self._loop.call_later(ENTRY_TIMEOUT_S, self.abort)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._frames.room

    def buffer_updated(self, nbytes: int) -> None:
        if not self._frames.came(nbytes):
            return
        try:
            while (raw := self._frames.next()) is not None:
                self.calls.on_message(raw)
                self._opened()
        except (DecodeError, PeerFault, FrameTooLong) as error:
            _log.warning("a lane has lost its place", extra=fields("lane_broken", peer=self._node, why=error))
            self.abort()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush_soon()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._entry is not None:
            self._entry.cancel()
        self.calls.end_all()
        self._on_lost()

    def abort(self) -> None:
        """At once: outcomes of what was sent are unknown."""
        if self._transport is not None:
            self._transport.abort()

    # ---- inside

    def _opened(self) -> None:
        """By its first message the peer has let us in."""
        if not self.calls.is_open and self._entry is not None:
            self._entry.cancel()
            self.calls.is_open = True
            self.calls.on_open()

    def _flush_soon(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        while self._transport is not None and not self._paused:
            if not self._outgoing:
                parts = self.calls.take()
                if parts is None:
                    return
                self._outgoing.put(parts)
            self._transport.write(self._outgoing.take())


class _Line(msgspec.Struct):
    """A connection to a member, or where one could be."""

    lane: FramedLane | None = None
    dialling: asyncio.Task[None] | None = None
    not_before_s: float = 0.0

    @property
    def has_room(self) -> bool:
        return self.lane is not None and self.lane.calls.has_room

    def lost(self, lane: FramedLane | None) -> None:
        """Another connection may be there already."""
        if lane is not None:
            lane.abort()
            if self.lane is lane:
                self.lane = None

    def end(self) -> None:
        if self.dialling is not None:
            self.dialling.cancel()
        if self.lane is not None:
            self.lane.abort()


class _Place(msgspec.Struct):
    """Where a member listens, and the connections to it."""

    host: str
    port: int
    certificate: bytes
    small: _Line = msgspec.field(default_factory=_Line)
    pieces: _Line = msgspec.field(default_factory=_Line)
    used_s: float = 0.0

    @property
    def lines(self) -> tuple[_Line, _Line]:
        return self.small, self.pieces

    @property
    def is_busy(self) -> bool:
        return any(line.lane is not None and len(line.lane.calls) for line in self.lines)

    def end(self) -> None:
        for line in self.lines:
            line.end()


class FramedRoad:
    """Implements `services.client.Road`. Make it and use it in the loop's thread."""

    def __init__(self, tls: NodeTls, directory: Callable[[], DirectoryView]) -> None:
        self._tls, self._directory = tls, directory
        self._places: dict[str, _Place] = {}  # by node
        self._closed = False

    @property
    def lanes(self) -> int:
        """How many members are connected."""
        return sum(place.small.lane is not None and place.small.lane.calls.is_open for place in self._places.values())

    @property
    def connections(self) -> int:
        """How many are open, those for pieces too."""
        lines = (line for place in self._places.values() for line in place.lines)
        return sum(line.lane is not None and line.lane.calls.is_open for line in lines)

    def learn(self, node: str, host: str, port: int) -> None:
        """From gRPC's lane: the node listens there as well. A connection that works is kept as it is."""
        certificate = self._directory().certificate(node)
        if self._closed or certificate is None or not 0 < port < 65_536:
            return
        known = self._places.get(node)
        if known is not None and (known.small.lane is not None or known.small.dialling is not None):
            return
        if known is None and not self._make_room():
            return
        place = _Place(host, port, certificate, used_s=time.monotonic())
        if known is not None:
            place.small.not_before_s = known.small.not_before_s
            known.end()
        self._places[node] = place
        self._dial(node, place, place.small)

    @property
    def name(self) -> str:
        return "framed"

    @property
    def kin(self) -> str:
        return "ip"

    def ready(self, node: str) -> bool:
        """It reaches none that it has no connection to."""
        return True

    def reaches(self, node: str) -> bool:
        place = self._places.get(node)
        if place is None:
            return False
        if place.small.lane is None:
            self._dial(node, place, place.small)
            return False
        return place.small.has_room

    def pace(self, node: str) -> Pace:
        return FREE

    def call(self, node: str, method: str, request: Message, timeout_ms: int, done: Done) -> None:
        """As Road has it; Unavailable sends the client on to gRPC."""
        place, known = self._places.get(node), METHODS.get(method)
        if place is None or known is None or known.streaming or not place.small.has_room:
            done(Unavailable(f"no framed connection to {node} is open", reason="NotConnected"))
            return
        data = parts_of(request)
        size, most = len(data[0]) + len(data[1]), PIECE_CALL_BYTES_MAX if known.request in BULK else LANE_CALL_BYTES_MAX
        if size > most:
            done(Unavailable(f"{size} bytes are too many for a lane", reason="TooLargeForLane"))
            return
        place.used_s = time.monotonic()
        lane = self._line(node, place, known).lane
        assert lane is not None
        lane.calls.call(known, data, timeout_ms / 1000, done)

    def refresh(self) -> None:
        """Membership has changed: closes connections to members that are gone, or whose certificate is another."""
        view = self._directory()
        for node, place in list(self._places.items()):
            if place.certificate != view.certificate(node):
                del self._places[node]
                place.end()

    async def close(self) -> None:
        """Ends every call that is under way (its outcome is unknown) and every connection."""
        self._closed = True
        places, self._places = self._places, {}
        lines = [line for place in places.values() for line in place.lines]
        dialling = [line.dialling for line in lines if line.dialling is not None]
        for line in lines:
            line.end()
        await asyncio.gather(*dialling, return_exceptions=True)
        await settled(lambda: all(line.lane is None for line in lines))

    # ---- inside

    def _line(self, node: str, place: _Place, method: Method) -> _Line:
        """Pieces have one for themselves; until it is open, they share the other."""
        if method.request not in BULK and method.response not in BULK:
            return place.small
        if place.pieces.lane is None:
            self._dial(node, place, place.pieces)
        return place.pieces if place.pieces.has_room else place.small

    def _dial(self, node: str, place: _Place, line: _Line) -> None:
        if line.dialling is None and time.monotonic() >= line.not_before_s and not self._closed:
            line.not_before_s = time.monotonic() + RETRY_S
            line.dialling = asyncio.ensure_future(self._connect(node, place, line))

    async def _connect(self, node: str, place: _Place, line: _Line) -> None:
        lane: FramedLane | None = None
        try:
            target = Target(self._tls, place.certificate)
            line.lane = lane = FramedLane(node, target, lambda: line.lost(lane))
            await _open(lane, target, place)
        except (OSError, TimeoutError, ssl.SSLError, InvalidRequest) as error:
            address = f"{place.host}:{place.port}"
            said = fields("peer_unreached", peer=node, address=address, why=error)
            _log.debug("no framed connection to a peer", extra=said)
            line.lost(lane)
        except BaseException:
            line.lost(lane)
            raise
        finally:
            line.dialling = None

    def _make_room(self) -> bool:
        """Whether there is room for another place: the longest unused one without calls under way goes."""
        if len(self._places) < PEERS_MAX:
            return True
        idle = [node for node, place in self._places.items() if not place.is_busy]
        oldest = min(idle, key=lambda node: self._places[node].used_s, default=None)
        if oldest is None:
            return False
        self._places.pop(oldest).end()
        return True


async def _open(lane: FramedLane, target: Target, place: _Place) -> None:
    async with asyncio.timeout(CONNECT_TIMEOUT_MS / 1000):
        transport, _ = await asyncio.get_running_loop().create_connection(
            lambda: lane,
            place.host,
            place.port,
            ssl=target.context,
            server_hostname=target.name,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT_MS / 1000,
        )
    sock = transport.get_extra_info("socket")
    if sock is not None:
        tune(sock)
