"""The road over the framed carrier: one connection to each member that has told us where it listens (framed_server.py).

It reaches a node only while that connection is open; before, and for what is large, the client takes gRPC's road. The
node says its port on gRPC's lane, to whoever is a member: nothing of it is believed but that it may be worth dialling.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.message import DecodeError, Message

from offgrid_node.keys import NodeTls
from offgrid_node.protocol.errors import InvalidRequest, PeerFault, Unavailable
from offgrid_node.services.client import Done
from offgrid_node.services.framed_server import settled, tune
from offgrid_node.services.framed_tls import Target
from offgrid_node.services.frames import Frames, FrameTooLong, frame
from offgrid_node.services.grpc_options import CONNECT_TIMEOUT_MS, HANDSHAKE_TIMEOUT_MS, MESSAGE_BYTES_MAX
from offgrid_node.services.grpc_road import DirectoryView
from offgrid_node.services.lane_calls import LANE_CALL_BYTES_MAX, LaneCalls
from offgrid_node.services.router import METHODS

ENTRY_TIMEOUT_S = 2.0  # from the handshake to the peer's first message
PEERS_MAX = 64  # with a connection each, of 256 KiB of asyncio's buffers for TLS; more than a node calls often
RETRY_S = 5.0  # after a connection was lost or could not be made, at the earliest

_log = logging.getLogger(__name__)


class FramedLane(asyncio.Protocol):
    """The calling side of one connection; `calls` is its book."""

    def __init__(self, node: str, target: Target, on_lost: Callable[[], object]) -> None:
        self.calls = LaneCalls(node)
        self.calls.on_unsent, self.calls.give_up = self._flush_soon, self.abort
        self._node, self._target, self._on_lost = node, target, on_lost
        self._loop = asyncio.get_running_loop()
        self._frames = Frames(MESSAGE_BYTES_MAX)
        self._transport: asyncio.Transport | None = None
        self._entry: asyncio.TimerHandle | None = None
        self._paused = self._flush_due = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if not self._target.is_at(transport.get_extra_info("ssl_object")):
            transport.abort()
            return
        self._entry = self._loop.call_later(ENTRY_TIMEOUT_S, self.abort)

    def data_received(self, data: bytes) -> None:
        self._frames.feed(data)
        try:
            while (raw := self._frames.next()) is not None:
                self.calls.on_message(raw)
                self._opened()
        except (DecodeError, PeerFault, FrameTooLong) as error:
            _log.warning("%s has lost its place on a framed lane: %s", self._node, error)
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
        while self._transport is not None and not self._paused and (data := self.calls.take()):
            self._transport.write(frame(data))


@dataclass(slots=True)
class _Place:
    """Where a member listens, and the connection to it."""

    host: str
    port: int
    certificate: bytes
    lane: FramedLane | None = None
    dialling: asyncio.Task[None] | None = None
    not_before_s: float = 0.0
    used_s: float = 0.0


class FramedRoad:
    """Implements `services.client.Road`. Make it and use it in the loop's thread."""

    def __init__(self, tls: NodeTls, directory: Callable[[], DirectoryView]) -> None:
        self._tls, self._directory = tls, directory
        self._places: dict[str, _Place] = {}  # by node
        self._closed = False

    @property
    def lanes(self) -> int:
        """How many connections are open."""
        return sum(place.lane is not None and place.lane.calls.is_open for place in self._places.values())

    def learn(self, node: str, host: str, port: int) -> None:
        """From gRPC's lane: the node listens there as well. A connection that works is kept as it is."""
        certificate = self._directory().certificate(node)
        if self._closed or certificate is None or not 0 < port < 65_536:
            return
        known = self._places.get(node)
        if known is not None and (known.lane is not None or known.dialling is not None):
            return
        if known is None and not self._make_room():
            return
        not_before_s = known.not_before_s if known is not None else 0.0
        self._places[node] = _Place(host, port, certificate, not_before_s=not_before_s, used_s=time.monotonic())
        self._dial(node)

    def reaches(self, node: str) -> bool:
        place = self._places.get(node)
        if place is None:
            return False
        if place.lane is None:
            self._dial(node)
            return False
        return place.lane.calls.has_room

    def call(self, node: str, method: str, request: Message, timeout_ms: int, done: Done) -> None:
        """As Road has it; Unavailable sends the client on to gRPC."""
        place, known = self._places.get(node), METHODS.get(method)
        lane = place.lane if place is not None else None
        if lane is None or not lane.calls.has_room or known is None or known.streaming:
            done(Unavailable(f"no framed connection to {node} is open", reason="NotConnected"))
            return
        data = request.SerializeToString()
        if len(data) > LANE_CALL_BYTES_MAX:
            done(Unavailable(f"{len(data)} bytes are too many for a lane", reason="TooLargeForLane"))
            return
        assert place is not None
        place.used_s = time.monotonic()
        lane.calls.call(known, data, timeout_ms / 1000, done)

    def refresh(self) -> None:
        """Membership has changed: closes connections to members that are gone, or whose certificate is another."""
        view = self._directory()
        for node, place in list(self._places.items()):
            if place.certificate != view.certificate(node):
                del self._places[node]
                _end(place)

    async def close(self) -> None:
        """Ends every call that is under way (its outcome is unknown) and every connection."""
        self._closed = True
        places, self._places = self._places, {}
        dialling = [place.dialling for place in places.values() if place.dialling is not None]
        for place in places.values():
            _end(place)
        await asyncio.gather(*dialling, return_exceptions=True)
        await settled(lambda: all(place.lane is None for place in places.values()))

    # ---- inside

    def _dial(self, node: str) -> None:
        place = self._places[node]
        if place.dialling is None and time.monotonic() >= place.not_before_s:
            place.not_before_s = time.monotonic() + RETRY_S
            place.dialling = asyncio.ensure_future(self._connect(node, place))

    async def _connect(self, node: str, place: _Place) -> None:
        lane: FramedLane | None = None
        try:
            target = Target(self._tls, place.certificate)
            place.lane = lane = FramedLane(node, target, lambda: _lost(place, lane))
            await _open(lane, target, place)
        except (OSError, TimeoutError, ssl.SSLError, InvalidRequest) as error:
            _log.debug("no framed connection to %s at %s:%d: %s", node, place.host, place.port, error)
            _lost(place, lane)
        except BaseException:
            _lost(place, lane)
            raise
        finally:
            place.dialling = None

    def _make_room(self) -> bool:
        """Whether there is room for another place: the longest unused one without calls under way goes."""
        if len(self._places) < PEERS_MAX:
            return True
        idle = [node for node, place in self._places.items() if place.lane is None or not len(place.lane.calls)]
        oldest = min(idle, key=lambda node: self._places[node].used_s, default=None)
        if oldest is None:
            return False
        _end(self._places.pop(oldest))
        return True


def _lost(place: _Place, lane: FramedLane | None) -> None:
    """Another connection may be there already."""
    if lane is not None:
        lane.abort()
        if place.lane is lane:
            place.lane = None


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


def _end(place: _Place) -> None:
    if place.dialling is not None:
        place.dialling.cancel()
    if place.lane is not None:
        place.lane.abort()
